"""The factors of what a diagnosis judges: what each module multiplies a metric by.

Nearly every metric is a product of factors: a gradient that reaches a layer is the loss' gradient
times what every module on its way multiplied it by.

Along a chain these are the factors of `GradientFlow.factors()`. With residual connections a module
inside a branch does not carry the gradient alone, so what counts on the residual stream is the step
from one sum to the one before: ‖∂loss/∂sum‖ before a block ÷ after it, with the block's branch and
the path around it together. Inside a branch, modules count that no other path goes around: not
those that read the residual stream, as their gradient gain holds what all paths bring together.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

from chainrule.diagnosis.structure import list_normalizations, list_streams
from chainrule.flow.gradient_flow import GradientFlow, select_path
from chainrule.flow.quantity import Quantity, divide_members
from chainrule.flow.records import ActivationStatistics, LayerFlow, ResidualFlow, WeightLayer

SAME = 1e-5
"""Relative difference up to which two measured norms are those of one tensor."""

MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "gradient": "how many times larger the gradient is at the module's input than at its "
        "output, ‖∂𝓛/∂input‖ ÷ ‖∂𝓛/∂output‖",
        "residual stream gradient": "how many times larger the gradient of the residual stream is "
        "before a block than after it; the block is its branch and the path around it together",
        "stream": "how many times larger the residual stream is after the branch that ends here "
        "was added",
        "spread": "the spread of the values at this layer ÷ that at the layer before",
        "difference": "the differences between examples at this layer ÷ those at the layer before",
        "dead_units": "the share of units that still pass a gradient on",
        "saturated": "the share of activations that are not flat",
        "normalization": "the standard deviation of the normalization's output, which should be 1",
    }
)
"""What each kind of factor is, in words."""


@dataclass(frozen=True, slots=True)
class Part:
    """One factor of a metric: of one call of a module.

    Attributes:
        name: Qualified name of the module; of a step on a residual stream, of the module in which
            the block's branch ends.
        kind: Class name of that module.
        layer: Its weight layer, or `None`.
        value: What it multiplies the metric by.
        what: What is multiplied: a name of `MEANINGS`, or words of its own.
    """

    name: str
    kind: str
    layer: int | None
    value: Quantity
    what: str


Trace = Callable[[GradientFlow, Sequence[int]], Iterator[Part]]
"""Lists the factors of a metric, given a flow and the weight layers that a finding names."""


def trace_way_back(flow: GradientFlow, layers: Sequence[int]) -> Iterator[Part]:
    """List what multiplies the gradient between the loss and the layers concerned."""
    if not flow.residuals:
        yield from trace_chain(flow, layers)
        return
    first = min(layers, default=1)
    for part in _list_steps(flow, joined=True):
        if part.layer is None or part.layer > first:
            yield part
    yield from _list_branch_factors(flow, layers)


def trace_chain(flow: GradientFlow, layers: Sequence[int]) -> Iterator[Part]:
    """List the gradient gains of the modules between the loss and the first layer concerned."""
    first = min(layers, default=1)
    for position in reversed(select_path(flow.layers)):
        call = flow.layers[position]
        if call.gain is not None and _is_passed(call, first):
            yield Part(call.name, call.kind, call.layer, call.gain, "gradient")


def _is_passed(call: LayerFlow, layer: int) -> bool:
    """Whether a gradient passes a module before it reaches a layer's weights."""
    return call.layer is not None and (
        call.layer > layer or (call.layer == layer and call.role != "weight")
    )


def trace_streams(flow: GradientFlow, layers: Sequence[int]) -> Iterator[Part]:
    """List what every block multiplies its residual stream's gradient by, stream by stream."""
    return _list_steps(flow, joined=False)


_Place = tuple[int, Quantity]
"""An output on a residual stream, or the end of the branch added there, and its gradient."""


def _list_steps(flow: GradientFlow, *, joined: bool) -> Iterator[Part]:
    """List what every block multiplies the gradient by, the last block first."""
    steps = [step for path in _list_stream_places(flow, joined=joined) for step in pairwise(path)]
    for (_, earlier), (position, later) in reversed(steps):
        call = flow.layers[position]
        value = divide_members(earlier, later)
        yield Part(call.name, call.kind, call.layer, value, "residual stream gradient")


