"""Numbers with an exponent of any size: against floats, fractions, and mpmath with 60 digits."""

import copy
import json
import math
import operator
import pickle
import sys
from decimal import Decimal
from fractions import Fraction
from numbers import Real

import mpmath
import numpy as np
import pytest
import sympy
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chainrule.chain import ScalarChain, derive
from chainrule.chain.wide_float import (
    ONE,
    ZERO,
    WideFloat,
    apply_activation,
    apply_derivative,
    compute_exp,
    multiply,
)
from chainrule.spec.activations import ACTIVATIONS
from expressions import EXPRESSIONS, Z

DIGITS = 60
FEWER = settings(max_examples=settings.default.max_examples // 2 + 1)
"""For dear tests: half of what the profile asks for."""

MODERATE = st.floats(-1e100, 1e100).filter(lambda value: value == 0 or abs(value) > 1e-100)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def wide(value):
    return WideFloat.from_float(value)


WIDE = st.builds(
    lambda mantissa, exponent: WideFloat(mantissa, exponent) if mantissa else ZERO,
    st.just(0.0)
    | st.floats(0.5, 1.0, exclude_max=True).flatmap(lambda m: st.sampled_from([m, -m])),
    st.integers(-5000, 5000),
)
NUMBERS = WIDE | st.integers(-(10**30), 10**30) | FLOATS | st.fractions()


def exact(value):
    """Return a number as a fraction."""
    return Fraction(*value.as_integer_ratio())


def to_mpmath(value):
    return mpmath.ldexp(mpmath.mpf(value.mantissa), value.exponent)


def is_close(value, fraction, digits=1e-15):
    if not fraction:
        return value == 0
    return abs(exact(value) / fraction - 1) < digits


# ------------------------------------------------------------------ arithmetic


@given(FLOATS)
def test_every_float_is_kept(value):
    assert float(wide(value)) == value
    assert wide(value).sign == (value > 0) - (value < 0)


@given(MODERATE, MODERATE)
def test_arithmetic_rounds_as_that_of_floats(a, b):
    assert float(wide(a) * wide(b)) == a * b
    assert float(wide(a) + wide(b)) == a + b
    assert float(wide(a) - wide(b)) == a - b
    if b:
        assert float(wide(a) / wide(b)) == a / b
    assert float(-wide(a)) == -a
    assert float(abs(wide(a))) == abs(a)
    assert +wide(a) == wide(a)


@pytest.mark.parametrize(
    "operation",
    [operator.add, operator.sub, operator.mul, operator.truediv],
    ids=lambda f: f.__name__,
)
@given(a=WIDE, b=NUMBERS)
def test_arithmetic_with_any_number_is_right_on_both_sides(operation, a, b):
    number = exact(b) if isinstance(b, WideFloat) else Fraction(b)
    for left, right, p, q in ((a, b, exact(a), number), (b, a, number, exact(a))):
        if operation is operator.truediv and not q:
            with pytest.raises(ZeroDivisionError):
                operation(left, right)
            continue
        result, expected = operation(left, right), operation(p, q)
        assert isinstance(result, WideFloat)
        # the other number is rounded first, as floats round it, so a difference keeps that error
        scale = max(abs(p), abs(q)) if operation in (operator.add, operator.sub) else abs(expected)
        assert abs(exact(result) - expected) <= scale * Fraction(1, 2**51)


@given(st.lists(MODERATE.filter(bool), max_size=60))
def test_products_go_on_where_floats_end(factors):
    product = multiply(map(wide, factors))
    assert is_close(product, math.prod(map(Fraction, factors)), 1e-14)
    assert sum(map(wide, factors)) == sum(map(wide, factors), ZERO)


@given(WIDE.filter(bool), st.integers(-40, 40))
def test_whole_powers(base, power):
    assert is_close(base**power, exact(base) ** power, 1e-13)


@given(WIDE.filter(lambda value: value > 0), st.floats(-3000, 3000))
@FEWER
def test_any_power_of_a_positive_number(base, power):
    with mpmath.workdps(DIGITS):
        expected = mpmath.power(to_mpmath(base), mpmath.mpf(power))
        lost = 1e-15 * (1 + abs(power))
        assert abs(to_mpmath(base**power) / expected - 1) < lost
        base_two = mpmath.power(2, mpmath.mpf(power))
        assert abs(to_mpmath(2 ** wide(power)) / base_two - 1) < lost


def test_powers_at_the_edges():
    assert ZERO**0 == 1
    assert ZERO**2.5 == 0
    assert wide(-2.0) ** 3 == -8
    assert wide(-2.0) ** (2**60) > 0
    assert ONE**1e6 == 1
    with pytest.raises(ZeroDivisionError):
        ZERO**-1
    with pytest.raises(ValueError, match="whole power"):
        wide(-2.0) ** 0.5


@given(WIDE, (WIDE | FLOATS).filter(bool))
@FEWER
def test_whole_quotient_and_remainder(a, b):
    divisor = exact(b) if isinstance(b, WideFloat) else Fraction(b)
    for whole, rest, p, q in ((a // b, a % b, exact(a), divisor), *_divide_back(a, b, divisor)):
        assert is_close(whole, p // q)
        assert is_close(rest, p % q)


def _divide_back(a, b, divisor):
    return [(b // a, b % a, divisor, exact(a))] if a else []


def test_infinite_and_undefined_floats_win():
    tiny = WideFloat(0.5, -5000)
    assert tiny * math.inf == math.inf
    assert -tiny * math.inf == -math.inf
    assert math.isnan(ZERO * math.inf)
    assert tiny + math.inf == math.inf
    assert math.inf - tiny == math.inf
    assert tiny / math.inf == 0
    assert math.isnan(tiny + math.nan)
    assert WideFloat(0.5, 10**9) < math.inf
    assert WideFloat(-0.5, 10**9) > -math.inf
    for ask in (operator.lt, operator.ge, operator.eq):
        assert not ask(tiny, math.nan)
        assert not ask(math.nan, tiny)


@pytest.mark.parametrize("other", ["1", None, [1.0], 1j])
def test_what_is_no_real_number_is_refused(other):
    for ask in (operator.add, operator.lt, operator.mul):
        with pytest.raises(TypeError):
            ask(ONE, other)
    assert other != ONE


class Foreign:
    """Says of itself how it compares with anything."""

    def __lt__(self, other):
        return "below"

    __le__ = __gt__ = __ge__ = __lt__


@pytest.mark.parametrize("ask", [operator.lt, operator.le, operator.gt, operator.ge])
def test_what_knows_how_it_compares_is_asked(ask):
    assert ask(ONE, Foreign()) == "below"


# ------------------------------------------------------------------ comparison


@given(WIDE, NUMBERS)
@example(WideFloat(0.5, 2), 2)
@example(ZERO, -0.0)
def test_order_and_equality_are_exact(a, b):
    number = exact(b) if isinstance(b, WideFloat) else Fraction(b)
    for ask in (operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge):
        assert ask(a, b) == ask(exact(a), number)
        assert ask(b, a) == ask(number, exact(a))


@given(WIDE)
def test_equal_numbers_hash_alike(a):
    assert hash(a) == hash(exact(a))
    assert a == exact(a)
    if a.range == "normal":
        assert a == float(a)
        assert hash(a) == hash(float(a))
        assert a == Decimal(float(a))


def test_sizes_that_nothing_could_write_out_compare_at_once():
    vast = WideFloat(0.5, 10**400)
    assert vast > 10**300
    assert vast > Fraction(10**50, 3)
    assert vast > Decimal("1e99999") > 1 / vast
    assert vast < Decimal("inf")
    assert 0 < 1 / vast < Fraction(1, 10**300)
    assert hash(vast) == hash(WideFloat(0.5, 10**400))
    with pytest.raises(OverflowError, match="log10"):
        vast.as_integer_ratio()


def test_only_an_exact_zero_is_false():
    assert not ZERO
    assert not wide(-0.0)
    assert WideFloat(0.5, -(10**400))


# ------------------------------------------------------------ rounding and text


@given(WIDE, st.integers(-20, 20))
def test_rounding(a, digits):
    assert round(a) == round(exact(a))
    assert math.floor(a) == math.floor(exact(a))
    assert math.ceil(a) == math.ceil(exact(a))
    assert int(a) == int(exact(a))
    if a.range == "normal":
        assert round(a, digits) == round(float(a), digits)
    else:
        assert is_close(round(a, digits), round(exact(a), digits))


@given(FLOATS, st.sampled_from(["", "10", ">12", "+", "08"]), st.sampled_from(["", ".3", ".0"]))
@FEWER
def test_formats_as_floats_do(value, layout, digits):
    for kind in "gef":
        assert f"{wide(value):{layout}{digits}{kind}}" == f"{value:{layout}{digits}{kind}}"


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (".3g", "1.5e-700"),
        ("g", "1.5e-700"),
        ("E", "1.500000E-700"),
        (".2e", "1.50e-700"),
        (".3f", "0.000"),
        (">12.1e", "    1.5e-700"),
        ("+.1e", "+1.5e-700"),
        ("", "1.5·10⁻⁷⁰⁰"),
    ],
)
def test_formats_beyond_floats(spec, text):
    assert format(WideFloat.from_ratio(15, 10**701), spec) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (wide(-0.0), "0"),
        (wide(-2.0), "−2"),
        (wide(1000.0), "1000"),
        (wide(-0.02978336), "−0.0298"),
        (wide(3.14e-13), "3.1·10⁻¹³"),
        (wide(1e200) * wide(-3.14e200), "−3.1·10⁴⁰⁰"),
        (wide(1e-200) * wide(9.96e-200), "1.0·10⁻³⁹⁹"),
        (WideFloat(-0.5, 10**9), "−10^(3.0·10⁸)"),
        (WideFloat(0.5, -(10**400)), "10^(−3.0·10³⁹⁹)"),
    ],
)
def test_reads_as_people_write(number, text):
    assert str(number) == repr(number) == f"{number}" == text


@given(WIDE.filter(bool))
@FEWER
def test_digits_and_power_of_ten_are_those_of_the_number(a):
    digits, power = a.split()
    shown = Fraction(digits.replace("−", "-")) * Fraction(10) ** (power or 0)
    assert abs(shown / exact(a) - 1) <= 0.051
    with mpmath.workdps(DIGITS):
        assert a.log10 == pytest.approx(
            float(mpmath.log10(abs(to_mpmath(a)))), rel=1e-14, abs=1e-14
        )


@pytest.mark.parametrize(
    ("number", "exactly"),
    [
        (wide(0.25), True),
        (wide(1 / 3), False),
        (wide(1e10), True),
        (wide(0.1) * wide(0.1), True),
        (wide(0.3000000001), False),
        (WideFloat(0.5, 1, rounded=True), False),
        (WideFloat(0.5, 5000), False),
    ],
)
def test_reads_exactly(number, exactly):
    assert number.reads_exactly is exactly


def test_rounding_passes_on_in_calculations_and_not_in_comparisons():
    half = WideFloat(0.5, 0, rounded=True)
    assert half == wide(0.5)
    assert hash(half) == hash(0.5)
    for result in (half * ONE, ONE / half, half + ONE, -half, abs(half), half**2, 2 - half):
        assert result.rounded
    assert not (half * ZERO).rounded


def test_it_is_a_number_to_other_libraries():
    gradient = ScalarChain(1.0, [0.5, -2.0, 1.5]).gradient("w1")
    value = float(gradient)
    assert isinstance(gradient, Real)
    assert json.loads(json.dumps({"gradient": float(gradient)})) == {"gradient": value}
    assert json.loads(json.dumps(str(gradient))) == "−0.0298"
    assert pickle.loads(pickle.dumps(gradient)) == copy.deepcopy(gradient) == gradient
    assert np.float64(2.0) * gradient == 2 * value
    assert np.array([gradient, gradient], dtype=float).tolist() == [value, value]
    assert math.sqrt(abs(gradient)) == math.sqrt(-value)
    assert gradient == pytest.approx(value)
    assert max(gradient, 0) == 0
    assert ScalarChain(gradient, [1.0]).x == value
    assert divmod(wide(7.0), 2) == (3, 1)


@pytest.mark.parametrize(
    ("number", "range_", "value"),
    [
        (ZERO, "normal", 0.0),
        (ONE, "normal", 1.0),
        (wide(sys.float_info.min), "normal", sys.float_info.min),
        (wide(sys.float_info.max), "normal", sys.float_info.max),
        (wide(5e-324), "underflow", 5e-324),
        (WideFloat(0.5, -5000), "underflow", 0.0),
        (WideFloat(-0.5, 5000), "overflow", -math.inf),
        (WideFloat(0.5, 10**400), "overflow", math.inf),
    ],
)
def test_range_says_what_a_float_makes_of_it(number, range_, value):
    assert number.range == range_
    assert float(number) == value


def test_a_sum_far_apart_is_the_larger():
    large, small = WideFloat(0.75, 9000), WideFloat(0.5, -9000)
    assert large + small == large == small + large
    assert large + ZERO == large == ZERO + large
    assert large - large == ZERO


def test_logarithms_at_the_edges():
    assert ZERO.log10 == -math.inf
    assert WideFloat(0.5, 10**400).log10 == math.inf
    assert WideFloat(0.5, -(10**400)).log10 == -math.inf


# ----------------------------------------------------------------- activations

SIZES = [5e-324, 2e-308, 3e-308, 1e-30, 0.25, 3.0, 12.0, 37.0, 40.0, 700.0, 720.0, 3000.0]
POINTS = [sign * size for size in SIZES for sign in (1.0, -1.0)]
ENTRIES = [pytest.param(entry, id=name) for name, entry in ACTIVATIONS.items()]


def evaluate(name, z):
    """Return φ(z) and φ'(z), with digits enough for what their terms cancel."""
    if name == "gelu":  # SymPy writes erfc(−y) as 2 − erfc(y), which no digits make good far out
        with mpmath.workdps(DIGITS):
            z = mpmath.mpf(z)
            share = mpmath.erfc(-z / mpmath.sqrt(2)) / 2
            return z * share, share + z * mpmath.npdf(z)
    with mpmath.workdps(3000):
        expressions = EXPRESSIONS[name], sympy.diff(EXPRESSIONS[name], Z)
        functions = [sympy.lambdify(Z, expression, "mpmath") for expression in expressions]
        return tuple(mpmath.mpf(function(mpmath.mpf(z))) for function in functions)


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("z", POINTS)
def test_values_and_slopes_are_those_of_the_expression(entry, z):
    number = wide(z)
    received = apply_activation(entry, number), apply_derivative(entry, number)
    for result, expected in zip(received, evaluate(entry.name, z), strict=True):
        with mpmath.workdps(DIGITS):
            if expected == 0:
                assert result.sign == 0
                continue
            assert abs(to_mpmath(result) / expected - 1) < 1e-13


@given(st.floats(-1e15, 1e15))
@FEWER
def test_the_exponential_keeps_its_digits(power):
    with mpmath.workdps(DIGITS):
        expected = mpmath.exp(mpmath.mpf(power))
        assert abs(to_mpmath(compute_exp(wide(power))) / expected - 1) < 1e-15


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_tiny_inputs_keep_their_size(entry, sign):
    tiny = sign * WideFloat(0.625, -4000)
    value, slope = apply_activation(entry, tiny), apply_derivative(entry, tiny)
    near = entry.derivative(sign * 1e-200)
    assert float(slope) == pytest.approx(near, rel=1e-12)
    assert value == (0.5 if entry.name == "sigmoid" else near * tiny)


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("exponent", [1023, 1024, 4000, 10**6])
def test_huge_inputs_reach_the_asymptote(entry, sign, exponent):
    huge = sign * WideFloat(0.625, exponent)
    value, slope = apply_activation(entry, huge), apply_derivative(entry, huge)
    far = entry.derivative(sign * 1e9)
    if far:
        assert value == far * huge
        assert slope == far
    else:
        assert float(value) == pytest.approx(entry.function(sign * 1e9), abs=0)
        assert not slope or slope.log10 < -1e300


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("z", [-1e149, 1e200, -1e200, 1e307, -1e307, 1.7e308, -1.7e308])
def test_far_tails_have_the_right_power_of_ten(entry, z):
    """log₁₀|φ′| far out, from the leading term of each tail; it can be beyond floats itself."""
    slope = apply_derivative(entry, wide(z))
    leading = {"sigmoid": abs(z), "tanh": 2 * mpmath.mpf(abs(z))}
    if z < 0:
        leading |= dict.fromkeys(("elu", "selu", "silu"), -z)
        leading["gelu"] = mpmath.mpf(z) ** 2 / 2
    if entry.name not in leading:
        assert slope in (0, 1, 0.01, entry.derivative(z))
        return
    with mpmath.workdps(DIGITS):
        expected = -mpmath.mpf(leading[entry.name]) / mpmath.log(10)
        power = slope.split()[1]
        assert abs(mpmath.mpf(power) / expected - 1) < 1e-14


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_thousand_layers_go_through_the_smallest_floats(activation):
    """At every size that a float can lose, the output and its slope stay those of the tangent."""
    chain = ScalarChain(1e-200, [0.37] * 1000, activation)
    if activation == "sigmoid":
        assert chain.gradient("x").sign == 1
        return
    slope = ACTIVATIONS[activation].derivative(1e-200)
    expected = Fraction(1e-200) * (Fraction(0.37) * Fraction(slope)) ** 1000
    assert is_close(chain.output, expected, 1e-12)


def test_saturated_values_are_not_said_to_be_exact():
    chain = ScalarChain(1.0, [1000.0, 1.0], ["sigmoid", "tanh"])
    assert chain.layers[0].h == 1
    assert not chain.layers[0].h.reads_exactly
    assert ScalarChain(0.0, [1.0]).layers[0].h.reads_exactly
    assert ScalarChain(2.0, [3.0], "relu").gradient("w1").reads_exactly
    assert not ScalarChain(1e-9, [1.0], "tanh").gradient("x").reads_exactly


def test_a_chain_of_the_largest_weights_answers_at_once():
    chain = ScalarChain(1.0, [1e308] * 98 + [-1e308, 1e308], ["identity"] * 98 + ["gelu"] * 2)
    gradient = chain.gradient("w1")
    assert 0 < gradient < Fraction(1, 10**1000)
    assert len(str(gradient)) < 40
    assert "10^(" in derive(chain).to_text()
