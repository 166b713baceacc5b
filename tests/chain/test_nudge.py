"""What a small change of a variable does on its way to the output."""

import pytest

from chainrule.chain import ScalarChain, describe_chain, nudge_chain
from chainrule.errors import SpecError

CHAIN = ScalarChain(1.0, [0.5, -2.0, 1.5], "tanh", [0.1, -0.2, 0.3])


@pytest.mark.parametrize("wrt", ["x", "w1", "w3", "b2"])
def test_prediction_is_the_gradient_and_the_truth_is_a_second_network(wrt):
    nudge = nudge_chain(CHAIN, wrt, 0.01)
    assert nudge.stops[-1].node.id == "p"
    predicted = float(nudge.stops[-1].predicted)
    assert predicted == pytest.approx(0.01 * float(CHAIN.gradient(wrt)), rel=1e-12)
    weights, biases = list(CHAIN.weights), list(CHAIN.biases)
    x = CHAIN.x + (0.01 if wrt == "x" else 0.0)
    if wrt != "x":
        {"w": weights, "b": biases}[wrt[0]][int(wrt[1]) - 1] += 0.01
    moved = ScalarChain(x, weights, "tanh", biases)
    assert float(nudge.stops[-1].true) == pytest.approx(moved.p - CHAIN.p, rel=1e-9)


def test_a_change_below_the_last_digit_is_not_given_as_zero():
    stops = nudge_chain(ScalarChain(1.0, [1.0] * 30), "w1", 0.01).stops
    assert stops[-1].true is None
    assert 0.0 < float(stops[-1].predicted) < 1e-15
    stops = nudge_chain(ScalarChain(-1.0, [1.0, 1.0], "relu"), "w1", 0.01).stops
    assert stops[-1].true == stops[-1].predicted == 0.0


def test_a_bias_that_is_not_there_can_be_nudged():
    stops = nudge_chain(ScalarChain(1.0, [0.5, 2.0], "identity"), "b1", 0.1).stops
    assert [stop.node.id for stop in stops] == ["b1", "z1", "h1", "z2", "p"]
    assert float(stops[-1].true) == pytest.approx(0.2)


@pytest.mark.parametrize("amount", [0.0, float("nan"), float("inf")])
def test_an_impossible_nudge_is_refused(amount):
    with pytest.raises(SpecError, match="nudge"):
        nudge_chain(CHAIN, "w1", amount)


def test_definitions_name_every_letter_and_its_factors():
    document = describe_chain(ScalarChain(1.0, [0.5, -2.0]))
    assert [each["text"] for each in document["definitions"]] == [
        "z₁ = w₁ · x",
        "h₁ = σ(z₁)",
        "z₂ = w₂ · h₁",
        "h₂ = σ(z₂)",
        "p = h₂",
    ]
    factors = {factor["id"] for factor in document["factors"]}
    assert all(factors & set(each["factors"]) for each in document["definitions"])
    long = describe_chain(ScalarChain(1.0, [1.0] * 9, "tanh", [0.5] * 9))["definitions"]
    assert [each["text"] for each in long][-3:] == ["z₉ = w₉ · h₈ + b₉", "h₉ = tanh(z₉)", "p = h₉"]
    assert [each["text"] for each in long if each["gap"]] == ["z₉ = w₉ · h₈ + b₉"]


@pytest.mark.parametrize(
    ("weight", "layers", "outcome"), [(1.0, 8, "vanishes"), (1.0, 1, "holds"), (3.0, 8, "explodes")]
)
def test_outcome_is_named(weight, layers, outcome):
    activation = "identity" if outcome == "explodes" else "sigmoid"
    chain = ScalarChain(1.0, [weight] * layers, activation)
    assert describe_chain(chain)["outcome"] == outcome
