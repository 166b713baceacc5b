"""The main chart: the gradient of every layer."""

import math
from collections.abc import Sequence
from typing import Any

from chainrule.figures import theme
from chainrule.flow import GradientFlow
from chainrule.numerals import format_number
from chainrule.quantity import Quantity

Figure = dict[str, Any]


def build_gradient_figure(flow: GradientFlow) -> Figure:
    """Return ‖∂𝓛/∂W_l‖ over l on a log axis: median, 10–90 % band, last layer as reference.

    Layers that have no place on a log scale stand at its lower edge and say why: gradient exactly
    zero, not finite, or none.

    Args:
        flow: A measurement with at least one weight layer.

    Returns:
        A Plotly figure as a dictionary ("data" and "layout").
    """
    norms = flow.weight_gradient_norms
    numbers = list(range(1, len(norms) + 1))
    medians = [_on_log_axis(norm) for norm in norms]
    low = [_on_log_axis(norm and norm.low) for norm in norms]
    high = [_on_log_axis(norm and norm.high) for norm in norms]
    bottom, top = _find_range([*medians, *low, *high])
    banded = [
        index
        for index in range(len(norms))
        if medians[index] is not None and high[index] is not None
    ]
    outside = [index for index, median in enumerate(medians) if median is None]
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [numbers[i] for i in banded] + [numbers[i] for i in reversed(banded)],
            "y": [high[i] for i in banded] + [low[i] or 10.0**bottom for i in reversed(banded)],
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
            "customdata": [_describe(norm) for norm in norms],
            "hovertemplate": "layer %{x}<br>%{customdata}<extra></extra>",
            "line": {"color": theme.LINE, "width": 2.5},
            "marker": {"size": 8 if len(norms) <= 40 else 4, "color": theme.LINE},
            "connectgaps": False,
            "name": "median",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "x": [numbers[i] for i in outside],
            "y": [10.0**bottom for _ in outside],
            "customdata": [_describe(norms[i]) for i in outside],
            "hovertemplate": "layer %{x}<br>%{customdata}<extra></extra>",
            "marker": {"size": 10, "symbol": "x", "color": theme.VERMILION},
            "cliponaxis": False,
            "name": "not on this scale",
        },
    ]
    last = medians[-1]
    shapes, annotations = [], []
    if last is not None:
        shapes.append(
            {
                "type": "line",
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "y0": last,
                "y1": last,
                "line": {"color": theme.REFERENCE, "width": 1, "dash": "dot"},
            }
        )
        annotations.append(
            {
                "xref": "paper",
                "x": 0.01,
                "y": math.log10(last),
                "yshift": 9,
                "text": "last layer",
                "showarrow": False,
                "xanchor": "left",
                "font": {"size": 12, "color": theme.TEXT},
            }
        )
    if outside:
        annotations.append(
            {
                "xref": "paper",
                "x": 0.5,
                "yref": "paper",
                "y": 0,
                "yshift": 26,
                "text": _describe_outside([norms[i] for i in outside]),
                "showarrow": False,
                "font": {"size": 13, "color": theme.VERMILION},
            }
        )
    return {
        "data": data,
        "layout": theme.build_layout(
            xaxis=theme.build_axis(
                title={"text": "layer (1 is next to the input)"},
                range=[0.5, len(norms) + 0.5],
                tick0=1,
                dtick=max(1, math.ceil(len(norms) / 12)),
                tickangle=0,
                showgrid=False,
            ),
            yaxis=theme.build_axis(
                title={"text": "gradient magnitude ‖∂𝓛/∂W‖"},
                type="log",
                range=[bottom, top],
                exponentformat="power",
                tickfont={"size": 12},
                dtick=max(1, math.ceil((top - bottom) / 8)),
            ),
            shapes=shapes,
            annotations=annotations,
        ),
    }


def _on_log_axis(value: float | None) -> float | None:
    return float(value) if value is not None and 0 < value < math.inf else None


def _find_range(values: Sequence[float | None]) -> tuple[float, float]:
    """Return the exponents of the axis: whole decades, at least two of them."""
    logs = [math.log10(value) for value in values if value is not None]
    if not logs:
        return -2.0, 2.0
    bottom, top = math.floor(min(logs) - 0.1), math.ceil(max(logs) + 0.1)
    return (bottom, top) if top - bottom >= 2 else (bottom - 1, top)


def _describe(norm: Quantity | None) -> str:
    if norm is None:
        return "no gradient reaches it"
    if norm == 0.0:
        return "exactly zero"
    if not math.isfinite(norm):
        return "not finite"
    band = f" ({format_number(norm.low)} – {format_number(norm.high)})"
    return f"<b>{format_number(norm)}</b>{band if len(norm.values) > 1 else ''}"


def _describe_outside(norms: Sequence[Quantity | None]) -> str:
    reasons = dict.fromkeys(_describe(norm) for norm in norms)
    count = "1 layer" if len(norms) == 1 else f"{len(norms)} layers"
    return f"× {count}: gradient {' or '.join(reasons)}"
