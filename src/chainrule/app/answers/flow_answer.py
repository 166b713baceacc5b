"""A measurement in the words, cards and figures of a page, as JSON can hold it."""

import math
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from chainrule._utils.numbers import format_number, format_share, format_times, to_subscript
from chainrule.diagnosis.attribution import explain_attributions, rank_attributions
from chainrule.diagnosis.diagnosis import Diagnosis, Finding, diagnose
from chainrule.diagnosis.limits import read_usable_range
from chainrule.diagnosis.rules import RULES
from chainrule.display.cards import (
    Card,
    build_cards,
    build_forecasts,
    describe_subject,
    explain_difference,
    start_sentence,
)
from chainrule.display.sentences import explain, explain_band, explain_limits
from chainrule.display.tables import BLAME_HEAD, list_layer_head, write_blame_row, write_layer_row
from chainrule.figures import (
    build_activation_figure,
    build_factor_figure,
    build_gradient_figure,
    build_layer_figure,
)
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.quantity import Quantity, divide_members
from chainrule.flow.records import WeightLayer, read_saturation
from chainrule.spec.activations import ACTIVATIONS
from chainrule.spec.initializers import INITIALIZERS
from chainrule.spec.network_spec import NetworkSpec

Answer = dict[str, Any]


def describe_flow(
    flow: GradientFlow,
    *,
    measure: str = "weight",
    scale: str = "log",
    layer: int = 1,
    other: GradientFlow | None = None,
) -> Answer:
    """Return everything a page shows of a measurement.

    Args:
        flow: What was measured; its weight layers may be none.
        measure: What the main chart shows; a name of `MEASURES`.
        scale: "log" or "linear".
        layer: The layer shown in full.
        other: A second measurement to compare with.
    """
    diagnosis = diagnose(flow)
    layers = flow.weight_layers
    layer = min(max(layer, 1), max(len(layers), 1))
    quick = _describe_at_once(flow, diagnosis, measure, scale, other)
    if layers:
        quick["figures"] |= {
            "activation": build_activation_figure(flow, other=other),
            "factor": build_factor_figure(flow, other=other),
            "layer": build_layer_figure(flow, layer, other=other),
        }
    return {
        **quick,
        "layer": describe_layer(layers[layer - 1]) if layers else "",
        "layers": [describe_gradient(entry) for entry in layers],
        "table": {
            "head": list_layer_head(flow),
            "rows": [write_layer_row(flow, entry) for entry in layers],
        },
        "findings": [
            {
                "evidence": f"{finding.evidence[0].upper()}{finding.evidence[1:]}.",
                "reason": finding.consequence,
                "source": finding.source,
                "layers": list(finding.layers),
                "compares": _compares(finding),
            }
            for finding in diagnosis.findings
        ],
        "blame": describe_blame(flow, diagnosis),
        "notes": [
            {
                "evidence": start_sentence(note.evidence),
                "meaning": note.meaning,
                "source": note.source,
            }
            for note in diagnosis.notes
        ],
        "forecasts": [
            {
                "icon": forecast.look.icon,
                "state": forecast.look.state,
                "title": forecast.title,
                "note": start_sentence(forecast.note),
                "reasons": list(forecast.reasons),
            }
            for forecast in build_forecasts(diagnosis)
        ],
        "difference": explain_difference(diagnosis),
        "summary": diagnosis.summary,
        "action": diagnosis.action,
    }


def describe_quickly(
    flow: GradientFlow,
    *,
    measure: str = "weight",
    scale: str = "log",
    other: GradientFlow | None = None,
) -> Answer:
    """Return what a page shows at once: the verdict, the main chart and the strip of layers.

    Args:
        flow: What was measured; its weight layers may be none.
        measure: What the main chart shows; a name of `MEASURES`.
        scale: "log" or "linear".
        other: A second measurement to compare with.
    """
    return _describe_at_once(flow, diagnose(flow), measure, scale, other)