def _list_stream_places(flow: GradientFlow, *, joined: bool) -> list[list[_Place]]:
    """Return the places on residual streams in forward order, in lists of steps.

    Where streams are joined, one that starts where another has ended (after a block whose both
    paths have weights, as in a ResNet) continues it, unless something that reads an input lies
    between.
    """
    outputs = _find_stream_outputs(flow)
    paths: list[list[_Place]] = []
    for stream in list_streams(flow):
        sums = [(r.branch, r.gradient) for r in stream]
        places = [(at, norm) for at, norm in sums if at is not None and norm is not None]
        if joined and (start := outputs.get(stream[0])) is not None:
            gradient = flow.layers[start].gradient
            places[:0] = [(start, gradient.norm)] if gradient else []
            end = paths[-1][-1][0] if paths and paths[-1] else start
            between = flow.layers[end + 1 : start + 1]
            if end < start and not any(c.gradient and c.gain is None for c in between):
                paths[-1] += places
                continue
        paths.append(places)
    return paths


def _list_branch_factors(flow: GradientFlow, layers: Sequence[int]) -> Iterator[Part]:
    """What modules inside branches, and after the last sum, multiply the gradient by.

    Only branches with a layer concerned count; of them, what lies between it and the sum.
    """
    ends = sorted(each.branch for each in flow.residuals if each.branch is not None)
    concerned: dict[int, float] = {}
    for position, call in enumerate(flow.layers):
        if call.layer in layers and call.role == "weight":
            concerned.setdefault(bisect_left(ends, position), call.layer or 1)
    shared = _list_shared_gradients(flow)
    for position in reversed(select_path(flow.layers)):
        call = flow.layers[position]
        branch = bisect_left(ends, position)
        if call.gain is None or call.gradient is None:
            continue
        first = concerned.get(branch, 0 if branch == len(ends) else math.inf)
        received = float(call.gain) * float(call.gradient.norm)
        passed = call.layer is not None and (
            call.layer > first or (call.layer == first and call.role != "weight")
        )
        if passed and not _is_among(received, shared):
            yield Part(call.name, call.kind, call.layer, call.gain, "gradient")


def _list_shared_gradients(flow: GradientFlow) -> list[float]:
    """Return the norms of the gradients at tensors that several paths read: streams, and others.

    Nothing in a flow says which tensor a module reads, but the measured norm of its gradient
    differs from that of all others. Modules that pass gradients through unchanged (dropout that is
    off) do not count as readers: what follows them receives the same.

    Returns:
        Norms, sorted.
    """
    received = sorted(
        float(call.gain) * float(call.gradient.norm)
        for call in flow.layers
        if call.gain is not None and call.gradient is not None and abs(call.gain - 1.0) > SAME
    )
    shared = [a for a, b in pairwise(received) if a > 0 and b - a <= SAME * b]
    shared += [float(each.gradient) for each in flow.residuals if each.gradient is not None]
    shared += [
        float(gradient.norm)
        for position in _find_stream_outputs(flow).values()
        if (gradient := flow.layers[position].gradient) is not None
    ]
    return sorted(shared)


def _find_stream_outputs(flow: GradientFlow) -> dict[ResidualFlow, int]:
    """Return for every sum the position of the module output that it takes as its residual stream.

    It is the last one of the residual stream's measured size between the branch before and this
    one; a residual stream that is a bare sum has none.
    """
    found = {}
    start = 0
    for each in flow.residuals:
        end = start if each.branch is None else each.branch
        for position in reversed(range(start, end)):
            size = _measure_size(flow.layers[position])
            if size is not None and each.before is not None and _is_among(size, [each.before]):
                found[each] = position
                break
        start = max(start, end)
    return found


def _measure_size(call: LayerFlow) -> float | None:
    """Return the root mean square of an output."""
    metrics = call.statistics
    return None if metrics is None else math.hypot(metrics.mean, metrics.std)


