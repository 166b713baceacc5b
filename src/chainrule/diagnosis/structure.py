"""What residual connections, normalizations and zero initializations do in a measurement.

A network with paths around its layers is not judged like a chain: a layer that receives little does
not keep the others from learning, and a branch that starts at zero is there on purpose.

Nothing here raises on any flow that a file may hold: numbers can be infinite or undefined, shapes
empty, and parts of a model can be missing.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TypeVar

from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.records import (
    NEAR_UNIFORM,
    LayerFlow,
    ParameterFlow,
    ResidualFlow,
    WeightLayer,
)

_T = TypeVar("_T")

USABLE_IN_CHAIN = 3e-3
"""‖∂loss/∂W‖ ÷ error at the output from which on a layer of a chain receives a usable gradient."""

USABLE_STEP = 2e-3
"""‖∂loss/∂W‖ ÷ (error at the output · ‖W‖) from which on a step moves a layer, however small it is.

A small weight needs but a small gradient: what counts is how far a step moves it beside its own
size (You et al. 2017, arXiv 1708.03888). Measured on the fitted kinds of benchmarks/truth.csv:
with 0.0011 or less in some layer of a chain plain SGD trained none, from 0.0029 on it did."""

USABLE_ON_STREAM = 1e-4
"""The same for layers with paths around them."""

DISTINCT = 0.01
"""Relative variation between examples from which on different inputs give different outputs."""

SMALL_SCALE = 1e-2
"""Scales of branches below this are small: CaiT, BEiT, DINOv2, ConvNeXt start at 1e-4 to 1e-6."""


FLAT = 2.0**-23
"""Relative fall of the loss below which a change of 1 % leaves it as it is: float32's precision."""


@dataclass(frozen=True, slots=True)
class Place:
    """A value and the module that it was measured at.

    Attributes:
        name: The module, with its call number where it has several.
        layer: Its weight layer, or `None`.
        value: What was measured.
        module: The module's name alone.
    """

    name: str
    layer: int | None
    value: float
    module: str = ""


def read_once(read: Callable[[GradientFlow], _T]) -> Callable[[GradientFlow], _T]:
    """Return a function that keeps with a flow what it has read of it: a flow never changes.

    As `functools.cached_property` does it; several rules and features read the same.
    """

    @wraps(read)
    def look_up(flow: GradientFlow) -> _T:
        kept = flow.__dict__.setdefault("_read_once", {})
        if look_up not in kept:
            kept[look_up] = read(flow)
        return kept[look_up]

    return look_up


# --- The loss ------------------------------------------------------------------------------------


def is_loss_flat(flow: GradientFlow) -> bool:
    """Whether the loss reacts neither to the output nor to the parameters.

    Then nothing can be said of the layers: all gradients are compared with one that is not there.
    """
    facts = flow.loss_facts
    if facts is None or is_output_half(flow):
        return False
    known = [value for value in (facts.reaction, facts.step) if value is not None]
    return bool(known) and max(known) < FLAT


def is_output_half(flow: GradientFlow) -> bool:
    """Whether what the loss reads is in float16, which loses small gradients by itself."""
    outputs = () if flow.loss_facts is None else flow.loss_facts.outputs
    return any(flow.layers[position].dtype == "float16" for position in outputs)


# --- Residual streams ----------------------------------------------------------------------------


def list_streams(flow: GradientFlow) -> tuple[tuple[ResidualFlow, ...], ...]:
    """Return the residual connections of every residual stream, in forward order."""
    streams: dict[int, list[ResidualFlow]] = {}
    for each in flow.residuals:
        streams.setdefault(each.stream, []).append(each)
    return tuple(map(tuple, streams.values()))


@read_once
def list_chain(flow: GradientFlow) -> tuple[WeightLayer, ...]:
    """Return the weight layers that are judged as a chain: no residual stream leads around them.

    A network without residual connections is one chain. Where branches hold at least half of its
    weight layers it is judged by its residual streams alone: what lies outside are embeddings,
    heads, and blocks that change the shape. Where they hold fewer, a short skip somewhere does not
    excuse the layers outside of it. Layers that something else leads around (`list_bypassed`) are
    not judged as a chain, and where they are a third of all, nothing is.
    """
    bypassed = list_bypassed(flow)
    if 3 * len(bypassed) >= len(flow.weight_layers) > 0:
        return ()
    inside = {
        flow.parameters[position].layer for each in flow.residuals for position in each.parameters
    } | bypassed
    outside = tuple(layer for layer in flow.weight_layers if layer.layer not in inside)
    judged = not inside or 2 * len(outside) > len(flow.weight_layers)
    return outside if judged else ()