def _describe_at_once(
    flow: GradientFlow,
    diagnosis: Diagnosis,
    measure: str,
    scale: str,
    other: GradientFlow | None,
) -> Answer:
    layers = flow.weight_layers
    figures: Answer | None = None
    if layers:
        usable = read_usable_range(flow, diagnosis.verdict)
        figures = {
            "gradient": build_gradient_figure(
                flow, measure=measure, scale=scale, other=other, usable=usable
            )
        }
    said = explain(flow, diagnosis)
    return {
        "verdict": str(diagnosis.verdict),
        "said": {"what": said.what, "why": said.why, "do": said.do},
        "limits": explain_limits(flow) if layers else "",
        "band": explain_band(flow) if layers and measure == "weight" else "",
        "cards": [describe_card(card) for card in build_cards(flow, diagnosis)],
        "figures": figures,
        "journey": describe_journey(flow),
        "bridge": describe_bridge(flow),
        "findings": [{"compares": _compares(finding)} for finding in diagnosis.findings],
        "clip": describe_clipping(flow),
        "comparison": compare(flow, other) if other else None,
    }


def _compares(finding: Finding) -> bool:
    """Return whether a finding compares gradients with the limits."""
    return finding.rule in RULES and RULES[finding.rule].of_gradients


def describe_journey(flow: GradientFlow) -> list[Answer]:
    """Return what the backpropagated gradient ‖δ‖ is at each layer, layer 1 first.

    Of each layer: the factor that the step to it from the next layer multiplies ‖δ‖ by, what is
    left of the last layer's ‖δ‖, and that as a power of ten (`None` where it has none).
    """
    norms = flow.delta_norms
    last = norms[-1] if norms else None
    steps = []
    for norm, after in zip_longest(norms, norms[1:]):
        left = divide_members(norm, last) if norm is not None and last is not None else None
        factor = divide_members(norm, after) if norm is not None and after is not None else None
        placed = left is not None and 0 < left < math.inf
        steps.append(
            {
                "factor": None if factor is None or math.isnan(factor) else _write_factor(factor),
                "left": format_number(left),
                "power": math.log10(left) if placed and left is not None else None,
            }
        )
    return steps


def _write_factor(factor: float) -> str:
    """Return a factor of a row of factors, which all have two digits after the point."""
    if 0.1 <= factor < 10:
        return f"{factor:.2f}"
    return format_number(float(f"{factor:.2g}"))


def describe_bridge(flow: GradientFlow) -> str:
    """Return how the gradient of weights comes from what travels back, at both ends.

    ∂𝓛/∂W_l is δ_l · h_{l−1}ᵀ, added up over the batch. What came forward is measured as
    ‖∂𝓛/∂W_l‖ ÷ ‖δ_l‖: for one example that is ‖h_{l−1}‖. "" where there is none.
    """
    layers = flow.weight_layers
    ends = [layers[0], layers[-1]] if len(layers) > 1 else list(layers)
    parts = []
    for layer in ends if flow.spec is not None else ():
        weight, delta = layer.weight_gradient_norm, layer.delta_norm
        if weight is None or delta is None or not (0 < weight < math.inf and 0 < delta < math.inf):
            return ""
        parts.append(
            f"layer {layer.layer}: {format_number(delta)} × {format_number(weight / delta)} ≈ "
            f"{format_number(weight)}"
        )
    if not parts:
        return ""
    return f"Measured, ‖δ‖ × what came forward ≈ ‖∂𝓛/∂W‖: {'; '.join(parts)}."


def describe_blame(flow: GradientFlow, diagnosis: Diagnosis) -> Answer:
    """Return the modules most to blame, and what their factors are."""
    blames = rank_attributions(flow, diagnosis)
    return {
        "head": BLAME_HEAD,
        "rows": [write_blame_row(flow, blame) for blame in blames],
        "words": explain_attributions(diagnosis, blames),
    }


def describe_card(card: Card) -> Answer:
    """Return a status card as JSON can hold it."""
    look, words = card.badge or (None, "")
    return {
        "title": card.title,
        "value": {"digits": card.digits, "exponent": card.exponent},
        "icon": card.icon,
        "state": card.state,
        "word": card.word,
        "note": card.note,
        "badge": {"icon": look.icon, "state": look.state, "text": words} if look else None,
    }


def _is_known(share: float | None) -> bool:
    return share is not None and math.isfinite(share)