def _is_among(value: float, others: list[float]) -> bool:
    """Whether a value is one of others that are sorted, up to rounding."""
    at = bisect_left(others, value)
    return any(abs(value - other) <= SAME * abs(other) for other in others[max(0, at - 1) : at + 1])


def trace_growth(flow: GradientFlow, layers: Sequence[int]) -> Iterator[Part]:
    """List what every branch multiplies the size of its residual stream by."""
    for each in flow.residuals:
        if each.branch is not None and each.before is not None:
            call = flow.layers[each.branch]
            value = divide_members(each.after, each.before)
            yield Part(call.name, call.kind, call.layer, value, "stream")


def trace_dead_units(flow: GradientFlow, layers: Sequence[int]) -> Iterator[Part]:
    """List the share of units of the layers concerned that are not dead."""
    return _list_active(flow, layers, lambda each: each.dead_share, "dead_units")


def trace_saturation(flow: GradientFlow, layers: Sequence[int]) -> Iterator[Part]:
    """List the share of activations of the layers concerned that are not saturated."""
    return _list_active(flow, layers, lambda each: each.saturation, "saturated")


def _list_active(
    flow: GradientFlow,
    layers: Sequence[int],
    read: Callable[[ActivationStatistics], Quantity | None],
    what: str,
) -> Iterator[Part]:
    """List how much of the activations of the layers concerned is not flat.

    Their gradient gains would not do: where a unit is off, its output receives no gradient either,
    in which case nothing is lost from one side to the other.
    """
    for call in flow.layers:  # the first one that is off gives nothing to those after it
        if call.role != "activation" or call.layer not in layers or call.statistics is None:
            continue
        flat = read(call.statistics)
        if flat is not None:
            value = Quantity(1.0 - share for share in flat.values)
            yield Part(call.name, call.kind, call.layer, value, what)


def trace_normalizations(flow: GradientFlow, layers: Sequence[int]) -> Iterator[Part]:
    """List the normalizations whose spread is not what it is meant to be."""
    kinds = {call.label: call.kind for call in flow.layers}
    for place in list_normalizations(flow):
        value = Quantity([place.value])
        yield Part(place.name, kinds[place.name], place.layer, value, "normalization")


def trace_differences(flow: GradientFlow, layers: Sequence[int]) -> Iterator[Part]:
    """List what is left of the differences between examples from stream to stream, or layer."""
    on_stream = [flow.layers[position] for position in _find_stream_outputs(flow).values()]
    if len(on_stream) > 1:
        steps = [
            (call.name, call.kind, call.layer, call.statistics.variation)
            for call in on_stream
            if call.statistics is not None
        ]
    else:
        steps = [(e.name, e.kind, e.layer, e.variation) for e in flow.weight_layers]
    for (_, _, _, before), (name, kind, layer, after) in pairwise(steps):
        if before is not None and after is not None:
            yield Part(name, kind, layer, divide_members(after, before), "difference")


def trace_spreads(flow: GradientFlow, layers: Sequence[int]) -> Iterator[Part]:
    """List what every layer multiplies the spread of the values by."""
    for before, after in pairwise(flow.weight_layers):
        if (value := _divide_spreads(before, after)) is not None:
            yield Part(after.name, after.kind, after.layer, value, "spread")


def _divide_spreads(before: WeightLayer, after: WeightLayer) -> Quantity | None:
    if before.std is None or after.std is None:
        return None
    return divide_members(after.std, before.std)


def trace_overflow(flow: GradientFlow, layers: Sequence[int]) -> Iterator[Part]:
    """List what made numbers too large: forward if values overflow, else on the way back."""
    forward = any(call.statistics and call.statistics.non_finite > 0 for call in flow.layers)
    parts = trace_spreads(flow, layers) if forward else _list_gains(flow)
    yield from (part for part in parts if math.isfinite(part.value))


def _list_gains(flow: GradientFlow) -> Iterator[Part]:
    for position in reversed(select_path(flow.layers)):
        call = flow.layers[position]
        if call.gain is not None:
            yield Part(call.name, call.kind, call.layer, call.gain, "gradient")
