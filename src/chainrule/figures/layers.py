"""One layer's activation distribution in full."""

from typing import Any

from chainrule.figures import theme
from chainrule.flow import GradientFlow
from chainrule.measurement import ActivationStatistics

Figure = dict[str, Any]


def build_layer_figure(flow: GradientFlow, layer: int) -> Figure:
    """Return the histograms of one layer's pre-activations z and activations h.

    Args:
        flow: A measurement with at least `layer` weight layers.
        layer: The layer's number, counted from 1.

    Returns:
        A Plotly figure as a dictionary ("data" and "layout"); empty where nothing is finite.
    """
    entry = flow.weight_layers[layer - 1]
    before = _draw("pre-activations z", theme.ORANGE, entry.pre_activation)
    after = _draw("activations h", theme.LINE, entry.activation)
    return {
        "data": [trace for trace in (before, after) if trace is not None],
        "layout": theme.build_layout(
            xaxis=theme.build_axis(title={"text": f"values of layer {layer}"}, showgrid=False),
            yaxis=theme.build_axis(title={"text": "share"}, tickformat=".0%", rangemode="tozero"),
            hovermode="closest",
            showlegend=True,
            barmode="overlay",
            legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        ),
    }


def _draw(name: str, color: str, statistics: ActivationStatistics | None) -> dict[str, Any] | None:
    histogram = statistics.histogram if statistics else None
    if histogram is None:
        return None
    total = sum(histogram.counts)
    bins = len(histogram.counts)
    width = histogram.high / bins - histogram.low / bins
    return {
        "type": "bar",
        "name": name,
        "x": [
            histogram.low * (1 - share) + histogram.high * share
            for share in ((index + 0.5) / bins for index in range(bins))
        ],
        "y": [count / total for count in histogram.counts],
        "width": width or 0.1,
        "marker": {"color": color, "opacity": 0.62, "line": {"width": 0}},
        "hovertemplate": f"%{{y:.1%}} of the {name} near %{{x:.3g}}<extra></extra>",
    }
