"""Changes worth trying on a model of yours, as edits of its parameters.

What is chosen depends on what a measurement says: which activation follows a layer, which layers
end a residual branch, which units are dead. Nothing here says that a change helps.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from chainrule.diagnosis.diagnosis import Diagnosis
from chainrule.diagnosis.rule import Verdict
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.remedies.changes import ZERO_BIASES, Change, join
from chainrule.remedies.edits import Edit
from chainrule.spec.activations import ACTIVATIONS
from chainrule.spec.initializers import INITIALIZERS

EMBEDDING_STD = 0.02
"""σ of embeddings that is tried: GPT-2's (Radford et al. 2019)."""

SHRUNK = 0.1
"""Factor of all weights that is tried where numbers overflow."""

_DRAWN = (
    nn.Linear,
    nn.modules.conv._ConvNd,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChange(Change):
    """A change of a model's parameters, not yet measured.

    Attributes:
        is_variant: Whether it is tried only while nothing else cures.
    """

    is_variant: bool = False


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight matrix or kernel that can be drawn anew.

    Attributes:
        name: The parameter.
        owner: The module that owns it.
        module: That module.
        shape: Its shape.
        fan_in: Inputs of one unit.
        fan_out: Units that one input goes to.
        blocks: Matrices stacked along the first dimension (the gates of a recurrent layer).
        follows: Name of the activation that the layer's output goes through; "" if none was seen.
    """

    name: str
    owner: str
    module: nn.Module
    shape: tuple[int, ...]
    fan_in: int
    fan_out: int
    blocks: int
    follows: str


def list_weights(model: nn.Module, flow: GradientFlow) -> tuple[Weight, ...]:
    """Return the weights that can be drawn anew: of linear, convolutional and recurrent layers.

    Frozen and unreached weights, embeddings (and what is tied to them), parametrized weights and
    the weights of modules that chainrule does not know stay as they are.
    """
    modules = dict(model.named_modules())
    embeddings = {
        id(module.weight)
        for module in modules.values()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag))
    }
    follows = {layer.layer: find_activation(layer.activation_kind) for layer in flow.weight_layers}
    found = []
    for parameter in flow.parameters:
        owner, _, key = parameter.name.rpartition(".")
        module = modules.get(owner)
        tensor = module._parameters.get(key) if module is not None else None
        if module is None or tensor is None or not parameter.is_weight:
            continue
        if parameter.status != "measured" or id(tensor) in embeddings or tensor.is_complex():
            continue
        fans = _measure_fans(module, key, tensor)
        if fans is not None:
            following = follows.get(parameter.layer, "") if parameter.layer else ""
            found.append(
                Weight(parameter.name, owner, module, tuple(tensor.shape), *fans, following)
            )
    return tuple(found)


def list_trained(model: nn.Module, flow: GradientFlow) -> set[int]:
    """Return the parameters, by `id`, that have a gradient: neither frozen nor unreached."""
    tensors = dict(model.named_parameters(remove_duplicate=False))
    names = {parameter.name for parameter in flow.parameters if parameter.status == "measured"}
    return {id(tensor) for name, tensor in tensors.items() if name in names}


def find_activation(kind: str) -> str:
    """Return the activation of the table that a class name stands for; "" if none does.

    "NewGELUActivation" is GELU, "ReLU6" behaves like ReLU.
    """
    lowered = kind.lower()
    names = sorted(ACTIVATIONS, key=len, reverse=True)
    return next((name for name in names if name.replace("_", "") in lowered), "")


def _measure_fans(module: nn.Module, key: str, tensor: Tensor) -> tuple[int, int, int] | None:
    """Return fan-in, fan-out and the number of stacked matrices; `None` for unknown modules."""
    shape = tensor.shape
    field = math.prod(shape[2:])
    if type(module).__name__ == "Conv1D" and hasattr(module, "nf"):  # transformers: in × out
        return shape[0], shape[1], 1
    if not isinstance(module, _DRAWN):
        return None
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        size = int(module.hidden_size)
        blocks = max(1, shape[0] // size) if "weight_hr" not in key else 1
        return shape[1], shape[0] // blocks, blocks
    if key == "in_proj_weight":
        return shape[1], shape[0] // 3, 3
    if getattr(module, "transposed", False):
        return shape[0] * field, shape[1] * field, 1
    return shape[1] * field, shape[0] * field, 1


def list_biases(
    model: nn.Module, flow: GradientFlow, weights: tuple[Weight, ...]
) -> tuple[Edit, ...]:
    """Return the edits that set the biases of drawn layers to zero.

    Biases of recurrent layers, frozen and unreached ones stay as they are.
    """
    trained = list_trained(model, flow)
    edits = []
    for weight in weights:
        bias = weight.module._parameters.get("bias")
        if bias is None or isinstance(weight.module, (nn.RNNBase, nn.RNNCellBase)):
            continue
        if id(bias) not in trained:
            continue
        name = f"{weight.owner}.bias" if weight.owner else "bias"
        edits.append(Edit(parameter=name, shape=tuple(bias.shape), action="fill"))
    return tuple(dict.fromkeys(edits))


def draw(weight: Weight, initializer: str, seed: int) -> Edit:
    """Return the edit that draws a weight by an initialization of the table."""
    if initializer == "orthogonal":
        relu = weight.follows and ACTIVATIONS[weight.follows].initialization == "he"
        return Edit(
            parameter=weight.name,
            shape=weight.shape,
            action="orthogonal",
            value=math.sqrt(2.0) if relu else 1.0,
            blocks=weight.blocks,
            seed=seed,
        )
    return Edit(
        parameter=weight.name,
        shape=weight.shape,
        action="normal",
        value=INITIALIZERS[initializer].standard_deviation(weight.fan_in, weight.fan_out),
        seed=seed,
    )


def list_model_changes(
    model: nn.Module, flow: GradientFlow, diagnosis: Diagnosis
) -> Iterator[ModelChange]:
    """Yield the changes that need no further measurement."""
    rules = {finding.rule for finding in diagnosis.findings}
    forgets = bool({"vanishing_time", "unheard_steps"} & rules)
    if forgets:
        yield from _list_gates(model, flow)
    weights = list_weights(model, flow)
    zeros = list_biases(model, flow, weights)
    if weights:
        yield from _list_initializations(weights, zeros)
    embeddings = _list_embeddings(model, flow)
    if embeddings:
        yield ModelChange(
            kinds=("initialization",),
            title=f"Embeddings of σ = {EMBEDDING_STD:g}",
            reason="This is the size that GPT-2 starts with. It suits the normalizations and sums "
            "that follow.",
            edits=embeddings,
        )
    norms = {parameter.name: parameter.norm for parameter in flow.parameters}
    if any(norms.get(edit.parameter) for edit in zeros):
        yield ModelChange(
            kinds=("bias",),
            title=ZERO_BIASES.title,
            reason=ZERO_BIASES.reason,
            edits=zeros,
        )
    if weights and diagnosis.verdict is Verdict.NON_FINITE:
        yield ModelChange(
            kinds=("initialization",),
            title=f"Weights of {SHRUNK:g} times their size",
            reason="Where values grow from layer to layer, or go through exp, smaller weights keep "
            "them within the range of the number format.",
            edits=tuple(
                Edit(parameter=each.name, shape=each.shape, action="scale", value=SHRUNK)
                for each in weights
            ),
        )
    if "fading_stream" in rules or diagnosis.verdict in (Verdict.EXPLODING, Verdict.NON_FINITE):
        yield from _list_branches(model, flow)
    if not forgets:
        yield from _list_gates(model, flow)


def _list_initializations(
    weights: tuple[Weight, ...], zeros: tuple[Edit, ...]
) -> Iterator[ModelChange]:
    suited = [
        draw(weight, ACTIVATIONS[weight.follows].initialization if weight.follows else "xavier", at)
        for at, weight in enumerate(weights)
    ]
    yield ModelChange(
        kinds=("initialization",),
        title="Initialization by what follows each layer",
        reason="He initialization before ReLU and its relatives, LeCun before SELU, Xavier "
        "elsewhere; biases zero. Then the values keep about the same size from layer to layer.",
        edits=(*suited, *zeros),
    )
    seen = [suited]
    for name in ("he", "xavier", "lecun", "orthogonal"):
        edits = [draw(weight, name, at) for at, weight in enumerate(weights)]
        if edits in seen:
            continue
        seen.append(edits)
        entry = INITIALIZERS[name]
        yield ModelChange(
            kinds=("initialization",),
            title=f"{entry.label} initialization in every layer",
            reason=f"It was made for {entry.best_for}. Biases start at zero.",
            edits=(*edits, *zeros),
            is_variant=True,
        )


def _list_embeddings(model: nn.Module, flow: GradientFlow) -> tuple[Edit, ...]:
    trained = {parameter.name for parameter in flow.parameters if parameter.status == "measured"}
    return tuple(
        Edit(
            parameter=name,
            shape=tuple(module.weight.shape),
            action="normal",
            value=EMBEDDING_STD,
            seed=1000 + at,
        )
        for at, (owner, module) in enumerate(model.named_modules())
        if isinstance(module, nn.Embedding)
        and not module.weight.is_complex()
        and (name := f"{owner}.weight" if owner else "weight") in trained
    )


def list_branch_ends(model: nn.Module, flow: GradientFlow) -> tuple[tuple[str, nn.Module], ...]:
    """Return the last module with weights (or a scale) of every residual branch."""
    modules = dict(model.named_modules())
    ends: dict[str, nn.Module] = {}
    for residual in flow.residuals:
        if residual.branch is None:
            continue
        last = flow.layers[residual.branch]
        for call in reversed(flow.layers[: residual.branch + 1]):
            if call.role in ("weight", "normalization") and call.name in modules:
                if call.name.rpartition(".")[0] == last.name.rpartition(".")[0]:
                    ends[call.name] = modules[call.name]
                break
    return tuple(ends.items())


def _list_branches(model: nn.Module, flow: GradientFlow) -> Iterator[ModelChange]:
    ends = list_branch_ends(model, flow)
    edits = [
        (name, parameter)
        for owner, module in ends
        for key, parameter in module._parameters.items()
        if parameter is not None
        and parameter.requires_grad
        and (name := f"{owner}.{key}" if owner else key)
    ]
    if not edits:
        return
    factor = 1.0 / math.sqrt(len(flow.residuals))
    yield ModelChange(
        kinds=("initialization",),
        title="Residual branches that start at zero",
        reason="The last layer of every branch starts at zero. So at first only the residual "
        "stream counts, and the branches grow during training (Fixup, Zhang et al. 2019; Goyal et "
        "al. 2017).",
        edits=tuple(Edit(parameter=n, shape=tuple(p.shape), action="fill") for n, p in edits),
    )
    yield ModelChange(
        kinds=("initialization",),
        title="Residual branches scaled by 1/√(number of branches)",
        reason="Then all branches together add about as much as a single one did (GPT-2, Radford "
        "et al. 2019).",
        edits=tuple(
            Edit(parameter=name, shape=tuple(parameter.shape), action="scale", value=factor)
            for name, parameter in edits
        ),
    )


def _list_gates(model: nn.Module, flow: GradientFlow) -> Iterator[ModelChange]:
    """Gates of recurrent layers that remember for as many steps as they are given."""
    modules = dict(model.named_modules())
    trained = list_trained(model, flow)
    steps: dict[str, int] = {}
    for call in flow.layers:
        module = modules.get(call.name)
        if isinstance(module, (nn.LSTM, nn.GRU)) and len(call.shape) == 3 and call.output == "0":
            steps[call.name] = call.shape[1 if module.batch_first else 0]
    edits = []
    for owner, length in steps.items():
        module = modules[owner]
        size = int(module.hidden_size)
        for key, parameter in module._parameters.items():
            if id(parameter) in trained and key.startswith("bias") and length > 2:
                value = math.log(length) if key.startswith("bias_hh") else 0.0
                name = f"{owner}.{key}" if owner else key
                shape = tuple(parameter.shape)
                filled = [(value, (size, 2 * size))]  # forget gate of an LSTM, update gate of a GRU
                if isinstance(module, nn.LSTM):  # its input gate closes as far as that one opens
                    filled.append((0.0 - value, (0, size)))
                edits += [
                    Edit(parameter=name, shape=shape, action="fill", value=number, rows=rows)
                    for number, rows in filled
                ]
    if edits:
        yield ModelChange(
            kinds=("bias",),
            title="Gates that remember",
            reason="The gate that keeps the state gets a bias of ln(steps), and an LSTM's gate for "
            "what is new the negative of it. Then part of the first step is still there at the "
            "last one (Tallec & Ollivier 2018, arXiv 1804.11188).",
            edits=tuple(edits),
        )


def combine(first: ModelChange, second: ModelChange) -> ModelChange:
    """Return two changes, one after the other."""
    return ModelChange(**join(first, second), edits=(*first.edits, *second.edits))
