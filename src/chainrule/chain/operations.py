"""The operations of an expression: value, local derivatives and notation of each, in one table.

Activations are those of `chainrule.spec.activations`. At a kink the convention is PyTorch's: the
derivative of ReLU and of abs at 0 is 0, and of two equal operands of max or min each gets half.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from chainrule._utils.numbers import MINUS
from chainrule.chain.terms import (
    NAMES,
    NOTES,
    Apply,
    Condition,
    Negative,
    Number,
    Power,
    Product,
    Quotient,
    Sum,
    Symbol,
    Term,
    number,
    write_derivative,
)
from chainrule.chain.wide_float import (
    ONE,
    ZERO,
    WideFloat,
    apply_activation,
    apply_derivative,
    compute_exp,
)
from chainrule.spec.activations import ACTIVATIONS, Activation

_HALF = WideFloat.from_float(0.5)
_LN_2 = WideFloat.from_float(math.log(2.0))
_ONE, _TWO = number(1.0), number(2.0)

Values = Sequence[WideFloat]
Terms = Sequence[Term]


class UndefinedError(Exception):
    """An operation has no value, or no derivative, at these operands.

    Attributes:
        must: What must hold.
    """

    def __init__(self, must: str) -> None:
        super().__init__(must)
        self.must = must


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of an expression.

    Attributes:
        name: Its name: in an expression, that of the function.
        sign: What its node shows.
        count: How many operands it has.
        compute: Its value, from those of its operands.
        differentiate: Its derivative by one operand: the operand's place from 0, the operands'
            values, and its own value. `None` for an activation means `apply_derivative`.
        write: Its formula, from its operands.
        write_slope: The formula of its derivative: place, operands, itself, and their values.
        write_short: A short name of that, as in σ′(z), where there is one.
        commutes: Whether the order of its operands does not matter.
        bounded: Place of an operand of which e is raised to a multiple, so that it must not be too
            large to be written as a power of two.
        find_kink: What to say where the derivative jumps and one of its values was chosen.
        note: What a reader needs to read its formulas, where that is not plain.
    """

    name: str
    sign: str
    count: int
    compute: Callable[[Values], WideFloat]
    differentiate: Callable[[int, Values, WideFloat], WideFloat]
    write: Callable[[Terms], Term]
    write_slope: Callable[[int, Terms, Term, Values], Term]
    write_short: Callable[[Term], Term] | None = None
    commutes: bool = False
    bounded: int | None = None
    find_kink: Callable[[Values], str | None] = lambda values: None
    note: str | None = None


# ------------------------------------------------------------------ arithmetic


def _divide(values: Values) -> WideFloat:
    above, below = values
    if not below:
        raise UndefinedError("the divisor must not be 0")
    return above / below


def _differentiate_quotient(place: int, values: Values, _: WideFloat) -> WideFloat:
    above, below = values
    return ONE / below if place == 0 else -(above / below) / below


def _raise(values: Values) -> WideFloat:
    base, power = values
    if not base and power.sign < 0:
        raise UndefinedError("0 must not have a negative power")
    if base.sign < 0 and not _is_whole(power):
        raise UndefinedError("a negative number must have a whole number as its power")
    return base**power


def _differentiate_power(place: int, values: Values, result: WideFloat) -> WideFloat:
    base, power = values
    if place == 0:
        if not power:
            return ZERO
        if not base and power < ONE:
            raise UndefinedError("0 must have a power of at least 1, or 0, to have a derivative")
        return power * base ** (power - ONE)
    if base.sign < 0:
        raise UndefinedError("a base must not be negative to have a derivative by its power")
    return result * compute_log(base) if base else ZERO


def _write_power_slope(place: int, operands: Terms, itself: Term, _: Values) -> Term:
    base, power = operands
    if place == 1:
        return Product((itself, Apply("log", (base,))))
    if not isinstance(power, Number):
        return Product((power, Power(base, Sum(power, "−", _ONE))))
    below = power.value - ONE
    if not power.value or not below:
        return Number(power.value)
    return Product((power, base if below == ONE else Power(base, Number(below))))


