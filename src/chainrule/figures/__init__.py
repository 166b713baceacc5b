"""Flows as Plotly figures: plain dictionaries, built without importing Plotly."""

from chainrule.figures.gradients import build_gradient_figure

__all__ = ["build_gradient_figure"]
