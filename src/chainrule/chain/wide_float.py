"""`WideFloat`: a float whose exponent has no bounds, so that no product over- or underflows."""

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self

from chainrule._utils.numbers import MINUS, split_number

_LN_2 = math.log(2.0)
_LOG10_2 = math.log10(2.0)
_LARGEST_EXACT_LOG = 1e12
"""Beyond this |ln| the digits of a number are lost and only its power of ten is left."""

Range = Literal["normal", "underflow", "overflow"]


@dataclass(frozen=True, slots=True)
class WideFloat:
    """mantissa · 2^exponent, with the precision of a float and an exponent of any size.

    Products round exactly as those of floats do, and go on where floats would become 0 or inf.

    Attributes:
        mantissa: 0, or a number with 0.5 ≤ |mantissa| < 1.
        exponent: The power of two; 0 for zero.
        bound: Whether the number itself is not known, only that its size is below this.
    """

    mantissa: float
    exponent: int
    bound: bool = False

    @classmethod
    def from_float(cls, value: float) -> Self:
        """Return a finite float."""
        return cls(*math.frexp(value))

    @classmethod
    def from_log(cls, log: float, sign: float = 1.0) -> Self:
        """Return ±e^log.

        Args:
            log: The natural logarithm of the size.
            sign: Any number with the sign of the result.
        """
        exponent = math.floor(log / _LN_2) + 1
        size = math.exp(log - exponent * _LN_2) if abs(log) < _LARGEST_EXACT_LOG else 0.5
        mantissa, shift = math.frexp(math.copysign(size, sign))
        return cls(mantissa, exponent + shift)

    def __float__(self) -> float:
        """The nearest float: 0 where it underflows, ±inf where it overflows."""
        try:
            return math.ldexp(self.mantissa, max(self.exponent, -(2**20)))
        except OverflowError:
            return math.copysign(math.inf, self.mantissa)

    def __mul__(self, other: "WideFloat") -> "WideFloat":
        mantissa, shift = math.frexp(self.mantissa * other.mantissa)
        if not mantissa:
            return WideFloat(mantissa, 0)
        return WideFloat(
            mantissa, self.exponent + other.exponent + shift, self.bound or other.bound
        )

    def __add__(self, other: "WideFloat") -> "WideFloat":
        if self.mantissa == 0.0:
            return other
        if other.mantissa == 0.0:
            return self
        small, large = sorted((self, other), key=lambda term: term.exponent)
        gap = max(small.exponent - large.exponent, -2000)
        mantissa, shift = math.frexp(large.mantissa + math.ldexp(small.mantissa, gap))
        return WideFloat(mantissa, large.exponent + shift if mantissa else 0, large.bound)

    def __truediv__(self, other: "WideFloat") -> "WideFloat":
        mantissa, shift = math.frexp(self.mantissa / other.mantissa)
        return WideFloat(
            mantissa,
            self.exponent - other.exponent + shift if mantissa else 0,
            self.bound or other.bound,
        )

    def __abs__(self) -> "WideFloat":
        return WideFloat(abs(self.mantissa), self.exponent, self.bound)

    def __neg__(self) -> "WideFloat":
        return WideFloat(-self.mantissa, self.exponent, self.bound)

    @property
    def sign(self) -> int:
        """−1, 0 or 1."""
        return (self.mantissa > 0) - (self.mantissa < 0)

    @property
    def log10(self) -> float:
        """log₁₀ of the size; −inf for an exact zero."""
        if self.mantissa == 0.0:
            return -math.inf
        return math.log10(abs(self.mantissa)) + self.exponent * _LOG10_2

    @property
    def range(self) -> Range:
        """What a float64 makes of it: "normal", or it would lose its digits or itself."""
        size = abs(float(self))
        if math.isinf(size):
            return "overflow"
        return "underflow" if self.mantissa and size < sys.float_info.min else "normal"

    @property
    def reads_exactly(self) -> bool:
        """Whether the digits that people read are the whole number."""
        digits, power = self.split()
        return power is None and float(digits.replace(MINUS, "-").replace(",", "")) == float(self)

    def split(self) -> tuple[str, int | None]:
        """Return its digits and its power of ten, `None` where people need none."""
        if self.mantissa == 0.0:
            return "0", None
        if self.range == "normal":
            return split_number(float(self))
        power = math.floor(self.log10)
        digits = f"{10.0 ** (self.log10 - power):.1f}"
        if digits == "10.0":
            digits, power = "1.0", power + 1
        return (f"{MINUS}{digits}" if self.sign < 0 else digits), power


ONE = WideFloat.from_float(1.0)
ZERO = WideFloat.from_float(0.0)


def strip_bound(number: WideFloat) -> WideFloat:
    """Return the number that stands after "less than": a bound so weak that rounding keeps it.

    Args:
        number: Any number; one that is no bound is returned as it is.
    """
    if not number.bound:
        return number
    exponent = number.exponent * 19 // 20 if number.exponent < 0 else number.exponent
    return WideFloat(number.mantissa, exponent)


def multiply(factors: Iterable[WideFloat]) -> WideFloat:
    """Return the product of numbers from left to right; 1 if there is none."""
    product = ONE
    for factor in factors:
        product = product * factor
    return product
