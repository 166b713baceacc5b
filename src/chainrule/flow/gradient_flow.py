"""`GradientFlow`: one measurement of how gradients pass through a network."""

import math
import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import pairwise
from types import MappingProxyType
from typing import Annotated, Any, Self

from pydantic import FailFast, Field, Strict, TypeAdapter, with_config

from chainrule._utils.files import write_text
from chainrule._utils.numbers import format_number
from chainrule.flow.inputs import InputFlow
from chainrule.flow.loss import LossFlow
from chainrule.flow.non_finite import NonFiniteOrigin
from chainrule.flow.optimizer import OptimizerFlow
from chainrule.flow.precision import PrecisionFlow
from chainrule.flow.quantity import Quantity, combine_norms, divide_members, multiply_members
from chainrule.flow.records import (
    CLOSED,
    AttentionFlow,
    Factor,
    LayerFlow,
    ParameterFlow,
    ResidualFlow,
    Text,
    WeightLayer,
)
from chainrule.flow.slips import SlipFlow
from chainrule.flow.symmetry import SymmetryFlow
from chainrule.flow.time import TimeFlow
from chainrule.flow.trial import Trial
from chainrule.spec.network_spec import MAX_SEED, NetworkSpec

SCHEMA_VERSION = 3
"""Version of flow files. Version 1 called `ResidualFlow.stream` by its old name, "trunk"; files up
to version 2 know nothing of the loss but its value, and have no origin, inputs, times, symmetries,
precisions, slips, optimizer and trial."""

_SAME = 1e-3
"""Relative difference up to which two norms of the same gradient are equal, by rounding."""

_CLIP_EPS = 1e-6
"""What torch.nn.utils.clip_grad_norm_ adds to a norm before it divides by it."""

Seed = Annotated[int, Strict(), Field(ge=0, le=MAX_SEED)]

_STATISTICS = (
    "mean",
    "std",
    "min",
    "max",
    "zero_share",
    "non_finite",
    "variation",
    "saturation",
    "dead_units",
)
_GRADIENT = ("norm", "max_abs", "zero_share", "non_finite")

RECORD_TYPES: Mapping[str, type] = MappingProxyType(
    {
        **dict.fromkeys(("name", "kind", "role"), str),
        **dict.fromkeys(("layer", "call"), int),
        **dict.fromkeys(("output", "shape"), str),
        **dict.fromkeys((*_STATISTICS, *(f"grad_{name}" for name in _GRADIENT)), float),
        **dict.fromkeys(("gain", "weight_grad_norm"), float),
    }
)
"""What every column of `GradientFlow.to_records` holds where it is not `None`."""


