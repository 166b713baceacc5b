"""Expectations against closed forms and against adaptive quadrature of SciPy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats

from chainrule.spec.activations import ACTIVATIONS
from chainrule.theory.quadrature import Law, expect_one, expect_two, get_arrays, multiply

PHI = {
    "sigmoid": special.expit,
    "tanh": np.tanh,
    "relu": lambda z: max(z, 0.0),
    "leaky_relu": lambda z: max(z, 0.01 * z),
    "elu": lambda z: z if z > 0 else special.expm1(z),
    "selu": lambda z: 1.0507009873554805 * (z if z > 0 else 1.6732632423543772 * special.expm1(z)),
    "gelu": lambda z: z * special.ndtr(z),
    "silu": lambda z: z * special.expit(z),
    "identity": lambda z: z,
}


def average(function, scale, *, shift=0.0):
    """Return E f(scale·g + shift) of a standard normal g, by adaptive quadrature."""
    kink = -shift / scale
    total = 0.0
    for low, high in ((-12.0, 12.0),) if abs(kink) > 12 else ((-12.0, kink), (kink, 12.0)):
        total += integrate.quad(
            lambda g: function(scale * g + shift) * math.exp(-g * g / 2) / math.sqrt(2 * math.pi),
            low,
            high,
            epsabs=1e-13,
            epsrel=1e-12,
            limit=400,
        )[0]
    return total


@pytest.mark.parametrize("q", [1e-8, 0.3, 2.0, 300.0])
@pytest.mark.parametrize("name", PHI)
def test_one_example_equals_adaptive_quadrature(name, q):
    one = expect_one(name, Law(q))
    for power in (1, 2):
        reference = average(lambda z, power=power: PHI[name](z) ** power, math.sqrt(q))
        assert one.mean(one.phi**power) == pytest.approx(reference, rel=1e-9, abs=1e-11 * q)
    assert one.weights.sum() == pytest.approx(1.0, abs=1e-13)


@pytest.mark.parametrize("name", PHI)
def test_two_examples_equal_nested_quadrature(name):
    q, rho = 1.7, 0.6
    two = expect_two(name, Law(q, rho))
    shared, own = math.sqrt(q * rho), math.sqrt(q * (1 - rho))
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    # Given what z_a and z_b share, they are independent: E φφ = E (E φ | shared)².
    reference = sum(
        weight * average(PHI[name], own, shift=shared * node) ** 2
        for node, weight in zip(nodes, weights, strict=True)
    )
    assert two.mean(two.phi, two.phi) == pytest.approx(reference, rel=1e-9)


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.3, 0.9, 0.99999, 1.0])
def test_rectifier_equals_the_arc_cosine_kernels(rho):
    two = expect_two("relu", Law(3.0, rho))
    angle = math.acos(rho)
    kernel = (math.sin(angle) + (math.pi - angle) * rho) / (2 * math.pi)  # Cho & Saul 2009
    assert two.mean(two.phi, two.phi) == pytest.approx(3.0 * kernel, rel=1e-12)
    slopes = (math.pi - angle) / (2 * math.pi)
    assert two.mean(two.slope, two.slope) == pytest.approx(slopes, rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(sorted(ACTIVATIONS)),
    q=st.floats(1e-6, 30.0),
    rho=st.floats(0.0, 1.0),
)
def test_derivatives_agree_with_those_of_the_product(name, q, rho):
    one, two = expect_one(name, Law(q)), expect_two(name, Law(q, rho))
    # Price: d E φφ / d correlation = q·E φ'φ'. Stein: d E φ² / d ln q = q·E (φφ')'.
    slope = q * two.mean(two.slope, two.slope)
    if two.turns is not None:
        assert two.follow_correlation(two.phi, two.phi) == pytest.approx(slope, rel=1e-6, abs=1e-9)
    bend = q * one.mean_derivative(one.product)
    assert one.follow_variance(one.phi**2) == pytest.approx(bend, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_shared_uniform_bias_equals_the_mean_over_it(share):
    q, rho = 0.8, 0.95
    law = Law(q, rho, uniform_share=share)
    half, spread = math.sqrt(3 * q * share), math.sqrt(q * (1 - share))
    biases, weights = np.polynomial.legendre.leggauss(40)
    inner = [average(lambda z: PHI["elu"](z) ** 2, spread, shift=half * bias) for bias in biases]
    reference = float(np.dot(weights, inner)) / 2
    one, two = expect_one("elu", law), expect_two("elu", law)
    assert one.mean(one.phi**2) == pytest.approx(reference, rel=1e-9)
    ones = (np.ones_like(two.weights),) * 2
    assert two.mean(multiply(two.phi, two.phi), ones) == pytest.approx(reference, rel=1e-9)
    assert two.mean(two.z, two.z) == pytest.approx(q * rho, rel=1e-8)


def test_sphere_has_the_moments_of_a_normalized_batch():
    batch = 12
    two = expect_two("identity", Law(1.0, -1 / (batch - 1), sphere=batch - 1))
    one = expect_one("identity", two.law)
    free = batch - 1
    assert two.mean(two.z, two.z) == pytest.approx(-1 / free, rel=1e-8)
    # A coordinate of a sphere, squared, has a beta distribution.
    fourth = free**2 * stats.beta(0.5, (free - 1) / 2).moment(2)
    assert one.mean(one.z**4) == pytest.approx(fourth, rel=1e-9)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_functions_for_arrays_are_those_of_the_table(name):
    z = np.concatenate([np.linspace(-40.0, 40.0, 4001), [-900.0, 900.0, -1e-9, 1e-9]])
    entry = ACTIVATIONS[name]
    for fast, exact in zip(get_arrays(name), (entry.function, entry.derivative), strict=True):
        expected = [exact(float(each)) for each in z]
        np.testing.assert_allclose(fast(z), expected, rtol=1e-14, atol=1e-300)
