"""What theory says of a start, before anything is measured: the limit of wide networks."""

from chainrule.theory.critical import CriticalPoint, DepthScales, critical_line
from chainrule.theory.expected import Expected
from chainrule.theory.prediction import LayerPrediction, Prediction, predict

__all__ = [
    "CriticalPoint",
    "DepthScales",
    "Expected",
    "LayerPrediction",
    "Prediction",
    "critical_line",
    "predict",
]
