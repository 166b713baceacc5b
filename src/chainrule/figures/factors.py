"""The product of the chain rule, factor by factor, for a measured network."""

import math
from typing import Any

from chainrule._utils.numbers import format_number
from chainrule.figures import theme
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.records import Factor, Role

Figure = dict[str, Any]

_SERIES: tuple[tuple[Role, str, str], ...] = (
    ("activation", "activation factor", theme.LINE),
    ("weight", "weight factor", theme.PURPLE),
    ("normalization", "normalization factor", theme.GREY),
    ("residual", "factor of the block", theme.VERMILION),
)


def build_factor_figure(flow: GradientFlow, *, other: GradientFlow | None = None) -> Figure:
    """Return each layer's factors on a log axis, and their running product from the loss back.

    Factors near 1 keep the gradient; where the running product bends is the layer that spoils it.

    Args:
        flow: A measurement with at least one weight layer.
        other: A second measurement whose running product is drawn, too.

    Returns:
        A Plotly figure as a dictionary ("data" and "layout").

    Example:
        >>> import chainrule
        >>> flow = chainrule.simulate(chainrule.NetworkSpec(depth=3, width=4), seeds=2)
        >>> sorted(build_factor_figure(flow))
        ['data', 'layout']
    """
    factors = [factor for factor in flow.factors() if factor.layer is not None]
    data = [
        _draw(name, color, own)
        for role, name, color in _SERIES
        if (own := [factor for factor in factors if factor.role == role])
    ]
    dotted = {"color": theme.GREEN, "width": 2.5, "dash": "dot"}
    data.append(_draw_running("running product", dotted, factors))
    if other:
        pinned = [factor for factor in other.factors() if factor.layer is not None]
        data.append(_draw_running("running product, pinned", theme.PINNED, pinned))
    count = max(len(each.weight_layers) for each in (flow, other) if each)
    shown = [value for trace in data for value in trace["y"] if value is not None]
    axis = theme.build_log_axis("what it multiplies the gradient by", [1.0, *shown])
    outside = [factor for factor in factors if _on_log_axis(factor.value) is None]
    notes = []
    if outside:
        data.append(_draw_outside(outside, 10.0 ** axis["range"][0]))
        notes.append(theme.build_warning(_describe_outside(outside)))
    shapes = [
        {
            "type": "line",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": 1,
            "y1": 1,
            "line": {"color": theme.REFERENCE, "width": 1},
        }
    ]
    if (end := _find_end(factors)) is not None:
        shapes.append(_mark_end(end, axis["range"]))
    return {
        "data": data,
        "layout": theme.build_layout(
            xaxis=theme.build_layer_axis(count, title="layer (the loss is to the right)"),
            yaxis=axis,
            annotations=notes,
            shapes=shapes,
            showlegend=True,
            legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            hovermode="x unified",
        ),
    }


def _draw(name: str, color: str, factors: list[Factor]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(factors) <= 40 else "lines",
        "name": name,
        "x": [factor.layer for factor in factors],
        "y": [_on_log_axis(factor.value) for factor in factors],
        "customdata": [_describe(factor.value) for factor in factors],
        "hovertemplate": f"{name}: %{{customdata}}<extra></extra>",
        "line": {"color": color, "width": 2},
        "marker": {"color": color, "size": 6},
        "connectgaps": False,
        "showlegend": any(_on_log_axis(factor.value) for factor in factors),
    }


def _draw_outside(factors: list[Factor], floor: float) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "not on this scale",
        "x": [factor.layer for factor in factors],
        "y": [floor] * len(factors),
        "customdata": [
            f"{factor.role} factor {_describe(factor.value)}{_count_zeros(factor)}"
            for factor in factors
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
        "marker": {"size": 9, "symbol": "x", "color": theme.VERMILION},
        "cliponaxis": False,
        "showlegend": False,
    }


def _find_end(factors: list[Factor]) -> Factor | None:
    """Return the factor at which the gradient becomes exactly zero on its way back, if one does."""
    return next(
        (f for f in factors if f.running == 0.0 and f.value is not None and f.value == 0.0), None
    )


def _mark_end(factor: Factor, span: list[float]) -> dict[str, Any]:
    return {
        "type": "line",
        "x0": factor.layer,
        "x1": factor.layer,
        "y0": 10.0 ** span[0],
        "y1": 10.0 ** span[1],
        "line": {"color": theme.VERMILION, "width": 2, "dash": "dot"},
    }


def _count_zeros(factor: Factor) -> str:
    members = factor.value.values if factor.value is not None else ()
    count = sum(value == 0.0 for value in members)
    return f" (in {count} of {len(members)} networks)" if 0 < count < len(members) else ""


def _describe_outside(factors: list[Factor]) -> str:
    end = _find_end(factors)
    if end is not None:
        return f"× exactly zero from layer {end.layer} back"
    zero = sum(factor.value == 0.0 for factor in factors if factor.value is not None)
    parts = [
        f"{count} {word}"
        for count, word in ((zero, "exactly zero"), (len(factors) - zero, "undefined or infinite"))
        if count
    ]
    return f"× factors: {', '.join(parts)}"


def _draw_running(name: str, line: dict[str, Any], factors: list[Factor]) -> dict[str, Any]:
    running = {factor.layer: factor for factor in factors}  # the last factor of each layer
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": list(running),
        "y": [_on_log_axis(factor.running) for factor in running.values()],
        "customdata": [_describe(factor.running) for factor in running.values()],
        "hovertemplate": f"{name}: %{{customdata}}<extra></extra>",
        "line": line,
        "connectgaps": False,
        "showlegend": any(_on_log_axis(factor.running) for factor in running.values()),
    }


def _on_log_axis(value: float | None) -> float | None:
    return float(value) if value is not None and 0 < value < math.inf else None


def _describe(value: float | None) -> str:
    return "none" if value is None else format_number(value)
