"""`plot`: a chart of a measurement as a Plotly figure, for a notebook."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, Protocol

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


class Theory(Protocol):
    """What is predicted of a start: `chainrule.theory.Prediction` is one."""

    def list_bands(self, measure: str = "weight") -> Sequence[tuple[float, float, float] | None]:
        """Return low, median and high of every layer."""
        ...

    def describe_agreement(self, flow: GradientFlow) -> str:
        """Return one sentence on theory and measurement."""
        ...


INSTALL_PLOTLY = "pip install plotly"


def plot(
    flow: GradientFlow, chart: Chart = "gradients", *, theory: Theory | None = None
) -> "Figure":
    """Return a chart of a measurement as a Plotly figure, to show, change or save.

    Args:
        flow: A measurement with at least one weight layer.
        chart: "gradients" (‖∂𝓛/∂W‖ per layer), "activations" (their distribution per layer) or
            "factors" (the chain-rule product).
        theory: What `chainrule.theory.predict(flow.spec)` says, to draw behind the gradients, with
            a sentence on how well it agrees.

    Raises:
        ChainruleError: If Plotly is not installed, the chart is unknown, there is no weight
            layer to show, or the theory is for another chart or another number of layers.

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
    if theory is not None and chart != "gradients":
        raise ChainruleError(
            f"theory: must come with the chart 'gradients'; got {chart!r}. Leave theory out."
        )
    from plotly.graph_objects import Figure

    if theory is None:
        return Figure(_BUILDERS[chart](flow))
    sentence = theory.describe_agreement(flow)
    figure = build_gradient_figure(flow, theory=theory.list_bands())
    return Figure(_add_title(figure, sentence))


def _add_title(figure: dict[str, Any], text: str) -> dict[str, Any]:
    """Return a figure with a line of text above it."""
    layout = figure["layout"]
    title = {"text": text, "font": {"size": 13}, "x": 0.01, "xanchor": "left"}
    margin = {**layout["margin"], "t": layout["margin"]["t"] + 34}
    return {**figure, "layout": {**layout, "title": title, "margin": margin}}
