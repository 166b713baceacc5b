"""Which modules are most to blame for what a diagnosis names, by their factors.

A diagnosis rests on a metric, and nearly every such metric is a product of factors: a gradient that
reaches a layer is the loss' gradient times what every module on its way multiplied it by. The
factors that push the product furthest beyond its bound are to blame.

Along a chain these are the factors of `GradientFlow.factors()`. With residual connections a module
inside a branch does not carry the gradient alone, so what counts on the residual stream is the step from one
sum to the one before: ‖∂loss/∂sum‖ before a block ÷ after it, with the block's branch and the path
around it together. Inside a branch, modules count that no other path goes around: not those that
read the residual stream, as their gain holds what all paths bring together.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

from chainrule.diagnosis.diagnosis import Diagnosis, Finding, diagnose
from chainrule.diagnosis.rules import Verdict
from chainrule.diagnosis.structure import ALONG_CHAIN, list_chain, list_normalizations, list_streams
from chainrule.flow.gradient_flow import GradientFlow, select_path
from chainrule.flow.quantity import Quantity, divide_members, multiply_members
from chainrule.flow.records import LayerFlow, ResidualFlow, WeightLayer

COUNT = 3
"""How many modules are named."""

SLIGHT = 0.01
"""A factor closer to 1 than this share is not to blame for anything."""

SAME = 1e-5
"""Relative difference up to which two measured norms are those of one tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """A module and the factor that it is blamed for.

    Attributes:
        name: Qualified name of the module; of a step on a residual stream, of the module in which the
            block's branch ends.
        kind: Class name of that module.
        layer: Its weight layer, or `None`.
        calls: Number of calls that are taken together.
        factor: What it multiplies the metric by, over all of its calls.
        what: What is multiplied; a name of `MEANINGS`.
        share: Its part of everything that goes the wrong way, in powers of ten, in [0, 1]; `None`
            where a factor is zero or infinite.
    """

    name: str
    kind: str
    layer: int | None
    calls: int
    factor: Quantity
    what: str
    share: float | None


MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "gradient": "what a module multiplies the gradient by on its way back, "
        "‖∂𝓛/∂input‖ ÷ ‖∂𝓛/∂output‖",
        "residual stream gradient": "what a block, branch and path around it together, multiplies the "
        "residual stream's gradient by on its way back",
        "stream": "what adding the branch that ends there multiplies the size of the residual stream by",
        "spread": "what the spread of the values is multiplied by from the layer before to this "
        "one",
        "difference": "what is left of the differences between examples from the layer before to "
        "this one",
        "dead_units": "the share of units that still pass a gradient on",
        "saturated": "the share of activations that are not flat",
        "normalization": "the spread that the normalization puts out, where 1 is meant",
    }
)
"""What each kind of factor is, in words."""

SHARE = "The share is of all factors that go the wrong way, in powers of ten."


@dataclass(frozen=True, slots=True)
class _Part:
    """One factor of a metric, before those of one module are taken together."""

    name: str
    kind: str
    layer: int | None
    value: Quantity
    what: str


def rank_blame(
    flow: GradientFlow, diagnosis: Diagnosis | None = None, *, count: int = COUNT
) -> tuple[Blame, ...]:
    """Return the modules most to blame for the verdict, the one with the gravest factor first.

    Args:
        flow: A measurement by `inspect` or `simulate`.
        diagnosis: What it means, if that is there already.
        count: How many at most.

    Returns:
        None for a healthy network, for weights that no gradient reaches (no factor leads there),
        and where no factor goes the wrong way: a gradient can be too small at the loss already.
    """
    diagnosis = diagnosis or diagnose(flow)
    for finding in diagnosis.findings:
        if finding.verdict is diagnosis.verdict and finding.rule in _RULES:
            grows, collect = _RULES[finding.rule]
            found = _rank(_merge(collect(flow, finding)), grows=grows)
            if found:
                return tuple(found[:count])
    return ()


def explain_blame(diagnosis: Diagnosis, blames: tuple[Blame, ...]) -> str:
    """Return what the factors are, in a sentence; or why there are none; "" if nothing is wrong."""
    if blames:
        kinds = dict.fromkeys(each.what for each in blames)
        factors = "; or ".join(MEANINGS[what] for what in kinds)
        share = "" if blames[0].share is None else f" {SHARE}"
        return f"The factor is {factors}.{share}"
    if diagnosis.verdict is Verdict.HEALTHY:
        return ""
    if diagnosis.verdict is Verdict.NO_GRADIENT:
        return "No factor leads to weights that the loss does not reach."
    if diagnosis.verdict is Verdict.HARD_TO_TRAIN:
        return "No single module is to blame: it is what all metrics say together."
    return "No module's factor goes that way: what is wrong is there from the start."


