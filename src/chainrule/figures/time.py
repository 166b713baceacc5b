"""The gradient along time: one line over the steps of a recurrent module."""

import math
from typing import Any

from chainrule._utils.numbers import format_number
from chainrule.figures import theme
from chainrule.flow.quantity import Quantity
from chainrule.flow.time import TimeFlow

Figure = dict[str, Any]

DEEPEST = 12
"""Powers of ten below the largest gradient that are drawn."""

_AXES = {"step": "time step (the loss is behind the last one)", "position": "position"}


def build_time_figure(time: TimeFlow, *, lost: float) -> Figure:
    """Return the gradient at each time step ÷ the largest of them, on a log scale.

    Steps below the bound have another colour and shape; what is smaller than the axis, exactly zero
    included, lies on its lower edge.

    Args:
        time: Gradients at the steps of one module.
        lost: Share of the largest gradient below which a step counts as lost.

    Returns:
        A Plotly figure as a dictionary ("data" and "layout").

    Example:
        >>> norms = (Quantity([1e-9]), Quantity([1.0]))
        >>> time = TimeFlow(name="a", kind="GRU", call=0, of="input", length=2, steps=(0, 1),
        ...                 gradients=norms)
        >>> build_time_figure(time, lost=1e-6)["data"][0]["y"]
        [1e-09, 1.0]
    """
    shares = [_read(share) for share in time.shares]
    floor = 10.0**-DEEPEST
    looks = [
        theme.STATES["small" if share is not None and share < lost else "usable"]
        for share in shares
    ]
    bottom = math.floor(math.log10(min(_list_known(shares, floor), default=floor)) - 0.2)
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": [step + 1 for step in time.steps],
                "y": [None if share is None else max(share, floor) for share in shares],
                "customdata": [format_number(norm) for norm in time.gradients],
                "hovertemplate": f"{time.unit} %{{x}}: gradient %{{customdata}}<extra></extra>",
                "line": {"color": theme.GREY, "width": 1.5},
                "marker": {
                    "color": [color for color, _ in looks],
                    "symbol": [symbol for _, symbol in looks],
                    "size": 7,
                },
                "connectgaps": False,
                "cliponaxis": False,
            }
        ],
        "layout": theme.build_layout(
            xaxis=theme.build_axis(
                title={"text": _AXES[time.unit]},
                range=[0.5, time.length + 0.5],
                showgrid=False,
            ),
            yaxis=theme.build_axis(
                title={"text": "gradient ÷ the largest"},
                type="log",
                range=[min(bottom, -2), 0.4],
                dtick=max(1, math.ceil(-bottom / 6)),
                exponentformat="power",
                tickfont={"size": 12},
            ),
            shapes=[
                {
                    "type": "rect",
                    "layer": "below",
                    "xref": "paper",
                    "x0": 0,
                    "x1": 1,
                    "y0": low,
                    "y1": high,
                    "line": {"width": 0},
                    "fillcolor": theme.ZONES[name],
                }
                for name, low, high in (("small", floor / 10, lost), ("usable", lost, 10.0))
            ],
        ),
    }


def _read(share: Quantity) -> float | None:
    """Return a share that can be drawn; zero counts as the lower edge, undefined as a gap."""
    return None if math.isnan(share) else float(share)


def _list_known(shares: list[float | None], floor: float) -> list[float]:
    return [max(share, floor) for share in shares if share is not None]
