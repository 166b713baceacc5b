"""All layers' activation distributions at a glance."""

import math
from typing import Any

from chainrule.figures import theme
from chainrule.flow import GradientFlow
from chainrule.measurement import Histogram
from chainrule.quantity import Quantity

Figure = dict[str, Any]

BINS = 48
"""Rows of the picture: the layers' own histograms are laid onto one common scale."""


def build_activation_figure(flow: GradientFlow, *, other: GradientFlow | None = None) -> Figure:
    """Return a picture of the distribution of h_l for every layer: a column per layer.

    The darker a cell, the larger the share of the layer's activations there; shares are shown by
    their square root, so that tails can be seen. A layer without finite activations is left blank.

    Below it stand the shares of saturated activations and dead units, layer by layer.

    Args:
        flow: A measurement with at least one weight layer.
        other: A second measurement: lines mark where its activations lie (mean ± 2 standard
            deviations).

    Returns:
        A Plotly figure as a dictionary ("data" and "layout"); the first trace is the picture.
    """
    layers = flow.weight_layers
    histograms = [layer.output.histogram if layer.output else None for layer in layers]
    known = [histogram for histogram in histograms if histogram is not None]
    low = min((histogram.low for histogram in known), default=0.0)
    high = max((histogram.high for histogram in known), default=1.0)
    if high - low < 1e-300:
        low, high = low - 0.5, high + 0.5
    columns = [_lay_out(histogram, low, high) for histogram in histograms]
    shares = [(row + 0.5) / BINS for row in range(BINS)]
    centres = [low * (1 - share) + high * share for share in shares]  # high − low may overflow
    rows = [[column[row] if column else None for column in columns] for row in range(BINS)]
    return {
        "data": [
            {
                "type": "heatmap",
                "x": list(range(1, len(layers) + 1)),
                "y": centres,
                "z": [[None if v is None else math.sqrt(v) for v in row] for row in rows],
                "customdata": rows,
                "hovertemplate": "layer %{x}<br>%{customdata:.1%} of activations near %{y:.3g}"
                "<extra></extra>",
                "colorscale": theme.SEQUENTIAL,
                "zmin": 0,
                "showscale": False,
                "hoverongaps": False,
                "name": "activations",
            },
            _draw_share(
                "saturated", theme.PURPLE, [layer.saturation for layer in layers], "square"
            ),
            _draw_share("dead units", theme.VERMILION, [layer.dead_share for layer in layers], "x"),
            *(_draw_extent(other) if other else []),
        ],
        "layout": theme.build_layout(
            xaxis={
                **theme.build_layer_axis(
                    max(len(layers), len(other.weight_layers) if other else 0),
                    title="layer (1 is next to the input)",
                ),
                "anchor": "y2",
            },
            yaxis=theme.build_axis(
                title={"text": "activation h"}, showgrid=False, domain=[0.3, 1.0]
            ),
            yaxis2=theme.build_axis(
                title={"text": "share"},
                domain=[0.0, 0.22],
                range=[-0.04, 1.04],
                tickvals=[0, 0.5, 1],
                ticktext=["0", "50 %", "100 %"],
            ),
            hovermode="closest",
            showlegend=True,
            legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        ),
    }


def _draw_share(
    name: str, color: str, shares: list[Quantity | None], symbol: str
) -> dict[str, Any]:
    known = [
        (layer, share)
        for layer, share in enumerate(shares, 1)
        if share is not None and math.isfinite(share)
    ]
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(shares) <= 40 else "lines",
        "name": name,
        "x": [layer for layer, _ in known],
        "y": [float(share) for _, share in known],
        "yaxis": "y2",
        "hovertemplate": f"layer %{{x}}<br>%{{y:.0%}} {name}<extra></extra>",
        "line": {"color": color, "width": 2},
        "marker": {"color": color, "size": 6, "symbol": symbol},
    }


def _draw_extent(flow: GradientFlow) -> list[dict[str, Any]]:
    """Return two lines that hold most of the activations of another measurement."""
    known = [
        (layer.layer, layer.output.mean, layer.output.std)
        for layer in flow.weight_layers
        if layer.output is not None and math.isfinite(layer.output.std + layer.output.mean)
    ]
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "pinned: mean ± 2 standard deviations",
            "showlegend": side > 0,
            "x": [layer for layer, _, _ in known],
            "y": [float(mean + side * std) for _, mean, std in known],
            "hoverinfo": "skip",
            "line": {"color": theme.ORANGE, "width": 2, "dash": "dash"},
        }
        for side in (2, -2)
    ]


def _lay_out(histogram: Histogram | None, low: float, high: float) -> list[float] | None:
    """Return the shares of a histogram on the common scale, each bin spread over its own width."""
    if histogram is None:
        return None
    total, scale = sum(histogram.counts), BINS / (high / 4 - low / 4)
    shares = [0.0] * BINS
    width = (histogram.high / 4 - histogram.low / 4) / len(histogram.counts)
    for index, count in enumerate(histogram.counts):
        if not count:
            continue
        start = (histogram.low / 4 + index * width - low / 4) * scale
        end = start + max(width * scale, 1e-9)
        for row in range(max(0, int(start)), min(BINS, math.ceil(end))):
            overlap = min(end, row + 1) - max(start, row)
            shares[row] += count / total * max(overlap, 0.0) / (end - start)
        if start >= BINS:  # a distribution of one value at the upper edge
            shares[-1] += count / total
    return shares
