"""The picture of a phase map: colours for a measurement, lines for theory, dots for training."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from chainrule._utils.numbers import to_superscript
from chainrule.errors import ChainruleError, suggest
from chainrule.figures import theme
from chainrule.figures.theme import INSTALL_PLOTLY
from chainrule.sweeps.axes import Axis

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

T = TypeVar("T")
Colour = Literal["measured", "theory", "accuracy"]
Dot = Literal["filled", "empty", ""]
Rows = tuple[tuple[T, ...], ...]

DECADES = 4
"""Powers of ten at which the colours of a ratio end, on either side of 1."""

TITLES = {
    "measured": "measured gradient, first ÷ last layer",
    "theory": "gradient of theory, first ÷ last layer",
    "accuracy": "share right after training",
}

_DIVERGING = [
    [0.0, theme.BLUE],
    [0.5, "rgba(134, 142, 150, 0.10)"],
    [1.0, theme.VERMILION],
]
_LINE = "#868E96"
_TICKS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What a picture of a map needs; all rows begin with the first value of `y`.

    Attributes:
        x: The axis to the right.
        y: The axis upwards.
        line: The line of theory, as (x, y) points.
        line_name: What it is called.
        measured: ‖δ_1‖ ÷ ‖δ_L‖ as measured.
        theory: The same of theory.
        accuracy: After training.
        expects: Whether theory expects that the network trains.
        dots: Whether it did.
        sentences: All of it in words.
    """

    x: Axis
    y: Axis
    line: tuple[tuple[float, float], ...]
    measured: Rows[float | None]
    theory: Rows[float | None]
    accuracy: Rows[float | None]
    expects: Rows[bool | None]
    dots: Rows[Dot]
    sentences: Rows[str]
    line_name: str = "critical line"


def plot_phases(grid: Grid, colour: Colour = "measured") -> "Figure":
    """Return a map as a Plotly figure.

    Raises:
        ChainruleError: If Plotly is not installed or the colour is unknown.
    """
    figure = build_phase_figure(grid, colour)
    if not find_spec("plotly"):
        raise ChainruleError(f"plot needs plotly, which must be installed. Run: {INSTALL_PLOTLY}")
    from plotly.graph_objects import Figure

    return Figure(figure)


def build_phase_figure(grid: Grid, colour: Colour = "measured") -> dict[str, Any]:
    """Return the same as a dictionary ("data" and "layout").

    A cell stands at its number on each axis, so values may be unevenly spaced, or words.

    Raises:
        ChainruleError: If the colour is unknown.
    """
    if colour not in get_args(Colour):
        known = get_args(Colour)
        raise ChainruleError(f"colour: unknown {str(colour)[:40]!r}. {suggest(str(colour), known)}")
    columns, rows = len(grid.x.values), len(grid.y.values)
    data = [_build_heat_map(grid, colour)]
    edge = [(x, y) for segment in outline(grid.expects) for x, y in (*segment, (None, None))]
    if edge:
        data.append(
            _build_line("theory: depth = 6 depth scales", edge, {"width": 2, "dash": "dot"})
        )
    line = place_line(grid)
    if line:
        data.append(_build_line(f"theory: {grid.line_name}", line, {"width": 3}))
    size = max(3.0, min(11.0, 260 / max(columns, rows)))
    for dot, name, symbol in (
        ("filled", "trained", "circle"),
        ("empty", "training failed", "circle-open"),
    ):
        places = [
            (x, y) for y, row in enumerate(grid.dots) for x, each in enumerate(row) if each == dot
        ]
        if places:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": name,
                    "x": [x for x, _ in places],
                    "y": [y for _, y in places],
                    "marker": {"symbol": symbol, "size": size, "color": "#1c1d1f"},
                    "hoverinfo": "skip",
                }
            )
    return {
        "data": data,
        "layout": theme.build_layout(
            xaxis=_build_axis(grid.x),
            yaxis=_build_axis(grid.y),
            hovermode="closest",
            showlegend=len(data) > 1,
            legend={"orientation": "h", "y": -0.16, "x": 0, "yanchor": "top"},
        ),
    }


