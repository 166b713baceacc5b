"""The axes of a map: what they are called, what their values mean for a specification."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from chainrule.errors import SweepError
from chainrule.spec.activations import get_activation
from chainrule.spec.initializers import get_initializer
from chainrule.spec.network_spec import FIELD_NAMES, NetworkSpec
from chainrule.sweeps.grids import AXES, WEIGHT_SCALE, check_axes, count_cells, make_spec
from chainrule.theory.critical import critical_line
from chainrule.theory.quadrature import is_homogeneous

SYMBOLS: Mapping[str, str] = MappingProxyType(
    {WEIGHT_SCALE: "weight scale σ_w", "bias_std": "spread of the biases σ_b"}
)
"""What axes of theory are called; others are called as in sentences."""

LINE_POINTS = 24
"""Most points at which a critical line is computed: it is smooth, and each takes some 10 ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis of a map.

    Attributes:
        name: A field of `NetworkSpec`, or "weight_scale".
        values: In their order.

    Example:
        >>> Axis(name="weight_scale", values=(0.5, 1.0)).label
        'weight scale σ_w'
    """

    name: str
    values: tuple[Any, ...]

    @property
    def label(self) -> str:
        """What it is called."""
        return SYMBOLS.get(self.name) or FIELD_NAMES.get(self.name, self.name)

    @property
    def is_numeric(self) -> bool:
        """Whether its values are numbers in rising order."""
        return all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in self.values
        ) and list(self.values) == sorted(self.values)

    def write(self, value: Any) -> str:
        """Return a value as text."""
        if value is None:
            return "none"
        if self.name == "activation":
            return get_activation(value).label
        if self.name == "init":
            return get_initializer(value).label.partition(" (")[0]
        return f"{value:.6g}" if isinstance(value, float) else str(value)

    def describe(self, value: Any) -> str:
        """Return the axis with a value: "depth 12"."""
        return f"{self.label} {self.write(value)}"


def read_axes(axes: Mapping[str, Sequence[Any]], limit: int) -> tuple[Axis, Axis]:
    """Return the two axes of a map, the first one to the right.

    Raises:
        SweepError: If there are not two, one is no field, endless or empty, or there are too many
            cells.

    Example:
        >>> [axis.name for axis in read_axes({"weight_scale": [1, 2], "depth": [2]}, 10)]
        ['weight_scale', 'depth']
    """
    check_axes(axes, [name for name in AXES if name != "seed"])
    if len(axes) != 2:
        raise SweepError(
            f"A map must have two axes, the first one to the right; got {len(axes)}: "
            f"{', '.join(axes) or 'none'}. Put further settings into base, a map for each."
        )
    count_cells(axes, limit)
    x, y = (Axis(name=name, values=tuple(values)) for name, values in axes.items())
    return x, y


def trace_critical_line(x: Axis, y: Axis, base: NetworkSpec) -> tuple[tuple[float, float], ...]:
    """Return the critical line as (x, y) points; none where the map has none.

    It is drawn where one axis is the weight scale and the other one numbers. The theory is that of
    plain networks with Gaussian weights and biases (see `critical_line`). For ReLU and other pairs
    of straight lines χ does not depend on q, so the line has one σ_w for all biases.

    Example:
        >>> x = Axis(name="weight_scale", values=(1.0, 2.0))
        >>> y = Axis(name="depth", values=(2, 10))
        >>> line = trace_critical_line(x, y, NetworkSpec(activation="relu"))
        >>> [(round(across, 6), up) for across, up in line]
        [(1.414214, 2.0), (1.414214, 10.0)]
    """
    scale, other = (x, y) if x.name == WEIGHT_SCALE else (y, x)
    if scale.name != WEIGHT_SCALE or not (scale.is_numeric and other.is_numeric):
        return ()
    points = []
    for value in _thin(other):
        spec = make_spec(base, {WEIGHT_SCALE: 1.0, other.name: value})
        if spec.residual != "none" or spec.normalization != "none":
            return ()
        bias = 0.0 if is_homogeneous(spec.activation) else spec.bias_std or 0.0
        point = critical_line(spec.activation, bias)
        if point is None:
            continue
        pair = (point.weight_std, float(value))
        points.append(pair if scale is x else pair[::-1])
    return tuple(points)


def is_line_critical(x: Axis, y: Axis, base: NetworkSpec) -> bool:
    """Return whether the line of `trace_critical_line` is the critical line everywhere.

    For ReLU and other pairs of straight lines, χ = 1 at one σ_w; but with biases no fixed point
    exists there (`critical_line` is None), and the line is that of χ = 1 alone.

    Example:
        >>> x, y = Axis(name="weight_scale", values=(1.0,)), Axis(name="depth", values=(2,))
        >>> is_line_critical(x, y, NetworkSpec(activation="relu", bias_std=0.2))
        False
    """
    if not is_homogeneous(base.activation):
        return True
    axes = [axis for axis in (x, y) if axis.name == "bias_std"]
    spreads = axes[0].values if axes else (base.bias_std,)
    return not any(spreads)


def _thin(axis: Axis) -> tuple[Any, ...]:
    """Return the values at which a line is computed: both ends, and some between."""
    values = axis.values
    if axis.name != "bias_std":  # it does not move with others
        return (values[0], values[-1]) if len(values) > 1 else values
    stride = max(1, math.ceil((len(values) - 1) / (LINE_POINTS - 1)))
    return tuple(dict.fromkeys((*values[::stride], values[-1])))
