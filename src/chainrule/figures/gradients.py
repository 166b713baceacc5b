"""The main chart: the gradient of every layer."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import Any

from chainrule._utils.numbers import format_number, format_part
from chainrule.figures import theme
from chainrule.figures.zones import draw_zones, read_ends
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.quantity import Quantity, divide_members, format_band
from chainrule.flow.records import WeightLayer

Figure = dict[str, Any]
TheoryBand = tuple[float, float, float]
"""Low, median and high."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One way to measure the gradient of a layer.

    Attributes:
        label: Its name, for a switch.
        symbol: Its symbol.
        words: What it is of a layer, in words.
        title: What the axis says.
        read: Reads it from a layer.
    """

    label: str
    symbol: str
    words: str
    title: str
    read: Callable[[WeightLayer], Quantity | None]


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "weight": Measure(
            "weight gradient",
            "‖∂𝓛/∂W‖",
            "weight gradient",
            "weight gradient ‖∂𝓛/∂W‖",
            lambda layer: layer.weight_gradient_norm,
        ),
        "delta": Measure(
            "δ", "‖δ‖", "δ", "backpropagated gradient ‖δ‖", lambda layer: layer.delta_norm
        ),
        "relative": Measure(
            "gradient ÷ weight",
            "‖∂𝓛/∂W‖ ÷ ‖W‖",
            "gradient ÷ weight",
            "gradient ÷ weight, ‖∂𝓛/∂W‖ ÷ ‖W‖",
            lambda layer: layer.grad_to_weight,
        ),
    }
)
"""What the chart can show, by name."""

SCALES = ("log", "linear")

POWERS = (-12, 6)
"""Powers of ten at the ends of the log axis, the same for every network, so that charts compare."""

_STRIDE, _MARGIN = 6, 2
"""Powers of ten by which the axis grows where a network comes so near to its ends."""

_FOOT = 0.035
"""Share of the axis at which layers stand that have no place on it: above the numbers of layers."""


def build_gradient_figure(
    flow: GradientFlow,
    *,
    measure: str = "weight",
    scale: str = "log",
    other: GradientFlow | None = None,
    usable: tuple[float, float] | None = None,
    theory: Sequence[TheoryBand | None] | None = None,
) -> Figure:
    """Return a gradient measure over l: median, 10–90 % band, and where layers learn.

    The log axis is the same for every network, and longer only where values leave it. Colour and
    shape of a layer's mark say whether its gradient is too small, usable or too large. Layers that
    have no place on the scale stand at its foot and say why: gradient exactly zero (on a log
    scale), not finite, or none.

    Args:
        flow: A measurement with at least one weight layer.
        measure: What to show; a name of `MEASURES`.
        scale: "log" or "linear".
        other: A second measurement to draw behind it.
        usable: The least and the largest ‖∂𝓛/∂W‖ with which a layer learns
            (`chainrule.diagnosis.limits.read_usable_range`); only the measure "weight" shows them.
        theory: What theory says of this measure, layer by layer
            (`chainrule.theory.Prediction.list_bands`), to draw behind it.

    Returns:
        A Plotly figure as a dictionary ("data" and "layout"). The first three traces are band,
        median and layers without a place; a fourth is the other measurement's median, which lies
        beneath. Then come the areas of what is missing or too much, by name ("too small", "too
        large", "no gradient"). With `theory`, its band and median come before all of these.

    Example:
        >>> import chainrule
        >>> flow = chainrule.simulate(chainrule.NetworkSpec(depth=3, width=4), seeds=2)
        >>> sorted(build_gradient_figure(flow))
        ['data', 'layout']
    """
    entry = MEASURES[measure]
    zones = usable if measure == "weight" else None
    norms = [entry.read(layer) for layer in flow.weight_layers]
    others = [entry.read(layer) for layer in other.weight_layers] if other else []
    numbers = list(range(1, len(norms) + 1))
    place = _on_log_axis if scale == "log" else _on_linear_axis
    medians = [place(norm) for norm in norms]
    low = [place(norm and norm.low) for norm in norms]
    high = [place(norm and norm.high) for norm in norms]
    other_medians = [place(norm) for norm in others]
    bands = list(theory or ())
    expected = [place(band and band[1]) for band in bands]
    axis = _build_axis(entry.title, scale, [*medians, *low, *high, *other_medians, *expected])
    floor = 10.0 ** axis["range"][0] if scale == "log" else 0.0
    bottom, top = axis["range"]
    at_foot = bottom + _FOOT * (top - bottom)
    foot = 10.0**at_foot if scale == "log" else at_foot
    banded = [i for i in range(len(norms)) if medians[i] is not None and high[i] is not None]
    outside = [index for index, median in enumerate(medians) if median is None]
    last = norms[-1] if norms else None
    size = 14 if len(norms) <= 20 else 11 if len(norms) <= 40 else 6
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [numbers[i] for i in banded] + [numbers[i] for i in reversed(banded)],
            "y": [high[i] for i in banded] + [low[i] or floor for i in reversed(banded)],
            "fill": "toself",
            "fillcolor": theme.BAND,
            "line": {"width": 0},
            "hoverinfo": "skip",
            "name": "10th to 90th percentile",
        },
        {
            "type": "scatter",
            "mode": "lines+markers",
            "x": numbers,
            "y": medians,
            "customdata": [_describe(norm, last) for norm in norms],
            "hovertemplate": "layer %{x}<br>%{customdata}<extra></extra>",
            "line": {"color": _choose_line(medians, zones), "width": 3.5},
            "marker": {"size": size, **_choose_marks(medians, zones)},
            "connectgaps": False,
            "name": "median",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "x": [numbers[i] for i in outside],
            "y": [foot for _ in outside],
            "customdata": [_describe(norms[i]) for i in outside],
            "hovertemplate": "layer %{x}<br>%{customdata}<extra></extra>",
            "marker": {"size": 10, "symbol": "x", "color": theme.VERMILION},
            "cliponaxis": False,
            "name": "not on this scale",
        },
    ]
    if other:
        data.append(_draw_other(others, other_medians, size))
    if zones:
        data += _fill_gaps(norms, zones, axis)
    if any(median is not None for median in expected):
        data = [*_draw_theory(bands, expected, axis), *data]
    shapes, annotations = (
        draw_zones(zones, axis, (medians, other_medians), bool(outside)) if zones else ([], [])
    )
    annotations += [*_mark_direction(norms), *_mark_first(entry.words, norms, medians)]
    if outside:
        words = _describe_outside([norms[i] for i in outside])
        side = _choose_side(outside, len(norms))
        annotations.append({**theme.build_warning(words), **side, "yshift": 54 if zones else 30})
    layout = theme.build_layout(
        xaxis=theme.build_layer_axis(
            max(len(norms), len(others)), title="layer (1 is next to the input)"
        ),
        yaxis=axis,
        shapes=shapes,
        annotations=annotations,
    )
    return {"data": data, "layout": {**layout, "margin": {**layout["margin"], "t": 44, "r": 56}}}


def _choose_marks(
    medians: Sequence[float | None], usable: tuple[float, float] | None
) -> dict[str, Any]:
    """Return colour and symbol of the marks: one each, or one per layer by its state."""
    if usable is None:
        return {"color": theme.LINE}
    states = [theme.STATES[read_state(median or 0.0, usable)] for median in medians]
    return {"color": [color for color, _ in states], "symbol": [symbol for _, symbol in states]}


def _choose_line(medians: Sequence[float | None], usable: tuple[float, float] | None) -> str:
    """Return the colour of the line: that of the state that all layers share, grey for several."""
    if usable is None:
        return theme.LINE
    states = {read_state(median, usable) for median in medians if median is not None}
    return theme.STATES[states.pop()][0] if len(states) == 1 else theme.GREY


_GAP_NAMES = {"small": "too small", "large": "too large", "zero": "no gradient"}


def _fill_gaps(
    norms: Sequence[Quantity | None],
    usable: tuple[float, float],
    axis: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Return an area for each state outside of the usable range: from there to the line."""
    log = axis["type"] == "log"
    ends = read_ends(axis)
    areas: dict[str, tuple[list[float | None], list[float | None]]] = {}
    for state, corners in outline_gaps(norms, usable, ends, log=log):
        x, y = areas.setdefault(state, ([], []))
        if x:
            x.append(None)  # the next area of this state
            y.append(None)
        x += [at for at, _ in corners]
        y += [value for _, value in corners]
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "x": x,
            "y": y,
            "fill": "toself",
            "fillcolor": theme.GAPS[state],
            "line": {"width": 0},
            "hoverinfo": "skip",
            "name": _GAP_NAMES[state],
            "zorder": -2,
        }
        for state, (x, y) in areas.items()
    ]