def _merge(parts: Iterator[_Part]) -> list[Blame]:
    """Return the factors by module; of one that is called several times, their product."""
    merged: dict[tuple[str, str], Blame] = {}
    for part in parts:
        before = merged.get((part.name, part.what))
        merged[part.name, part.what] = Blame(
            name=part.name,
            kind=part.kind,
            layer=part.layer if before is None else before.layer,
            calls=1 if before is None else before.calls + 1,
            factor=part.value if before is None else multiply_members(before.factor, part.value),
            what=part.what,
            share=None,
        )
    return list(merged.values())


def _rank(blames: list[Blame], *, grows: bool) -> list[Blame]:
    """Return the factors that go the wrong way, the gravest first, each with its share."""
    weights = [(_weigh(each.factor, grows=grows), each) for each in blames]
    wrong = [(weight, each) for weight, each in weights if weight > math.log10(1 + SLIGHT)]
    wrong.sort(key=lambda pair: -pair[0])  # stable: among equals the one met first on the way
    total = sum(weight for weight, _ in wrong)
    return [
        Blame(
            name=each.name,
            kind=each.kind,
            layer=each.layer,
            calls=each.calls,
            factor=each.factor,
            what=each.what,
            share=weight / total if math.isfinite(total) else None,
        )
        for weight, each in wrong
    ]


def _weigh(factor: float, *, grows: bool) -> float:
    """Return how far a factor goes the wrong way, in powers of ten; undefined ones do not."""
    if math.isnan(factor):
        return 0.0
    if factor in (0.0, math.inf):
        return math.inf if (factor > 0) is grows else -math.inf
    return math.log10(factor) if grows else -math.log10(factor)


def _list_way_back(flow: GradientFlow, finding: Finding) -> Iterator[_Part]:
    """What multiplies the gradient between the loss and the layers concerned."""
    if flow.residuals and not (finding.rule in ALONG_CHAIN and list_chain(flow)):
        yield from _list_stream_steps(flow, finding)
        yield from _list_branch_factors(flow, finding)
        return
    first = min(finding.layers, default=1)
    for position in reversed(select_path(flow.layers)):
        call = flow.layers[position]
        if call.gain is not None and _is_behind(call, first):
            yield _Part(call.name, call.kind, call.layer, call.gain, "gradient")


def _is_behind(call: LayerFlow, layer: int) -> bool:
    """Whether a gradient passes a module before it reaches a layer's weights."""
    return call.layer is not None and (
        call.layer > layer or (call.layer == layer and call.role != "weight")
    )


def _list_stream_steps(flow: GradientFlow, finding: Finding) -> Iterator[_Part]:
    """What every block multiplies its residual stream's gradient by."""
    first = min(finding.layers, default=1) if finding.rule == "exploding_gradient" else 1
    places = [place for path in _list_stream_places(flow, finding) for place in pairwise(path)]
    for (_, earlier), (position, later) in reversed(places):
        call = flow.layers[position]
        if call.layer is None or call.layer > first or finding.rule == "fading_stream":
            value = divide_members(earlier, later)
            yield _Part(call.name, call.kind, call.layer, value, "residual stream gradient")


_Place = tuple[int, Quantity]
"""A module output on a residual stream, or the end of the branch that is added there, and its gradient."""


def _list_stream_places(flow: GradientFlow, finding: Finding) -> list[list[_Place]]:
    """Return the places on residual streams in forward order, in lists within which steps mean something.

    A residual stream that starts where another has ended (after a block whose both paths have weights, as in
    a ResNet) continues it, unless something that reads an input lies between.
    """
    outputs = _find_stream_outputs(flow)
    paths: list[list[_Place]] = []
    for stream in list_streams(flow):
        sums = [(r.branch, r.gradient) for r in stream]
        places = [(at, norm) for at, norm in sums if at is not None and norm is not None]
        if finding.rule != "fading_stream" and (start := outputs.get(stream[0])) is not None:
            gradient = flow.layers[start].gradient
            places[:0] = [(start, gradient.norm)] if gradient else []
            end = paths[-1][-1][0] if paths and paths[-1] else start
            between = flow.layers[end + 1 : start + 1]
            if end < start and not any(c.gradient and c.gain is None for c in between):
                paths[-1] += places
                continue
        paths.append(places)
    return paths


def _list_branch_factors(flow: GradientFlow, finding: Finding) -> Iterator[_Part]:
    """What modules inside branches, and after the last sum, multiply the gradient by.

    Only branches with a layer concerned count; of them, what lies between it and the sum.
    """
    ends = sorted(each.branch for each in flow.residuals if each.branch is not None)
    concerned: dict[int, float] = {}
    for position, call in enumerate(flow.layers):
        if call.layer in finding.layers and call.role == "weight":
            concerned.setdefault(bisect_left(ends, position), call.layer or 1)
    shared = _list_shared_gradients(flow)
    for position in reversed(select_path(flow.layers)):
        call = flow.layers[position]
        branch = bisect_left(ends, position)
        if call.gain is None or call.gradient is None:
            continue
        first = concerned.get(branch, 0 if branch == len(ends) else math.inf)
        received = float(call.gain) * float(call.gradient.norm)
        behind = call.layer is not None and (
            call.layer > first or (call.layer == first and call.role != "weight")
        )
        if behind and not _is_among(received, shared):
            yield _Part(call.name, call.kind, call.layer, call.gain, "gradient")