def describe_gradient(layer: WeightLayer) -> str:
    """Return a layer's figures in one sentence."""
    parts = [
        f"weight gradient {format_number(layer.weight_gradient_norm)}",
        f"‖δ‖ {format_number(layer.delta_norm)}",
    ]
    if _is_known(saturation := read_saturation(layer)):
        parts.append(f"{format_share(saturation)} saturated")
    if _is_known(layer.dead_share) and layer.dead_share:
        parts.append(f"{format_share(layer.dead_share)} dead")
    return f"Layer {layer.layer}: {', '.join(parts)}"


def describe_layer(layer: WeightLayer) -> str:
    """Return what one layer's activations look like, in one sentence."""
    output = layer.output
    if output is None:
        return f"Layer {layer.layer} was not called."
    parts = [
        f"mean {format_number(output.mean)}",
        f"standard deviation {format_number(output.std)}",
        f"from {format_number(output.min)} to {format_number(output.max)}",
    ]
    if _is_known(saturation := read_saturation(layer)):
        parts.append(f"{format_share(saturation)} saturated")
    if _is_known(layer.dead_share):
        parts.append(f"{format_share(layer.dead_share)} of its units dead")
    symbol = (
        f"h{to_subscript(layer.layer)}" if layer.activation else f"z{to_subscript(layer.layer)}"
    )
    return f"{symbol}: {', '.join(parts)}."


def describe_clipping(flow: GradientFlow) -> str:
    """Return what clipping does to the gradients, or nothing where it is off."""
    norm, factor = flow.gradient_norm, flow.clip_factor
    if norm is None or factor is None:
        return ""
    clipped = Quantity(n * f for n, f in zip(norm.values, factor.values, strict=True))
    active = sum(value < 1 for value in factor.values)
    if not active:
        return f"Clipping does nothing: all gradients together measure {format_number(norm)}."
    return (
        f"Clipping: all gradients together measure {format_number(norm)} before and "
        f"{format_number(clipped)} after; every one is multiplied by {format_number(factor)} "
        f"(in {active} of {len(factor.values)} networks). Their ratios stay as they are."
    )


def compare(flow: GradientFlow, other: GradientFlow) -> Answer:
    """Return in words how two measurements differ: settings and results.

    Args:
        flow: What is on screen.
        other: What is pinned.
    """
    return {
        "pinned": describe_subject(other),
        "settings": list(_compare_settings(other.spec, flow.spec)),
        "results": list(_compare_results(other, flow)),
    }


def _compare_settings(before: NetworkSpec | None, after: NetworkSpec | None) -> Iterator[str]:
    if before is None or after is None:
        return
    old, new = before.model_dump(), after.model_dump()
    for name, value in new.items():
        if value != old[name]:
            label = name.replace("_", " ")
            yield f"{label}: {_name_value(name, old[name])} → {_name_value(name, value)}"


def _name_value(name: str, value: Any) -> str:
    if name == "activation":
        return ACTIVATIONS[value].label
    if name == "init":
        return INITIALIZERS[value].label
    return "not set" if value is None else str(value)


def _compare_results(before: GradientFlow, after: GradientFlow) -> Iterator[str]:
    pairs = (
        ("weight gradient at layer 1", _first(before), _first(after)),
        ("weight gradient at the last layer", _last(before), _last(after)),
        ("gradient ratio", before.gradient_ratio, after.gradient_ratio),
    )
    for name, old, new in pairs:
        yield f"{name}: {format_number(old)} → {format_number(new)}{_tell_factor(old, new)}"
    yield f"diagnosis: {diagnose(before).verdict} → {diagnose(after).verdict}"


def _first(flow: GradientFlow) -> Quantity | None:
    return flow.weight_gradient_norms[0] if flow.weight_gradient_norms else None


def _last(flow: GradientFlow) -> Quantity | None:
    return flow.weight_gradient_norms[-1] if flow.weight_gradient_norms else None


def _tell_factor(old: float | None, new: float | None) -> str:
    if old is None or new is None or not (0 < old < math.inf and 0 < new < math.inf):
        return ""
    factor = new / old
    if 1 / 1.05 < factor < 1.05:
        return ", about the same"
    if factor > 1:
        return f", {format_times(factor)} larger"
    return f", {format_number(1 / factor)} times smaller"