@read_once
def list_bypassed(flow: GradientFlow) -> frozenset[int]:
    """Return the weight layers whose small gradient does not keep earlier layers from theirs.

    An earlier layer receives a usable gradient and a δ at least ten times as large, so it did not
    come through this layer: a path leads around it, such as the concatenations of a U-Net. A weight
    of a module that holds further layers has no δ of its own; where all of these receive a usable
    gradient, or are bypassed themselves, none of them waits for it (the decay of a state-space
    model).
    """
    if flow.chain:
        return frozenset()
    bound = USABLE_IN_CHAIN * (flow.output_error or 1.0)
    found, largest = set(), 0.0
    for layer in flow.weight_layers:
        norm, delta = layer.weight_gradient_norm, layer.delta_norm
        if norm is None or delta is None:
            continue
        if norm >= bound:
            largest = max(largest, float(delta))
        elif 10.0 * delta <= largest and delta > 0.0:
            found.add(layer.layer)
    found |= {
        layer.layer
        for layer in flow.weight_layers
        if layer.weight_gradient_norm
        and layer.weight_gradient_norm < bound
        and (inside := _list_inside(flow, layer))
        and all(
            each.layer in found or (each.weight_gradient_norm or 0.0) >= bound for each in inside
        )
    }
    return frozenset(found)


def _list_inside(flow: GradientFlow, layer: WeightLayer) -> list[WeightLayer]:
    """Return the other weight layers inside the module that owns a layer."""
    start = f"{layer.name}." if layer.name else ""
    return [
        each for each in flow.weight_layers if each is not layer and each.name.startswith(start)
    ]


def list_judged(flow: GradientFlow) -> tuple[WeightLayer, ...]:
    """Return the layers that rules about chains compare; all of a network with residual streams."""
    return list_chain(flow) or flow.weight_layers


def measure_stream_growth(flow: GradientFlow) -> float | None:
    """Return by how much the values on a residual stream grow from start to last sum, at most.

    Only residual streams without normalization count: post-norm brings the values back to size
    after every sum, and pre-norm gives every branch values of one size however far they have grown.
    """
    grown = [
        stream[-1].after / start
        for stream in list_streams(flow)
        if all(each.normalization == "none" for each in stream)
        and (start := stream[0].after if stream[0].before is None else stream[0].before) > 0
    ]
    return max(grown, default=None)


def measure_stream_gradient(flow: GradientFlow) -> float | None:
    """Return ‖∂loss/∂sum‖ at a residual stream's first sum ÷ at its last, of all the smallest.

    A stream that the same weights make again and again (a neural ODE, an equilibrium) may forget
    where it started and read its input at every step. So of such a stream, what arrives at the
    layer before it counts, if that is more.
    """
    ratios = [ratio for _, ratio in _list_stream_ratios(flow)]
    return min(ratios, default=None)


def find_faded_stream(flow: GradientFlow) -> tuple[ResidualFlow, ...]:
    """Return the residual stream whose gradient that is; none if there is no stream."""
    found = _list_stream_ratios(flow)
    return min(found, key=lambda each: each[1])[0] if found else ()


def _list_stream_ratios(
    flow: GradientFlow,
) -> list[tuple[tuple[ResidualFlow, ...], float]]:
    found = []
    for stream in list_streams(flow):
        first, last = stream[0].gradient, stream[-1].gradient
        if first is None or not last:
            continue
        before = _measure_before(flow, stream) if _is_tied(stream) else None
        arriving = first if before is None else max(first, before)
        found.append((stream, float(arriving / last)))
    return found


def _is_tied(stream: Sequence[ResidualFlow]) -> bool:
    """Whether all branches of a residual stream are computed with the same weights."""
    return (
        len(stream) > 1 and bool(stream[0].parameters) and len({x.parameters for x in stream}) == 1
    )