def outline_gaps(
    norms: Sequence[float | None],
    usable: tuple[float, float],
    ends: tuple[float, float],
    *,
    log: bool = True,
) -> list[tuple[str, list[tuple[float, float]]]]:
    """Return what lies between gradients and the range where layers learn, as areas.

    An area ends where the line through the gradients enters the range. Where gradients are exactly
    zero it goes down to the foot of the axis.

    Args:
        norms: The gradient of layers 1 … L; `None` for none.
        usable: The least and the largest with which a layer learns.
        ends: The ends of the axis; nothing leaves them.
        log: Whether the axis is logarithmic: a line between two layers is straight there.

    Returns:
        For each area its state, "small", "large" or "zero", and its corners (layer, value).

    Example:
        >>> outline_gaps([1e-4, 1.0], (1e-2, 1e3), (1e-6, 1e6))
        [('small', [(1.0, 0.0001), (1.5, 0.01), (1.5, 0.01), (1.0, 0.01)])]
    """
    floor, top = ends
    low, high = (min(max(edge, floor), top) for edge in usable)
    edges = {"small": low, "large": high, "zero": low}

    def classify(norm: float | None) -> str:
        if norm is None or not math.isfinite(norm):
            return "none"
        return "zero" if norm == 0.0 else read_state(float(norm), usable)

    states = [classify(norm) for norm in norms]
    areas = []
    for state, run in groupby(range(len(states)), key=states.__getitem__):
        if state not in edges:
            continue
        layers, edge = list(run), edges[state]
        if state == "zero":
            line = [(layers[0] + 0.5, floor), (layers[-1] + 1.5, floor)]
        else:
            line = [(float(at + 1), float(norms[at] or floor)) for at in layers]
            for at, beside in ((layers[0], layers[0] - 1), (layers[-1], layers[-1] + 1)):
                if not 0 <= beside < len(norms) or states[beside] in ("zero", "none"):
                    continue
                share = _find_share(edge, norms[at] or floor, norms[beside] or floor, log)
                point = (at + 1 + share * (beside - at), edge)
                line = [point, *line] if beside < at else [*line, point]
        corners = [*line, (line[-1][0], edge), (line[0][0], edge)]
        areas.append((state, [(at, min(max(value, floor), top)) for at, value in corners]))
    return areas


