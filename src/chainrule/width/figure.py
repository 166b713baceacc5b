"""Sizes against widths, both logarithmic: what theory wants is flat."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from chainrule.errors import ChainruleError, suggest
from chainrule.figures import theme
from chainrule.figures.plotting import INSTALL_PLOTLY
from chainrule.width.records import WidthCheck
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


def plot_widths(check: WidthCheck, metric: str = "change") -> "Figure":
    """Return a Plotly figure of one size against the width.

    Args:
        check: A measurement.
        metric: "output", "change", "gradient" or "effect".

    Raises:
        ChainruleError: If Plotly is not installed or the metric is unknown.
    """
    figure = build_width_figure(check, metric)
    if not find_spec("plotly"):
        raise ChainruleError(f"plot needs plotly, which must be installed. Run: {INSTALL_PLOTLY}")
    from plotly.graph_objects import Figure

    return Figure(figure)


def build_width_figure(check: WidthCheck, metric: str = "change") -> dict[str, Any]:
    """Return the same as a dictionary ("data" and "layout").

    A line for every module (for "effect", every parameter). Those with a finding about this size
    are wide; triangles point to where they go.

    Raises:
        ChainruleError: If the metric is unknown.

    Example:
        >>> check = WidthCheck(widths=(16, 32), seeds=2, steps=3, optimizer="Adam", decided=4)
        >>> sorted(build_width_figure(check))
        ['data', 'layout']
    """
    if metric not in CHARTS:
        raise ChainruleError(f"metric: unknown {metric!r}. {suggest(str(metric), CHARTS)}")
    found = {
        finding.parameter or finding.module: finding
        for finding in reversed(check.findings)
        if finding.metric == metric
    }
    lines = sorted(_list_lines(check, metric), key=lambda line: line[0] not in found)
    data = []
    for number, (name, scaling) in enumerate(lines):
        state = "usable"
        if name in found:
            state = "large" if found[name].exponent > 0 else "small"
        color, symbol = theme.STATES[state]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": list(check.widths),
                "y": list(scaling.sizes),
                "name": f"{_clean(name)}: {scaling.describe()}",
                "hovertemplate": f"{_clean(name)}<br>width %{{x}}: %{{y:.3g}}<extra></extra>",
                "line": {"color": color, "width": 3 if name in found else 1},
                "marker": {"color": color, "symbol": symbol, "size": 8 if name in found else 5},
                "opacity": 1.0 if name in found else 0.55,
                "showlegend": number < NAMED,
            }
        )
    sizes = [size for _, scaling in lines for size in scaling.sizes]
    return {
        "data": data,
        "layout": theme.build_layout(
            xaxis=theme.build_axis(
                title={"text": "width"},
                type="log",
                tickmode="array",
                tickvals=list(check.widths),
                ticktext=list(map(str, check.widths)),
            ),
            yaxis=theme.build_log_axis(f"{CHARTS[metric]}, root mean square", sizes),
            hovermode="closest",
            showlegend=True,
        ),
    }


def _list_lines(check: WidthCheck, metric: str) -> Iterator[tuple[str, Scaling]]:
    for module in check.modules:
        if metric == "effect":
            for parameter in module.parameters:
                if parameter.effect is not None:
                    yield parameter.name, parameter.effect
        elif (scaling := getattr(module, metric)) is not None:
            yield module.name, scaling


def _clean(name: str) -> str:
    """Return a name without signs that Plotly would read as markup or as a placeholder."""
    return name.replace("<", "‹").replace(">", "›").replace("%{", "% {")
