"""Sizes against widths, both logarithmic: what theory wants is flat."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from chainrule.errors import ChainruleError, suggest
from chainrule.figures import theme
from chainrule.figures.theme import INSTALL_PLOTLY
from chainrule.width.scaling import Scaling

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

CHARTS = {
    "output": "output at the start",
    "change": "change of the output",
    "gradient": "gradient ∂𝓛/∂output",
    "effect": "effect of the update on the output",
}

NAMED = 12
"""Lines with an entry in the legend; findings come first."""


class Line(NamedTuple):
    """A size of one module or parameter.

    Attributes:
        name: Whose.
        scaling: The size at every width.
        way: 1 if it grows and must not, −1 if it falls, 0 if nothing was found.
    """

    name: str
    scaling: Scaling
    way: int


def plot_widths(widths: Sequence[int], lines: Sequence[Line], metric: str) -> "Figure":
    """Return a Plotly figure of one size against the width.

    Args:
        widths: In rising order.
        lines: What to draw.
        metric: "output", "change", "gradient" or "effect".

    Raises:
        ChainruleError: If Plotly is not installed or the metric is unknown.
    """
    figure = build_width_figure(widths, lines, metric)
    if not find_spec("plotly"):
        raise ChainruleError(f"plot needs plotly, which must be installed. Run: {INSTALL_PLOTLY}")
    from plotly.graph_objects import Figure

    return Figure(figure)


def build_width_figure(widths: Sequence[int], lines: Sequence[Line], metric: str) -> dict[str, Any]:
    """Return the same as a dictionary ("data" and "layout").

    Lines with a finding come first and are wide; triangles point to where they go.

    Raises:
        ChainruleError: If the metric is unknown.
    """
    if metric not in CHARTS:
        raise ChainruleError(f"metric: unknown {metric!r}. {suggest(str(metric), CHARTS)}")
    lines = sorted(lines, key=lambda line: not line.way)
    data = []
    for number, (name, scaling, way) in enumerate(lines):
        color, symbol = theme.STATES[("usable", "large", "small")[way]]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": list(widths),
                "y": list(scaling.sizes),
                "name": f"{_clean(name)}: {scaling.describe()}",
                "hovertemplate": f"{_clean(name)}<br>width %{{x}}: %{{y:.3g}}<extra></extra>",
                "line": {"color": color, "width": 3 if way else 1},
                "marker": {"color": color, "symbol": symbol, "size": 8 if way else 5},
                "opacity": 1.0 if way else 0.55,
                "showlegend": number < NAMED,
            }
        )
    sizes = [size for line in lines for size in line.scaling.sizes]
    return {
        "data": data,
        "layout": theme.build_layout(
            xaxis=theme.build_axis(
                title={"text": "width"},
                type="log",
                tickmode="array",
                tickvals=list(widths),
                ticktext=list(map(str, widths)),
            ),
            yaxis=theme.build_log_axis(f"{CHARTS[metric]}, root mean square", sizes),
            hovermode="closest",
            showlegend=True,
        ),
    }


def _clean(name: str) -> str:
    """Return a name without signs that Plotly would read as markup or as a placeholder."""
    return name.replace("<", "‹").replace(">", "›").replace("%{", "% {")
