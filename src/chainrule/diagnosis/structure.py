"""What residual connections and normalization layers do in a measurement.

A network with paths around its layers is not judged like a chain: a layer that receives little does
not keep the others from learning, and a branch that starts at zero is there on purpose.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from chainrule.diagnosis.rules import RULES, Rule
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.records import LayerFlow, ParameterFlow, ResidualFlow, WeightLayer

_CHAIN = RULES["vanishing_gradient"]

ALONG_CHAIN = ("exploding_backward", "vanishing_gradient", "vanishing_backward")
"""Rules about layers that no residual stream leads around."""

SMALL_SCALE = 1e-2
"""Scales of branches below this are small: CaiT, BEiT, DINOv2, ConvNeXt start at 1e-4 to 1e-6."""


@dataclass(frozen=True, slots=True)
class Place:
    """A metric and where it was measured.

    Attributes:
        name: The module.
        layer: Its weight layer, or `None`.
        value: The metric.
    """

    name: str
    layer: int | None
    value: float


def list_streams(flow: GradientFlow) -> tuple[tuple[ResidualFlow, ...], ...]:
    """Return the residual connections of every residual stream, in forward order."""
    streams: dict[int, list[ResidualFlow]] = {}
    for each in flow.residuals:
        streams.setdefault(each.stream, []).append(each)
    return tuple(map(tuple, streams.values()))


def list_chain(flow: GradientFlow) -> tuple[WeightLayer, ...]:
    """Return the weight layers that are judged as a chain: those that no residual stream leads around.

    A network without residual connections is one chain. Where branches hold at least half of its
    weight layers it is judged by its residual streams alone: what lies outside are embeddings, heads, and
    blocks that change the shape. Where they hold fewer, a short skip somewhere does not excuse the
    layers outside of it.
    """
    inside = {
        flow.parameters[position].layer for each in flow.residuals for position in each.parameters
    }
    outside = tuple(layer for layer in flow.weight_layers if layer.layer not in inside)
    judged = not flow.residuals or 2 * len(outside) > len(flow.weight_layers)
    return outside if judged else ()


def measure_stream_growth(flow: GradientFlow) -> float | None:
    """Return by how much the values on a residual stream grow from its start to its last sum, at most.

    Only residual streams without normalization count: post-norm brings a residual stream back to size after every sum,
    and pre-norm hands every branch values of one size however far the residual stream has grown.
    """
    grown = [
        stream[-1].after / start
        for stream in list_streams(flow)
        if all(each.normalization == "none" for each in stream)
        and (start := stream[0].after if stream[0].before is None else stream[0].before) > 0
    ]
    return max(grown, default=None)


def measure_stream_gradient(flow: GradientFlow) -> float | None:
    """Return ‖∂loss/∂residual stream‖ at a residual stream's first sum ÷ at its last, the smallest of all residual streams."""
    ratios = [
        stream[0].gradient / stream[-1].gradient
        for stream in list_streams(flow)
        if stream[0].gradient is not None and stream[-1].gradient
    ]
    return min(ratios, default=None)


def list_waiting(flow: GradientFlow) -> frozenset[int]:
    """Return the weight layers that receive little only because of what is small behind them.

    Either their gradient is exactly zero while a weight behind them, itself exactly zero, receives
    a usable one (Fixup, ReZero, a zero-initialized last normalization or head, LoRA). After the
    first step it is zero no more, and they receive theirs. Without paths around them no further
    zero weight may lie in between, which would keep them waiting, and zeros in the middle must
    leave something of the input to what comes later, as LoRA's do.

    Or they are in a residual branch that a parameter scales down (LayerScale), which itself
    receives a usable gradient, and so grows: with a scale of 1 theirs would be usable.
    """
    return _list_behind_zeros(flow) | _list_behind_scales(flow).keys()


def list_receiving(flow: GradientFlow, layers: Sequence[WeightLayer]) -> tuple[WeightLayer, ...]:
    """Return those of some weight layers that do not wait."""
    waiting = list_waiting(flow)
    return tuple(layer for layer in layers if layer.layer not in waiting)


def list_silent(flow: GradientFlow) -> frozenset[int]:
    """Return the weight layers whose answer is the same for all inputs on purpose.

    Their weight is exactly zero, and it, or a zero weight behind it, receives a usable gradient.
    """
    opens = any(parameter.is_weight for parameter in _list_opening(flow))
    return frozenset(
        layer.layer
        for layer in flow.weight_layers
        if opens and layer.weight_norm == 0.0 and layer.weight_gradient_norm is not None
    )


def find_last_speaking(flow: GradientFlow) -> WeightLayer | None:
    """Return the last weight layer whose output depends on the input: before a head of zeros."""
    silent = list_silent(flow)
    speaking = [layer for layer in flow.weight_layers if layer.layer not in silent]
    return speaking[-1] if speaking else None


def _list_opening(flow: GradientFlow) -> list[ParameterFlow]:
    """Return the zero weights and scales that receive a usable gradient, and so open at once.

    There are none in a chain with a zero weight that receives nothing: it stays shut.
    """
    zero = [
        p
        for p in flow.parameters
        if p.norm == 0.0 and p.grad_norm is not None and not p.name.endswith("bias")
    ]
    if not _has_streams(flow) and any(p.is_weight and p.grad_norm == 0.0 for p in zero):
        return []
    return [p for p in zero if _is_usable(flow, p)]


