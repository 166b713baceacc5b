"""Checking how a model's sizes go with its width: `check_width`."""

from chainrule.width.check import check_width
from chainrule.width.records import ModuleScaling, ParameterScaling, WidthCheck, WidthFinding
from chainrule.width.scaling import Scaling

__all__ = [
    "ModuleScaling",
    "ParameterScaling",
    "Scaling",
    "WidthCheck",
    "WidthFinding",
    "check_width",
]
