"""What enters a model from outside: the tensors that its first modules read."""

from dataclasses import dataclass
from reprlib import repr as shorten
from typing import Annotated

from pydantic import Strict, with_config

from chainrule._utils.numbers import format_number, format_shape
from chainrule.flow.quantity import Quantity
from chainrule.flow.records import CLOSED, Count, Magnitude, PositiveSize, Shape, Share, Text


@with_config(CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True)
class InputFlow:
    """A floating tensor that a module reads and that no measured module has made.

    Of tensors with more than 65,536 entries, evenly spaced examples and entries are looked at.
    Columns are the features of a vector or a sequence, and the channels of an image: where the
    module that reads the tensor counts its units.

    Attributes:
        reader: Qualified name of the module that read it first.
        shape: Shape of the tensor.
        dtype: Data type of the tensor.
        examples: Examples that were looked at.
        columns: Columns that were looked at.
        mean: Mean of the finite entries; undefined if there is none, as the next three.
        std: Standard deviation of the finite entries.
        min: Smallest finite entry.
        max: Largest finite entry.
        non_finite: Share of entries that are infinite or NaN, in [0, 1].
        constant_columns: Columns with one value, not zero, in all examples. 0 for a single example.
        zero_columns: Columns that are zero in all examples, as sparse features often are.
        offset: Size of the column means ÷ size of the column deviations (root mean squares over
            the columns that are not constant): how far the values are from 0, in standard
            deviations. `None` if all columns are constant or not finite.
        spread_ratio: Largest ÷ smallest standard deviation of columns that are not constant;
            `None` as for `offset`.
        repeated: Share of examples that are equal to an earlier one, in [0, 1].
        typical: Size of the median example (of those that are not zero) ÷ size of all, as root mean
            squares: far below 1 where a few examples are far larger than the others. `None` for
            fewer than two examples, or if some are not finite.
        is_part: Whether the module reads it joined to values that have a gradient already, such as
            an embedding.

    Example:
        >>> import torch
        >>> from chainrule import inspect
        >>> flow = inspect(torch.nn.Linear(2, 1), lambda m: m(torch.ones(4, 2)).sum())
        >>> flow.inputs[0].constant_columns, flow.inputs[0].repeated
        (2.0, 0.75)
    """

    reader: Text
    shape: Shape
    dtype: Text
    examples: PositiveSize
    columns: PositiveSize
    mean: Quantity
    std: Magnitude
    min: Quantity
    max: Quantity
    non_finite: Share
    constant_columns: Count
    zero_columns: Count
    offset: Magnitude | None
    spread_ratio: Magnitude | None
    repeated: Share
    typical: Magnitude | None = None
    is_part: Annotated[bool, Strict()] = False

    def __repr__(self) -> str:
        return (
            f"InputFlow(of {shorten(self.reader)}, {format_shape(self.shape)}, "
            f"mean {format_number(self.mean)}, std {format_number(self.std)}, "
            f"from {format_number(self.min)} to {format_number(self.max)})"
        )

    @property
    def size(self) -> Quantity:
        """Root mean square of the finite entries."""
        pairs = zip(self.mean.values, self.std.values, strict=True)
        return Quantity((mean * mean + std * std) ** 0.5 for mean, std in pairs)
