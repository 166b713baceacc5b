"""`ScalarChain` against torch.autograd, finite differences and itself."""

import math
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import chainrule
from chainrule.chain.network import describe_effect
from chainrule.chain.scalar_chain import MAX_LAYERS, ScalarChain
from chainrule.chain.wide_float import WideFloat, multiply
from chainrule.errors import SpecError
from chainrule.spec.activations import ACTIVATIONS

DEPTHS = [1, 2, 3, 7, 30]
NAMES = list(ACTIVATIONS)


def draw_chain(depth, activation, biased, seed=0):
    """Return a chain whose pre-activations stay moderate, so that autograd keeps its digits."""
    draw = random.Random(f"{depth} {activation} {biased} {seed}")
    weights = [draw.choice((-1, 1)) * draw.uniform(0.4, 1.4) for _ in range(depth)]
    biases = [draw.uniform(-0.5, 0.5) for _ in range(depth)] if biased else None
    return ScalarChain(draw.uniform(0.5, 1.5), weights, activation, biases)


def run_torch(chain):
    """Return p and the gradient of p by every variable and intermediate value, by name."""
    values = {"x": torch.tensor(chain.x, dtype=torch.float64, requires_grad=True)}
    h = values["x"]
    for n, layer in enumerate(chain.layers, 1):
        for letter, numbers in (("w", chain.weights), ("b", chain.biases or [0.0] * chain.depth)):
            name = f"{letter}{n}"
            values[name] = torch.tensor(numbers[n - 1], dtype=torch.float64, requires_grad=True)
        values[f"m{n}"] = values[f"w{n}"] * h
        values[f"z{n}"] = values[f"m{n}"] + values[f"b{n}"]
        h = values[f"h{n}"] = getattr(torch.nn, layer.activation.module)()(values[f"z{n}"])
    names = list(values)
    gradients = torch.autograd.grad(h, list(values.values()))
    return values, dict(zip(names, [g.item() for g in gradients], strict=True))


@pytest.mark.parametrize("activation", NAMES)
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("biased", [False, True])
class TestAgainstAutograd:
    def test_factors_multiply_to_every_gradient(self, depth, activation, biased):
        chain = draw_chain(depth, activation, biased)
        _, gradients = run_torch(chain)
        for variable in chain.variables:
            expected = gradients[variable]
            product = math.prod(factor.value for factor in chain.factors(variable))
            assert product == pytest.approx(expected, rel=1e-12, abs=0)
            assert float(chain.gradient(variable)) == pytest.approx(expected, rel=1e-12, abs=0)

    def test_forward_values_and_cumulative_gradients(self, depth, activation, biased):
        chain = draw_chain(depth, activation, biased)
        values, gradients = run_torch(chain)
        for node in chain.nodes[:-1]:
            assert float(node.value) == pytest.approx(values[node.id].item(), rel=1e-12, abs=0)
            assert float(node.gradient) == pytest.approx(gradients[node.id], rel=1e-12, abs=0)
        assert chain.nodes[-1].id == "p"
        assert float(chain.nodes[-1].gradient) == 1.0
        assert chain.p == pytest.approx(values[f"h{depth}"].item(), rel=1e-12, abs=0)


@pytest.mark.parametrize("activation", NAMES)
def test_gradients_are_the_limits_of_difference_quotients(activation):
    chain = draw_chain(3, activation, True, seed=1)
    step = 1e-6

    def change(variable, amount):
        weights, biases, x = list(chain.weights), list(chain.biases), chain.x
        if variable == "x":
            x += amount
        else:
            target = weights if variable[0] == "w" else biases
            target[int(variable[1:]) - 1] += amount
        return ScalarChain(x, weights, activation, biases).p

    for variable in chain.variables:
        quotient = (change(variable, step) - change(variable, -step)) / (2 * step)
        assert float(chain.gradient(variable)) == pytest.approx(quotient, rel=1e-6, abs=1e-9)


@given(
    st.floats(-5, 5),
    st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5), st.sampled_from(NAMES)), min_size=1),
    st.data(),
)
def test_a_chain_agrees_with_itself(x, layers, data):
    weights, biases, names = map(list, zip(*layers, strict=True))
    chain = ScalarChain(x, weights, names, biases)
    variable = data.draw(st.sampled_from(chain.variables))
    factors = chain.factors(variable)
    assert multiply(factor.exact for factor in factors) == chain.gradient(variable)
    running = chain.running_products(variable)
    assert len(running) == len(factors)
    assert running[-1] == chain.gradient(variable)
    # the cumulative gradient of a node is the sum over its outgoing edges
    nodes = {node.id: node for node in chain.nodes}
    outgoing = {}
    for edge in chain.edges:
        share = edge.value * nodes[edge.target].gradient
        outgoing[edge.source] = outgoing[edge.source] + share if edge.source in outgoing else share
    for name, total in outgoing.items():
        assert total.log10 == pytest.approx(nodes[name].gradient.log10, abs=1e-9)
        assert total.sign == nodes[name].gradient.sign


