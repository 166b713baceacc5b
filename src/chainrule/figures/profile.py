"""The depth profile of repeated blocks: a line for each place in a block."""

import math
from collections.abc import Sequence
from typing import Any

from chainrule.figures import theme
from chainrule.flow.blocks import Stack
from chainrule.flow.quantity import Quantity

Figure = dict[str, Any]

LINES = 8
"""Places of a block that get a line; of more, those whose gradient differs most."""

NAME = 30
"""Characters of a name in the legend."""

_LOOKS = [
    (color, dash)
    for dash in ("solid", "dot")
    for color in (theme.LINE, theme.VERMILION, theme.GREEN, theme.PURPLE)
]


def build_profile_figure(stack: Stack) -> Figure:
    """Return ‖∂𝓛/∂W‖ over the blocks of a stack, input to output: a line per place in a block.

    Where the blocks end in residual sums, a grey line shows ‖∂𝓛/∂sum‖. What has no place on a log
    scale leaves a gap.

    Args:
        stack: Repeated blocks.

    Returns:
        A Plotly figure as a dictionary ("data" and "layout").

    Example:
        >>> from chainrule.flow.blocks import ProfileRow, Stack
        >>> stack = Stack("blocks.*", ("0", "1"), (ProfileRow("linear", (None, None)),))
        >>> sorted(build_profile_figure(stack))
        ['data', 'layout']
    """
    rows = sorted(
        sorted(range(len(stack.rows)), key=lambda at: -_find_reach(stack.rows[at].norms))[:LINES]
    )
    lines = [
        (stack.rows[at].name, stack.rows[at].norms, look)
        for at, look in zip(rows, _LOOKS, strict=False)
    ]
    if stack.stream:
        lines.append(("residual stream, ‖∂𝓛/∂sum‖", stack.stream, (theme.GREY, "solid")))
    known = [n for _, norms, _ in lines for norm in norms if (n := _read(norm)) is not None]
    count = len(stack.labels)
    step = max(1, math.ceil(count / 12))
    return {
        "data": [_draw(stack, name, norms, *look) for name, norms, look in lines],
        "layout": theme.build_layout(
            xaxis=theme.build_axis(
                title={"text": "block, input to output"},
                range=[-0.5, count - 0.5],
                tickvals=list(range(0, count, step)),
                ticktext=list(stack.labels[::step]),
                tickangle=0,
                showgrid=False,
            ),
            yaxis=theme.build_log_axis("weight gradient ‖∂𝓛/∂W‖", known),
            showlegend=True,
            legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        ),
    }


def count_hidden(stack: Stack) -> int:
    """Return how many places of a block have no line of their own.

    Example:
        >>> from chainrule.flow.blocks import ProfileRow, Stack
        >>> stack = Stack("blocks.*", ("0", "1"), (ProfileRow("linear", (None, None)),))
        >>> count_hidden(stack)
        0
    """
    return max(0, len(stack.rows) - LINES)


def _draw(
    stack: Stack, name: str, norms: Sequence[Quantity | None], color: str, dash: str
) -> dict[str, Any]:
    short = _clean(name if len(name) <= NAME else f"…{name[1 - NAME :]}")
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": list(range(len(norms))),
        "y": [_read(norm) for norm in norms],
        "customdata": list(stack.labels),
        "hovertemplate": f"block %{{customdata}}<br>{short}: %{{y:.3g}}<extra></extra>",
        "line": {"color": color, "width": 2, "dash": dash},
        "marker": {"color": color, "size": 6},
        "connectgaps": False,
        "name": short,
    }


def _clean(name: str) -> str:
    """Return a name without signs that Plotly would read as markup or as a placeholder."""
    return name.replace("<", "‹").replace(">", "›").replace("%{", "% {")


def _read(norm: float | None) -> float | None:
    """Return a value if it has a place on a log scale."""
    return float(norm) if norm is not None and 0 < norm < math.inf else None


def _find_reach(norms: Sequence[Quantity | None]) -> float:
    """Return over how many powers of ten a row's values go."""
    logs = [math.log10(norm) for norm in norms if norm is not None and 0 < norm < math.inf]
    return max(logs) - min(logs) if logs else 0.0
