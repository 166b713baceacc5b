"""`WideFloat`: a float whose exponent has no bounds, and the activations on such numbers.

Within the range of floats the activations are those of `chainrule.spec.activations`. Beyond it each
one is its expansion at 0 or at infinity, with as many terms as a float has digits for.
"""

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from fractions import Fraction
from functools import lru_cache
from numbers import Rational, Real
from types import MappingProxyType
from typing import Any, Literal, Self

from chainrule._utils.numbers import MINUS, split_number, to_superscript
from chainrule.spec.activations import SELU_ALPHA, SELU_SCALE, Activation

Range = Literal["normal", "underflow", "overflow"]

LONGEST_POWER = 10**6
"""Longer exponents are written as powers themselves."""

_DIGITS = 53
_LOG10_2 = math.log10(2.0)
_SCALE = 192
_LN_2 = 0xB17217F7D1CF79ABC9E3B39803F2F6AF40F343267298B62D
"""ln 2 · 2^192."""

_LOG10_SCALE = 128
_LOG10_2_SCALED = 0x4D104D427DE7FBCC47C4ACD605BE48BC
"""log₁₀ 2 · 2^128."""

_HASH_BITS = 61
"""Python hashes numbers modulo 2^61 − 1, of which 2^61 leaves 1."""

_MOST_BITS = 2**22
"""Whole numbers and fractions with more bits than this are not written out."""

_REMEMBERED = 4096
"""Numbers whose digits are remembered: those of the largest graph that a page shows."""

