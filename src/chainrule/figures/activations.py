"""All layers' activation distributions at a glance."""

import math
from typing import Any

from chainrule.figures import theme
from chainrule.flow import GradientFlow
from chainrule.measurement import Histogram

Figure = dict[str, Any]

BINS = 48
"""Rows of the picture: the layers' own histograms are laid onto one common scale."""


def build_activation_figure(flow: GradientFlow) -> Figure:
    """Return a picture of the distribution of h_l for every layer: a column per layer.

    The darker a cell, the larger the share of the layer's activations there; shares are shown by
    their square root, so that tails can be seen. A layer without finite activations is left blank.

    Args:
        flow: A measurement with at least one weight layer.

    Returns:
        A Plotly figure as a dictionary ("data" and "layout").
    """
    layers = flow.weight_layers
    histograms = [layer.output.histogram if layer.output else None for layer in layers]
    known = [histogram for histogram in histograms if histogram is not None]
    low = min((histogram.low for histogram in known), default=0.0)
    high = max((histogram.high for histogram in known), default=1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    columns = [_lay_out(histogram, low, high) for histogram in histograms]
    step = (high - low) / BINS
    centres = [low + (row + 0.5) * step for row in range(BINS)]
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
            }
        ],
        "layout": theme.build_layout(
            xaxis=theme.build_axis(
                title={"text": "layer"},
                range=[0.5, len(layers) + 0.5],
                tick0=1,
                dtick=max(1, math.ceil(len(layers) / 12)),
                showgrid=False,
            ),
            yaxis=theme.build_axis(title={"text": "activation h"}, showgrid=False),
            hovermode="closest",
        ),
    }


def _lay_out(histogram: Histogram | None, low: float, high: float) -> list[float] | None:
    """Return the shares of a histogram on the common scale, each bin spread over its own width."""
    if histogram is None:
        return None
    total, scale = sum(histogram.counts), BINS / (high - low)
    shares = [0.0] * BINS
    width = (histogram.high - histogram.low) / len(histogram.counts)
    for index, count in enumerate(histogram.counts):
        if not count:
            continue
        start = (histogram.low + index * width - low) * scale
        end = start + max(width * scale, 1e-9)
        for row in range(max(0, int(start)), min(BINS, math.ceil(end))):
            overlap = min(end, row + 1) - max(start, row)
            shares[row] += count / total * max(overlap, 0.0) / (end - start)
        if start >= BINS:  # a distribution of one value at the upper edge
            shares[-1] += count / total
    return shares