def _measure_before(flow: GradientFlow, stream: Sequence[ResidualFlow]) -> float | None:
    """Return ‖∂loss/∂output‖ of the last weight layer before a residual stream."""
    inside = {flow.parameters[position].layer for position in stream[0].parameters}
    start = min((layer for layer in inside if layer is not None), default=0)
    before = [layer for layer in flow.weight_layers if layer.layer < start]
    delta = before[-1].delta_norm if before else None
    return None if delta is None else float(delta)


def measure_typical_gradient(flow: GradientFlow) -> float | None:
    """Return the median of ‖∂loss/∂W‖ ÷ error at the output over the layers.

    Layers that receive exactly zero because of a later zero-initialized parameter do not count,
    nor do queries and keys of uniform attention. Those in a branch with a small scale count with
    what they would receive if it were 1, those before a small head with what they would receive if
    it had its usual size.
    """
    scales = _list_explained_by_scales(flow) | _list_explained_by_head(flow)
    ignored = (_list_explained_by_zeros(flow) | list_query_key_layers(flow)) - scales.keys()
    norms = [
        float(layer.weight_gradient_norm) / scales.get(layer.layer, 1.0)
        for layer in flow.weight_layers
        if layer.weight_gradient_norm is not None and layer.layer not in ignored
    ]
    return statistics.median(norms) / (flow.output_error or 1.0) if norms else None


# --- Zero initialization -------------------------------------------------------------------------


@read_once
def list_explained(flow: GradientFlow) -> frozenset[int]:
    """Return the weight layers whose small gradient a later zero-initialized parameter explains.

    Either their gradient is exactly zero while a later weight, itself exactly zero, receives a
    usable one (Fixup, ReZero, a zero-initialized last normalization or head, LoRA). After the
    first step that weight is zero no more, and they receive theirs. Without paths around them no
    further zero weight may lie in between, which would keep their gradient at zero, and zeros in
    the middle must leave something of the input to what comes later, as LoRA's do.

    Or they are in a residual branch that a parameter scales down (LayerScale), which itself
    receives a usable gradient, and so grows: with a scale of 1 their gradient would be usable.

    Or they come before a last layer that was made small on purpose, as policies, generators and
    normalizing flows have it: it receives a usable gradient, and with the size that PyTorch gives a
    layer theirs would be usable.
    """
    return (
        _list_explained_by_zeros(flow)
        | _list_explained_by_scales(flow).keys()
        | _list_explained_by_head(flow).keys()
    )


def drop_explained(flow: GradientFlow, layers: Sequence[WeightLayer]) -> tuple[WeightLayer, ...]:
    """Return those of some weight layers whose gradient no zero-initialized parameter explains."""
    explained = list_explained(flow)
    return tuple(layer for layer in layers if layer.layer not in explained)


@read_once
def list_zero_initialized(flow: GradientFlow) -> frozenset[int]:
    """Return the weight layers whose output is independent of the input on purpose.

    Their weight is exactly zero, and it, or a later zero weight, receives a usable gradient.
    """
    moves = any(parameter.is_weight for parameter in _list_movable_zeros(flow))
    return frozenset(
        layer.layer
        for layer in flow.weight_layers
        if moves and layer.weight_norm == 0.0 and layer.weight_gradient_norm is not None
    )


@read_once
def list_composites(flow: GradientFlow) -> frozenset[int]:
    """Return the weight layers whose module has weights of its own and other layers inside.

    A class token makes the whole model one. Its output is that of the layers inside.
    """
    parents = {
        call.parent for call in flow.layers if call.role == "weight" and call.parent is not None
    }
    return frozenset(
        layer
        for position in parents
        if flow.layers[position].role == "weight"
        and (layer := flow.layers[position].layer) is not None
    )


def find_last_dependent(flow: GradientFlow) -> WeightLayer | None:
    """Return the last weight layer whose output depends on the input: before a head of zeros.

    A head that is small on purpose counts as one: what its biases make of so little says nothing.
    """
    head = find_small_head(flow)
    ignored = list_zero_initialized(flow) | list_composites(flow)
    dependent = [
        layer
        for layer in flow.weight_layers
        if layer.layer not in ignored and (head is None or layer.layer != head[0])
    ]
    if any(_is_gate(p) for p in _list_movable_zeros(flow)) and not _has_streams(flow):
        # A gate of zero keeps the input from what comes behind it until the first step.
        dependent = [x for x in dependent if x.variation is None or x.variation > _SAME_BY_ROUNDING]
    return dependent[-1] if dependent else None


