"""What the explore page consists of: its controls, and the places for what is measured."""

from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html

from chainrule.activations import ACTIVATIONS
from chainrule.figures import build_blank_figure
from chainrule.initializers import INITIALIZERS
from chainrule.presets import PRESETS, get_preset

DEFAULT_PRESET = next(iter(PRESETS))
MIN_DEPTH, MAX_DEPTH = 2, 100
WIDTH_EXPONENTS = range(2, 9)


def build_controls() -> Any:
    """Return the panel of controls, set to the default scenario."""
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
                dcc.Store(id="scenario", data=DEFAULT_PRESET),
                dcc.Store(id="wanted"),
                dcc.Store(id="asked"),
                dcc.Store(id="answered"),
                dmc.Anchor(
                    "See its product of factors", id="chain-link", href="/chain-rule", size="sm"
                ),
            ],
            gap="md",
        ),
        withBorder=True,
        p="md",
        className="configure",
    )


def _build_slider_heading(label: str, value_id: str) -> Any:
    return dmc.Group(
        [
            dmc.Text(label, size="sm", fw=500),
            dmc.Text(id=value_id, size="sm", fw=700, style={"fontVariantNumeric": "tabular-nums"}),
        ],
        justify="space-between",
    )


def build_results() -> Any:
    """Return the places for cards, charts, table and findings."""
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
                        figure=build_blank_figure(),
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
            dmc.SimpleGrid(
                [
                    _build_chart(
                        "Activation distribution per layer",
                        "The darker, the more activations of the layer lie there.",
                        "activation-chart",
                    ),
                    _build_chart(
                        "The product, factor by factor",
                        "What each layer multiplies the gradient by on its way back.",
                        "factor-chart",
                    ),
                ],
                cols={"base": 1, "xl": 2},
                spacing="md",
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


def _build_chart(title: str, note: str, chart_id: str) -> Any:
    return dmc.Paper(
        [
            dmc.Title(title, order=2, size="h4"),
            dmc.Text(note, size="sm", c="dimmed", mb="xs"),
            dcc.Graph(
                id=chart_id,
                figure=build_blank_figure(),
                config={"displayModeBar": False, "responsive": True},
                style={"height": "320px"},
            ),
        ],
        withBorder=True,
        p="md",
    )
