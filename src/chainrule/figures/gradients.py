"""The main chart: the gradient of every layer."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from chainrule._utils.numbers import format_number
from chainrule.figures import theme
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.quantity import Quantity, divide, format_band
from chainrule.flow.records import WeightLayer

Figure = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Measure:
    """One way to measure the gradient of a layer.

    Attributes:
        label: Its name, for a switch.
        symbol: Its symbol.
        title: What the axis says.
        read: Reads it from a layer.
    """

    label: str
    symbol: str
    title: str
    read: Callable[[WeightLayer], Quantity | None]


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "weight": Measure(
            "‖∂𝓛/∂W‖",
            "‖∂𝓛/∂W‖",
            "gradient magnitude ‖∂𝓛/∂W‖",
            lambda layer: layer.weight_gradient_norm,
        ),
        "delta": Measure(
            "‖δ‖", "‖δ‖", "backpropagated gradient ‖δ‖", lambda layer: layer.delta_norm
        ),
        "relative": Measure(
            "gradient ÷ weight",
            "‖∂𝓛/∂W‖ ÷ ‖W‖",
            "gradient ÷ weight, ‖∂𝓛/∂W‖ ÷ ‖W‖",
            lambda layer: layer.grad_to_weight,
        ),
    }
)
"""What the chart can show, by name."""

SCALES = ("log", "linear")


def build_gradient_figure(
    flow: GradientFlow,
    *,
    measure: str = "weight",
    scale: str = "log",
    other: GradientFlow | None = None,
) -> Figure:
    """Return a gradient measure over l: median, 10–90 % band, last layer as reference.

    Layers that have no place on the scale stand at its lower edge and say why: gradient exactly
    zero (on a log scale), not finite, or none.

    Args:
        flow: A measurement with at least one weight layer.
        measure: What to show; a name of `MEASURES`.
        scale: "log" or "linear".
        other: A second measurement to draw behind it.

    Returns:
        A Plotly figure as a dictionary ("data" and "layout"). The first three traces are band,
        median and layers without a place; a fourth is the other measurement's median.

    Example:
        >>> import chainrule
        >>> flow = chainrule.simulate(chainrule.NetworkSpec(depth=3, width=4), seeds=2)
        >>> sorted(build_gradient_figure(flow))
        ['data', 'layout']
    """
    entry = MEASURES[measure]
    norms = [entry.read(layer) for layer in flow.weight_layers]
    others = [entry.read(layer) for layer in other.weight_layers] if other else []
    numbers = list(range(1, len(norms) + 1))
    place = _on_log_axis if scale == "log" else _on_linear_axis
    medians = [place(norm) for norm in norms]
    low = [place(norm and norm.low) for norm in norms]
    high = [place(norm and norm.high) for norm in norms]
    other_medians = [place(norm) for norm in others]
    axis = _build_axis(entry.title, scale, [*medians, *low, *high, *other_medians])
    floor = 10.0 ** axis["range"][0] if scale == "log" else 0.0
    banded = [i for i in range(len(norms)) if medians[i] is not None and high[i] is not None]
    outside = [index for index, median in enumerate(medians) if median is None]
    last = norms[-1] if norms else None
    size = 8 if len(norms) <= 40 else 4
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
            "line": {"color": theme.LINE, "width": 2.5},
            "marker": {"size": size, "color": theme.LINE},
            "connectgaps": False,
            "name": "median",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "x": [numbers[i] for i in outside],
            "y": [floor for _ in outside],
            "customdata": [_describe(norms[i]) for i in outside],
            "hovertemplate": "layer %{x}<br>%{customdata}<extra></extra>",
            "marker": {"size": 10, "symbol": "x", "color": theme.VERMILION},
            "cliponaxis": False,
            "name": "not on this scale",
        },
    ]
    if other:
        data.append(_draw_other(others, other_medians, size))
    shapes, annotations = _mark_last(medians[-1] if medians else None, scale)
    if outside:
        annotations.append(theme.build_warning(_describe_outside([norms[i] for i in outside])))
    return {
        "data": data,
        "layout": theme.build_layout(
            xaxis=theme.build_layer_axis(
                max(len(norms), len(others)), title="layer (1 is next to the input)"
            ),
            yaxis=axis,
            shapes=shapes,
            annotations=annotations,
        ),
    }


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
        "marker": {"size": size - 2, "color": theme.PINNED["color"], "symbol": "diamond"},
        "connectgaps": False,
        "name": "pinned",
    }


def _mark_last(last: float | None, scale: str) -> tuple[list[Any], list[Any]]:
    """Return the line at the last layer's gradient, and its name."""
    if last is None:
        return [], []
    line = {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": last,
        "y1": last,
        "line": {"color": theme.REFERENCE, "width": 1, "dash": "dot"},
    }
    name = {
        "xref": "paper",
        "x": 0.01,
        "y": math.log10(last) if scale == "log" else last,
        "yshift": 9,
        "text": "last layer",
        "showarrow": False,
        "xanchor": "left",
        "font": {"size": 12, "color": theme.TEXT},
    }
    return [line], [name]


def _on_log_axis(value: float | None) -> float | None:
    return float(value) if value is not None and 0 < value < math.inf else None


def _on_linear_axis(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _build_axis(title: str, scale: str, values: Sequence[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    if scale == "log":
        return theme.build_log_axis(title, known)
    top = max(known, default=1.0) or 1.0
    return theme.build_axis(
        title={"text": title},
        type="linear",
        range=[0, 1.06 * top],
        exponentformat="power",
        nticks=6,
    )


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
    share = math.nan if last is None else divide(norm, last)
    return f"{text}<br>{format_number(share)} × the last layer" if math.isfinite(share) else text


def _describe_outside(norms: Sequence[Quantity | None]) -> str:
    reasons = dict.fromkeys(_describe(norm) for norm in norms)
    count = "1 layer" if len(norms) == 1 else f"{len(norms)} layers"
    return f"× {count}: gradient {' or '.join(reasons)}"
