"""One layer's activation distribution in full."""

import math
from itertools import pairwise
from typing import Any

from chainrule._utils.numbers import format_number
from chainrule.figures import theme
from chainrule.figures.bins import spread
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.records import ActivationStatistics, Histogram

Figure = dict[str, Any]

MOST_BINS = 120

SPIKE = 4.0
"""A bar this many times as high as the next highest one is cut, and said."""


def build_layer_figure(
    flow: GradientFlow, layer: int, *, other: GradientFlow | None = None
) -> Figure:
    """Return the histograms of one layer's pre-activations z and activations h.

    All are laid onto the same bins, so that heights compare: equal bars are equal shares.

    Args:
        flow: A measurement with at least `layer` weight layers.
        layer: The layer's number, counted from 1.
        other: A second measurement: the outline of the activations of its layer of that number.

    Returns:
        A Plotly figure as a dictionary ("data" and "layout"); empty where nothing is finite.

    Example:
        >>> import chainrule
        >>> flow = chainrule.simulate(chainrule.NetworkSpec(depth=3, width=4), seeds=2)
        >>> sorted(build_layer_figure(flow, 1))
        ['data', 'layout']
    """
    entry = flow.weight_layers[layer - 1]
    pinned = other.weight_layers[layer - 1] if other and layer <= len(other.weight_layers) else None
    wanted: list[tuple[str, str, ActivationStatistics | None]] = [
        ("pre-activations z", theme.PURPLE, entry.pre_activation),
        ("activations h", theme.LINE, entry.activation),
        ("activations h, pinned", theme.ORANGE, pinned.output if pinned else None),
    ]
    shown = [(n, c, s, s.histogram) for n, c, s in wanted if s is not None and s.histogram]
    edges = _choose_edges([histogram for _, _, _, histogram in shown])
    width = edges[1] - edges[0]
    values = f"values of layer {layer}"
    laid = [
        (name, color, _read_shares(statistics, histogram, edges))
        for name, color, statistics, histogram in shown
    ]
    top, notes = _cut_spikes([(name, shares) for name, _, shares in laid], edges)
    return {
        "data": [
            _draw_outline(name, edges, shares)
            if "pinned" in name
            else _draw_bars(name, color, edges, shares)
            for name, color, shares in laid
        ],
        "layout": theme.build_layout(
            xaxis=theme.build_axis(
                title={"text": f"{values}, in bins of {format_number(width)}" if shown else values},
                showgrid=False,
            ),
            yaxis=theme.build_axis(
                title={"text": "share"},
                tickformat=".0%",
                rangemode="tozero",
                **({"range": [0, top]} if top else {}),
            ),
            annotations=notes,
            hovermode="closest",
            showlegend=True,
            barmode="overlay",
            legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        ),
    }


def _cut_spikes(
    laid: list[tuple[str, list[float]]], edges: list[float]
) -> tuple[float | None, list[dict[str, Any]]]:
    """Return where the axis ends, and the names of the bars that reach beyond it.

    One bar (ReLU's zeros) may be so high that nothing else could be seen beside it. `None` if all
    bars are shown in full.
    """
    heights = sorted((share for _, shares in laid for share in shares), reverse=True)
    rest = [share for share in heights if share < heights[0] / SPIKE] if heights else []
    few = len(heights) - len(rest)
    if not rest or rest[0] == 0.0 or few > len(laid):
        return None, []
    top = 1.25 * rest[0]
    spikes = [
        (cell, name, share)
        for name, shares in laid
        for cell, share in enumerate(shares)
        if share > top
    ]
    return top, [
        {
            "x": edges[cell] / 2 + edges[cell + 1] / 2,
            "y": top,
            "yanchor": "top",
            "xanchor": "left",
            "xshift": 6,
            "yshift": -16 * place,
            "showarrow": False,
            "text": f"↑ {100 * share:.0f} % of the {name} lie here",
            "font": {"size": 12},
        }
        for place, (cell, name, share) in enumerate(spikes)
    ]


def _choose_edges(histograms: list[Histogram]) -> list[float]:
    """Return common bins that hold everything: as fine as the finest, `MOST_BINS` at most."""
    low = min((histogram.low for histogram in histograms), default=0.0)
    high = max((histogram.high for histogram in histograms), default=0.0)
    if high / 4 - low / 4 < 1e-300:
        low, high = low - 0.5, high + 0.5
    widths = [(each.high / 4 - each.low / 4) / len(each.counts) for each in histograms]
    finest = min((width for width in widths if width > 0), default=math.inf)
    share = min((high / 4 - low / 4) / finest, MOST_BINS) if finest < math.inf else 10
    bins = max(10, round(share))
    return [low * (1 - index / bins) + high * (index / bins) for index in range(bins + 1)]


def _read_shares(
    statistics: ActivationStatistics, histogram: Histogram, edges: list[float]
) -> list[float]:
    zeros = statistics.zero_share.values
    return spread(histogram, edges, zero=sum(zeros) / len(zeros))


def _draw_bars(name: str, color: str, edges: list[float], shares: list[float]) -> dict[str, Any]:
    return {
        "type": "bar",
        "name": name,
        "x": [low / 2 + high / 2 for low, high in pairwise(edges)],
        "y": shares,
        "width": edges[1] - edges[0],
        "marker": {"color": color, "opacity": 0.62, "line": {"width": 0}},
        "hovertemplate": f"%{{y:.1%}} of the {name} near %{{x:.3g}}<extra></extra>",
    }


def _draw_outline(name: str, edges: list[float], shares: list[float]) -> dict[str, Any]:
    filled = [cell for cell, share in enumerate(shares) if share > 0]
    first, last = filled[0], filled[-1] + 1
    edges, shares = edges[first : last + 1], shares[first:last]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [edge for edge in edges for _ in range(2)],
        "y": [0.0, *(share for share in shares for _ in range(2)), 0.0],
        "hoverinfo": "skip",
        "line": theme.PINNED,
    }
