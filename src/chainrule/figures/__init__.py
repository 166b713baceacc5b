"""Flows as Plotly figures: plain dictionaries, built without importing Plotly."""

from chainrule.figures.activations import build_activation_figure
from chainrule.figures.factors import build_factor_figure
from chainrule.figures.gradients import build_gradient_figure
from chainrule.figures.theme import build_blank_figure

__all__ = [
    "build_activation_figure",
    "build_blank_figure",
    "build_factor_figure",
    "build_gradient_figure",
]
