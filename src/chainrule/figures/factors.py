"""The product of the chain rule, factor by factor, for a measured network."""

import math
from typing import Any

from chainrule.figures import theme
from chainrule.flow import GradientFlow
from chainrule.measurement import Factor, Role
from chainrule.numerals import format_number

Figure = dict[str, Any]

_SERIES: tuple[tuple[Role, str, str], ...] = (
    ("activation", "activation factor", theme.LINE),
    ("weight", "weight factor", theme.ORANGE),
    ("normalization", "normalization factor", theme.PURPLE),
    ("residual", "factor of the block", theme.VERMILION),
)


def build_factor_figure(flow: GradientFlow) -> Figure:
    """Return each layer's factors on a log axis, and their running product from the loss back.

    Factors near 1 keep the gradient; where the running product bends is the layer to blame.

    Args:
        flow: A measurement with at least one weight layer.

    Returns:
        A Plotly figure as a dictionary ("data" and "layout").
    """
    factors = [factor for factor in flow.factors() if factor.layer is not None]
    data = [
        _draw(name, color, own)
        for role, name, color in _SERIES
        if (own := [factor for factor in factors if factor.role == role])
    ]
    running = {factor.layer: factor for factor in factors}  # the last factor of each layer
    data.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "running product",
            "x": list(running),
            "y": [_on_log_axis(factor.running) for factor in running.values()],
            "customdata": [_describe(factor.running) for factor in running.values()],
            "hovertemplate": "running product: %{customdata}<extra></extra>",
            "line": {"color": theme.GREEN, "width": 2.5, "dash": "dot"},
            "connectgaps": False,
        }
    )
    return {
        "data": data,
        "layout": theme.build_layout(
            xaxis=theme.build_axis(
                title={"text": "layer (the loss is at the right)"},
                range=[0.5, len(flow.weight_layers) + 0.5],
                tick0=1,
                dtick=max(1, math.ceil(len(flow.weight_layers) / 12)),
                showgrid=False,
            ),
            yaxis=theme.build_axis(
                title={"text": "what it multiplies the gradient by"},
                type="log",
                exponentformat="power",
                nticks=8,
            ),
            shapes=[
                {
                    "type": "line",
                    "xref": "paper",
                    "x0": 0,
                    "x1": 1,
                    "y0": 1,
                    "y1": 1,
                    "line": {"color": theme.REFERENCE, "width": 1},
                }
            ],
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
    }


def _on_log_axis(value: float | None) -> float | None:
    return float(value) if value is not None and 0 < value < math.inf else None


def _describe(value: float | None) -> str:
    return "none" if value is None else format_number(value)
