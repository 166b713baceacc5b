"""Infinite and undefined numbers in a measurement: how many, where, and where they begin."""

import math
from collections.abc import Iterable

from chainrule.flow.gradient_flow import GradientFlow


def count_non_finite(flow: GradientFlow) -> tuple[float, dict[str, float], set[int]]:
    """Return how many numbers are infinite or undefined, where, and in which weight layers.

    Where they may come from is first: weights, then values forward, then gradients.
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


def locate_overflow(flow: GradientFlow) -> str:
    """Return where numbers first stop being finite, in the order in which they are computed.

    First the parameters, then the values from input to output, then the gradients from the loss
    back: what comes later follows from it. Layers of specified networks are numbered, modules of
    your model are named. An ensemble is judged by its medians.

    Args:
        flow: A measurement by `inspect` or `simulate`.

    Returns:
        A clause for a sentence; empty if all numbers of parameters, values and gradients are
        finite.
    """
    for parameter in flow.parameters:
        if parameter.non_finite > 0:
            return f"the parameter {parameter.name!r} holds some before the forward pass starts"
    before = ""
    for call in flow.layers:
        place = _name(flow, call.layer, call.label)
        if call.statistics and call.statistics.non_finite > 0:
            if not before:
                return f"values are not finite from {place} on"
            if before == place:
                return f"values stop being finite within {place}"
            return f"values are finite up to {before}, but not from {place} on"
        before = place
    with_gradient = [(call, call.gradient) for call in reversed(flow.layers) if call.gradient]
    if with_gradient and with_gradient[0][1].non_finite > 0:
        last = with_gradient[0][0]
        after = f"already at the output of {_name(flow, last.layer, last.label)}"
        begin = "in the loss" if flow.chain else "in the loss, or in what the model does before it"
        return f"all values are finite, but on the way back gradients are not: {after}, so {begin}"
    backward = (
        (_name(flow, call.layer, call.label), gradient.non_finite)
        for call, gradient in with_gradient
    )
    parameters = (
        (_name(flow, parameter.layer, parameter.name), parameter.grad_non_finite or 0.0)
        for parameter in reversed(flow.parameters)
    )
    start = _find_first(backward) or _find_first(parameters)
    return (
        f"all values are finite, but on the way back gradients are not finite from {start} on"
        if start
        else ""
    )


def _name(flow: GradientFlow, layer: int | None, name: str) -> str:
    return repr(name) if flow.spec is None or layer is None else f"layer {layer}"


def _find_first(counts: Iterable[tuple[str, float]]) -> str | None:
    return next((place for place, count in counts if count > 0), None)