def _find_share(value: float, start: float, end: float, log: bool) -> float:
    """Return at which share of the way from start to end, as drawn, a value lies."""
    if log:
        value, start, end = (math.log10(each) for each in (value, start, end))
    return min(1.0, max(0.0, (value - start) / (end - start))) if end != start else 0.0


def _mark_direction(norms: Sequence[Quantity | None]) -> list[dict[str, Any]]:
    if len(norms) < 2:
        return []
    return [
        {
            "xref": "paper",
            "x": 1.0,
            "xanchor": "right",
            "yref": "paper",
            "y": 1.0,
            "yanchor": "bottom",
            "yshift": 5,
            "text": "← δ travels back from the loss",
            "showarrow": False,
            "font": {"size": 12, "color": theme.TEXT},
        }
    ]


def _mark_first(
    name: str, norms: Sequence[Quantity | None], medians: Sequence[float | None]
) -> list[dict[str, Any]]:
    """Return which part of the last layer's value layer 1 has, in words above the chart.

    It is the median of the ratio in each network, as `GradientFlow.gradient_ratio` is.
    """
    if len(norms) < 2 or medians[0] is None or norms[0] is None or norms[-1] is None:
        return []
    part = divide_members(norms[0], norms[-1])
    if not math.isfinite(part):
        return []
    return [
        {
            "xref": "paper",
            "x": 0.0,
            "xanchor": "left",
            "yref": "paper",
            "y": 1.0,
            "yanchor": "bottom",
            "yshift": 21,
            "xshift": -46,  # above the numbers of the axis, too: there is more room in narrow pages
            "text": f"<b>{name} of layer 1: {format_part(part)} layer {len(norms)}’s</b>",
            "showarrow": False,
            "font": {"size": 12, "color": theme.TEXT},
        }
    ]


