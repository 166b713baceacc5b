"""`plot`: a chart of a measurement as a Plotly figure, for a notebook."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.limits import read_usable_range
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


def _build_gradients(flow: GradientFlow, other: GradientFlow | None) -> dict[str, Any]:
    usable = read_usable_range(flow, diagnose(flow).verdict)
    return build_gradient_figure(flow, other=other, usable=usable)


_BUILDERS: Mapping[str, Callable[[GradientFlow, GradientFlow | None], dict[str, Any]]] = (
    MappingProxyType(
        {
            "gradients": _build_gradients,
            "activations": lambda flow, other: build_activation_figure(flow, other=other),
            "factors": lambda flow, other: build_factor_figure(flow, other=other),
        }
    )
)

INSTALL_PLOTLY = "pip install plotly"


def plot(
    flow: GradientFlow, chart: Chart = "gradients", *, other: GradientFlow | None = None
) -> "Figure":
    """Return a chart of a measurement as a Plotly figure, to show, change or save.

    Args:
        flow: A measurement with at least one weight layer.
        chart: "gradients" (‖∂𝓛/∂W‖ per layer, over the zones where layers learn and where they do
            not, as on the explorer's page), "activations" (their distribution per layer) or
            "factors" (the chain-rule product).
        other: A second measurement to draw with it, dashed: the one before a change, say.

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

    return Figure(_BUILDERS[chart](flow, other))