_FORMAT = re.compile(r"(?P<layout>.*?)(\.(?P<digits>[0-9]+))?(?P<kind>[eEfFgGn%]?)")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class WideFloat(Real):
    """mantissa · 2^exponent, with the precision of a float and an exponent of any size.

    It calculates, compares, rounds and formats as a float does: also together with ints, floats
    and fractions. Products round exactly as those of floats do, and go on where floats would
    become 0 or inf. `float()` makes a float64 of it, `str()` the text that people read.

    Attributes:
        mantissa: 0, or a number with 0.5 ≤ |mantissa| < 1.
        exponent: The power of two; 0 for zero.
        rounded: Whether a rounded value of an activation went into it, so that it is not exact even
            where few digits write it. It plays no part in comparisons.

    Example:
        >>> WideFloat.from_float(1e-200) ** 3 / 7
        1.4·10⁻⁶⁰¹
    """

    mantissa: float
    exponent: int
    rounded: bool = False

    @classmethod
    def from_float(cls, value: float) -> Self:
        """Return a finite float.

        Example:
            >>> WideFloat.from_float(-0.0298) < 0
            True
        """
        return cls(*math.frexp(value))

    @classmethod
    def from_ratio(cls, numerator: int, denominator: int = 1) -> Self:
        """Return the nearest number to a fraction of any size.

        Example:
            >>> WideFloat.from_ratio(10**400, 3)
            3.3·10³⁹⁹
        """
        shift = numerator.bit_length() - denominator.bit_length()
        if shift > 0:
            quotient = numerator / (denominator << shift)
        else:
            quotient = (numerator << -shift) / denominator
        mantissa, more = math.frexp(quotient)
        return cls(mantissa, shift + more if mantissa else 0)

    # ------------------------------------------------------------ as a number

    def __float__(self) -> float:
        """The nearest float: 0 where it underflows, ±inf where it overflows."""
        if self.exponent > 1024:
            return math.copysign(math.inf, self.mantissa)
        try:
            return math.ldexp(self.mantissa, max(self.exponent, -1100))
        except OverflowError:
            return math.copysign(math.inf, self.mantissa)

    def __bool__(self) -> bool:
        return self.mantissa != 0.0

    def __hash__(self) -> int:  # type: ignore[override]  # numbers.Complex has none
        modulus = 2**_HASH_BITS - 1
        power = pow(2, (self.exponent - _DIGITS) % _HASH_BITS)
        found = abs(self._whole) * power % modulus
        found = -found if self.mantissa < 0 else found
        return -2 if found == -1 else found

    def __eq__(self, other: object) -> bool:
        order = _compare(self, other)
        return NotImplemented if order is None else order == 0

    def __lt__(self, other: Any) -> bool:
        order = _compare(self, other)
        return NotImplemented if order is None else order < 0

    def __le__(self, other: Any) -> bool:
        order = _compare(self, other)
        return NotImplemented if order is None else order <= 0

    def __gt__(self, other: Any) -> bool:
        order = _compare(self, other)
        return NotImplemented if order is None else order > 0

    def __ge__(self, other: Any) -> bool:
        order = _compare(self, other)
        return NotImplemented if order is None else order >= 0

    def __mul__(self, other: Any) -> Any:
        if type(other) is not WideFloat:
            return _combine(operator.mul, self, other)
        mantissa, shift = math.frexp(self.mantissa * other.mantissa)
        if not mantissa:
            return WideFloat(mantissa, 0)
        return WideFloat(
            mantissa, self.exponent + other.exponent + shift, self.rounded or other.rounded
        )

    def __add__(self, other: Any) -> Any:
        if type(other) is not WideFloat:
            return _combine(operator.add, self, other)
        if self.mantissa == 0.0:
            return other
        if other.mantissa == 0.0:
            return self
        small, large = (self, other) if self.exponent < other.exponent else (other, self)
        gap = max(small.exponent - large.exponent, -1070)
        mantissa, shift = math.frexp(large.mantissa + math.ldexp(small.mantissa, gap))
        rounded = self.rounded or other.rounded
        return WideFloat(mantissa, large.exponent + shift if mantissa else 0, rounded)

    def __truediv__(self, other: Any) -> Any:
        if type(other) is not WideFloat:
            return _combine(operator.truediv, self, other)
        mantissa, shift = math.frexp(self.mantissa / other.mantissa)
        if not mantissa:
            return WideFloat(mantissa, 0)
        return WideFloat(
            mantissa, self.exponent - other.exponent + shift, self.rounded or other.rounded
        )

    def __sub__(self, other: Any) -> Any:
        if type(other) is not WideFloat:
            return _combine(operator.sub, self, other)
        return self + -other

    def __floordiv__(self, other: Any) -> Any:
        return _combine(_divide_whole, self, other)

    def __mod__(self, other: Any) -> Any:
        return _combine(_compute_remainder, self, other)

    def __pow__(self, other: Any) -> Any:
        return _combine(_raise, self, other)

    def __radd__(self, other: Any) -> Any:
        return _combine(operator.add, other, self)

    def __rmul__(self, other: Any) -> Any:
        return _combine(operator.mul, other, self)

    def __rsub__(self, other: Any) -> Any:
        return _combine(operator.sub, other, self)

    def __rtruediv__(self, other: Any) -> Any:
        return _combine(operator.truediv, other, self)

    def __rfloordiv__(self, other: Any) -> Any:
        return _combine(_divide_whole, other, self)

    def __rmod__(self, other: Any) -> Any:
        return _combine(_compute_remainder, other, self)

    def __rpow__(self, other: Any) -> Any:
        return _combine(_raise, other, self)

    def __abs__(self) -> "WideFloat":
        return WideFloat(abs(self.mantissa), self.exponent, self.rounded)

    def __neg__(self) -> "WideFloat":
        return WideFloat(-self.mantissa, self.exponent, self.rounded)

    def __pos__(self) -> "WideFloat":
        return self

    def __int__(self) -> int:
        return math.trunc(self)

    def __trunc__(self) -> int:
        return math.trunc(self._to_fraction(whole=True))

    def __floor__(self) -> int:
        return math.floor(self._to_fraction(whole=True))

    def __ceil__(self) -> int:
        return math.ceil(self._to_fraction(whole=True))

    def __round__(self, ndigits: int | None = None) -> Any:
        if ndigits is None:
            return round(self._to_fraction(whole=True))
        if self.range == "normal" and abs(ndigits) <= 300:
            return WideFloat.from_float(round(float(self), ndigits))
        if self.exponent > _DIGITS + 4 * abs(ndigits):
            return self
        if self.exponent < -4 * abs(ndigits) - 4:
            return ZERO
        rounded = round(self._to_fraction(), ndigits)
        return WideFloat.from_ratio(rounded.numerator, rounded.denominator)

    def as_integer_ratio(self) -> tuple[int, int]:
        """Return the number as a fraction: numerator and denominator.

        Raises:
            OverflowError: If they have more than four million bits.

        Example:
            >>> WideFloat.from_float(0.75).as_integer_ratio()
            (3, 4)
        """
        return self._to_fraction().as_integer_ratio()

    # --------------------------------------------------------------- as text

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        """The text that people read: −2, 0.235, 3.1·10⁻⁷⁰², 10^(−4.3·10⁹)."""
        return _write(self.mantissa, self.exponent)

    def __format__(self, spec: str) -> str:
        """As a float is formatted, with any power of ten; without a specification as `str` does."""
        if not spec:
            return str(self)
        if self.range == "normal":
            return format(float(self), spec)
        found = _FORMAT.fullmatch(spec)
        if found is None or abs(self.exponent) > 2**50:
            return str(self)
        kind, digits = found["kind"] or "g", int(found["digits"] or 6)
        context = Context(prec=digits + 40, Emax=MAX_EMAX, Emin=MIN_EMIN)
        power = context.power(Decimal(2), self.exponent - _DIGITS)
        number = context.multiply(Decimal(self._whole), power)
        if kind in "gGn":
            context.prec = max(digits, 1)
            number = context.normalize(number)
            return format(number, f"{found['layout']}{kind}")
        if abs(self.exponent) > LONGEST_POWER and kind not in "eE":
            return str(self)
        return format(number, f"{found['layout']}.{digits}{kind}")

    @property
    def sign(self) -> int:
        """−1, 0 or 1."""
        return (self.mantissa > 0) - (self.mantissa < 0)

    @property
    def log10(self) -> float:
        """log₁₀ of the size; −inf for an exact zero, ±inf where it is itself beyond floats."""
        if self.mantissa == 0.0:
            return -math.inf
        try:
            return math.log10(abs(self.mantissa)) + self.exponent * _LOG10_2
        except OverflowError:
            return math.inf if self.exponent > 0 else -math.inf

    @property
    def range(self) -> Range:
        """What a float64 makes of it: "normal", or it would lose its digits or itself."""
        if self.exponent > 1024:
            return "overflow"
        return "underflow" if self.exponent < -1021 else "normal"

    @property
    def reads_exactly(self) -> bool:
        """Whether the digits that people read are the whole number, but for the last bits."""
        if self.rounded or self.range != "normal":
            return False
        return _reads_exactly(self.mantissa, self.exponent)

    def split(self) -> tuple[str, int | None]:
        """Return its digits and its power of ten, `None` where people need none.

        Thousands have no separator: chains read lists of numbers that commas separate.

        Example:
            >>> WideFloat.from_float(-3.1e-13).split()
            ('−3.1', -13)
        """
        return _split(self.mantissa, self.exponent)

    @property
    def _whole(self) -> int:
        """The mantissa times 2^53."""
        return int(math.ldexp(self.mantissa, _DIGITS))

    def _to_fraction(self, *, whole: bool = False) -> Fraction:
        """Return the number as a fraction; if only its whole part counts, a tiny one as ±2^-9."""
        exponent = max(self.exponent, -8) if whole else self.exponent
        if abs(exponent) > _MOST_BITS:
            raise OverflowError(
                f"The number must have at most {_MOST_BITS} bits to be written out; it is {self}. "
                "Use its log10."
            )
        shift = exponent - _DIGITS
        if shift >= 0:
            return Fraction(self._whole << shift)
        return Fraction(self._whole, 1 << -shift)