@with_config(CLOSED)
@dataclass(frozen=True, kw_only=True)
class GradientFlow:
    """One measurement of a network: values forward, gradients backward, in numbers.

    Attributes:
        layers: Every output tensor of every measured module call, in forward order.
        parameters: Every parameter, in registration order.
        loss: The differentiated scalar.
        chain: Whether the measured modules form one chain, each reading only the previous one's
            output. Then the product of `factors()` is exactly ‖∂loss/∂x‖ ÷ ‖∂loss/∂h_L‖.
        seeds: The seeds of the ensemble; empty for a model that chainrule did not build.
        spec: The specification measured, or `None` for a model that chainrule did not build.
        device: Where it was measured, for example "cpu".
        torch_version: The PyTorch that measured it.
        chainrule_version: The chainrule that measured it.
        schema_version: Version of this structure in files.
        residuals: Residual connections written as an addition of two tensors, in forward order.
            Those of `simulate` are in its specification instead.
        attentions: Attention weights computed by `scaled_dot_product_attention`, or by a softmax
            over q·kᵀ whose result is multiplied with values, in forward order.
        origin: What makes the first infinite or undefined number, where `find_non_finite` was
            asked for it; `inspect` leaves it out.
        loss_facts: What is known of the loss in addition to its value; `None` for ensembles and
            in older files.
        inputs: What enters the model from outside, in the order in which it is read. Like the
            next three, `inspect` measures it and `simulate` does not.
        times: Gradients along the time steps of recurrent modules, in forward order.
        symmetries: Weights with units that are copies of each other, in registration order.
        precisions: Gradients that were computed in half precision: those of outputs in forward
            order, then those of weights.
        slips: Calls whose effect is seldom meant; none for `simulate`.
        optimizer: The optimizer that it was inspected with; `None` without one.
        trial: What a training that was tried showed of the same model and loss; `None` if none was.
            `diagnose` follows it.

    Two flows are equal if all they hold is: every value of every member, undefined ones (NaN)
    included. A flow equals itself read back from its file.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> len(simulate(NetworkSpec(depth=3, width=4)).weight_layers)
        3
    """

    layers: Annotated[tuple[LayerFlow, ...], FailFast()]
    parameters: Annotated[tuple[ParameterFlow, ...], FailFast()]
    loss: Quantity
    chain: Annotated[bool, Strict()]
    seeds: Annotated[tuple[Seed, ...], FailFast()]
    spec: NetworkSpec | None
    device: Text
    torch_version: Text
    chainrule_version: Text
    schema_version: Annotated[int, Strict()] = field(default=SCHEMA_VERSION)
    # A factory, so that the class has no attribute that would hide what `defer` still has to build.
    residuals: Annotated[tuple[ResidualFlow, ...], FailFast()] = field(default_factory=tuple)
    attentions: Annotated[tuple[AttentionFlow, ...], FailFast()] = field(default_factory=tuple)
    origin: NonFiniteOrigin | None = field(default_factory=lambda: None)
    loss_facts: LossFlow | None = field(default_factory=lambda: None)
    inputs: Annotated[tuple[InputFlow, ...], FailFast()] = field(default_factory=tuple)
    times: Annotated[tuple[TimeFlow, ...], FailFast()] = field(default_factory=tuple)
    symmetries: Annotated[tuple[SymmetryFlow, ...], FailFast()] = field(default_factory=tuple)
    precisions: Annotated[tuple[PrecisionFlow, ...], FailFast()] = field(default_factory=tuple)
    slips: Annotated[tuple[SlipFlow, ...], FailFast()] = field(default_factory=tuple)
    optimizer: OptimizerFlow | None = field(default_factory=lambda: None)
    trial: Trial | None = field(default_factory=lambda: None)

    @classmethod
    def defer(cls, build: Callable[[], Self]) -> Self:
        """Return a flow whose fields are filled in by `build` when one of them is first read.

        Args:
            build: Makes the flow from plain numbers that are already there.

        Example:
            >>> from chainrule import NetworkSpec, simulate
            >>> GradientFlow.defer(lambda: simulate(NetworkSpec(depth=3, width=4), 3)).ensemble_size
            3
        """
        flow = cls.__new__(cls)
        flow.__dict__["_lock"] = threading.Lock()
        flow.__dict__["_build"] = build
        return flow

    def __getattr__(self, name: str) -> Any:
        if "_build" in self.__dict__:
            with self.__dict__["_lock"]:  # whoever comes second finds it done
                build = self.__dict__.get("_build")
                if build is not None:
                    self.__dict__.update(build().__getstate__())
                    del self.__dict__["_build"]
        if name in self.__dict__:
            return self.__dict__[name]
        if name in type(self).__dict__ and name not in self.__dataclass_fields__:
            return getattr(self, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def __repr__(self) -> str:
        return f"GradientFlow({', '.join(self._list_facts())})"

    def _list_facts(self) -> list[str]:
        """Return what the line about a flow says: its size, its gradients, their ratio."""
        count = len(self.weight_layers)
        facts = [f"{count:,} layer{'' if count == 1 else 's'}"]
        if not count:
            facts = ["no weight layers", f"{len(self.layers):,} module outputs"]
        if self.ensemble_size > 1:
            facts.append(f"{self.ensemble_size:,} networks")
        norms = [norm for norm in self.weight_gradient_norms if norm is not None]
        if not norms:
            return [*facts, f"no weight gradients, 𝓛 {format_number(self.loss)}"]
        norms.sort(key=lambda norm: (math.isnan(norm), norm))  # undefined is worse than large
        ends = dict.fromkeys(format_number(norm) for norm in (norms[0], norms[-1]))
        facts.append(f"‖∂𝓛/∂W‖ {' … '.join(ends)}")
        if count > 1 and self.gradient_ratio is not None:
            facts.append(f"ratio {format_number(self.gradient_ratio)}")
        return facts

    @property
    def ensemble_size(self) -> int:
        """Number of networks measured."""
        return len(self.loss.values)

    @cached_property
    def weight_layers(self) -> tuple[WeightLayer, ...]:
        """One summary per weight layer l = 1 … L, input to output."""
        return _summarize_weight_layers(self.layers, self.parameters)

    @cached_property
    def weight_gradient_norms(self) -> tuple[Quantity | None, ...]:
        """‖∂loss/∂W_l‖ for l = 1 … L."""
        return tuple(layer.weight_gradient_norm for layer in self.weight_layers)

    @cached_property
    def delta_norms(self) -> tuple[Quantity | None, ...]:
        """‖δ_l‖ = ‖∂loss/∂z_l‖ for l = 1 … L."""
        return tuple(layer.delta_norm for layer in self.weight_layers)

    @cached_property
    def gradient_ratio(self) -> Quantity | None:
        """‖∂loss/∂W_1‖ ÷ ‖∂loss/∂W_L‖, first over last; `None` if either has no gradient."""
        return _divide_ends(self.weight_gradient_norms)

    @cached_property
    def delta_ratio(self) -> Quantity | None:
        """‖δ_1‖ ÷ ‖δ_L‖: how much of the backpropagated gradient reaches the first layer."""
        return _divide_ends(self.delta_norms)

    @cached_property
    def output_error(self) -> Quantity | None:
        """√N · ‖∂loss/∂output‖, for N outputs: how large a change the loss asks of one output.

        With a loss that is a mean over N, each output's own gradient is divided by N, and this
        undoes it: it is the root mean square of the gradients of single outputs. A cross-entropy
        at initialization has about 1. It is what a weight's gradient is compared with, for it
        grows with every factor of the loss as that does, and neither changes with the batch size.
        The output is what the loss itself reads (`loss_facts.outputs`); where that is not known, it
        is that of the last call that receives a gradient. Several calls of one module count as one
        with all of their outputs. Entries along the feature dimension (the second of images, the
        last of everything else) count as one output. `None` where it is zero or not finite.
        """
        read = () if self.loss_facts is None else self.loss_facts.outputs
        found = [
            (call.name, call.output, call, call.gradient.norm)
            for call in map(self.layers.__getitem__, read)
            if call.gradient is not None and call.statistics is not None
        ]
        for call in reversed(() if found else self.layers):
            if call.gradient is not None and call.statistics is not None:
                found = [(call.name, call.output, call, call.gradient.norm)]
                break
        counts: dict[tuple[str, str], float] = {}
        for name, output, call, _ in found:
            features = 1 if len(call.shape) > 3 else -1
            sizes = map(float, call.shape)  # whose product may be too large for a whole number
            count = math.prod(sizes) // max(call.shape[features], 1) if call.shape else 1.0
            counts[name, output] = counts.get((name, output), 0.0) + count
        norm = combine_norms(each for *_, each in found)
        if norm is None:
            return None
        error = Quantity(math.sqrt(max(counts.values())) * each for each in norm.values)
        return error if 0.0 < error < math.inf else None

    @cached_property
    def gradient_norm(self) -> Quantity | None:
        """Norm of all parameters' gradients together; `None` if there is none."""
        return combine_norms(p.grad_norm for p in self.parameters if p.grad_norm is not None)

    @cached_property
    def is_finite(self) -> bool:
        """Whether all numbers are finite: the loss, values, gradients and parameters."""
        parts = [part for call in self.layers for part in (call.statistics, call.gradient) if part]
        counts = [part.non_finite for part in parts]
        counts += [each.non_finite for each in self.parameters]
        counts += [count for each in self.parameters if (count := each.grad_non_finite) is not None]
        return math.isfinite(self.loss) and not any(count > 0 for count in counts)

    @cached_property
    def has_finite_gradients(self) -> bool:
        """Whether the loss is finite, and value and gradient of every trained parameter are.

        Infinite or undefined numbers anywhere else stop before they reach a parameter.
        """
        return math.isfinite(self.loss) and not any(
            (each.grad_non_finite or 0.0) > 0 or (each.non_finite > 0 and each.status != "frozen")
            for each in self.parameters
        )

    @cached_property
    def clip_factor(self) -> Quantity | None:
        """What `spec.clip_norm` multiplies every gradient by (1 where it does nothing).

        `None` if the specification does not clip. The flow itself holds gradients before clipping.
        """
        limit = self.spec.clip_norm if self.spec else None
        return None if limit is None else self.compute_clip_factor(limit)

    @cached_property
    def clipped_gradient_norm(self) -> Quantity | None:
        """Norm of all parameters' gradients together after clipping to `spec.clip_norm`.

        `None` if the specification does not clip.
        """
        if self.gradient_norm is None or self.clip_factor is None:
            return None
        return multiply_members(self.gradient_norm, self.clip_factor)

    def compute_clip_factor(self, max_norm: float) -> Quantity | None:
        """Return what clipping the total gradient norm would multiply every gradient by.

        As `torch.nn.utils.clip_grad_norm_` does: max_norm ÷ (norm + 1e-6), but at most 1. An
        infinite norm gives 0 (infinite entries then become NaN), an undefined one NaN.

        Args:
            max_norm: The longest that all gradients together may be; above 0.

        Returns:
            One factor per member in [0, 1], or `None` if there is no gradient.

        Example:
            >>> from chainrule import NetworkSpec, simulate
            >>> flow = simulate(NetworkSpec(depth=3, width=4))
            >>> flow.compute_clip_factor(1e9)
            1.0
        """
        norm = self.gradient_norm
        if norm is None:
            return None
        return Quantity(
            each if math.isnan(each) else min(1.0, max_norm / (each + _CLIP_EPS))
            for each in norm.values
        )

    def factors(self) -> tuple[Factor, ...]:
        """Return the factors of the chain-rule product in backward order, from the loss back.

        Where modules run one after another, these are the gains of every module call, and
        `running` is exactly ‖∂loss/∂input‖ ÷ ‖∂loss/∂last output‖. A `ResidualBlock` counts as one
        factor; of other measured modules that contain measured modules, the contained ones count.

        Where they do not, but all residual connections lie on one residual stream, there is one
        factor per residual connection: the gradient at the sum before it ÷ the gradient at its own
        sum. Then `running` is exactly the gradient at that earlier sum ÷ the gradient at the last
        one. In any other network gains of modules do not multiply to anything: `running` is `None`.

        Example:
            >>> from chainrule import NetworkSpec, simulate
            >>> flow = simulate(NetworkSpec(depth=3, width=4))
            >>> len(flow.factors())  # three activations, three weights
            6
        """
        calls = [self.layers[index] for index in select_path(self.layers)]
        calls.reverse()
        one = Quantity([1.0] * self.ensemble_size)
        product: Quantity | None = one if self.chain or _is_row(calls) else None
        if product is None and (blocks := _list_block_factors(self.residuals, self.layers, one)):
            return blocks
        factors = []
        for call in calls:
            if product is not None and call.gain is not None:
                product = multiply_members(product, call.gain)
            else:
                product = None
            factors.append(
                Factor(
                    name=call.label,
                    kind=call.kind,
                    role=call.role,
                    layer=call.layer,
                    value=call.gain,
                    running=product,
                )
            )
        return tuple(factors)

    def to_json(self) -> str:
        """Return the flow as JSON text; `load_flow` reads it back.

        Infinite and undefined numbers become the strings "Infinity", "-Infinity" and "NaN".

        Example:
            >>> from chainrule import NetworkSpec, simulate
            >>> flow = simulate(NetworkSpec(depth=3, width=4))
            >>> flow.to_json()[:11]
            '{"layers":['
        """
        return flow_adapter().dump_json(self).decode()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the flow to a JSON file, replacing an older one only when all is written.

        Raises:
            FlowFileError: If the file cannot be written there.

        Example:
            >>> from tempfile import TemporaryDirectory
            >>> from chainrule import NetworkSpec, load_flow, simulate
            >>> flow = simulate(NetworkSpec(depth=3, width=4))
            >>> with TemporaryDirectory() as folder:
            ...     flow.save(f"{folder}/flow.json")
            ...     load_flow(f"{folder}/flow.json") == flow
            True
        """
        write_text(path, self.to_json())

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, str]:
        """Return what a notebook shows of the flow: its table and its plot.

        Both are drawn on an upper floor, which is loaded only when a notebook asks.
        """
        from chainrule.report.notebook import build_bundle

        return build_bundle(self, include, exclude)

    def to_records(self) -> list[dict[str, Any]]:
        """Return one flat dictionary per entry of `layers`, ready for a data frame.

        Values are medians over the ensemble; those that do not exist are `None`, in any row.
        polars looks at the first 100 rows only to find out what a column holds, so give it
        `RECORD_TYPES` as well for a larger model: `polars.DataFrame(records, schema=RECORD_TYPES)`.

        Example:
            >>> from chainrule import NetworkSpec, simulate
            >>> flow = simulate(NetworkSpec(depth=3, width=4))
            >>> [record["name"] for record in flow.to_records()][:2]
            ['0', '1']
        """
        gradients = {layer.layer: layer.weight_gradient_norm for layer in self.weight_layers}
        return [_flatten(call, gradients) for call in self.layers]


@cache
def flow_adapter() -> TypeAdapter[GradientFlow]:
    """Return the validator and serializer of flows (built once, on first use).

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=3, width=4))
        >>> flow_adapter().dump_python(flow)["chain"]
        True
    """
    return TypeAdapter(GradientFlow)


def _is_row(calls: Sequence[LayerFlow]) -> bool:
    """Whether each call, in backward order, hands on exactly the gradient that the one before had.

    Then their gains multiply, though a view or another module may lie between two of them.
    """
    for after, before in pairwise(calls):
        if after.gain is None or after.gradient is None:
            return before.gain is None  # no gradient goes further back
        if before.gradient is None:
            return before.gain is None
        arrived = multiply_members(after.gain, after.gradient.norm)
        for left, right in zip(arrived.values, before.gradient.norm.values, strict=True):
            if not math.isclose(left, right, rel_tol=_SAME):
                return False
    return True


def _list_block_factors(
    residuals: Sequence[ResidualFlow], layers: Sequence[LayerFlow], one: Quantity
) -> tuple[Factor, ...]:
    """Return one factor per residual connection but the first; none unless there is one stream."""
    if len({each.stream for each in residuals}) != 1:
        return ()
    factors: list[Factor] = []
    product = one
    for after, before in pairwise(reversed(residuals)):
        if after.gradient is None or before.gradient is None:
            return ()
        gain = divide_members(before.gradient, after.gradient)
        product = multiply_members(product, gain)
        branch = None if after.branch is None else layers[after.branch]
        factors.append(
            Factor(
                name=branch.label if branch else f"residual connection {len(factors) + 1}",
                kind=branch.kind if branch else "",
                role="residual",
                layer=branch.layer if branch else None,
                value=gain,
                running=product,
            )
        )
    return tuple(factors)


def _divide_ends(norms: Sequence[Quantity | None]) -> Quantity | None:
    if not norms or norms[0] is None or norms[-1] is None:
        return None
    return divide_members(norms[0], norms[-1])


def select_path(layers: Sequence[LayerFlow]) -> list[int]:
    """Return the positions of the calls whose gains are factors, in forward order.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=3, width=4))
        >>> select_path(flow.layers)
        [0, 1, 2, 3, 4, 5]
    """
    parents = {call.parent for call in layers}

    inside: list[bool] = [False] * len(layers)
    for position in reversed(range(len(layers))):  # a parent comes after its children
        parent = layers[position].parent
        if parent is not None:
            inside[position] = layers[parent].role == "residual" or inside[parent]

    first_outputs: set[tuple[str, int]] = set()
    path = []
    for position, call in enumerate(layers):
        replaced_by_children = position in parents and call.role != "residual"
        if replaced_by_children or inside[position]:
            continue
        if (call.name, call.call) not in first_outputs:
            first_outputs.add((call.name, call.call))
            path.append(position)
    return path


def _summarize_weight_layers(
    layers: Sequence[LayerFlow], parameters: Sequence[ParameterFlow]
) -> tuple[WeightLayer, ...]:
    weights: dict[int, list[ParameterFlow]] = {}
    for parameter in parameters:
        if parameter.is_weight and parameter.layer is not None:
            weights.setdefault(parameter.layer, []).append(parameter)
    calls: dict[int, list[LayerFlow]] = {}
    for call in layers:
        if call.layer is not None:
            calls.setdefault(call.layer, []).append(call)

    summaries = []
    for number in sorted(weights):
        entries = calls.get(number, [])
        own = [entry for entry in entries if entry.role == "weight"]
        activations = [entry for entry in entries if entry.role == "activation"]
        # A placeholder counts only where there is nothing else.
        activations.sort(key=lambda entry: entry.kind == "Identity")
        norm = combine_norms(parameter.norm for parameter in weights[number])
        assert norm is not None
        summaries.append(
            WeightLayer(
                layer=number,
                name=own[0].name if own else weights[number][0].name.rpartition(".")[0],
                kind=own[0].kind if own else "",
                weight_norm=norm,
                weight_gradient_norm=combine_norms(
                    p.grad_norm for p in weights[number] if p.grad_norm is not None
                ),
                delta_norm=combine_norms(
                    entry.gradient.norm for entry in own if entry.gradient is not None
                ),
                pre_activation=own[0].statistics if own else None,
                activation=activations[0].statistics if activations else None,
                activation_kind=activations[0].kind if activations else "",
            )
        )
    return tuple(summaries)


def _flatten(call: LayerFlow, gradients: dict[int, Quantity | None]) -> dict[str, Any]:
    def number(quantity: Quantity | None) -> float | None:
        return None if quantity is None else float(quantity)

    statistics, gradient = call.statistics, call.gradient
    is_weight = call.role == "weight" and call.layer is not None
    return {
        "name": call.name,
        "kind": call.kind,
        "role": call.role,
        "layer": call.layer,
        "call": call.call,
        "output": call.output,
        "shape": "×".join(map(str, call.shape)),
        **{name: number(getattr(statistics, name, None)) for name in _STATISTICS},
        **{f"grad_{name}": number(getattr(gradient, name, None)) for name in _GRADIENT},
        "gain": number(call.gain),
        "weight_grad_norm": number(gradients.get(call.layer)) if is_weight and call.layer else None,
    }
