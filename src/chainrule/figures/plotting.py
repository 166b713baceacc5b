"""`plot`: a chart of a measurement as a Plotly figure, for a notebook."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from chainrule.errors import ChainruleError, suggest
from chainrule.figures import (
    build_activation_figure,
    build_factor_figure,
    build_gradient_figure,
)
from chainrule.flow.gradient_flow import GradientFlow

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Chart = Literal["gradients", "activations", "factors"]

_BUILDERS = {
    "gradients": build_gradient_figure,
    "activations": build_activation_figure,
    "factors": build_factor_figure,
}

INSTALL_PLOTLY = "pip install plotly"


def plot(flow: GradientFlow, chart: Chart = "gradients") -> "Figure":
    """Return a chart of a measurement as a Plotly figure, to show, change or save.

    Args:
        flow: A measurement with at least one weight layer.
        chart: "gradients" (‖∂𝓛/∂W‖ per layer), "activations" (their distribution per layer) or
            "factors" (the chain-rule product).

    Raises:
        ChainruleError: If Plotly is not installed, the chart is unknown, or there is no weight
            layer to show.

    Example:
        >>> import chainrule
        >>> flow = chainrule.simulate(chainrule.NetworkSpec(depth=3, width=4), seeds=2)
        >>> len(plot(flow).data) > 0
        True
    """
    if chart not in _BUILDERS:
        raise ChainruleError(f"chart: unknown {chart!r}. {suggest(str(chart), _BUILDERS)}")
    if not flow.weight_layers:
        raise ChainruleError(
            "A chart needs at least one weight layer, but no module with a weight matrix or kernel "
            "was used. The values are in flow.to_records()."
        )
    if not find_spec("plotly"):
        raise ChainruleError(f"plot needs plotly, which must be installed. Run: {INSTALL_PLOTLY}")
    from plotly.graph_objects import Figure

    return Figure(_BUILDERS[chart](flow))
