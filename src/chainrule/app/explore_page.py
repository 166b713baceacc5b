"""The explore page: choose a network, see the gradient of every layer."""

import math
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, dcc, html, no_update

from chainrule.activations import ACTIVATIONS
from chainrule.diagnoses import MEANINGS, Verdict
from chainrule.diagnosis import Diagnosis, diagnose
from chainrule.errors import SpecError
from chainrule.figures import build_gradient_figure
from chainrule.flow import GradientFlow
from chainrule.initializers import INITIALIZERS
from chainrule.numerals import format_number
from chainrule.presets import PRESETS, get_preset
from chainrule.quantity import Quantity
from chainrule.simulation import simulate
from chainrule.spec import NetworkSpec, repair_query

DEFAULT_PRESET = next(iter(PRESETS))
MIN_DEPTH, MAX_DEPTH = 2, 100
WIDTH_EXPONENTS = range(2, 9)
SEEDS = 16
LIVE_WEIGHTS = 2**23
"""Above this many weights in an ensemble, fewer networks are drawn so that the page stays live."""

_CONTROLS = ("depth", "width", "activation", "init")


@dataclass(frozen=True, slots=True)
class _Look:
    icon: str
    color: str


_LOOKS = {
    Verdict.HEALTHY: _Look("✔", "teal"),
    Verdict.VANISHING: _Look("▼", "orange"),
    Verdict.EXPLODING: _Look("▲", "red"),
    Verdict.SATURATED: _Look("▬", "orange"),
    Verdict.SIGNAL_COLLAPSE: _Look("◆", "orange"),
    Verdict.DEAD_UNITS: _Look("✖", "red"),
    Verdict.NON_FINITE: _Look("∞", "red"),
    Verdict.NO_GRADIENT: _Look("∅", "grape"),
}


def layout() -> Any:
    """Return the page; it holds nothing that depends on a visitor."""
    return dmc.Container(
        dmc.Grid(
            [
                dmc.GridCol(_build_controls(), span={"base": 12, "md": 4, "lg": 3}),
                dmc.GridCol(_build_results(), span={"base": 12, "md": 8, "lg": 9}),
            ],
            gutter="md",
        ),
        size=1400,
        px={"base": 0, "sm": "md"},
    )


def _build_controls() -> Any:
    spec = get_preset(DEFAULT_PRESET).spec
    return dmc.Paper(
        dmc.Stack(
            [
                dmc.Title("Configure", order=2, size="h4"),
                dmc.Select(
                    id="preset",
                    label="Scenario",
                    data=list(PRESETS),
                    value=DEFAULT_PRESET,
                    allowDeselect=False,
                    comboboxProps={"withinPortal": True},
                    placeholder="your own",
                ),
                html.Div(
                    [
                        _build_slider_heading("Depth (weight layers)", "depth-value"),
                        dmc.Slider(
                            id="depth",
                            thumbLabel="depth: number of weight layers",
                            min=MIN_DEPTH,
                            max=MAX_DEPTH,
                            value=spec.depth,
                            updatemode="drag",
                            label=None,
                            marks=[
                                {"value": number, "label": str(number)}
                                for number in (2, 25, 50, 75, 100)
                            ],
                            mb="lg",
                        ),
                    ]
                ),
                html.Div(
                    [
                        _build_slider_heading("Width (units per layer)", "width-value"),
                        dmc.Slider(
                            id="width",
                            thumbLabel="width: units per layer, as a power of two",
                            min=WIDTH_EXPONENTS[0],
                            max=WIDTH_EXPONENTS[-1],
                            step=1,
                            value=spec.width.bit_length() - 1,
                            updatemode="drag",
                            label=None,
                            marks=[
                                {"value": exponent, "label": str(2**exponent)}
                                for exponent in WIDTH_EXPONENTS
                            ],
                            mb="lg",
                        ),
                    ]
                ),
                dmc.Select(
                    id="activation",
                    label="Activation",
                    data=[
                        {"value": entry.name, "label": entry.label}
                        for entry in ACTIVATIONS.values()
                    ],
                    value=spec.activation,
                    allowDeselect=False,
                ),
                dmc.Select(
                    id="init",
                    label="Initialization",
                    data=[
                        {"value": entry.name, "label": entry.label}
                        for entry in INITIALIZERS.values()
                    ],
                    value=spec.init,
                    allowDeselect=False,
                ),
                dmc.Text(id="settings-note", size="sm", c="dimmed"),
                dmc.Anchor(
                    "See its product of factors", id="chain-link", href="/chain-rule", size="sm"
                ),
            ],
            gap="md",
        ),
        withBorder=True,
        p="md",
    )


def _build_slider_heading(label: str, value_id: str) -> Any:
    return dmc.Group(
        [
            dmc.Text(label, size="sm", fw=500),
            dmc.Text(id=value_id, size="sm", fw=700, style={"fontVariantNumeric": "tabular-nums"}),
        ],
        justify="space-between",
    )


def _build_results() -> Any:
    return dmc.Stack(
        [
            dmc.Paper(
                dmc.Text(id="look-at", style={"minHeight": "2.9em"}),
                withBorder=True,
                p="md",
            ),
            dmc.SimpleGrid(id="cards", cols={"base": 2, "lg": 4}, spacing="md"),
            dmc.Paper(
                [
                    dmc.Title("Gradient magnitude per layer", order=2, size="h4"),
                    dmc.Text(id="chart-note", size="sm", c="dimmed", mb="xs"),
                    dcc.Graph(
                        id="gradient-chart",
                        config={"displayModeBar": False, "responsive": True},
                        style={"height": "380px"},
                    ),
                    html.Details(
                        [html.Summary("The numbers as a table"), html.Div(id="gradient-table")]
                    ),
                ],
                withBorder=True,
                p="md",
            ),
            dmc.Paper(
                [
                    dmc.Title("Diagnosis", order=2, size="h4", mb="xs"),
                    html.Div(id="findings"),
                ],
                withBorder=True,
                p="md",
            ),
        ],
        gap="md",
    )