_SAME_BY_ROUNDING = 1e-6
"""Relative variation up to which answers are the same but for rounding."""


def _is_gate(parameter: ParameterFlow) -> bool:
    return not parameter.is_weight


def _list_movable_zeros(flow: GradientFlow) -> list[ParameterFlow]:
    """Return the zero weights and scales that the first step makes different from zero.

    In a chain they receive a usable gradient, and there are none with a zero weight that receives
    nothing: it stays zero. In a residual branch any gradient will do: the path around the branch
    carries the signal for as long as the zeros need to grow.
    """
    zero = [
        p
        for p in flow.parameters
        if p.norm == 0.0 and p.grad_norm is not None and not p.name.endswith("bias")
    ]
    if not _has_streams(flow) and any(p.is_weight and p.grad_norm == 0.0 for p in zero):
        return []
    in_branches = _list_branch_parameters(flow)
    return [
        p
        for p in zero
        if (p.name in in_branches and (p.grad_norm or 0.0) > 0.0) or _is_usable(flow, p)
    ]


@read_once
def _list_branch_parameters(flow: GradientFlow) -> frozenset[str]:
    """Return the names of the parameters that residual branches are computed with."""
    return frozenset(
        flow.parameters[position].name for each in flow.residuals for position in each.parameters
    )


@read_once
def list_branch_layers(flow: GradientFlow) -> frozenset[int]:
    """Return the weight layers whose weights residual branches are computed with."""
    inside = _list_branch_parameters(flow)
    return frozenset(
        p.layer for p in flow.parameters if p.layer is not None and p.is_weight and p.name in inside
    )


def _has_streams(flow: GradientFlow) -> bool:
    """Whether there are paths around layers; those of a specification are blocks in its flow."""
    return bool(flow.residuals) or any(call.role == "residual" for call in flow.layers)


def _list_explained_by_zeros(flow: GradientFlow) -> frozenset[int]:
    movable = _list_movable_zeros(flow)
    last: float = math.inf if movable else 0
    if not _has_streams(flow):
        last = max((p.layer or math.inf for p in movable if not _cuts(flow, p)), default=0)
    return frozenset(
        layer.layer
        for layer in flow.weight_layers
        if layer.weight_gradient_norm == 0.0 and layer.layer < last
    )


def _cuts(flow: GradientFlow, zero: ParameterFlow) -> bool:
    """Whether zeros in the middle of a chain leave nothing of the input to what comes later."""
    last = find_last_dependent(flow)
    if zero.layer is None or last is None or last.layer <= zero.layer:
        return False
    return last.variation is not None and last.variation < DISTINCT


@read_once
def _list_explained_by_scales(flow: GradientFlow) -> dict[int, float]:
    """Return the weight layers whose gradient a small scale explains, each with that scale."""
    bound = USABLE_ON_STREAM * (flow.output_error or 1.0)
    explained = {}
    for each in flow.residuals:
        branch = [flow.parameters[position] for position in each.parameters]
        scale = min(
            (
                size
                for p in branch
                if _is_scale(p)
                and (size := measure_size(p)) > 0.0
                and _is_usable(flow, p, USABLE_ON_STREAM)
            ),
            default=math.inf,
        )
        inside = {p.layer for p in branch if p.is_weight and not _is_scale(p)}
        for layer in flow.weight_layers if scale < SMALL_SCALE else ():
            norm = layer.weight_gradient_norm
            if layer.layer in inside and norm is not None and norm < bound <= norm / scale:
                explained[layer.layer] = scale
    return explained


SMALL_HEAD = 0.1
"""Share of PyTorch's default size below which a last layer is small on purpose."""


