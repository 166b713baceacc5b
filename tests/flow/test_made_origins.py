"""What is said of where infinite and undefined numbers begin, of origins written by hand."""

import math

import pytest

from chainrule.flow.non_finite import NonFiniteElement, NonFiniteOrigin
from made_flows import quantity


def element(value=math.nan, index=(1, 2), inputs=(), gradient=None):
    return NonFiniteElement(
        index=index,
        value=quantity(value),
        inputs=tuple(map(quantity, inputs)),
        gradient=quantity(gradient),
    )


def origin(*elements, **fields):
    values = {
        **{"op": "division", "function": "aten.div.Tensor", "direction": "forward"},
        **{"module": "net.head", "dtype": "float32", "shape": (3, 4), "count": 1},
        **{"loss": quantity(math.nan), "elements": elements or (element(),)},
    }
    return NonFiniteOrigin(**(values | fields))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "gives NaN."),
        ({"count": 2}, "gives NaN in 2 of 12 places."),
        ({"count": 1, "shape": (1,)}, "gives NaN."),
        ({"count": 1200, "shape": (40, 50)}, "gives NaN in 1,200 of 2,000 places."),
        ({"elements": (element(math.inf),)}, "gives infinity."),
        ({"elements": (element(-math.inf),)}, "gives minus infinity."),
        ({"elements": ()}, "gives NaN."),
    ],
)
def test_says_which_numbers_and_how_many(fields, words):
    assert origin(**fields).cause.endswith(words)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, ["forward pass", "division in module 'net.head'"]),
        ({"module": ""}, ["division in the model itself"]),
        ({"module": None}, ["division in the loss"]),
        ({"direction": "backward"}, ["way back", "derivative of division"]),
        ({"source": "input"}, ["input already holds NaN", "by division"]),
        ({"source": "parameter", "op": "w"}, ["parameter 'w' already holds NaN"]),
        ({"source": "buffer", "op": "b"}, ["buffer 'b' already holds NaN"]),
        ({"source": "constant", "op": "full"}, ["code itself writes NaN, by full"]),
        ({"overflow": True, "dtype": "float16"}, ["half", "forward, ", "large for float16"]),
        ({"overflow": True, "direction": "backward"}, ["half", "on the way back, "]),
        ({"file": "/x/net.py", "line": 7}, ["'net.head' (net.py:7)"]),
        ({"file": "/x/net.py", "line": 7, "code": "x / y"}, ["(net.py:7: x / y)"]),
    ],
)
def test_says_what_makes_them_and_where(fields, words):
    found = origin(**fields)
    for each in words:
        assert each in found.cause
    assert found.cause in found.sentence


@pytest.mark.parametrize(
    ("loss", "count", "words"),
    [
        (1.0, 0, "neither the loss nor the gradient"),
        (math.inf, 0, "reaches the loss (infinite)."),
        (math.nan, 2, " and the gradients of 2 parameters."),
        (1.0, 1, "reaches the gradient of 1 parameter."),
        (1.0, 3, "reaches the gradients of 3 parameters."),
    ],
)
def test_says_what_they_reach(loss, count, words):
    found = origin(loss=quantity(loss), parameter_count=count)
    assert words in found.reach
    assert found.is_harmless is (math.isfinite(loss) and count == 0)
    assert found.sentence.endswith(found.reach)


@pytest.mark.parametrize(
    ("each", "fields", "words"),
    [
        (element(inputs=(0.0, 2.0)), {}, ["index [1, 2]", "values 0, 2 went in", "NaN came out"]),
        (element(math.inf, (), (3.0,)), {}, ["There", "value 3 went in", "infinity came out"]),
        (element(), {}, ["index [1, 2]."]),
        (element(index=()), {}, []),
        (element(inputs=(1.0,)), {"source": "input"}, ["index [1, 2]."]),
        (
            element(-math.inf, (0,), (2.0,), 0.5),
            {"direction": "backward"},
            ["index [0]", "value 2 went in", "gradient 0.5 came in", "minus infinity went out"],
        ),
        (
            element(gradient=0.5),
            {"direction": "backward"},
            ["index [1, 2], gradient 0.5 came in", "NaN went out"],
        ),
        (element(), {"direction": "backward"}, []),
    ],
)
def test_shows_the_first_with_what_went_in(each, fields, words):
    evidence = origin(each, element(5.0, (2, 2)), **fields).evidence
    assert bool(evidence) is bool(words)
    for word in words:
        assert word in evidence


def test_a_detail_becomes_a_sentence():
    assert " A row is masked. " in origin(detail="a row is masked").sentence
    assert origin(elements=()).evidence == ""


def test_says_what_becomes_of_infinity_that_is_made_zero():
    clause = "division (net.py:8) makes 0 of it in 3 of 4 places"
    silent = origin(loss=quantity(1.0), zeroed_by=clause)
    assert silent.reach.startswith("Division (net.py:8) makes 0 of it in 3 of 4 places. ")
    assert not silent.is_harmless
    assert "neither" not in silent.reach
    loud = origin(loss=quantity(math.nan), parameter_count=2, zeroed_by=clause)
    assert "the loss (undefined) and the gradients of 2 parameters" in loud.reach