@pytest.mark.parametrize("biases", [None, [0.1, 0.2, 0.3]])
def test_factors_walk_along_the_edges_of_the_graph(biases):
    chain = ScalarChain(1.0, [0.5, -2.0, 1.5], "tanh", biases)
    for variable in chain.variables:
        shown = chain.show(variable)
        edges = {edge.id: edge for edge in shown.edges}
        place = "p"
        for factor in chain.factors(variable):
            assert multiply(edges[name].value for name in factor.edges) == factor.exact
            assert factor.edge == factor.edges[0]
            for name in reversed(factor.edges):
                assert factor.id in edges[name].factors
                assert edges[name].target == place
                place = edges[name].source
        assert place == variable


def test_symbols_formulas_and_values_of_the_factors():
    chain = ScalarChain(x=1.0, weights=[0.5, -2.0], activation=["sigmoid", "tanh"])
    received = [(f.id, f.symbol, f.substituted, f.value) for f in chain.factors("w1")]
    h1 = 1 / (1 + math.exp(-0.5))
    h2 = math.tanh(-2 * h1)
    expected = [
        ("z2-h2", "∂p/∂z₂", "1 − h₂²", pytest.approx(1 - h2**2)),
        ("h1-z2", "∂z₂/∂h₁", "w₂", -2.0),
        ("z1-h1", "∂h₁/∂z₁", "h₁(1 − h₁)", pytest.approx(h1 * (1 - h1))),
        ("w1-z1", "∂z₁/∂w₁", "x", 1.0),
    ]
    assert received == expected
    assert [f.substituted for f in chain.factors("w2")] == ["1 − h₂²", "h₁"]
    assert [f.symbol for f in chain.factors("b2")] == ["∂p/∂z₂", "∂z₂/∂b₂"]
    assert [f.substituted for f in chain.factors("x")][-1] == "w₁"
    assert chain.factors("x")[-1].symbol == "∂z₁/∂x"


@pytest.mark.parametrize(
    ("weight", "value", "effect"),
    [
        (-2.0, "= −2", "grows it 2 times, sign flipped"),
        (1.0, "= 1", "keeps all of it"),
        (0.105, "= 0.105", "keeps 10 %"),
        (0.996, "= 0.996", "within 1 %"),
        (-1.004, "≈ −1", "grows it by less than 1 %, sign flipped"),
        (0.9899, "≈ 0.99", "keeps 99 %"),
        (1.01, "= 1.01", "grows it 1.01 times"),
        (1e-8, "= 1.0·10⁻⁸", "keeps 1.0·10⁻⁸ of it"),
        (0.0, "= 0", "nothing is left"),
    ],
)
def test_each_factor_says_what_it_does(weight, value, effect):
    sentence = ScalarChain(1.0, [weight], "identity").factors("x")[-1].sentence
    assert sentence.startswith(f"× w₁ {value}: ")
    assert sentence.endswith(effect)


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(0.99999)
@example(0.9951)
@example(1.0000001)
def test_no_effect_is_written_in_exponents_or_as_one_time(size):
    words = describe_effect(WideFloat.from_float(size))
    assert "e+" not in words
    assert "e-" not in words
    assert " 1 times" not in words
    assert "100 %" not in words


def test_values_by_name():
    chain = ScalarChain(2.0, [3.0, 0.5], "relu", [-1.0, 1.0])
    assert chain.values == {"x": 2.0, "z1": 5.0, "h1": 5.0, "z2": 3.5, "h2": 3.5, "p": 3.5}
    with pytest.raises(TypeError):
        chain.values["x"] = 1.0


def test_a_chain_cannot_be_changed_and_compares_by_value():
    chain = ScalarChain(1, np.array([0.5, 2.0]))
    assert chain == ScalarChain(1.0, (0.5, 2.0))
    assert hash(chain) == hash(ScalarChain(1.0, (0.5, 2.0)))
    assert ScalarChain(1.0, torch.tensor([0.5, 2.0])) == chain
    assert chain.weights == (0.5, 2.0)
    with pytest.raises(AttributeError):
        chain.x = 2.0