@read_once
def find_small_head(flow: GradientFlow) -> tuple[int, float] | None:
    """Return the number and the size of a last layer that was made small on purpose.

    The size is relative to PyTorch's default, under which the weights of a unit have the norm
    1/√3. It is on purpose if the other layers are far larger and it receives a usable gradient. As
    that gradient does not depend on the layer's own size, the layer grows to an ordinary one in a
    few steps.
    """
    composites = list_composites(flow)
    layers = [layer for layer in flow.weight_layers if layer.layer not in composites]
    if len(layers) < 2 or layers[-1].weight_gradient_norm is None:
        return None
    head, units = layers[-1], count_units(flow)
    sizes = {
        layer.layer: layer.weight_norm * math.sqrt(3.0 / units[layer.layer])
        for layer in layers
        if units.get(layer.layer)
    }
    size = sizes.pop(head.layer, 0.0)
    usable = head.weight_gradient_norm is not None and (
        head.weight_gradient_norm >= USABLE_IN_CHAIN * (flow.output_error or 1.0)
    )
    others = statistics.median(map(float, sizes.values())) if sizes else 0.0
    small = 0.0 < size < SMALL_HEAD * min(1.0, others)
    return (head.layer, float(size)) if usable and small else None


def count_units(flow: GradientFlow) -> dict[int, float]:
    """Return the number of units (rows of weights) of every weight layer.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> count_units(simulate(NetworkSpec(depth=3, width=4)))[1]
        4.0
    """
    units: dict[int, float] = {}
    for p in flow.parameters:
        if p.is_weight and p.layer is not None:
            units[p.layer] = units.get(p.layer, 0.0) + p.shape[0]
    return units


SMALL_LAYER = 1 / 3
"""Share of PyTorch's default size below which a layer of a chain starts small."""


def has_small_layer(flow: GradientFlow) -> bool:
    """Whether some layer of a chain starts far below the size that PyTorch gives it.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> has_small_layer(simulate(NetworkSpec(depth=3, width=64, init="he"), 1))
        False
    """
    units = count_units(flow)
    return any(
        0.0 < layer.weight_norm * math.sqrt(3.0 / units[layer.layer]) < SMALL_LAYER
        for layer in list_chain(flow)
        if units.get(layer.layer)
    )


def moves(flow: GradientFlow, layer: WeightLayer, share: float = 1.0) -> bool:
    """Whether a step moves a layer enough beside its own size, if it had a share of its gradient.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=3, width=4), seeds=2)
        >>> moves(flow, flow.weight_layers[-1]), moves(flow, flow.weight_layers[-1], 1e-6)
        (True, False)
    """
    norm, size = layer.weight_gradient_norm, layer.weight_norm
    if norm is None or not size > 0.0:
        return False
    return share * float(norm) >= USABLE_STEP * float(size) * float(flow.output_error or 1.0)


@read_once
def list_before_small(flow: GradientFlow) -> frozenset[int]:
    """Return the weight layers of a chain whose gradient the small layers behind them explain.

    Each layer behind receives a usable gradient itself, whatever its own size, and so grows; and if
    all of them had the size that PyTorch gives a layer, theirs would be usable. So it is with a
    network of three layers that starts small as a whole. In a longer one the layers in between
    receive too little themselves.
    """
    units = count_units(flow)
    bound = USABLE_IN_CHAIN * float(flow.output_error or 1.0)
    found: set[int] = set()
    share = 1.0
    for layer in reversed(list_chain(flow)):
        norm, count = layer.weight_gradient_norm, units.get(layer.layer, 0.0)
        if norm is None or not count or not math.isfinite(norm):
            break
        if norm < bound:
            if norm >= bound * share:
                found.add(layer.layer)
            break
        share *= min(1.0, float(layer.weight_norm) * math.sqrt(3.0 / count))
    return frozenset(found)


@read_once
def _list_explained_by_head(flow: GradientFlow) -> dict[int, float]:
    """Return the weight layers whose gradient a small last layer explains, each with its size."""
    found = find_small_head(flow)
    if found is None:
        return {}
    head, size = found
    bound = (USABLE_IN_CHAIN if list_chain(flow) else USABLE_ON_STREAM) * (flow.output_error or 1.0)
    return {
        layer.layer: size
        for layer in flow.weight_layers
        if layer.layer != head
        and layer.weight_gradient_norm is not None
        and layer.weight_gradient_norm < bound <= layer.weight_gradient_norm / size
    }