def shade(ratio: float | None) -> float | None:
    """Return where a ratio stands on the colours: −1 for 10⁻⁴ and less, 0 for 1, 1 for 10⁴.

    Example:
        >>> [shade(ratio) for ratio in (0.0, 0.01, 1.0, None)]
        [-1.0, -0.5, 0.0, None]
    """
    if ratio is None or math.isnan(ratio):
        return None
    if ratio <= 0.0:
        return -1.0
    return max(-1.0, min(1.0, (math.log10(ratio) if ratio < math.inf else math.inf) / DECADES))


def outline(flags: Rows[bool | None]) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    """Return the segments between neighbours of which one is true and one is false.

    Example:
        >>> list(outline(((True, False),)))
        [((0.5, -0.5), (0.5, 0.5))]
    """
    for y, row in enumerate(flags):
        for x, (left, right) in enumerate(pairwise(row)):
            if _differ(left, right):
                yield (x + 0.5, y - 0.5), (x + 0.5, y + 0.5)
    for y, (below, above) in enumerate(pairwise(flags)):
        for x, (low, high) in enumerate(zip(below, above, strict=True)):
            if _differ(low, high):
                yield (x - 0.5, y + 0.5), (x + 0.5, y + 0.5)


def _differ(one: bool | None, other: bool | None) -> bool:
    return one is not None and other is not None and one != other


def place_line(grid: Grid) -> list[tuple[float, float]]:
    """Return the points of the critical line in numbers of cells; those outside are left out.

    At its ends on an axis that it crosses from side to side it reaches to the edge of the map.
    """
    points = []
    for x, y in grid.line:
        across, up = locate(grid.x.values, x), locate(grid.y.values, y)
        if across is not None and up is not None:
            points.append((across, up))
    if len(points) < 2:
        return []
    for end in (0, -1):
        across, up = points[end]
        points[end] = (_reach(across, len(grid.x.values)), _reach(up, len(grid.y.values)))
    return points


def _reach(place: float, count: int) -> float:
    """Return the edge of the map for the middle of the first or last cell, else the place."""
    return -0.5 if place == 0.0 else count - 0.5 if place == count - 1 else place


def locate(values: Sequence[float], value: float) -> float | None:
    """Return the place of a value between others in rising order, counted from 0.

    Example:
        >>> locate([1.0, 2.0, 4.0], 3.0), locate([1.0, 2.0], 5.0)
        (1.5, None)
    """
    if len(values) == 1:
        return 0.0 if value == values[0] else None
    for number, (low, high) in enumerate(pairwise(values)):
        if low <= value <= high:
            return number + (value - low) / (high - low)
    return None


def _build_heat_map(grid: Grid, colour: Colour) -> dict[str, Any]:
    values: Rows[float | None] = getattr(grid, colour)
    ratio = colour != "accuracy"
    z = [[shade(value) if ratio else value for value in row] for row in values]
    bar = {
        "title": {"text": TITLES[colour], "side": "right"},
        "outlinewidth": 0,
        "thickness": 14,
    }
    if ratio:
        powers = range(-DECADES, DECADES + 1, 2)
        bar |= {
            "tickvals": [power / DECADES for power in powers],
            "ticktext": [f"10{to_superscript(power)}" if power else "1" for power in powers],
        }
    return {
        "type": "heatmap",
        "z": z,
        "zmin": -1.0 if ratio else 0.0,
        "zmax": 1.0,
        "xgap": 1,
        "ygap": 1,
        "colorscale": _DIVERGING if ratio else theme.SEQUENTIAL,
        "colorbar": bar,
        "text": [
            [f"{grid.x.describe(x)}, {grid.y.describe(y)}<br>{sentence.replace('; ', '<br>')}"
             for x, sentence in zip(grid.x.values, row, strict=True)]
            for y, row in zip(grid.y.values, grid.sentences, strict=True)
        ],
        "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip


def _build_line(
    name: str, points: Sequence[tuple[float | None, float | None]], style: dict[str, Any]
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        "line": {"color": theme.PURPLE, **style},
        "hoverinfo": "skip",
    }


def _build_axis(axis: Axis) -> dict[str, Any]:
    count = len(axis.values)
    stride = math.ceil(count / _TICKS)
    places = list(range(0, count, stride))
    return theme.build_axis(
        title={"text": axis.label},
        range=[-0.5, count - 0.5],
        tickmode="array",
        tickvals=places,
        ticktext=[axis.write(axis.values[place]) for place in places],
        showgrid=False,
    )
