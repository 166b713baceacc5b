"""The metrics that rules compare: how each is read from a flow, and written for people."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from chainrule._utils.numbers import format_number
from chainrule.diagnosis.rules import RULES, Rule
from chainrule.diagnosis.structure import (
    PLACES,
    RATIOS,
    find_last_speaking,
    find_tied_head,
    list_chain,
    list_receiving,
)
from chainrule.diagnosis.viability.model import assess_viability
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.quantity import Quantity, divide_members, multiply_members
from chainrule.flow.records import WeightLayer, read_saturation


def measure_metric(flow: GradientFlow, rule: str, *, clipped: bool = False) -> float | None:
    """Return the worst value of the metric that a rule compares, beyond its bound or not.

    Where the rule finds something, it is that finding's value; elsewhere it tells how far the
    network is from it. So one metric can be followed from one network to another.

    Args:
        flow: A measurement by `inspect` or `simulate`.
        rule: Name of a rule of the table of diagnoses.
        clipped: Whether to read gradients as they are after `flow.spec.clip_norm`.

    Returns:
        The metric, or `None` if the network has none (a single layer has no ratio of layers).
    """
    if rule in _COUNTS:
        return _COUNTS[rule](flow)
    if rule in WHOLE:
        return WHOLE[rule](flow)
    if rule in PLACES:
        values = [place.value for place in PLACES[rule](flow)]
        return (max if RULES[rule].beyond == ">" else min)(values) if values else None
    if rule == "same_answer" and (head := find_tied_head(flow)) is not None:
        return head.statistics.variation if head.statistics else None
    factor = flow.clip_factor if clipped and rule in RELATIVE else None
    values = []
    for layer in _list_compared(flow, rule):
        value = read_layer(flow, layer, rule)
        if value is not None and factor is not None:
            value = multiply_members(value, factor)
        if value is not None:
            values.append(value)
    if any(map(math.isnan, values)):
        return math.nan
    pick = max if RULES[rule].beyond == ">" else min
    return float(pick(values)) if values else None


def _list_compared(flow: GradientFlow, rule: str) -> Sequence[WeightLayer]:
    """Return the layers of which a rule takes the worst."""
    if rule == "same_answer":
        last = find_last_speaking(flow)
        return [] if last is None else [last]
    if rule == "vanishing_gradient":
        return list_receiving(flow, list_judged(flow))
    return flow.weight_layers


def read_layer(flow: GradientFlow, layer: WeightLayer, rule: str) -> Quantity | None:
    """Return what a rule compares of one weight layer."""
    value = READERS[rule](layer)
    error = flow.output_error
    if value is None or error is None or rule not in RELATIVE:
        return value
    return divide_members(value, error)


def list_judged(flow: GradientFlow) -> tuple[WeightLayer, ...]:
    """Return the layers that rules about chains compare; all of a network with residual streams."""
    return list_chain(flow) or flow.weight_layers


def measure_backward(flow: GradientFlow) -> float | None:
    """Return ‖δ‖ at the first layer of the chain that does not wait ÷ at its last one."""
    layers = list_receiving(flow, list_judged(flow))
    if len(layers) < 2 or layers[0].delta_norm is None or layers[-1].delta_norm is None:
        return None
    return divide_members(layers[0].delta_norm, layers[-1].delta_norm)


def _measure_fading(flow: GradientFlow) -> float | None:
    last_layer = find_last_speaking(flow)
    layers = [x for x in list_judged(flow) if last_layer and x.layer <= last_layer.layer]
    if len(layers) < 2:
        return None
    first, last = layers[0].std, layers[-1].std
    return None if first is None or last is None or first == 0.0 else last / first


def format_metric(rule: Rule, value: float) -> str:
    """Return a metric of a rule as people read it: shares in percent."""
    in_percent = rule.metric.startswith(("share", "chance"))
    return f"{100 * value:.0f} %" if in_percent else format_number(value)


def is_beyond(value: float, rule: Rule) -> bool:
    """Return whether a metric is on the wrong side of a rule's bound."""
    return value > rule.threshold if rule.beyond == ">" else value < rule.threshold