@lru_cache(maxsize=_REMEMBERED)
def _split(mantissa: float, exponent: int) -> tuple[str, int | None]:
    """Return a number's digits and its power of ten; a page writes the same one several times."""
    if mantissa == 0.0:
        return "0", None
    if -1021 <= exponent <= 1024:
        digits, ten = split_number(float(WideFloat(mantissa, exponent)))
        return digits.replace(",", ""), ten
    size = int(math.ldexp(math.log10(abs(mantissa)), _LOG10_SCALE))
    power, rest = divmod(exponent * _LOG10_2_SCALED + size, 1 << _LOG10_SCALE)
    digits = f"{10.0 ** math.ldexp(rest, -_LOG10_SCALE):.1f}"
    if digits == "10.0":
        digits, power = "1.0", power + 1
    return (f"{MINUS}{digits}" if mantissa < 0 else digits), power


@lru_cache(maxsize=_REMEMBERED)
def _write(mantissa: float, exponent: int) -> str:
    digits, power = _split(mantissa, exponent)
    if power is None:
        return digits
    if abs(power) > LONGEST_POWER:  # the digits no longer matter
        return f"{MINUS if mantissa < 0 else ''}10^({WideFloat.from_ratio(power)})"
    return f"{digits}·10{to_superscript(power)}"


