"""Units of a layer that are copies of each other, and stay so."""

from dataclasses import dataclass
from reprlib import repr as shorten

from pydantic import with_config

from chainrule.flow.quantity import Quantity
from chainrule.flow.records import CLOSED, Count, LayerNumber, PositiveSize, Text


@with_config(CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True)
class SymmetryFlow:
    """A weight of which some units have the same weights and receive the same gradients.

    Whatever the learning rate, the same step leaves them the same: together they can do no more
    than one unit. Dropout and noise between them would give them different gradients.

    Attributes:
        parameter: Qualified name of the weight.
        layer: Number of the weight layer that owns it, or `None`.
        units: Number of its units (rows of a matrix, output channels of a kernel).
        copies: Units whose weights and gradients equal those of an earlier unit, with a gradient
            that is not zero.
        idle: Units whose weights equal those of an earlier unit and whose gradients are all zero.

    Example:
        >>> zero = Quantity([0.0])
        >>> SymmetryFlow(
        ...     parameter="0.weight", layer=1, units=4, copies=Quantity([3.0]), idle=zero
        ... ).share
        0.75
    """

    parameter: Text
    layer: LayerNumber | None
    units: PositiveSize
    copies: Count
    idle: Count

    def __repr__(self) -> str:
        return (
            f"SymmetryFlow({shorten(self.parameter)}, {self.units:,} units, "
            f"{self.copies:g} copies, {self.idle:g} idle)"
        )

    @property
    def share(self) -> Quantity:
        """Share of units that are copies of an earlier one, idle ones included, in [0, 1)."""
        pairs = zip(self.copies.values, self.idle.values, strict=True)
        return Quantity((copies + idle) / self.units for copies, idle in pairs)
