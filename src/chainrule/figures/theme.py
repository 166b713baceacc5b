"""The look of every figure, in one place.

Cold, good and hot have the hues of the pages (base.css), between their light and dark shades, to
read on both; the rest is from the Okabe-Ito palette. Shapes and words say what colours say.
Text and lines are greys that read on light and dark pages alike; the page's own background shows.
"""

import math
from collections.abc import Sequence
from typing import Any

INSTALL_PLOTLY = "pip install plotly"
"""What to run where Plotly is missing: figures are plain dictionaries, and only it shows them."""

ORANGE = "#E69F00"
PURPLE = "#CC79A7"
GREY = "#868E96"
GREEN = "#0F9370"
VERMILION = "#D8501F"
BLUE = "#3F78D0"
BAND = "rgba(134, 142, 150, 0.30)"
LINE = "#3A9BDC"
TEXT = "#868E96"
GRID = "rgba(134, 142, 150, 0.22)"
ZONES = {
    "small": "rgba(63, 120, 208, 0.08)",
    "usable": "rgba(15, 147, 112, 0.15)",
    "large": "rgba(216, 80, 31, 0.08)",
}
"""What lies behind gradients that are too small, usable and too large."""
GAPS = {
    "small": "rgba(63, 120, 208, 0.36)",
    "large": "rgba(216, 80, 31, 0.36)",
    "zero": "rgba(134, 142, 150, 0.26)",
}
"""What fills the way from a gradient to where layers learn; grey where there is no gradient."""
STATES = {
    "small": (BLUE, "triangle-down"),
    "usable": (GREEN, "circle"),
    "large": (VERMILION, "triangle-up"),
}
"""Colour and symbol of a gradient: who does not tell the colours apart sees the shape."""
SEQUENTIAL = [
    [0.0, "rgba(58, 155, 220, 0.0)"],
    [0.35, "rgba(58, 155, 220, 0.55)"],
    [1.0, "#0B4F8A"],
]
REFERENCE = "rgba(134, 142, 150, 0.9)"
PINNED = {"color": ORANGE, "width": 2, "dash": "dash"}
"""The line of the pinned network; nothing else is orange, nothing else is dashed so."""
THEORY = {"color": PURPLE, "width": 6, "dash": "12px,6px"}
"""The line of what theory says: wide, so that it is seen behind what was measured."""
THEORY_BAND = "rgba(204, 121, 167, 0.25)"
HOVER, HOVER_TEXT = "#262c33", "#f1f3f5"  # a dark label reads on light and dark pages
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"


def build_layout(**changes: Any) -> dict[str, Any]:
    """Return the layout shared by all figures, with some entries added or replaced."""
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 13, "color": TEXT},
        "margin": {"l": 64, "r": 16, "t": 12, "b": 48},
        "showlegend": False,
        "hovermode": "x",
        "dragmode": False,
        "hoverlabel": {
            "bgcolor": HOVER,
            "bordercolor": HOVER,
            "font": {"family": FONT, "size": 13, "color": HOVER_TEXT},
        },
        **changes,
    }


def build_axis(**changes: Any) -> dict[str, Any]:
    """Return the axis shared by all figures, with some entries added or replaced."""
    return {
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": GRID,
        "ticks": "",
        "fixedrange": True,
        "automargin": True,
        **changes,
    }


def build_log_axis(title: str, values: Sequence[float]) -> dict[str, Any]:
    """Return a logarithmic axis of whole decades, at least two, that holds some positive values."""
    logs = [math.log10(value) for value in values]
    bottom, top = -2, 2
    if logs:
        bottom, top = math.floor(min(logs) - 0.1), math.ceil(max(logs) + 0.1)
        bottom -= top - bottom < 2
    return build_axis(
        title={"text": title},
        type="log",
        range=[bottom, top],
        dtick=max(1, math.ceil((top - bottom) / 8)),
        exponentformat="power",
        tickfont={"size": 12},
    )


def build_layer_axis(count: int, *, title: str) -> dict[str, Any]:
    """Return the axis of layers 1 … count, which every figure of layers shares."""
    return build_axis(
        title={"text": title},
        range=[0.5, count + 0.5],
        tickmode="array",
        tickvals=(ticks := list_layer_ticks(count)),
        ticktext=list(map(str, ticks)),
        tickangle=0,
        showgrid=False,
    )


def list_layer_ticks(count: int, most: int = 12) -> list[int]:
    """Return the layers that an axis names: the first, the last, and round numbers between.

    Example:
        >>> list_layer_ticks(33)
        [1, 5, 10, 15, 20, 25, 30, 33]
    """
    if count <= most:
        return list(range(1, count + 1))
    steps = (digit * 10**power for power in range(9) for digit in (1, 5))
    step = next(step for step in steps if count / step <= most - 2)
    inner = [layer for layer in range(step, count, step) if layer > 1]
    return [1, *(layer for layer in inner if count - layer >= 0.4 * step), count]


def build_warning(text: str, *, y: float = 0.0) -> dict[str, Any]:
    """Return words at the foot of a chart on what has no place in it; y as a share of the chart."""
    return {
        "xref": "paper",
        "x": 0.5,
        "yref": "paper",
        "y": y,
        "yshift": 26,
        "text": text,
        "showarrow": False,
        "font": {"size": 13, "color": VERMILION},
    }


def build_blank_figure() -> dict[str, Any]:
    """Return an empty figure that looks like nothing, for the time before the first answer.

    Example:
        >>> build_blank_figure()["data"]
        []
    """
    return {
        "data": [],
        "layout": build_layout(xaxis={"visible": False}, yaxis={"visible": False}),
    }