def _draw_theory(
    bands: Sequence[TheoryBand | None], medians: Sequence[float | None], axis: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the band and the median that theory gives; a band ends at the edges of the axis."""
    log = axis["type"] == "log"
    bottom, top = (10.0**power for power in axis["range"]) if log else axis["range"]
    pieces: list[list[tuple[int, float, float]]] = [[]]
    for number, (band, median) in enumerate(zip(bands, medians, strict=True), start=1):
        if band is None or median is None:
            pieces.append([])
        else:
            pieces[-1].append((number, max(band[0], bottom), min(band[2], top)))
    areas = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [x for x, _, _ in piece] + [x for x, _, _ in reversed(piece)],
            "y": [high for _, _, high in piece] + [low for _, low, _ in reversed(piece)],
            "fill": "toself",
            "fillcolor": theme.THEORY_BAND,
            "line": {"width": 0},
            "hoverinfo": "skip",
            "name": "theory: where the median should be",
        }
        for piece in pieces
        if piece
    ]
    line = {
        "type": "scatter",
        "mode": "lines",
        "x": list(range(1, len(bands) + 1)),
        "y": list(medians),
        "customdata": [
            band
            and f"{format_number(band[1])} ({format_number(band[0])} to {format_number(band[2])})"
            for band in bands
        ],
        "hovertemplate": "theory for infinite width: %{customdata}<extra></extra>",
        "line": theme.THEORY,
        "connectgaps": False,
        "name": "theory for infinite width",
    }
    return [*areas, line]


def _draw_other(
    norms: Sequence[Quantity | None], medians: Sequence[float | None], size: int
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": list(range(1, len(norms) + 1)),
        "y": list(medians),
        "customdata": [_describe(norm) for norm in norms],
        "hovertemplate": "pinned: %{customdata}<extra></extra>",
        "line": theme.PINNED,
        "marker": {"size": size - 2, "color": theme.PINNED["color"], "symbol": "diamond-open"},
        "zorder": -1,  # its marks must not pass for those of the network on screen
        "connectgaps": False,
        "name": "pinned",
    }


def _on_log_axis(value: float | None) -> float | None:
    return float(value) if value is not None and 0 < value < math.inf else None


def _on_linear_axis(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _build_axis(title: str, scale: str, values: Sequence[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    if scale == "log":
        bottom, top = choose_powers(known)
        return theme.build_axis(
            title={"text": title},
            type="log",
            range=[bottom, top],
            dtick=_choose_step(top - bottom),
            exponentformat="power",
            tickfont={"size": 12},
        )
    top = max(known, default=1.0) or 1.0
    return theme.build_axis(
        title={"text": title},
        type="linear",
        range=[0, 1.06 * top],
        exponentformat="power",
        nticks=6,
    )


def _choose_side(layers: Sequence[int], count: int) -> dict[str, Any]:
    """Return where words on some layers stand: at the end of the chart that is nearer to them."""
    middle = (sum(layers) / len(layers) + 0.5) / count
    if middle < 0.4:
        return {"x": 0.01, "xanchor": "left"}
    return {"x": 0.99, "xanchor": "right"} if middle > 0.6 else {"x": 0.5}


def _choose_step(length: float) -> int:
    """Return how many powers of ten there are from one number of the axis to the next."""
    step = 3
    while length > 8 * step:
        step *= 2
    return step


def choose_powers(values: Sequence[float]) -> tuple[float, float]:
    """Return the powers of ten at the ends of the log axis: `POWERS`, wider where values need it.

    Args:
        values: What the axis must hold; all above 0 and finite.

    Example:
        >>> choose_powers([1e-5, 1.0]), choose_powers([1e22])
        ((-12.0, 6.0), (-12.0, 24.0))
    """
    logs = [math.log10(value) for value in values]
    bottom, top = map(float, POWERS)
    bottom -= _STRIDE * max(0, math.ceil((bottom + _MARGIN - min(logs, default=0.0)) / _STRIDE))
    top += _STRIDE * max(0, math.ceil((max(logs, default=0.0) + _MARGIN - top) / _STRIDE))
    return bottom, top


def read_state(norm: float, usable: tuple[float, float]) -> str:
    """Return whether a gradient is "small", "usable" or "large".

    Example:
        >>> read_state(1e-9, (0.003, 1500.0))
        'small'
    """
    low, high = usable
    return "small" if norm < low else "large" if norm > high else "usable"


def _describe(norm: Quantity | None, last: Quantity | None = None) -> str:
    if norm is None:
        return "no gradient reaches it"
    if norm == 0.0:
        return "exactly zero"
    if not math.isfinite(norm):
        return "not finite"
    text = f"<b>{format_number(norm)}</b>"
    if len(norm.values) > 1:
        text += f" ({format_band(norm)})"
    share = math.nan if last is None else divide_members(norm, last)
    return f"{text}<br>{format_number(share)} × the last layer" if math.isfinite(share) else text


def _describe_outside(norms: Sequence[Quantity | None]) -> str:
    reasons = dict.fromkeys(_describe(norm) for norm in norms)
    count = "1 layer" if len(norms) == 1 else f"{len(norms)} layers"
    return f"× {count}: gradient {' or '.join(reasons)}"
