"""A measurement in the words, cards and figures of a page, as JSON can hold it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from chainrule.activations import ACTIVATIONS
from chainrule.diagnoses import MEANINGS, RULES, Verdict, Viability
from chainrule.diagnosis import Diagnosis, assess_viability, diagnose
from chainrule.figures import (
    build_activation_figure,
    build_factor_figure,
    build_gradient_figure,
    build_layer_figure,
)
from chainrule.flow import GradientFlow
from chainrule.initializers import INITIALIZERS
from chainrule.measurement import WeightLayer
from chainrule.numerals import format_number, split_number, to_subscript
from chainrule.quantity import Quantity
from chainrule.spec import NetworkSpec

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Look:
    icon: str
    state: str


_LOOKS = {
    Verdict.HEALTHY: _Look("✔", "good"),
    Verdict.VANISHING: _Look("▼", "warn"),
    Verdict.EXPLODING: _Look("▲", "bad"),
    Verdict.SATURATED: _Look("▬", "warn"),
    Verdict.SIGNAL_COLLAPSE: _Look("◆", "warn"),
    Verdict.DEAD_UNITS: _Look("✖", "bad"),
    Verdict.NON_FINITE: _Look("∞", "bad"),
    Verdict.NO_GRADIENT: _Look("∅", "bad"),
}

_VIABILITY_LOOKS = {
    Viability.VIABLE: _Look("●", "good"),
    Viability.AT_RISK: _Look("◐", "warn"),
    Viability.NOT_VIABLE: _Look("○", "bad"),
}


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
    figures: Answer | None = None
    if layers:
        figures = {
            "gradient": build_gradient_figure(flow, measure=measure, scale=scale, other=other),
            "activation": build_activation_figure(flow, other=other),
            "factor": build_factor_figure(flow, other=other),
            "layer": build_layer_figure(flow, layer),
        }
    return {
        "verdict": str(diagnosis.verdict),
        "cards": build_cards(flow, diagnosis),
        "figures": figures,
        "layer": describe_layer(layers[layer - 1]) if layers else "",
        "layers": [describe_gradient(entry) for entry in layers],
        "table": build_table(flow),
        "findings": [
            {
                "evidence": f"{finding.evidence[0].upper()}{finding.evidence[1:]}.",
                "reason": finding.reason,
                "source": finding.source,
                "layers": list(finding.layers),
            }
            for finding in diagnosis.findings
        ],
        "summary": diagnosis.summary,
        "action": diagnosis.action,
        "clip": describe_clipping(flow),
        "comparison": compare(flow, other) if other else None,
    }


def build_cards(flow: GradientFlow, diagnosis: Diagnosis) -> list[Answer]:
    """Return the four status cards."""
    norms = flow.weight_gradient_norms
    first, last = (norms[0], norms[-1]) if norms else (None, None)
    look, viability = _LOOKS[diagnosis.verdict], assess_viability(flow)
    viable = _VIABILITY_LOOKS[viability]
    return [
        {"title": "Gradient at layer 1", **_judge_norm(first)},
        {"title": f"Gradient at layer {len(norms)}, the last", **_judge_norm(last)},
        {"title": "Gradient ratio, first ÷ last", **_judge_ratio(flow.gradient_ratio, norms)},
        {
            "title": "Diagnosis",
            "value": {"digits": str(diagnosis.verdict).capitalize(), "exponent": None},
            "icon": look.icon,
            "state": look.state,
            "word": "",
            "note": f"{MEANINGS[diagnosis.verdict]}".capitalize() + ".",
            "badge": {
                "icon": viable.icon,
                "state": viable.state,
                "text": f"training {viability}",
            },
        },
    ]


def _judge_norm(norm: Quantity | None) -> Answer:
    small, large = RULES["vanishing_gradient"].threshold, RULES["exploding_gradient"].threshold
    card = {"value": write_number(norm), "note": "‖∂𝓛/∂W‖"}
    if norm is None:
        return {**card, "icon": "∅", "state": "bad", "word": "none reaches it"}
    if not math.isfinite(norm):
        return {**card, "icon": "∞", "state": "bad", "word": "not a finite number"}
    if norm < small:
        word = "exactly zero" if norm == 0.0 else f"too small (below {format_number(small)})"
        return {**card, "icon": "▼", "state": "warn", "word": word}
    if norm > large:
        word = f"too large (above {format_number(large)})"
        return {**card, "icon": "▲", "state": "bad", "word": word}
    return {**card, "icon": "✔", "state": "good", "word": "usable"}


def _judge_ratio(ratio: Quantity | None, norms: Sequence[Quantity | None]) -> Answer:
    card = {"value": write_number(ratio), "note": _read_ratio(ratio, norms)}
    if ratio is None or math.isnan(ratio):
        return {**card, "icon": "∅", "state": "bad", "word": "undefined"}
    if 0.01 <= ratio <= 100:
        return {**card, "icon": "✔", "state": "good", "word": "alike at both ends"}
    if ratio < 0.01:
        return {**card, "icon": "▼", "state": "warn", "word": "shrinks on the way back"}
    return {**card, "icon": "▲", "state": "bad", "word": "grows on the way back"}


def _read_ratio(ratio: float | None, norms: Sequence[Quantity | None]) -> str:
    if ratio is None:
        return "an end receives no gradient"
    if math.isnan(ratio):
        zero = bool(norms) and norms[0] == 0.0 and norms[-1] == 0.0
        return "both ends are zero" if zero else "an end is not a number"
    if ratio < 0.01:
        return "layer 1 receives next to nothing of what the last layer does"
    if ratio > 10:
        return "layer 1 receives far more than the last layer"
    if ratio >= 1.995:
        return f"layer 1 receives {format_number(ratio)} times what the last layer does"
    return f"layer 1 receives {100 * ratio:.0f} % of what the last layer does"


def write_number(value: float | None) -> Answer:
    """Return a number as a page writes it: digits, and a power of ten where it needs one."""
    if value is None:
        return {"digits": "none", "exponent": None}
    if not math.isfinite(value):
        return {"digits": "undefined" if math.isnan(value) else "infinite", "exponent": None}
    digits, exponent = split_number(value)
    return {"digits": digits, "exponent": exponent}


def describe_gradient(layer: WeightLayer) -> str:
    """Return a layer's figures in one sentence."""
    parts = [
        f"gradient {_text(layer.weight_gradient_norm)}",
        f"‖δ‖ {_text(layer.delta_norm)}",
    ]
    if layer.saturation is not None:
        parts.append(f"{_share(layer.saturation)} saturated")
    if layer.dead_share:
        parts.append(f"{_share(layer.dead_share)} dead")
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
    if layer.saturation is not None:
        parts.append(f"{_share(layer.saturation)} saturated")
    if layer.dead_share is not None:
        parts.append(f"{_share(layer.dead_share)} of its units dead")
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