@lru_cache(maxsize=_REMEMBERED)
def _reads_exactly(mantissa: float, exponent: int) -> bool:
    digits, power = _split(mantissa, exponent)
    shown = float(f"{digits.replace(MINUS, '-')}e{power or 0}")
    return math.isclose(shown, math.ldexp(mantissa, exponent), rel_tol=1e-15)


ONE = WideFloat.from_float(1.0)
ZERO = WideFloat.from_float(0.0)


def multiply(factors: Iterable[WideFloat]) -> WideFloat:
    """Return the product of numbers from left to right; 1 if there is none."""
    product = ONE
    for factor in factors:
        product = product * factor
    return product


def compute_exp(power: WideFloat) -> WideFloat:
    """Return e^power, whatever its size.

    Beyond |power| ≈ 10^16 the digits of the power itself do not reach its last whole digit, so that
    only the result's logarithm is known.

    Args:
        power: Any number.
    """
    return _raise_e(power._whole, power.exponent - _DIGITS)


def apply_activation(activation: Activation, z: WideFloat) -> WideFloat:
    """Return φ(z) for z of any size."""
    value = _compute_value(activation, z)
    rounded = value.sign != 0 and (z.rounded or _is_rounded(activation, z))
    return WideFloat(value.mantissa, value.exponent, rounded)


def apply_derivative(activation: Activation, z: WideFloat) -> WideFloat:
    """Return φ′(z) for z of any size; at a kink as `activation.derivative`."""
    value = _compute_slope(activation, z)
    return WideFloat(value.mantissa, value.exponent, value.sign != 0 and _is_rounded(activation, z))


# ------------------------------------------------------------------ arithmetic


def _read(value: object) -> WideFloat | float | None:
    """Return a number as a `WideFloat`, inf and nan as they are; `None` for anything else."""
    if isinstance(value, WideFloat):
        return value
    if isinstance(value, Rational):
        return WideFloat.from_ratio(int(value.numerator), int(value.denominator))
    if isinstance(value, Real):
        number = float(value)
        return WideFloat.from_float(number) if math.isfinite(number) else number
    return None


def _combine(operation: Callable[[Any, Any], Any], left: object, right: object) -> Any:
    a, b = _read(left), _read(right)
    if a is None or b is None:
        return NotImplemented
    if isinstance(a, WideFloat) and isinstance(b, WideFloat):
        return operation(a, b)
    if operation is _raise:
        return float(a) ** float(b)
    # next to inf and nan only the sign of a finite number counts
    a, b = (float(each.sign) if isinstance(each, WideFloat) else each for each in (a, b))
    return _FLOAT_OPERATIONS.get(operation, operation)(a, b)


