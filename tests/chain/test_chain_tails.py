"""Activations on numbers of any size, against the symbolic expressions in high precision."""

import mpmath
import pytest
import sympy

from chainrule.chain import ScalarChain, derive
from chainrule.chain.notation import format_wide
from chainrule.chain.tails import apply_activation, apply_derivative
from chainrule.chain.wide_float import WideFloat, multiply, strip_bound
from chainrule.spec.activations import ACTIVATIONS
from expressions import EXPRESSIONS, Z

SIZES = [1e-30, 0.25, 1.0, 3.0, 12.0, 37.0, 40.0, 300.0, 700.0, 800.0, 3000.0]
POINTS = [sign * size for size in SIZES for sign in (1.0, -1.0)]
ENTRIES = [pytest.param(entry, id=name) for name, entry in ACTIVATIONS.items()]
DIGITS = 60


def to_mpmath(number):
    return mpmath.ldexp(mpmath.mpf(number.mantissa), number.exponent)


def evaluate(name, z):
    """Return φ(z) and φ'(z), with digits enough for what their terms cancel."""
    if name == "gelu":  # SymPy writes erfc(−y) as 2 − erfc(y), which no digits make good far out
        with mpmath.workdps(DIGITS):
            z = mpmath.mpf(z)
            share = mpmath.erfc(-z / mpmath.sqrt(2)) / 2
            return z * share, share + z * mpmath.npdf(z)
    with mpmath.workdps(5000):
        expressions = EXPRESSIONS[name], sympy.diff(EXPRESSIONS[name], Z)
        functions = [sympy.lambdify(Z, expression, "mpmath") for expression in expressions]
        return tuple(mpmath.mpf(function(mpmath.mpf(z))) for function in functions)


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("z", POINTS)
def test_values_and_slopes_are_those_of_the_expression(entry, z):
    number = WideFloat.from_float(z)
    received = apply_activation(entry, number), apply_derivative(entry, number)
    for result, expected in zip(received, evaluate(entry.name, z), strict=True):
        with mpmath.workdps(DIGITS):
            if expected == 0:
                assert result.sign == 0
                continue
            lost = abs(float(mpmath.log(abs(expected)))) * 1e-15  # digits of a huge logarithm
            assert abs(to_mpmath(result) / expected - 1) < 1e-12 + lost


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_tiny_inputs_keep_their_size(entry, sign):
    tiny = multiply([WideFloat.from_float(sign), WideFloat(0.625, -4000)])
    value, slope = apply_activation(entry, tiny), apply_derivative(entry, tiny)
    near = entry.derivative(sign * 1e-200)
    assert float(slope) == pytest.approx(near, rel=1e-12)
    if entry.name == "sigmoid":
        assert float(value) == 0.5
    else:
        assert value == WideFloat.from_float(near) * tiny


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_huge_inputs_reach_the_asymptote(entry, sign):
    huge = multiply([WideFloat.from_float(sign), WideFloat(0.625, 4000)])
    value, slope = apply_activation(entry, huge), apply_derivative(entry, huge)
    far = entry.derivative(sign * 1e9)
    if far:
        assert value == WideFloat.from_float(far) * huge
        assert float(slope) == far
    else:
        assert float(value) == pytest.approx(entry.function(sign * 1e9), abs=0)
        assert slope.sign == 0 or slope.log10 < -1e9


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("z", [1e307, -1e307, 1.7e308, -1.7e308])
def test_the_largest_floats_are_not_cut_short(entry, z):
    number = WideFloat.from_float(z)
    value = apply_activation(entry, number)
    assert float(value) == pytest.approx(entry.function(z), rel=1e-15, abs=0)
    assert float(apply_derivative(entry, number)) == entry.derivative(z)


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("z", [-1e149, 1e200, -1e200, 1e307, -1e307, 1.7e308, -1.7e308])
def test_far_tails_are_right_or_said_to_be_bounds(entry, z):
    """log₁₀|φ′| far out, from the leading term of each tail; what is only a bound lies above it."""
    slope = apply_derivative(entry, WideFloat.from_float(z))
    leading = {"sigmoid": abs(z), "tanh": 2 * abs(z)}
    if z < 0:
        leading |= dict.fromkeys(("elu", "selu", "silu"), -z)
        leading["gelu"] = mpmath.mpf(z) ** 2 / 2
    if entry.name not in leading:
        assert not slope.bound
        return
    exact = -leading[entry.name] / mpmath.log(10)
    if slope.bound:
        assert slope.log10 > exact
        assert strip_bound(slope).log10 > exact
    else:
        assert slope.log10 == pytest.approx(float(exact), rel=1e-12)
    assert slope.bound == (abs(z) > (1e150 if entry.name == "gelu" else 1e300))


def test_a_bound_stays_one_in_products_and_reads_as_one():
    bound = WideFloat(-0.5, -(10**300), bound=True)
    half = WideFloat.from_float(0.5)
    for product in (bound * half, half * bound, bound / half, -bound, abs(bound)):
        assert product.bound
    assert not (bound * WideFloat.from_float(0.0)).bound
    assert not (bound + half).bound
    assert format_wide(bound).startswith(">−10^(−")
    assert format_wide(-bound).startswith("<10^(−")
    assert format_wide(WideFloat(-0.5, 10**9)).startswith("−10^(")
    text = derive(ScalarChain(1.0, [1e308, -1e308, 1e308])).to_text().splitlines()[-1]
    assert text.split()[:2] == [">", text.split()[1]]
    assert "=" not in text
    assert "≈" not in text