def _has_streams(flow: GradientFlow) -> bool:
    """Whether there are paths around layers; those of a specification are blocks in its flow."""
    return bool(flow.residuals) or any(call.role == "residual" for call in flow.layers)


def _list_behind_zeros(flow: GradientFlow) -> frozenset[int]:
    opening = _list_opening(flow)
    last: float = math.inf if opening else 0
    if not _has_streams(flow):
        last = max((p.layer or math.inf for p in opening if not _cuts(flow, p)), default=0)
    return frozenset(
        layer.layer
        for layer in flow.weight_layers
        if layer.weight_gradient_norm == 0.0 and layer.layer < last
    )


def _cuts(flow: GradientFlow, zero: ParameterFlow) -> bool:
    """Whether zeros in the middle of a chain leave nothing of the input to what comes later."""
    speaking = find_last_speaking(flow)
    if zero.layer is None or speaking is None or speaking.layer <= zero.layer:
        return False
    variation = speaking.variation
    return variation is not None and variation < RULES["same_answer"].threshold


def _list_behind_scales(flow: GradientFlow) -> dict[int, float]:
    """Return the weight layers that wait behind a small scale, each with that scale.

    "Usable" is what the bound of networks with paths around their layers calls so.
    """
    rule = RULES["vanishing_typical"]
    bound = rule.threshold * (flow.output_error or 1.0)
    waiting = {}
    for each in flow.residuals:
        branch = [flow.parameters[position] for position in each.parameters]
        scale = min(
            (
                size
                for p in branch
                if _is_scale(p)
                and (size := p.norm / math.sqrt(math.prod(p.shape))) > 0.0
                and _is_usable(flow, p, rule)
            ),
            default=math.inf,
        )
        inside = {p.layer for p in branch if p.is_weight and not _is_scale(p)}
        for layer in flow.weight_layers if scale < SMALL_SCALE else ():
            norm = layer.weight_gradient_norm
            if layer.layer in inside and norm is not None and norm < bound <= norm / scale:
                waiting[layer.layer] = scale
    return waiting


def _is_scale(parameter: ParameterFlow) -> bool:
    """Whether a parameter has one number per channel, or one in all, and is no bias."""
    wide = sum(size != 1 for size in parameter.shape)
    return wide <= 1 and 0 not in parameter.shape and not parameter.name.endswith("bias")


def _is_usable(flow: GradientFlow, parameter: ParameterFlow, rule: Rule = _CHAIN) -> bool:
    """Whether a parameter's gradient is none of those that a rule calls vanishing."""
    bound = rule.threshold * (flow.output_error or 1.0)
    return parameter.grad_norm is not None and parameter.grad_norm >= bound


def measure_typical_gradient(flow: GradientFlow) -> float | None:
    """Return the median of ‖∂loss/∂W‖ ÷ error at the output over the layers.

    Layers that wait behind zeros do not count. Those behind a small scale count with what they
    would receive if it were 1.
    """
    behind_zeros, scales = _list_behind_zeros(flow), _list_behind_scales(flow)
    norms = [
        float(layer.weight_gradient_norm) / scales.get(layer.layer, 1.0)
        for layer in flow.weight_layers
        if layer.weight_gradient_norm is not None and layer.layer not in behind_zeros
    ]
    return statistics.median(norms) / (flow.output_error or 1.0) if norms else None


def list_normalizations(flow: GradientFlow) -> tuple[Place, ...]:
    """Return the spread of what every normalization puts out, before its own scale.

    It is near 1 by construction: where it is not, the values are so small that what keeps the
    division from failing (ε) is larger than their variance. Modules without a scale of their own
    are taken as having scale 1; those with a scale of zero have no such metric.
    """
    scales = {
        parameter.name.removesuffix(".weight"): parameter.norm / math.sqrt(math.prod(size))
        for parameter in flow.parameters
        if parameter.name.endswith(".weight") and 0 not in (size := parameter.shape)
    }
    found = []
    for call in flow.layers:
        if call.role != "normalization" or call.statistics is None or call.output:
            continue
        scale = scales.get(call.name, 1.0)
        if scale > 0.0:
            found.append(Place(call.label, call.layer, _find_size(call) / scale))
    return tuple(found)


def find_tied_head(flow: GradientFlow) -> LayerFlow | None:
    """Return the last call of a module with weights if its layer is not the last by number.

    So it is where an output layer is tied to an embedding, and has the embedding's number.
    """
    for call in reversed(flow.layers):
        if call.role == "weight" and call.statistics is not None:
            is_last = not flow.weight_layers or call.name == flow.weight_layers[-1].name
            return None if is_last or flow.spec is not None else call
    return None


def _find_size(call: LayerFlow) -> float:
    """Return the root mean square of an output."""
    assert call.statistics is not None
    return math.hypot(call.statistics.mean, call.statistics.std)


PLACES: Mapping[str, Callable[[GradientFlow], tuple[Place, ...]]] = MappingProxyType(
    {"starved_normalization": list_normalizations}
)
"""What a rule about single modules reads of the whole network."""

RATIOS: Mapping[str, Callable[[GradientFlow], float | None]] = MappingProxyType(
    {
        "growing_stream": measure_stream_growth,
        "fading_stream": measure_stream_gradient,
        "vanishing_typical": measure_typical_gradient,
    }
)
"""What a rule about residual networks reads of the whole network."""
