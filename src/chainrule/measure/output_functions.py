"""What made the values that a loss reads: an activation, and between which bounds it keeps them."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from chainrule.flow.loss import OutputActivation, Rectifier
from chainrule.measure._torch_internals import read_saved
from chainrule.measure.autograd_graph import Edge, list_views

ACTIVATIONS: Mapping[str, OutputActivation] = {
    "SoftmaxBackward0": "softmax",
    "LogSoftmaxBackward0": "log_softmax",
    "SigmoidBackward0": "sigmoid",
}
_RANGES: Mapping[str, tuple[float, float]] = {
    "ReluBackward0": (0.0, math.inf),
    "SoftplusBackward0": (0.0, math.inf),
    "ExpBackward0": (0.0, math.inf),
    "SigmoidBackward0": (0.0, 1.0),
    "SoftmaxBackward0": (0.0, 1.0),
    "TanhBackward0": (-1.0, 1.0),
    "LogSoftmaxBackward0": (-math.inf, 0.0),
    "LogSigmoidBackward0": (-math.inf, 0.0),
    "AbsBackward0": (0.0, math.inf),
}
"""Nodes whose values all lie in a range that does not depend on what goes in."""
_LIMITED = frozenset(("HardtanhBackward0", "ClampBackward1", "ClampMinBackward0"))
"""Nodes that hold their range: ReLU6, hardtanh, clamp."""
_RECTIFIERS: Mapping[str, Rectifier] = {
    "ReluBackward0": "relu",
    "SoftplusBackward0": "softplus",
    "ExpBackward0": "exp",
    "AbsBackward0": "abs",
    **dict.fromkeys(_LIMITED, "clamp"),
}
"""Nodes that may have no values below 0, in words."""
_PICKS = frozenset(
    f"{each}Backward0" for each in ("Select", "Slice", "Index", "Gather", "MaskedSelect")
)
"""Nodes that pass some of the values on, unchanged."""
BOUNDS = frozenset(
    ("ClampBackward0", "ClampBackward1", "ClampMinBackward0", "ClampMaxBackward0", "AddBackward0")
)
"""Nodes behind which probabilities still are probabilities, nearly."""


def _find_maker(edge: Edge) -> Any:
    """Return the node that made the values on an edge, of which only some may be there."""
    node = list_views(*edge)[-1][0]
    while node.name() in _PICKS:
        node = list_views(*node.next_functions[0])[-1][0]
    return node


def find_activation(edge: Edge) -> tuple[OutputActivation | None, int | None]:
    """Return the activation that made a tensor, and over how many values it goes."""
    node = _find_maker(edge)
    while node.name() in BOUNDS:
        live = [each for each in node.next_functions if each[0] is not None]
        if len(live) != 1:
            return None, None
        node = _find_maker(live[0])
    kind = ACTIVATIONS.get(node.name())
    width = None
    if kind in ("softmax", "log_softmax"):
        result, dim = read_saved(node, "result"), read_saved(node, "dim")
        if isinstance(result, Tensor) and isinstance(dim, int) and result.dim():
            width = result.shape[dim if dim < 2**63 else dim - 2**64]
    return kind, width


def find_bounds(edge: Edge) -> tuple[float, float] | None:
    """Return between which values the function that made a tensor has to put it, if known."""
    node = _find_maker(edge)
    name = node.name()
    if name not in _LIMITED:
        return _RANGES.get(name)
    names = ("min_val", "max_val") if name.startswith("Hardtanh") else ("min", "max")
    low, high = (read_saved(node, each) for each in names)
    low = -math.inf if low is None else low
    high = math.inf if high is None else high
    known = isinstance(low, int | float) and isinstance(high, int | float)
    return (float(low), float(high)) if known else None


def find_rectifier(edge: Edge, bounds: tuple[float, float] | None) -> Rectifier | None:
    """Return the function that made values of which none can be below 0; `None` if others may.

    Args:
        edge: Where the values are.
        bounds: Those of `find_bounds`.
    """
    if bounds is None or bounds[0] < 0.0:
        return None
    name = _find_maker(edge).name()
    return "relu6" if (name, bounds[1]) == ("HardtanhBackward0", 6.0) else _RECTIFIERS.get(name)


def read_passed(edge: Edge) -> Tensor | None:
    """Return what a rectifier kept of its values: itself 0, or at most the lower end, where off.

    `None` if only some of the values are read, or it has no flat end.
    """
    node = list_views(*edge)[-1][0]
    kind = _RECTIFIERS.get(node.name())
    if kind not in ("relu", "clamp"):
        return None
    passed = read_saved(node, "result" if kind == "relu" else "self")
    return passed.detach() if isinstance(passed, Tensor) else None