def build_table(flow: GradientFlow) -> Answer:
    """Return the numbers of the charts as a table."""
    return {
        "head": [
            "layer",
            "‖∂𝓛/∂W‖",
            "10–90 %",
            "‖δ‖",
            "gradient ÷ weight",
            "std of h",
            "saturated",
            "dead",
        ],
        "rows": [
            [
                str(layer.layer),
                _text(layer.weight_gradient_norm),
                _band(layer.weight_gradient_norm),
                _text(layer.delta_norm),
                _text(layer.grad_to_weight),
                _text(layer.std),
                _share(layer.saturation),
                _share(layer.dead_share),
            ]
            for layer in flow.weight_layers
        ],
    }


def _text(value: Quantity | None) -> str:
    return "none" if value is None else format_number(value)


def _band(value: Quantity | None) -> str:
    if value is None or len(value.values) == 1:
        return ""
    return f"{format_number(value.low)} – {format_number(value.high)}"


def _share(value: Quantity | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def compare(flow: GradientFlow, other: GradientFlow) -> Answer:
    """Return in words how two measurements differ: settings and results.

    Args:
        flow: What is on screen.
        other: What is pinned.
    """
    return {
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
        ("gradient at layer 1", _first(before), _first(after)),
        ("gradient at the last layer", _last(before), _last(after)),
        ("gradient ratio", before.gradient_ratio, after.gradient_ratio),
    )
    for name, old, new in pairs:
        yield f"{name}: {_text(old)} → {_text(new)}{_tell_factor(old, new)}"
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
        return f", {format_number(factor)} times larger"
    return f", {format_number(1 / factor)} times smaller"