def compute_log(value: WideFloat) -> WideFloat:
    """Return the natural logarithm of a number above 0, whatever its size.

    Args:
        value: The number.

    Raises:
        UndefinedError: If it is not above 0.
    """
    if value.sign <= 0:
        raise UndefinedError("log must be given a number above 0")
    if value.range == "normal":
        result = WideFloat.from_float(math.log(float(value)))
    else:
        mantissa = WideFloat.from_float(math.log(value.mantissa))
        result = WideFloat.from_ratio(value.exponent) * _LN_2 + mantissa
    return _mark_rounded(result, value != ONE or value.rounded)


def _exponentiate(values: Values) -> WideFloat:
    (power,) = values
    return _mark_rounded(compute_exp(power), bool(power) or power.rounded)


def _compute_extreme(values: Values, sign: int) -> WideFloat:
    left, right = values
    return left if (left >= right if sign > 0 else left <= right) else right


def _differentiate_extreme(place: int, values: Values, sign: int) -> WideFloat:
    if values[0] == values[1]:
        return _HALF
    larger = 0 if values[0] > values[1] else 1
    return ONE if place == (larger if sign > 0 else 1 - larger) else ZERO


def _write_extreme_slope(place: int, operands: Terms, values: Values, sign: int) -> Term:
    if values[0] == values[1]:
        return Number(_HALF)
    own, other = operands[place], operands[1 - place]
    return Condition(own, ">", other) if sign > 0 else Condition(other, ">", own)


def _build_extreme(name: str, sign: int) -> Operation:
    return Operation(
        name=name,
        sign=name,
        count=2,
        compute=lambda values: _compute_extreme(values, sign),
        differentiate=lambda place, values, _: _differentiate_extreme(place, values, sign),
        write=lambda operands: Apply(name, tuple(operands)),
        write_slope=lambda place, operands, _, values: _write_extreme_slope(
            place, operands, values, sign
        ),
        commutes=True,
        find_kink=lambda values: (
            f"{name} of two equal numbers: each gets half of the gradient, as in PyTorch."
            if values[0] == values[1]
            else None
        ),
        note="[a > b] is 1 where a > b and 0 elsewhere",
    )


def _is_whole(value: WideFloat) -> bool:
    return value.exponent > 53 or (float(value).is_integer() and value.range != "underflow")


def _mark_rounded(value: WideFloat, rounded: bool) -> WideFloat:
    return WideFloat(value.mantissa, value.exponent, rounded and bool(value))


_ARITHMETIC = (
    Operation(
        name="add",
        sign="+",
        count=2,
        compute=lambda values: values[0] + values[1],
        differentiate=lambda place, values, _: ONE,
        write=lambda operands: Sum(operands[0], "+", operands[1]),
        write_slope=lambda *_: _ONE,
        commutes=True,
    ),
    Operation(
        name="subtract",
        sign=MINUS,
        count=2,
        compute=lambda values: values[0] - values[1],
        differentiate=lambda place, values, _: -ONE if place else ONE,
        write=lambda operands: Sum(operands[0], "−", operands[1]),
        write_slope=lambda place, *_: number(-1.0) if place else _ONE,
    ),
    Operation(
        name="multiply",
        sign="×",
        count=2,
        compute=lambda values: values[0] * values[1] + ZERO,  # no minus before zero
        differentiate=lambda place, values, _: values[1 - place],
        write=lambda operands: Product(tuple(operands)),
        write_slope=lambda place, operands, *_: operands[1 - place],
        commutes=True,
    ),
    Operation(
        name="divide",
        sign="÷",
        count=2,
        compute=_divide,
        differentiate=_differentiate_quotient,
        write=lambda operands: Quotient(operands[0], operands[1]),
        write_slope=lambda place, operands, *_: (
            Negative(Quotient(operands[0], Power(operands[1], _TWO)))
            if place
            else Quotient(_ONE, operands[1])
        ),
    ),
    Operation(
        name="power",
        sign="^",
        count=2,
        compute=_raise,
        bounded=1,
        differentiate=_differentiate_power,
        write=lambda operands: Power(operands[0], operands[1]),
        write_slope=_write_power_slope,
    ),
    Operation(
        name="negate",
        sign=MINUS,
        count=1,
        compute=lambda values: -values[0],
        differentiate=lambda place, values, _: -ONE,
        write=lambda operands: Negative(operands[0]),
        write_slope=lambda *_: number(-1.0),
    ),
)

