"""The look of every figure, in one place.

Colours are from the Okabe-Ito palette, told apart under all common colour-vision deficiencies.
Text and lines are greys that read on light and dark pages alike; the page's own background shows.
"""

from typing import Any

ORANGE = "#E69F00"
PURPLE = "#CC79A7"
GREEN = "#009E73"
VERMILION = "#D55E00"
BAND = "rgba(86, 180, 233, 0.28)"
LINE = "#3A9BDC"
TEXT = "#868E96"
GRID = "rgba(134, 142, 150, 0.22)"
SEQUENTIAL = [
    [0.0, "rgba(58, 155, 220, 0.0)"],
    [0.35, "rgba(58, 155, 220, 0.55)"],
    [1.0, "#0B4F8A"],
]
REFERENCE = "rgba(134, 142, 150, 0.9)"
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
        "hoverlabel": {"font": {"family": FONT, "size": 13}},
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


def build_blank_figure() -> dict[str, Any]:
    """Return an empty figure that looks like nothing, for the time before the first answer."""
    return {
        "data": [],
        "layout": build_layout(xaxis={"visible": False}, yaxis={"visible": False}),
    }
