"""The table of activations against PyTorch, autograd, finite differences and SymPy."""

import inspect as python_inspect
import math

import numpy as np
import pytest
import sympy
import torch

from chainrule.errors import SpecError
from chainrule.spec.activations import ACTIVATIONS, SATURATION_SHARE, get_activation
from chainrule.spec.initializers import INITIALIZERS
from expressions import EXPRESSIONS, Z

NAMES = ("sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "identity")
ENTRIES = [pytest.param(entry, id=name) for name, entry in ACTIVATIONS.items()]
TAILS = np.logspace(1, 300, 60)
GRID = [*np.linspace(-12, 12, 2401).tolist(), 0.0, -0.0, *TAILS.tolist(), *(-TAILS).tolist()]


def build_module(entry):
    return getattr(torch.nn, entry.module)()


def find_extremes(function):
    """Return the least and greatest value of a function, refined around the best grid points."""
    coarse = np.concatenate([np.linspace(-12, 12, 4801), [-700.0, -50.0, 50.0, 700.0]])
    values = np.array([function(z) for z in coarse.tolist()])
    extremes = []
    for pick in (np.argmin, np.argmax):
        best = coarse[pick(values)]
        fine = np.linspace(best - 0.005, best + 0.005, 10_001)
        extremes.append([function(z) for z in fine.tolist()])
    return min(extremes[0]), max(extremes[1])


def test_the_table_holds_the_documented_activations():
    assert tuple(ACTIVATIONS) == NAMES
    assert all(get_activation(name) is entry for name, entry in ACTIVATIONS.items())
    assert all(entry.name == name for name, entry in ACTIVATIONS.items())


def test_the_table_cannot_be_changed():
    with pytest.raises(TypeError):
        ACTIVATIONS["relu"] = ACTIVATIONS["tanh"]
    with pytest.raises(AttributeError):
        ACTIVATIONS["relu"].risk = "none"
    with pytest.raises(TypeError):
        ACTIVATIONS["leaky_relu"].module_defaults["negative_slope"] = 1.0


@pytest.mark.parametrize("entry", ENTRIES)
class TestAgainstPyTorch:
    def test_function_is_that_of_the_module(self, entry):
        expected = build_module(entry)(torch.tensor(GRID, dtype=torch.float64))
        received = [entry.function(z) for z in GRID]
        np.testing.assert_allclose(received, expected.tolist(), rtol=1e-12, atol=1e-14)

    def test_derivative_is_that_of_autograd(self, entry):
        z = torch.tensor(GRID, dtype=torch.float64, requires_grad=True)
        (expected,) = torch.autograd.grad(build_module(entry)(z).sum(), z)
        received = [entry.derivative(z) for z in GRID]
        np.testing.assert_allclose(received, expected.tolist(), rtol=1e-12, atol=1e-14)

    @pytest.mark.parametrize("zero", [0.0, -0.0])
    def test_derivative_at_the_kink_is_exactly_that_of_autograd(self, entry, zero):
        z = torch.tensor(zero, dtype=torch.float64, requires_grad=True)
        (expected,) = torch.autograd.grad(build_module(entry)(z), z)
        assert entry.derivative(zero) == pytest.approx(expected.item(), rel=1e-15, abs=0)

    def test_module_defaults_are_the_attributes_of_a_fresh_module(self, entry):
        module = build_module(entry)
        assert {name: getattr(module, name) for name in entry.module_defaults} == dict(
            entry.module_defaults
        )

    def test_module_defaults_name_every_parameter_that_shapes_the_function(self, entry):
        parameters = python_inspect.signature(type(build_module(entry))).parameters.values()
        shaping = {p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD} - {"inplace"}
        assert set(entry.module_defaults) == shaping


@pytest.mark.parametrize("entry", ENTRIES)
class TestCalculus:
    def test_derivative_is_the_limit_of_difference_quotients(self, entry):
        step = 1e-6
        points = [z for z in np.linspace(-8, 8, 1601).tolist() if abs(z) > 1e-3]
        quotients = [
            (entry.function(z + step) - entry.function(z - step)) / (2 * step) for z in points
        ]
        received = [entry.derivative(z) for z in points]
        np.testing.assert_allclose(received, quotients, rtol=0, atol=2e-8)

    def test_function_and_derivative_are_those_of_the_symbolic_expression(self, entry):
        """To full precision also in the tails, which autograd rounds to zero."""
        expression = EXPRESSIONS[entry.name]
        slope = sympy.diff(expression, Z)
        for z in (-30.0, -18.5, -3.0, -1.0, -0.25, 0.125, 0.5, 2.0, 6.0, 30.0):
            exact = expression.subs(Z, sympy.Rational(z)).evalf(40)
            assert entry.function(z) == pytest.approx(float(exact), rel=1e-12, abs=0)
            exact = slope.subs(Z, sympy.Rational(z)).evalf(40)
            assert entry.derivative(z) == pytest.approx(float(exact), rel=1e-12, abs=0)

    @pytest.mark.parametrize("quantity", ["output", "derivative"])
    def test_ranges_are_infimum_and_supremum(self, entry, quantity):
        function = entry.function if quantity == "output" else entry.derivative
        claimed = entry.output_range if quantity == "output" else entry.derivative_range
        for bound, extreme, far in zip(claimed, find_extremes(function), (-1e9, 1e9), strict=True):
            if math.isinf(bound):
                assert function(far) == pytest.approx(math.copysign(abs(function(far)), bound))
                assert abs(function(far)) > 1e6
            else:
                assert extreme == pytest.approx(bound, rel=0, abs=1e-9)

    def test_derivative_is_largest_at_its_argmax(self, entry):
        assert entry.derivative_max == max(map(abs, entry.derivative_range))
        at_argmax = abs(entry.derivative(entry.derivative_argmax))
        assert at_argmax == pytest.approx(entry.derivative_max, rel=1e-9)


@pytest.mark.parametrize("entry", ENTRIES)
class TestTexts:
    @pytest.mark.parametrize("field", ["formula", "derivative_formula"])
    def test_latex_is_balanced(self, entry, field):
        latex = getattr(entry, field)
        depth = 0
        for sign in latex.replace(r"\{", "").replace(r"\}", ""):
            depth += {"{": 1, "}": -1}.get(sign, 0)
            assert depth >= 0
        assert depth == 0
        assert latex.count(r"\begin") == latex.count(r"\end")
        assert latex.count("(") == latex.count(")")
        left, equals, right = latex.partition(" = ")
        assert left.endswith("(z)")
        assert equals
        assert right.strip()
        assert ("'" in left) == (field == "derivative_formula")

    def test_recommended_initialization_exists(self, entry):
        assert entry.initialization in INITIALIZERS

    @pytest.mark.parametrize("field", ["label", "risk", "note"])
    def test_nothing_is_left_unsaid(self, entry, field):
        assert getattr(entry, field).strip()


def test_notes_are_sentences():
    assert all(entry.note.endswith(".") for entry in ACTIVATIONS.values())


@pytest.mark.parametrize("z", [20.0, 40.0, 100.0, 300.0])
def test_slopes_far_out_are_small_and_not_zero(z):
    """Of 1 ÷ cosh² z and σ(z)σ(−z) that is 4e^−2z and e^−z, to the last digit of a float."""
    for side in (z, -z):
        assert ACTIVATIONS["tanh"].derivative(side) == pytest.approx(
            4 * math.exp(-2 * z), rel=1e-9, abs=0
        )
        assert ACTIVATIONS["sigmoid"].derivative(side) == pytest.approx(
            math.exp(-z), rel=1e-7, abs=0
        )


def test_a_saturated_sigmoid_is_one_beyond_its_familiar_bound():
    """5 % of 1/4 is reached where σ(z) = (1 ± √0.95)/2, at |z| = 4.35."""
    sigmoid = get_activation("sigmoid")
    limit = SATURATION_SHARE * sigmoid.derivative_max
    edge = math.log((1 + math.sqrt(0.95)) / (1 - math.sqrt(0.95)))
    assert sigmoid.derivative(edge - 1e-6) > limit > sigmoid.derivative(edge + 1e-6)


@pytest.mark.parametrize(
    ("unknown", "nearest"),
    [("sigmod", "sigmoid"), ("ReLU", "relu"), ("leakyrelu", "leaky_relu"), ("swilu", "silu")],
)
def test_an_unknown_name_lists_all_and_leads_with_the_nearest(unknown, nearest):
    with pytest.raises(SpecError) as caught:
        get_activation(unknown)
    assert str(caught.value) == (
        f"activation: unknown {unknown!r}. Did you mean {nearest!r}? Known: {', '.join(NAMES)}."
    )


def test_a_name_near_to_none_gets_no_guess():
    with pytest.raises(SpecError) as caught:
        get_activation("??")
    assert str(caught.value) == f"activation: unknown '??'. Known: {', '.join(NAMES)}."
