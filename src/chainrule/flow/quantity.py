"""`Quantity`: a measured value that remembers the ensemble it summarizes."""

import math
from collections.abc import Iterable
from operator import mul
from typing import Any, NoReturn, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from chainrule._utils.numbers import encode_number, format_number

LOW, HIGH = 0.1, 0.9
"""The band around a median: 10th to 90th percentile of the ensemble."""


def compute_quantile(ordered: tuple[float, ...], share: float) -> float:
    """Return the quantile of values sorted with NaN last (linear interpolation).

    NaN counts as worse than every number instead of being left out, so that an ensemble in which
    most members overflowed does not report the few that survived.

    Args:
        ordered: The sorted values, NaN last.
        share: Which quantile, in [0, 1].
    """
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    weight = position - below
    left = ordered[below]
    if weight == 0.0:
        return left
    right = ordered[below + 1]
    if left == right or (left == -math.inf and right < math.inf):  # no inf − inf
        return left
    return left + weight * (right - left)


def _sort_nan_last(values: tuple[float, ...]) -> tuple[float, ...]:
    if not math.isnan(sum(values)):  # the usual case, and quick
        return tuple(sorted(values))
    return tuple(sorted(values, key=lambda value: (math.isnan(value), value)))


def _name_nan(values: tuple[float, ...]) -> tuple[float | None, ...]:
    """Return the values with `None` for NaN, so that equal ensembles are equal tuples."""
    if not math.isnan(sum(values)):
        return values
    return tuple(None if math.isnan(value) else value for value in values)


def _encode(quantity: "Quantity") -> Any:
    """Return what JSON can hold: numbers, with the non-finite ones as strings."""
    numbers = [encode_number(value) for value in quantity.values]
    return numbers[0] if len(numbers) == 1 else numbers


_NON_FINITE = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}


def _decode(value: Any) -> list[float]:
    """Return the members' values from what `_encode` wrote.

    Raises:
        ValueError: If it is anything else, such as a number in quotes or one beyond float64.
    """
    if not isinstance(value, list):
        return [decode_number(value)]
    if not value:
        raise ValueError("must be a number or a list of at least one number")
    return [decode_number(member) for member in value]


def decode_number(value: Any) -> float:
    """Return the number that `encode_number` wrote.

    Raises:
        ValueError: If it is anything else, such as a number in quotes or one beyond float64.
    """
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is str and value in _NON_FINITE:
        return _NON_FINITE[value]
    if type(value) is int and abs(value) < 2**63:
        return float(value)
    raise ValueError('must be a number of float64, or "Infinity", "-Infinity" or "NaN"')


class Quantity(float):
    """A float that is the median of an ensemble, with every member's value kept.

    It formats, calculates and is ordered (`<`, `>`) as the median is. A measurement of a single
    network is an ensemble of one.

    `==` with a plain number compares the median. `==` with another `Quantity` compares all members,
    in their order, and an undefined member (NaN) equals an undefined one: two ensembles with the
    same median and different members are not equal, and an ensemble equals its copy. So of three
    values, two ensembles may equal one number and not each other; and to ask whether a value is
    undefined, use `math.isnan`, not `value != value`.

    Attributes:
        values: The value of each ensemble member, in seed order.

    Example:
        >>> Quantity([1.0, 2.0, 9.0]) == 2.0, Quantity([1.0, 2.0, 9.0]) == Quantity([2.0])
        (True, False)
    """

    __slots__ = ("values",)
    values: tuple[float, ...]

    def __new__(cls, values: Iterable[float]) -> Self:
        """Return the median of `values` (at least one), keeping them all.

        Raises:
            ValueError: If there is no value.
        """
        members = tuple(values)
        if len(members) == 1 and type(members[0]) is float:  # most of them
            median = members[0]
        elif members:
            members = tuple(map(float, members))
            median = compute_quantile(_sort_nan_last(members), 0.5)
        else:
            raise ValueError("a Quantity needs the value of at least one ensemble member; got none")
        quantity = float.__new__(cls, median)
        _keep(quantity, members)
        return quantity

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Quantity):
            return _name_nan(self.values) == _name_nan(other.values)
        return super().__eq__(other)  # NotImplemented for what is no number

    def __ne__(self, other: object) -> bool:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def __hash__(self) -> int:
        if math.isnan(self):  # Python gives every NaN object a hash of its own
            return hash(_name_nan(self.values))
        return super().__hash__()

    @property
    def low(self) -> float:
        """The 10th percentile of the ensemble."""
        return compute_quantile(_sort_nan_last(self.values), LOW)

    @property
    def high(self) -> float:
        """The 90th percentile of the ensemble."""
        return compute_quantile(_sort_nan_last(self.values), HIGH)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Quantity is immutable; cannot set {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Quantity is immutable; cannot delete {name!r}")

    def __reduce__(self) -> tuple[type[Self], tuple[tuple[float, ...]]]:
        return type(self), (self.values,)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: Any, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """In a file: one number for an ensemble of one, else the list of all members' numbers."""
        decode = core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls(_decode(value))
        )
        return core_schema.json_or_python_schema(
            json_schema=decode,
            python_schema=decode,
            serialization=core_schema.plain_serializer_function_ser_schema(_encode),
        )


_keep = Quantity.values.__set__  # type: ignore[attr-defined]
"""Sets the members of a new `Quantity`; a measurement makes tens of thousands of them."""


def divide(numerator: float, denominator: float) -> float:
    """Return the quotient of two norms, with the limits a reader expects.

    0 ÷ 0 is NaN (nothing can be said), x ÷ 0 is infinite, anything with NaN is NaN.
    """
    if denominator == 0.0:
        return math.nan if numerator == 0.0 or math.isnan(numerator) else math.inf
    return numerator / denominator


def divide_members(numerator: Quantity, denominator: Quantity) -> Quantity:
    """Return the member-by-member quotient of two quantities of one ensemble."""
    return Quantity(map(divide, numerator.values, denominator.values))


def multiply_members(left: Quantity, right: Quantity) -> Quantity:
    """Return the member-by-member product of two quantities of one ensemble."""
    return Quantity(map(mul, left.values, right.values))


def combine_norms(norms: Iterable[Quantity]) -> Quantity | None:
    """Return the norm of several tensors together (root of the sum of squares), by member.

    Returns:
        The combined norm, or `None` if there is none to combine.
    """
    columns = [norm.values for norm in norms]
    if not columns:
        return None
    return Quantity(columns[0] if len(columns) == 1 else map(math.hypot, *columns))


def format_band(value: Quantity | None) -> str:
    """Return the middle 80 % of an ensemble as text, nothing for a single network.

    Example:
        >>> format_band(Quantity([1.0, 2.0, 3.0]))
        '1.2 – 2.8'
    """
    if value is None or len(value.values) == 1:
        return ""
    return f"{format_number(value.low)} – {format_number(value.high)}"
