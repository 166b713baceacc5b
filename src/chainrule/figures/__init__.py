"""Flows as Plotly figures: plain dictionaries, built without importing Plotly."""

from chainrule.figures.activations import build_activation_figure
from chainrule.figures.factors import build_factor_figure
from chainrule.figures.gradients import MEASURES, SCALES, build_gradient_figure
from chainrule.figures.layers import build_layer_figure
from chainrule.figures.profile import build_profile_figure, count_hidden
from chainrule.figures.theme import build_blank_figure
from chainrule.figures.time import build_time_figure

__all__ = [
    "MEASURES",
    "SCALES",
    "build_activation_figure",
    "build_blank_figure",
    "build_factor_figure",
    "build_gradient_figure",
    "build_layer_figure",
    "build_profile_figure",
    "build_time_figure",
    "count_hidden",
]