def _list_shared_gradients(flow: GradientFlow) -> list[float]:
    """Return the norms of the gradients at tensors that several paths read: residual streams, and others.

    Nothing in a flow says which tensor a module reads, but the measured norm of its gradient tells
    it apart from all others. Modules that hand gradients on unchanged (dropout that is off) do not
    count as readers: what follows them receives the same.

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

    It is the last one of the residual stream's measured size between the branch before and this one; a residual stream
    that is a bare sum has none.
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


def _list_stream_growth(flow: GradientFlow, finding: Finding) -> Iterator[_Part]:
    """What every branch multiplies the size of its residual stream by."""
    for each in flow.residuals:
        if each.branch is not None and each.before is not None:
            call = flow.layers[each.branch]
            value = divide_members(each.after, each.before)
            yield _Part(call.name, call.kind, call.layer, value, "stream")


def _list_flat_activations(flow: GradientFlow, finding: Finding) -> Iterator[_Part]:
    """How much of the activations of the layers concerned is neither dead nor saturated.

    Their gains would not do: where a unit is off, its output receives no gradient either, in which
    case nothing is lost from one side to the other.
    """
    for call in flow.layers:  # the first one that is off starves those behind it
        metrics = call.statistics
        if call.role != "activation" or call.layer not in finding.layers or metrics is None:
            continue
        flat = metrics.dead_share if finding.rule == "dead_units" else metrics.saturation
        if flat is not None:
            value = Quantity(1.0 - share for share in flat.values)
            yield _Part(call.name, call.kind, call.layer, value, finding.rule)


def _list_starved(flow: GradientFlow, finding: Finding) -> Iterator[_Part]:
    """The normalizations whose spread is not what it is meant to be."""
    kinds = {call.label: call.kind for call in flow.layers}
    for place in list_normalizations(flow):
        value = Quantity([place.value])
        yield _Part(place.name, kinds[place.name], place.layer, value, "normalization")


def _list_lost_differences(flow: GradientFlow, finding: Finding) -> Iterator[_Part]:
    """What is left of the differences between examples, from residual stream to residual stream or layer to layer."""
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
            yield _Part(name, kind, layer, divide_members(after, before), "difference")


def _list_spreads(flow: GradientFlow, finding: Finding) -> Iterator[_Part]:
    """What every layer multiplies the spread of the values by."""
    for before, after in pairwise(flow.weight_layers):
        if (value := _divide_spreads(before, after)) is not None:
            yield _Part(after.name, after.kind, after.layer, value, "spread")


def _divide_spreads(before: WeightLayer, after: WeightLayer) -> Quantity | None:
    if before.std is None or after.std is None:
        return None
    return divide_members(after.std, before.std)


def _list_overflow(flow: GradientFlow, finding: Finding) -> Iterator[_Part]:
    """What made numbers too large: forward if values overflow, else on the way back."""
    forward = any(call.statistics and call.statistics.non_finite > 0 for call in flow.layers)
    parts = _list_spreads(flow, finding) if forward else _list_gains(flow)
    yield from (part for part in parts if math.isfinite(part.value))


def _list_gains(flow: GradientFlow) -> Iterator[_Part]:
    for position in reversed(select_path(flow.layers)):
        call = flow.layers[position]
        if call.gain is not None:
            yield _Part(call.name, call.kind, call.layer, call.gain, "gradient")


_Collect = Callable[[GradientFlow, Finding], Iterator[_Part]]

_RULES: Mapping[str, tuple[bool, _Collect]] = MappingProxyType(
    {
        "non_finite": (True, _list_overflow),
        "dead_units": (False, _list_flat_activations),
        "exploding_gradient": (True, _list_way_back),
        "exploding_backward": (True, _list_way_back),
        "vanishing_gradient": (False, _list_way_back),
        "vanishing_backward": (False, _list_way_back),
        "growing_stream": (True, _list_stream_growth),
        "vanishing_typical": (False, _list_way_back),
        "fading_stream": (False, _list_stream_steps),
        "saturated": (False, _list_flat_activations),
        "starved_normalization": (False, _list_starved),
        "same_answer": (False, _list_lost_differences),
        "fading_signal": (False, _list_spreads),
    }
)
"""For every rule whose metric has factors: whether large ones are to blame, and how to list them.

The other two count what the loss does not reach.
"""