def register_callbacks(app: Dash) -> None:
    """Connect the controls with the measurement."""

    @app.callback(
        *(Output(name, "value") for name in _CONTROLS),
        Input("preset", "value"),
        prevent_initial_call=True,
    )
    def apply_preset(name: str | None) -> Any:
        """Set every control as the preset says."""
        if not name:
            return [no_update] * len(_CONTROLS)
        spec = get_preset(name).spec
        return spec.depth, spec.width.bit_length() - 1, spec.activation, spec.init

    @app.callback(
        Output("cards", "children"),
        Output("gradient-chart", "figure"),
        Output("gradient-table", "children"),
        Output("findings", "children"),
        Output("look-at", "children"),
        Output("chart-note", "children"),
        Output("settings-note", "children"),
        Output("depth-value", "children"),
        Output("width-value", "children"),
        Output("chain-link", "href"),
        *(Input(name, "value") for name in _CONTROLS),
        State("preset", "value"),
    )
    def measure(depth: int, exponent: int, activation: str, init: str, preset: str | None) -> Any:
        """Measure the network that the controls describe and show it."""
        try:
            spec = _read_spec(depth, exponent, activation, init, preset)
            seeds = _choose_seeds(spec)
            flow = simulate(spec, seeds)
        except SpecError as error:
            return [dmc.Alert(str(error), color="red")] + [no_update] * 9
        diagnosis = diagnose(flow)
        return (
            _build_cards(flow, diagnosis),
            build_gradient_figure(flow),
            _build_table(flow),
            _build_findings(diagnosis),
            _describe_scenario(spec, diagnosis, preset),
            f"Median of {seeds} networks and the band of the middle 80 %, measured by autograd.",
            _describe_settings(spec),
            str(spec.depth),
            str(spec.width),
            f"/chain-rule?{_write_link(spec)}",
        )

    @app.callback(
        *(Output(name, "value", allow_duplicate=True) for name in _CONTROLS),
        Output("preset", "value"),
        Input("location", "search"),
        prevent_initial_call="initial_duplicate",
    )
    def read_address(search: str | None) -> Any:
        """Set the controls as the address says, if it names a network."""
        if not search or len(search) < 2:
            return [no_update] * (len(_CONTROLS) + 1)
        spec, _ = repair_query(search)
        preset = next((name for name, entry in PRESETS.items() if entry.spec == spec), None)
        exponent = min(max(round(math.log2(spec.width)), WIDTH_EXPONENTS[0]), WIDTH_EXPONENTS[-1])
        depth = min(max(spec.depth, MIN_DEPTH), MAX_DEPTH)
        return depth, exponent, spec.activation, spec.init, preset or no_update


def _write_link(spec: NetworkSpec) -> str:
    """Return the address of the chain-rule page's view of a network.

    The page's own chain has an activation too, so the network's goes by another name.
    """
    query = dict(parse_qsl(spec.to_query()))
    query.setdefault("depth", str(spec.depth))
    query["network_activation"] = query.pop("activation", spec.activation)
    return urlencode(query)


def _read_spec(
    depth: int, exponent: int, activation: str, init: str, preset: str | None
) -> NetworkSpec:
    """Return the specification on screen: a scenario's other settings stay in force."""
    base = get_preset(preset).spec if preset else NetworkSpec()
    return base.replace(
        depth=depth,
        width=2**exponent if exponent in WIDTH_EXPONENTS else exponent,
        activation=activation,
        init=init,
    )


def _choose_seeds(spec: NetworkSpec) -> int:
    return max(2, min(SEEDS, LIVE_WEIGHTS // (spec.depth * spec.width**2)))


def _build_cards(flow: GradientFlow, diagnosis: Diagnosis) -> list[Any]:
    norms = flow.weight_gradient_norms
    look = _LOOKS[diagnosis.verdict]
    ratio = flow.gradient_ratio
    reading = "" if ratio is None else _read_ratio(ratio)
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
                **({"c": f"var(--mantine-color-{color}-text)"} if color else {}),
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
    mantissa, mark, exponent = format_number(value).partition("e")
    if not mark:
        return mantissa
    return [f"{mantissa} × 10", html.Sup(str(int(exponent)), style={"lineHeight": 0})]


def _read_ratio(ratio: float) -> str:
    if math.isnan(ratio):
        return "both ends are zero"
    share = f"{ratio:.0%}".replace("%", " %") if 0.01 <= ratio < 10 else None
    if share:
        return f"layer 1 receives {share} of what the last layer does"
    return "layer 1 receives next to nothing" if ratio < 0.01 else "layer 1 receives far more"


def _describe_scenario(spec: NetworkSpec, diagnosis: Diagnosis, preset: str | None) -> Any:
    scenario = PRESETS.get(preset or "")
    if scenario is not None and scenario.spec == spec:
        return scenario.look_at
    return diagnosis.summary


def _describe_settings(spec: NetworkSpec) -> str:
    parts = []
    if spec.residual != "none":
        parts.append(f"{spec.residual} residual connections")
    if spec.normalization != "none":
        parts.append(spec.normalization)
    return f"With {' and '.join(parts)}, from the scenario." if parts else ""


def _build_table(flow: GradientFlow) -> Any:
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


def _build_findings(diagnosis: Diagnosis) -> Any:
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
