"""A measurement in the words and cards of the explore page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dash_mantine_components as dmc
from dash import html

from chainrule.diagnoses import MEANINGS, Verdict
from chainrule.diagnosis import Diagnosis
from chainrule.flow import GradientFlow
from chainrule.numerals import format_number
from chainrule.presets import Preset
from chainrule.quantity import Quantity
from chainrule.spec import NetworkSpec

BAND_SEEDS = 5
"""From so many networks on, a band of percentiles means something."""


@dataclass(frozen=True, slots=True)
class _Look:
    icon: str
    color: str


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


def build_cards(flow: GradientFlow, diagnosis: Diagnosis) -> list[Any]:
    """Return the four status cards."""
    norms = flow.weight_gradient_norms
    look = _LOOKS[diagnosis.verdict]
    ratio = flow.gradient_ratio
    reading = "" if ratio is None else _read_ratio(ratio, norms)
    return [
        _build_card("Gradient at layer 1", _figure(norms[0]), "‖∂𝓛/∂W₁‖"),
        _build_card(f"Gradient at layer {len(norms)}", _figure(norms[-1]), "the last layer"),
        _build_card("Gradient ratio", _figure(ratio), reading),
        _build_card(
            "Diagnosis",
            dmc.Group(
                [
                    html.Span(look.icon, **{"aria-hidden": "true"}),
                    html.Span(str(diagnosis.verdict).capitalize()),
                ],
                gap=8,
                wrap="nowrap",
            ),
            MEANINGS[diagnosis.verdict],
            color=look.color,
        ),
    ]


def _build_card(title: str, value: Any, note: str, color: str | None = None) -> Any:
    return dmc.Paper(
        [
            dmc.Text(title, size="sm", c="dimmed"),
            dmc.Text(
                value,
                fz={"base": 20, "sm": 24},
                fw=700,
                lh=1.3,
                style={"fontVariantNumeric": "tabular-nums"},
                className=f"verdict-{color}" if color else "",
            ),
            dmc.Text(note, size="sm", c="dimmed", style={"minHeight": "1.5em"}),
        ],
        withBorder=True,
        p="md",
        className="card",
    )


def _figure(value: Quantity | None) -> Any:
    """Return a number as people write it, with a raised exponent."""
    if value is None:
        return "none"
    if not math.isfinite(value):
        return "undefined" if math.isnan(value) else "infinite"
    mantissa, mark, exponent = format_number(value).partition("e")
    if not mark:
        return mantissa
    return [
        f"{mantissa} × 10",
        html.Sup(str(int(exponent)).replace("-", "−"), className="exponent"),
    ]


def _read_ratio(ratio: float, norms: Sequence[Quantity | None]) -> str:
    if math.isnan(ratio):
        zero = norms[0] == 0.0 and norms[-1] == 0.0
        return "both ends are zero" if zero else "undefined: an end is not a number"
    if ratio < 0.01:
        return "layer 1 receives next to nothing"
    if ratio > 10:
        return "layer 1 receives far more than the last layer"
    return f"layer 1 receives {ratio:.0%} of what the last layer does".replace("%", " %")


def describe_scenario(spec: NetworkSpec, diagnosis: Diagnosis, scenario: Preset | None) -> Any:
    """Return what to look at in a scenario, or what a configuration of one's own comes to."""
    if scenario is not None and scenario.spec == spec:
        return scenario.look_at
    meaning = MEANINGS[diagnosis.verdict]
    return f"Your own configuration: {meaning}."


def describe_ensemble(seeds: int) -> str:
    """Return how many networks were measured, in words."""
    if seeds >= BAND_SEEDS:
        return f"Median of {seeds} networks and the band of the middle 80 %, measured by autograd."
    return (
        f"Median of {seeds} networks (more would take too long to be live), measured by autograd."
    )


def describe_settings(spec: NetworkSpec) -> str:
    """Return the settings in force that have no control, in words."""
    parts = []
    if spec.residual != "none":
        parts.append(f"{spec.residual} residual connections")
    if spec.normalization != "none":
        parts.append(spec.normalization)
    return f"With {' and '.join(parts)}, from the scenario." if parts else ""


def build_table(flow: GradientFlow) -> Any:
    """Return the numbers of the main chart as a table."""
    return dmc.Table(
        data={
            "head": ["layer", "‖∂𝓛/∂W‖", "10–90 %", "‖δ‖", "std of h", "dead"],
            "body": [
                [
                    layer.layer,
                    _text(layer.weight_gradient_norm),
                    _band(layer.weight_gradient_norm),
                    _text(layer.delta_norm),
                    _text(layer.std),
                    _share(layer.dead_share),
                ]
                for layer in flow.weight_layers
            ],
        },
        striped=True,
        withTableBorder=True,
        mt="xs",
    )


def _text(value: Quantity | None) -> str:
    return "none" if value is None else format_number(value)


def _band(value: Quantity | None) -> str:
    return "" if value is None else f"{format_number(value.low)} – {format_number(value.high)}"


def _share(value: Quantity | None) -> str:
    return "" if value is None else f"{value:.0%}".replace("%", " %")


def build_findings(diagnosis: Diagnosis) -> Any:
    """Return what is wrong, with its evidence and what to do next."""
    if not diagnosis.findings:
        return dmc.Text(f"{diagnosis.summary} {diagnosis.action}")
    return dmc.Stack(
        [
            *(
                html.Div(
                    [
                        dmc.Text(f"{finding.evidence[0].upper()}{finding.evidence[1:]}.", fw=600),
                        dmc.Text([finding.reason, f" ({finding.source})"], size="sm", c="dimmed"),
                    ]
                )
                for finding in diagnosis.findings
            ),
            dmc.Text([html.B("Next: "), diagnosis.action]),
        ],
        gap="sm",
    )