def list_query_key_layers(flow: GradientFlow) -> frozenset[int]:
    """Return the layers that receive little because attention is uniform: queries and keys.

    While every position attends all others alike, scores hardly matter, and neither do the weights
    that make them. They are those of a module with nearly uniform attention whose gradient is too
    small to use, while that of other weights of the same module (values, output) is not.
    """
    uniform = {each.name for each in flow.attentions if each.entropy > NEAR_UNIFORM}
    bound = USABLE_ON_STREAM * (flow.output_error or 1.0)
    found: set[int] = set()
    for name in uniform:
        inside = [
            layer
            for layer in flow.weight_layers
            if layer.name.startswith(f"{name}." if name else "")
            and layer.weight_gradient_norm is not None
        ]
        small = {x.layer for x in inside if (x.weight_gradient_norm or 0.0) < bound}
        if len(small) < len(inside):
            found |= small
    return frozenset(found)


def measure_size(parameter: ParameterFlow) -> float:
    """Return the root mean square of a parameter's entries; there must be some."""
    return parameter.norm / math.sqrt(math.prod(map(float, parameter.shape)))


def _is_scale(parameter: ParameterFlow) -> bool:
    """Whether a parameter has one number per channel, or one in all, and is no bias."""
    wide = sum(size != 1 for size in parameter.shape)
    return wide <= 1 and 0 not in parameter.shape and not parameter.name.endswith("bias")


def _is_usable(
    flow: GradientFlow, parameter: ParameterFlow, share: float = USABLE_IN_CHAIN
) -> bool:
    """Whether a parameter's gradient is at least a share of the error at the output."""
    bound = share * (flow.output_error or 1.0)
    return parameter.grad_norm is not None and parameter.grad_norm >= bound


# --- Normalizations and the output ---------------------------------------------------------------


_SCALES_ONLY = frozenset({"NoNorm"})
"""Modules that take the place of a normalization, and only scale and shift (MobileBERT)."""


def list_normalizations(flow: GradientFlow) -> tuple[Place, ...]:
    """Return the spread of what every normalization puts out, before its own scale.

    It is near 1 by construction: where it is not, the values are so small that what keeps the
    division from failing (ε) is larger than their variance. Modules without a scale of their own
    are taken as having scale 1; for those with a scale of zero there is no such value.
    """
    scales = {
        parameter.name.removesuffix(".weight"): measure_size(parameter)
        for parameter in flow.parameters
        if parameter.name.endswith(".weight") and 0 not in parameter.shape
    }
    found = []
    for call in flow.layers:
        if call.role != "normalization" or call.statistics is None or call.output:
            continue
        if call.kind in _SCALES_ONLY:
            continue
        scale = scales.get(call.name, 1.0)
        if scale > 0.0:
            size = math.hypot(call.statistics.mean, call.statistics.std)
            found.append(Place(call.label, call.layer, size / scale, call.name))
    return tuple(found)


def list_branch_normalizations(flow: GradientFlow) -> frozenset[str]:
    """Return the names of the normalizations that residual branches are computed with.

    One without parameters is on a branch if those of the module that holds it are.
    """
    inside = _list_branch_parameters(flow)
    own: dict[str, list[str]] = {}
    for parameter in flow.parameters:
        own.setdefault(parameter.name.rpartition(".")[0], []).append(parameter.name)
    found = set()
    for name in {call.name for call in flow.layers if call.role == "normalization"}:
        prefix = f"{name.rpartition('.')[0]}."
        names = own.get(name) or [
            each
            for owner, held in own.items()
            if prefix != "." and f"{owner}.".startswith(prefix)
            for each in held
        ]
        if names and inside.issuperset(names):
            found.add(name)
    return frozenset(found)


def find_tied_head(flow: GradientFlow) -> LayerFlow | None:
    """Return the last call of a module with weights if its layer is not the last by number.

    So it is where an output layer is tied to an embedding, and has the embedding's number.
    """
    for call in reversed(flow.layers):
        if call.role == "weight" and call.statistics is not None:
            is_last = not flow.weight_layers or call.name == flow.weight_layers[-1].name
            return None if is_last or flow.spec is not None else call
    return None