def count_non_finite(flow: GradientFlow) -> tuple[float, dict[str, float], set[int]]:
    """Return how many numbers are infinite or undefined, where, and in which weight layers.

    Where they may come from stands first: weights, then values forward, then gradients.
    """
    places: dict[str, float] = {}
    layers = set()

    def count(name: str, layer: int | None, number: float) -> None:
        if number > 0:
            places[name] = places.get(name, 0.0) + number
            if layer is not None:
                layers.add(layer)

    for parameter in flow.parameters:
        count(parameter.name, parameter.layer, parameter.non_finite)
    for call in flow.layers:
        count(call.label, call.layer, call.statistics.non_finite if call.statistics else 0.0)
    for call in reversed(flow.layers):
        count(call.label, call.layer, call.gradient.non_finite if call.gradient else 0.0)
    for parameter in flow.parameters:
        count(parameter.name, parameter.layer, parameter.grad_non_finite or 0.0)
    return sum(places.values()) + (not math.isfinite(flow.loss)), places, layers


def list_unreached(flow: GradientFlow) -> list[str]:
    """Return the names of the weights that the loss does not depend on."""
    return [p.name for p in flow.parameters if p.status == "unreached" and p.is_weight]


READERS: Mapping[str, Callable[[WeightLayer], Quantity | None]] = {
    "dead_units": lambda layer: layer.dead_share,
    "exploding_gradient": lambda layer: layer.weight_gradient_norm,
    "vanishing_gradient": lambda layer: layer.weight_gradient_norm,
    "saturated": read_saturation,
    "same_answer": lambda layer: layer.variation,
}
"""What a rule reads of every weight layer."""

WHOLE: Mapping[str, Callable[[GradientFlow], float | None]] = {
    "exploding_backward": measure_backward,
    "vanishing_backward": measure_backward,
    "fading_signal": _measure_fading,
    "unlikely": lambda flow: assess_viability(flow).sgd.probability,
    **RATIOS,
}
"""What a rule reads of the whole network."""

_COUNTS: Mapping[str, Callable[[GradientFlow], float]] = {
    "non_finite": lambda flow: count_non_finite(flow)[0],
    "unreached": lambda flow: float(len(list_unreached(flow))),
    "nothing_to_train": lambda flow: float(
        sum(parameter.status == "measured" for parameter in flow.parameters)
    ),
}
"""What is counted in the whole network."""

RELATIVE = ("exploding_gradient", "vanishing_gradient")
"""Rules that compare a gradient with the error at the output (`GradientFlow.output_error`). They
are those whose metrics clipping scales, too; ratios of layers stay as they are."""


def locate_overflow(flow: GradientFlow) -> str:
    """Return where numbers first stop being finite, in the order in which they are computed.

    First the parameters, then the values from input to output, then the gradients from the loss
    back: what comes later follows from it. Layers of specified networks are numbered, modules of
    one's own are named. An ensemble is judged by its medians.

    Args:
        flow: A measurement by `inspect` or `simulate`.

    Returns:
        A clause for a sentence; empty if all numbers of parameters, values and gradients are
        finite.
    """
    for parameter in flow.parameters:
        if parameter.non_finite > 0:
            return f"the parameter {parameter.name!r} holds some before anything is computed"
    before = ""
    for call in flow.layers:
        place = _name(flow, call.layer, call.label)
        if call.statistics and call.statistics.non_finite > 0:
            if not before:
                return f"values are not finite from {place} on"
            if before == place:
                return f"values stop being finite within {place}"
            return f"values are finite up to {before}, and not from {place} on"
        before = place
    backward = (
        (_name(flow, call.layer, call.label), call.gradient.non_finite if call.gradient else 0.0)
        for call in reversed(flow.layers)
    )
    parameters = (
        (_name(flow, parameter.layer, parameter.name), parameter.grad_non_finite or 0.0)
        for parameter in reversed(flow.parameters)
    )
    start = _find_first(backward) or _find_first(parameters)
    return f"all values are finite, but gradients are not, from {start} backward" if start else ""


def _name(flow: GradientFlow, layer: int | None, name: str) -> str:
    return repr(name) if flow.spec is None or layer is None else f"layer {layer}"


def _find_first(counts: Iterable[tuple[str, float]]) -> str | None:
    return next((place for place, count in counts if count > 0), None)