def _divide_whole(a: WideFloat, b: WideFloat) -> WideFloat:
    return WideFloat.from_ratio(a._to_fraction() // b._to_fraction())


def _compute_remainder(a: WideFloat, b: WideFloat) -> WideFloat:
    return WideFloat.from_ratio(*(a._to_fraction() % b._to_fraction()).as_integer_ratio())


_FLOAT_OPERATIONS: Mapping[Callable[[Any, Any], Any], Callable[[Any, Any], Any]] = MappingProxyType(
    {_divide_whole: operator.floordiv, _compute_remainder: operator.mod}
)


def _raise(base: WideFloat, power: WideFloat) -> WideFloat:
    if not power:
        return ONE
    if not base:
        if power.sign < 0:
            raise ZeroDivisionError("0 cannot be raised to a negative power.")
        return ZERO
    whole = power.exponent >= _DIGITS or power._to_fraction(whole=True).denominator == 1
    if base.sign < 0 and not whole:
        raise ValueError(f"A negative number must have a whole power; got ({base}) ** {power}.")
    odd = whole and power.exponent <= _DIGITS and int(power) % 2 == 1
    sign = -1.0 if base.sign < 0 and odd else 1.0
    size, number = abs(base.mantissa), float(power)
    if abs(number) <= 512.0:
        # 2^(exponent · power): its whole part exactly, the rest as a float
        exponent, rest = divmod(base.exponent * Fraction(number), 1)
        result = sign * size**number * 2.0 ** float(rest)
    else:
        log = math.log2(size) if size != 0.5 else -1.0
        total = (base.exponent + Fraction(log)) * power._to_fraction()
        exponent, rest = divmod(total, 1)
        result = sign * 2.0 ** float(rest)
    mantissa, shift = math.frexp(result)
    return WideFloat(mantissa, exponent + shift, base.rounded or power.rounded)


def _compare(number: WideFloat, other: object) -> float | None:  # noqa: PLR0911  (one per case)
    """Return −1, 0 or 1, nan where there is no order, `None` for what is no real number."""
    if isinstance(other, WideFloat):
        if number.sign != other.sign or number.exponent == other.exponent:
            return (number.mantissa > other.mantissa) - (number.mantissa < other.mantissa)
        return number.sign if number.exponent > other.exponent else -number.sign
    if isinstance(other, Rational):
        numerator, denominator = int(other.numerator), int(other.denominator)
    elif isinstance(other, (Real, Decimal)):
        exact = other if isinstance(other, Decimal) else float(other)
        if not (exact.is_finite() if isinstance(exact, Decimal) else math.isfinite(exact)):
            return math.nan if math.isnan(exact) else -math.copysign(1.0, exact)
        numerator, denominator = exact.as_integer_ratio()
    else:
        return None
    sign = (numerator > 0) - (numerator < 0)
    if number.sign != sign or not sign:
        return (number.sign > sign) - (number.sign < sign)
    gap = number.exponent - (numerator.bit_length() - denominator.bit_length())
    if abs(gap) > 2:
        return sign if gap > 0 else -sign
    shift = number.exponent - _DIGITS
    left, right = number._whole * denominator, numerator
    left, right = (left << shift, right) if shift >= 0 else (left, right << -shift)
    return (left > right) - (left < right)


def _raise_e(whole: int, shift: int) -> WideFloat:
    """Return e^(whole · 2^shift), by whole multiples of ln 2 and a rest below it."""
    shift += _SCALE
    fixed = whole << shift if shift >= 0 else whole >> -shift
    exponent, rest = divmod(fixed, _LN_2)
    mantissa, more = math.frexp(math.exp(rest / (1 << _SCALE)))
    return WideFloat(mantissa, exponent + more)


# ----------------------------------------------------------------- activations

_TINY, _HUGE = 1e-290, 1e290
"""Outside these sizes of z an activation is its tangent at 0, or its asymptote."""

_FAR = 30.0
"""Up to this |z| a zero is a zero, as at the minimum of GELU; beyond, a tail that underflowed."""

_LEAST_NORMAL = 2.0**-1022
_FOUR = WideFloat.from_float(4.0)
_SELU_TAIL = WideFloat.from_float(SELU_SCALE * SELU_ALPHA)
_ROOT_TWO_PI = WideFloat.from_float(math.sqrt(2.0 * math.pi))
_SMOOTH = ("sigmoid", "tanh", "gelu", "silu")
_SMOOTH_BELOW = ("elu", "selu")


def _compute_density(z: WideFloat) -> WideFloat:
    """Return the standard normal density e^(−z²/2) ÷ √(2π)."""
    square = z._whole**2
    return _raise_e(-square, 2 * (z.exponent - _DIGITS) - 1) / _ROOT_TWO_PI


def _compute_mills_ratio(z: WideFloat) -> float:
    """Return |z|Φ(z)/φ(z) for z far below 0."""
    q = 1.0 / float(z) ** 2 if z > -(_HUGE**0.5) else 0.0
    return 1.0 - q * (1.0 - 3.0 * q * (1.0 - 5.0 * q * (1.0 - 7.0 * q * (1.0 - 9.0 * q))))


def _follow_gelu_slope(z: WideFloat) -> WideFloat:
    inverse = float(ONE / z)
    return _compute_density(z) * z * (1.0 - _compute_mills_ratio(z) * inverse * inverse)


_TAILS: Mapping[str, Callable[[WideFloat], WideFloat]] = MappingProxyType(
    {
        "sigmoid": compute_exp,
        "gelu": lambda z: -_compute_density(z) * _compute_mills_ratio(z),
        "silu": lambda z: z * compute_exp(z),
    }
)
"""φ(z) for z → −∞, for activations that go to 0 there."""

_SLOPE_TAILS: Mapping[str, Callable[[WideFloat], WideFloat]] = MappingProxyType(
    {
        "sigmoid": lambda z: compute_exp(-abs(z)),
        "tanh": lambda z: _FOUR * compute_exp(abs(z) * -2.0),
        "elu": compute_exp,
        "selu": lambda z: _SELU_TAIL * compute_exp(z),
        "gelu": _follow_gelu_slope,
        "silu": lambda z: (ONE + z) * compute_exp(z),
    }
)
"""φ′(z) where it goes to 0: for z → −∞, for sigmoid and tanh on both sides."""


def _compute_value(activation: Activation, z: WideFloat) -> WideFloat:
    size = abs(float(z))
    if size < _TINY:
        start = activation.function(0.0)
        return WideFloat.from_float(start) if start else _compute_slope(activation, z) * z
    if size <= _HUGE:
        value = activation.function(float(z))
        if abs(value) >= _LEAST_NORMAL or size < _FAR or activation.name not in _TAILS:
            return WideFloat.from_float(value)
    elif slope := activation.derivative(math.copysign(_HUGE, z.mantissa)):
        return WideFloat.from_float(slope) * z
    if activation.name in _TAILS and z.sign < 0:
        return _TAILS[activation.name](z)
    return WideFloat.from_float(activation.function(math.copysign(_HUGE, z.mantissa)))


def _compute_slope(activation: Activation, z: WideFloat) -> WideFloat:
    size = abs(float(z))
    if size < _TINY:
        return WideFloat.from_float(activation.derivative(z.sign * _TINY))
    near = float(z) if size <= _HUGE else math.copysign(_HUGE, z.mantissa)
    value = activation.derivative(near)
    if abs(value) >= _LEAST_NORMAL or size < _FAR or activation.name not in _SLOPE_TAILS:
        return WideFloat.from_float(value)
    return _SLOPE_TAILS[activation.name](z)


def _is_rounded(activation: Activation, z: WideFloat) -> bool:
    """Return whether φ(z) is a rounded number: always, but for straight pieces and at 0."""
    if activation.name in _SMOOTH_BELOW:
        return z.sign < 0
    return activation.name in _SMOOTH and z.sign != 0
