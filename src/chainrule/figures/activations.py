"""All layers' activation distributions at a glance."""

import math
from itertools import pairwise
from typing import Any

from chainrule._utils.numbers import format_number
from chainrule.figures import theme
from chainrule.figures.bins import SymmetricLog, spread
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.quantity import Quantity
from chainrule.flow.records import ActivationStatistics, read_saturation

Figure = dict[str, Any]

BINS = 48
"""Rows of the picture: the layers' own histograms are laid onto one common scale."""


def build_activation_figure(flow: GradientFlow, *, other: GradientFlow | None = None) -> Figure:
    """Return a picture of the distribution of h_l for every layer: a column per layer.

    The darker a cell, the larger the share of the layer's activations there; shares are shown by
    their square root, so that tails can be seen. A layer without finite activations is left blank,
    and one with any that are not finite has a × at the foot. Where the layers' largest magnitudes
    differ by more than `WIDE`, the axis is symmetric-logarithmic: linear around zero, and beyond
    in powers of ten on both sides.

    Below it stand the shares of saturated activations (of bounded ones) and dead units, layer by
    layer.

    Args:
        flow: A measurement with at least one weight layer.
        other: A second measurement: lines mark where its activations lie (mean ± 2 standard
            deviations).

    Returns:
        A Plotly figure as a dictionary ("data" and "layout"); the first trace is the picture.

    Example:
        >>> import chainrule
        >>> flow = chainrule.simulate(chainrule.NetworkSpec(depth=3, width=4), seeds=2)
        >>> sorted(build_activation_figure(flow))
        ['data', 'layout']
    """
    layers = flow.weight_layers
    outputs = [layer.output for layer in layers]
    extents = _list_extents(other) if other else []
    scale = SymmetricLog.choose([*_list_magnitudes(flow), *_list_magnitudes(other)])
    low, high = _find_ends(flow, scale)
    places = [low * (1 - row / BINS) + high * (row / BINS) for row in range(BINS + 1)]
    edges = [scale.read(place) for place in places] if scale else places
    columns = [_lay_out(output, edges) if output else None for output in outputs]
    rows = [[column[row] if column else None for column in columns] for row in range(BINS)]
    centres = [a / 2 + b / 2 for a, b in pairwise(places)]
    texts = [format_number(scale.read(place)) for place in centres] if scale else []
    ends = [scale.place(y) if scale else y for _, span in extents for y in span]
    wrong = [layer.layer for layer in layers if layer.output and layer.output.non_finite > 0]
    foot = min([low, *ends])
    notes = []
    if wrong:
        count = "1 layer" if len(wrong) == 1 else f"{len(wrong)} layers"
        notes = [theme.build_warning(f"× {count}: values not finite", y=0.3)]
    axis: dict[str, Any] = {}
    if scale:
        values, labels = scale.list_ticks(foot, max([high, *ends]))
        span = [foot, max([high, *ends])]
        axis = {"range": span, "tickvals": values, "ticktext": labels}
    return {
        "data": [
            {
                "type": "heatmap",
                "x": list(range(1, len(layers) + 1)),
                "y": centres,
                "z": [[None if v is None else math.sqrt(v) for v in row] for row in rows],
                "customdata": rows,
                **({"text": [[text] * len(layers) for text in texts]} if scale else {}),
                "hovertemplate": "layer %{x}<br>%{customdata:.1%} of activations near "
                f"{'%{text}' if scale else '%{y:.3g}'}<extra></extra>",
                "colorscale": theme.SEQUENTIAL,
                "zmin": 0,
                "showscale": False,
                "hoverongaps": False,
                "name": "activations",
            },
            _draw_share(
                "saturated", theme.PURPLE, [read_saturation(layer) for layer in layers], "square"
            ),
            _draw_share("dead units", theme.VERMILION, [layer.dead_share for layer in layers], "x"),
            *_draw_extents(extents, scale),
            *([_draw_wrong(wrong, foot)] if wrong else []),
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
                title={"text": f"{_name_activation(flow)}{' (log)' if scale else ''}"},
                showgrid=False,
                domain=[0.3, 1.0],
                **axis,
            ),
            annotations=notes,
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


def _name_activation(flow: GradientFlow) -> str:
    """Return what is drawn: with residual connections, h is the sum of it and what came before."""
    is_added = flow.spec is not None and flow.spec.residual != "none"
    return "activation φ(z)" if is_added else "activation h"


def _draw_share(
    name: str, color: str, shares: list[Quantity | None], symbol: str
) -> dict[str, Any]:
    """Return one share along the layers; where two lie on each other, both are seen."""
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
        "line": {"color": color, "width": 2, "dash": "dot" if symbol == "x" else "solid"},
        "marker": {
            "color": color,
            # Small where there are none, which is no alarm.
            "size": [5 if symbol != "x" else 9 if share > 0 else 4 for _, share in known],
            "symbol": symbol,
        },
        "showlegend": bool(known),
    }


def _list_magnitudes(flow: GradientFlow | None) -> list[float]:
    """Return the largest finite magnitude of every layer's activations."""
    outputs = [layer.output for layer in flow.weight_layers] if flow else []
    histograms = [output.histogram for output in outputs if output and output.histogram]
    return [max(abs(histogram.low), abs(histogram.high)) for histogram in histograms]


def _find_ends(flow: GradientFlow, scale: SymmetricLog | None) -> tuple[float, float]:
    """Return the places of the smallest and the largest activation, never the same."""
    outputs = [layer.output for layer in flow.weight_layers]
    known = [output.histogram for output in outputs if output and output.histogram]
    low = min((histogram.low for histogram in known), default=0.0)
    high = max((histogram.high for histogram in known), default=1.0)
    if scale:
        low, high = scale.place(low), scale.place(high)
    return (low, high) if high / 2 - low / 2 >= 1e-300 else (low - 0.5, high + 0.5)


def _list_extents(flow: GradientFlow) -> list[tuple[int, tuple[float, float]]]:
    """Return between which two values most of the activations of each layer lie."""
    return [
        (layer.layer, (mean + 2 * std, mean - 2 * std))
        for layer in flow.weight_layers
        if layer.output is not None
        for mean, std in [(float(layer.output.mean), float(layer.output.std))]
        if math.isfinite(abs(mean) + 2 * std)
    ]


def _draw_extents(
    extents: list[tuple[int, tuple[float, float]]], scale: SymmetricLog | None
) -> list[dict[str, Any]]:
    """Return two lines that hold most of the activations of another measurement."""
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "pinned: mean ± 2 standard deviations",
            "showlegend": side == 0,
            "x": [layer for layer, _ in extents],
            "y": [scale.place(span[side]) if scale else span[side] for _, span in extents],
            "hoverinfo": "skip",
            "line": theme.PINNED,
        }
        for side in (0, 1)
        if extents
    ]


def _draw_wrong(layers: list[int], foot: float) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "not finite",
        "x": layers,
        "y": [foot] * len(layers),
        "hovertemplate": "layer %{x}<br>values not finite<extra></extra>",
        "marker": {"size": 9, "symbol": "x", "color": theme.VERMILION},
        "cliponaxis": False,
        "showlegend": False,
    }


def _lay_out(output: ActivationStatistics, edges: list[float]) -> list[float] | None:
    """Return the shares of a layer's values on the common scale."""
    if output.histogram is None:
        return None
    zeros = output.zero_share.values
    return spread(output.histogram, edges, zero=sum(zeros) / len(zeros))