# ------------------------------------------------------------------- functions


def _build_activation(activation: Activation) -> Operation:
    name = NAMES[activation.name]
    jumps = abs(activation.derivative(0.0) - activation.derivative(1e-290)) > 1e-9

    def find_kink(values: Values) -> str | None:
        if values[0] or not jumps:
            return None
        chosen = apply_derivative(activation, ZERO)
        return f"{name} has a kink at 0: its derivative there is {chosen}, as in PyTorch."

    return Operation(
        name=activation.name,
        sign=name,
        count=1,
        compute=lambda values: apply_activation(activation, values[0]),
        differentiate=lambda place, values, _: apply_derivative(activation, values[0]),
        write=lambda operands: Apply(name, tuple(operands)),
        write_slope=lambda place, operands, itself, _: write_derivative(
            activation.name, operands[0], itself
        ),
        write_short=lambda z: Apply(f"{name}′", (z,)),
        bounded=0,
        find_kink=find_kink,
        note=NOTES.get(activation.name),
    )


_FUNCTIONS = (
    Operation(
        name="exp",
        sign="exp",
        count=1,
        compute=_exponentiate,
        bounded=0,
        differentiate=lambda place, values, result: result,
        write=lambda operands: Apply("exp", tuple(operands)),
        write_slope=lambda place, operands, itself, _: itself,
    ),
    Operation(
        name="log",
        sign="log",
        count=1,
        compute=lambda values: compute_log(values[0]),
        differentiate=lambda place, values, _: ONE / values[0],
        write=lambda operands: Apply("log", tuple(operands)),
        write_slope=lambda place, operands, *_: Quotient(_ONE, operands[0]),
        note="log is the natural logarithm",
    ),
    Operation(
        name="abs",
        sign="abs",
        count=1,
        compute=lambda values: abs(values[0]),
        differentiate=lambda place, values, _: WideFloat.from_float(float(values[0].sign)),
        write=lambda operands: Apply("abs", tuple(operands)),
        write_slope=lambda place, operands, *_: Apply("sgn", (operands[0],)),
        find_kink=lambda values: (
            None if values[0] else "abs has a kink at 0: its derivative there is 0, as in PyTorch."
        ),
        note="sgn(a) is 1 where a > 0, −1 where a < 0 and 0 at 0",
    ),
    _build_extreme("max", 1),
    _build_extreme("min", -1),
    *map(_build_activation, ACTIVATIONS.values()),
)

OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {operation.name: operation for operation in (*_ARITHMETIC, *_FUNCTIONS)}
)
"""Every operation by name."""

FUNCTIONS: Mapping[str, Operation] = MappingProxyType(
    {operation.name: operation for operation in _FUNCTIONS}
)
"""The operations that an expression calls by name."""

ALIASES: Mapping[str, str] = MappingProxyType({NAMES[name]: name for name in ACTIVATIONS})
"""Activations by the name that formulas give them: σ for sigmoid."""


def write_value_symbol(name: str) -> Symbol:
    """Return a name as a symbol, of which the digits at its end are the index: w1 is w₁.

    Args:
        name: The name.
    """
    stem = name.rstrip("0123456789")
    digits = name[len(stem) :]
    if not digits or len(digits) > 4 or digits != str(int(digits)) or stem.endswith("_"):
        return Symbol(name)
    return Symbol(stem, int(digits))
