"""Floats without bounds of their exponent, against floats and against mpmath."""

import math
import sys

import mpmath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.chain.wide_float import ONE, ZERO, WideFloat, multiply

MODERATE = st.floats(-1e100, 1e100).filter(lambda value: value == 0 or abs(value) > 1e-100)


def wide(value):
    return WideFloat.from_float(value)


def exact(value):
    return mpmath.ldexp(mpmath.mpf(value.mantissa), value.exponent)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_kept(value):
    assert float(wide(value)) == value
    assert wide(value).sign == (value > 0) - (value < 0)


@given(MODERATE, MODERATE)
def test_arithmetic_rounds_as_that_of_floats(a, b):
    assert float(wide(a) * wide(b)) == a * b
    assert float(wide(a) + wide(b)) == pytest.approx(a + b, rel=1e-15, abs=1e-15 * abs(a))
    if b:
        assert float(wide(a) / wide(b)) == a / b
    assert float(-wide(a)) == -a
    assert float(abs(wide(a))) == abs(a)


@given(st.lists(MODERATE.filter(bool), max_size=60))
def test_products_go_on_where_floats_end(factors):
    product = multiply(map(wide, factors))
    with mpmath.workdps(40):
        reference = mpmath.fprod(map(mpmath.mpf, factors))
        assert abs(exact(product) / reference - 1) < 1e-14
        assert product.log10 == pytest.approx(float(mpmath.log10(abs(reference))), abs=1e-10)


@pytest.mark.parametrize("log", [-1e9, -1000.5, -0.25, 0.0, 3.0, 1234.5, 1e9])
def test_a_logarithm_gives_the_number(log):
    with mpmath.workdps(40):
        number = WideFloat.from_log(log, -1.0)
        assert number.sign == -1
        assert float(mpmath.log(-exact(number))) == pytest.approx(log, rel=1e-15, abs=1e-15)
        assert 0.5 <= abs(number.mantissa) < 1


def test_a_logarithm_beyond_all_digits_keeps_its_power_of_ten():
    assert WideFloat.from_log(-1e280).log10 == pytest.approx(-1e280 / math.log(10), rel=1e-12)


@pytest.mark.parametrize(
    ("number", "range_", "value"),
    [
        (ZERO, "normal", 0.0),
        (ONE, "normal", 1.0),
        (wide(sys.float_info.min), "normal", sys.float_info.min),
        (wide(5e-324), "underflow", 5e-324),
        (WideFloat(0.5, -5000), "underflow", 0.0),
        (WideFloat(-0.5, 5000), "overflow", -math.inf),
        (WideFloat(0.5, 10**400), "overflow", math.inf),
    ],
)
def test_range_says_what_a_float_makes_of_it(number, range_, value):
    assert number.range == range_
    assert float(number) == value


@pytest.mark.parametrize(
    ("number", "parts"),
    [
        (wide(-0.0), ("0", None)),
        (wide(-2.0), ("−2", None)),
        (wide(3.14e-13), ("3.1", -13)),
        (wide(1e200) * wide(-3.14e200), ("−3.1", 400)),
        (wide(1e-200) * wide(9.96e-200), ("1.0", -399)),
    ],
)
def test_digits_and_power_of_ten(number, parts):
    assert number.split() == parts


@pytest.mark.parametrize(("value", "exact"), [(0.25, True), (1 / 3, False), (1e10, False)])
def test_reads_exactly(value, exact):
    assert wide(value).reads_exactly is exact


def test_a_sum_far_apart_is_the_larger():
    large, small = WideFloat(0.75, 9000), WideFloat(0.5, -9000)
    assert large + small == large == small + large
    assert large + ZERO == large == ZERO + large
    assert large + -large == ZERO


def test_zero_has_no_logarithm():
    assert ZERO.log10 == -math.inf
    assert (ZERO * WideFloat(0.5, 9000)) == ZERO