class TestBeyondFloats:
    def test_an_underflowing_gradient_is_kept(self):
        chain = ScalarChain(1.0, [0.5] * 1000)
        gradient = chain.gradient("w1")
        logs = sum(math.log10(abs(factor.value)) for factor in chain.factors("w1"))
        assert float(gradient) == 0.0
        assert gradient.range == "underflow"
        assert gradient.log10 == pytest.approx(logs, rel=1e-12)

    def test_an_overflowing_gradient_is_kept(self):
        gradient = ScalarChain(1.0, [10.0] * 400, "identity").gradient("x")
        assert float(gradient) == math.inf
        assert gradient.log10 == pytest.approx(400)

    def test_a_product_that_underflows_on_its_way_comes_back(self):
        gradient = ScalarChain(1.0, [1e200, 1e200, 1e-200, 1e-200], "identity").gradient("x")
        assert float(gradient) == pytest.approx(1.0)

    def test_a_saturated_slope_is_small_and_not_zero(self):
        factor = ScalarChain(1.0, [1000.0]).factors("w1")[0]
        assert factor.value == 0.0
        assert factor.exact.log10 == pytest.approx(-1000 / math.log(10))

    def test_forward_values_go_on_beyond_floats(self):
        chain = ScalarChain(1.0, [0.1] * 1000, "tanh")
        assert chain.p == 0.0
        assert chain.output.log10 < -999
        assert chain.gradient("w1000").log10 == pytest.approx(chain.layers[998].h.log10)

    def test_a_dead_relu_is_exactly_zero(self):
        assert ScalarChain(1.0, [-1.0, 2.0], "relu").gradient("w1").sign == 0


MESSAGES = [
    ({"weights": []}, ("weights: ", "at least one", "weights=[0.5]")),
    ({"weights": [0.5] * 10**4}, ("weights: ", "at most 1000", "10000")),
    ({"weights": 0.5}, ("weights: ", "list", "got 0.5", "weights=[0.5]")),
    ({"weights": "0.5"}, ("weights: ", "list", "'0.5'")),
    ({"weights": np.float64(0.5)}, ("weights: ", "list", "0.5")),
    ({"weights": [0.5, math.nan]}, ("w2: ", "finite", "nan")),
    ({"weights": [math.inf]}, ("w1: ", "finite", "inf")),
    ({"weights": [10**400]}, ("w1: ", "finite", "1" + "0" * 59)),
    ({"weights": ["a"]}, ("w1: ", "a number", "'a'")),
    ({"weights": [True]}, ("w1: ", "a number", "True")),
    ({"x": math.nan}, ("x: ", "finite", "nan")),
    ({"x": None}, ("x: ", "a number", "None")),
    ({"weights": [1.0, 2.0, 3.0], "biases": [1.0]}, ("biases: ", "weights (3)", "got 1")),
    ({"biases": 0.1}, ("biases: ", "list", "0.1")),
    ({"biases": [-math.inf]}, ("b1: ", "finite", "-inf")),
    ({"activation": ["relu", "tanh"]}, ("activation: ", "weights (1)", "got 2")),
    ({"activation": None}, ("activation: ", "list", "None")),
    ({"activation": "sigmod"}, ("activation: ", "'sigmod'", "'sigmoid'?", ", ".join(NAMES))),
]


@pytest.mark.parametrize(("arguments", "facts"), MESSAGES)
def test_bad_input_says_what_must_hold(arguments, facts):
    with pytest.raises(SpecError) as caught:
        ScalarChain(**{"x": 1.0, "weights": [0.5], **arguments})
    assert [fact for fact in facts if fact not in str(caught.value)] == []
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("depth", "variable", "facts"),
    [
        (3, "w4", ("'w4'", "'w3'?", "x, w1 … w3, b1 … b3")),
        (1, "y", ("'y'", "x, w1, b1")),
        (3, "w0", ("'w0'", "'w3'?")),
        (2, "w01", ("'w01'", "'w1'?")),
        (2, 3, ("3", "x, w1 … w2, b1 … b2")),
    ],
)
def test_an_unknown_variable_lists_the_known_ones(depth, variable, facts):
    chain = ScalarChain(1.0, [0.5] * depth)
    for ask in (chain.factors, chain.gradient, chain.running_products, chain.show):
        with pytest.raises(SpecError) as caught:
            ask(variable)
        assert [fact for fact in ("wrt: ", *facts) if fact not in str(caught.value)] == []


def test_the_deepest_chain_works():
    chain = ScalarChain(1.0, [1.0] * MAX_LAYERS, "identity")
    assert float(chain.gradient("w1")) == 1.0
    assert len(chain.factors("w1")) == 2 * MAX_LAYERS


def test_it_is_public():
    assert chainrule.ScalarChain is ScalarChain
    assert "ScalarChain" in chainrule.__all__


def test_no_tensor_library_is_needed():
    """The package itself imports torch, so its __init__ is left out here."""
    source = Path(chainrule.__file__).parent
    script = (
        "import sys, types\n"
        "package = types.ModuleType('chainrule')\n"
        f"package.__path__ = [{str(source)!r}]\n"
        "sys.modules['chainrule'] = package\n"
        "import chainrule.chain as chain\n"
        "document = chain.describe_chain(chain.ScalarChain(1.0, [0.5, 2.0]), 'w1')\n"
        "assert chain.draw_graph(chain.ScalarChain(1.0, [0.5]))\n"
        "heavy = {'torch', 'numpy', 'sympy', 'fastapi', 'plotly'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
