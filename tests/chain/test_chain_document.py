"""A chain as plain data: everything a page needs, and nothing that JSON cannot hold."""

import json
import math
import sys
from xml.etree import ElementTree

import pytest

from chainrule.chain import (
    derive,
    describe_chain,
    drawing,
    network,
    notation,
    scalar_chain,
    wide_float,
)
from chainrule.chain.document import describe_number, name_outcome
from chainrule.chain.scalar_chain import ScalarChain
from chainrule.chain.wide_float import ZERO, WideFloat
from chainrule.errors import SpecError
from chainrule.spec.activations import ACTIVATIONS

CASES = [
    (ScalarChain(1.0, [0.5, -2.0, 1.5]), "w1"),
    (ScalarChain(1.0, [0.5, -2.0, 1.5], list(ACTIVATIONS)[:3], [0.1, 0.2, 0.3]), "x"),
    (ScalarChain(1.0, [0.5, -2.0]), "b1"),
    (ScalarChain(1.0, [0.5] * 12, "gelu"), "w1"),
    (ScalarChain(1.0, [0.5] * 30), "w15"),
    (ScalarChain(1.0, [10.0] * 400, "identity"), "w1"),
]


@pytest.mark.parametrize(("chain", "variable"), CASES)
@pytest.mark.parametrize("order", ["backward", "forward"])
def test_it_is_strict_json_and_every_id_leads_somewhere(chain, variable, order):
    document = describe_chain(chain, variable, order=order)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    nodes = {node["id"] for node in document["nodes"]}
    edges = {edge["id"]: edge for edge in document["edges"]}
    factors = {factor["id"] for factor in document["factors"]}
    assert variable in nodes
    for edge in edges.values():
        assert {edge["source"], edge["target"]} <= nodes
    for factor in document["factors"]:
        assert factor["edge"] == factor["edges"][0]
        assert all(factor["id"] in edges[name]["factors"] for name in factor["edges"])
    for line in document["lines"]:
        for form in (line, line["unfolded"]):
            if form is not None:
                marks = ElementTree.fromstring(form["mathml"]).iter()
                names = [name for e in marks for name in (e.get("data-factor") or "").split()]
                assert set(names) == factors


def test_numbers_are_those_of_the_chain():
    chain = ScalarChain(1.0, [0.5, -2.0])
    document = describe_chain(chain, "w1")
    assert document["chain"] == {
        "depth": 2,
        "x": 1.0,
        "weights": [0.5, -2.0],
        "biases": None,
        "activations": ["sigmoid", "sigmoid"],
    }
    assert [node["value"]["value"] for node in document["nodes"]] == [
        float(node.value) for node in chain.nodes
    ]
    running = [factor["running_product"]["value"] for factor in document["factors"]]
    assert running == [float(product) for product in chain.running_products("w1")]
    assert document["gradient"]["value"] == running[-1]
    assert [word in document["factors"][0]["sentence"] for word in ("σ′(z₂) ≈ 0.174", "17 %")] == [
        True,
        True,
    ]
    assert "h₁(1 − h₁) ≈ 0.235" in document["erratum"]["sentence"]
    assert document["subject"]["text"] == "∂p/∂w₁"
    assert [line["text"] for line in document["lines"]] == [
        line.to_text() for line in derive(chain).lines
    ]


def test_long_derivations_give_ends_and_count_the_rest():
    document = describe_chain(ScalarChain(1.0, [0.5] * 30))
    assert document["hidden_lines"] == 55
    assert not any(line["hidden"] for line in document["lines"])
    product = next(line for line in document["lines"] if line["kind"] == "product")
    assert "⋯ 54 factors ⋯" in product["text"]
    assert product["unfolded"]["text"].count("·") == 59
    short = describe_chain(ScalarChain(1.0, [0.5] * 8))
    assert sum(line["hidden"] for line in short["lines"]) == short["hidden_lines"] == 11


def test_the_deepest_chain_stays_within_a_few_megabytes():
    text = json.dumps(describe_chain(ScalarChain(1.0, [0.5] * 1000)), allow_nan=False)
    assert len(text) < 6_000_000
    assert json.loads(text)["lines"][-1]["unfolded"] is None


def test_numbers_beyond_floats():
    assert describe_number(WideFloat(0.5, 5000)) == {
        "value": None,
        "log10": pytest.approx(4999 * math.log10(2)),
        "sign": 1,
        "range": "overflow",
        "text": "7.1·10¹⁵⁰⁴",
        "relation": "≈",
    }
    vast = describe_number(WideFloat(0.5, 10**400))
    assert vast["log10"] == sys.float_info.max
    assert json.loads(json.dumps(vast, allow_nan=False)) == vast
    assert describe_number(WideFloat.from_float(0.5))["relation"] == "="
    assert describe_number(WideFloat(-0.5, -5000))["value"] == 0.0
    assert describe_number(WideFloat(-0.5, -5000))["range"] == "underflow"
    assert describe_number(ZERO)["log10"] is None


def test_bad_input():
    with pytest.raises(SpecError, match="wrt: unknown 'q'"):
        describe_chain(ScalarChain(1.0, [0.5]), "q")
    with pytest.raises(SpecError, match=r"order: .*'up'"):
        describe_chain(ScalarChain(1.0, [0.5]), order="up")


@pytest.mark.parametrize("wrt", ["w1", "x", "b2"])
@pytest.mark.parametrize("layers", [2, 9, 30])
def test_a_brief_document_says_the_same_and_leaves_out_what_a_page_does_not_show(layers, wrt):
    chain = ScalarChain(0.7, [1.3] * layers, "tanh")
    whole, brief = (describe_chain(chain, wrt, brief=each) for each in (False, True))
    assert brief["nodes"] == brief["edges"] == []
    assert "latex" not in json.dumps(brief["lines"])
    for name in whole.keys() - {"nodes", "edges", "lines", "factors", "erratum"}:
        assert brief[name] == whole[name]
    for short, full in zip(
        brief["lines"] + brief["factors"], whole["lines"] + whole["factors"], strict=True
    ):
        assert short.items() <= full.items()
    assert [line["unfolds"] for line in brief["lines"]] == [
        line["unfolded"] is not None for line in whole["lines"]
    ]


def test_what_is_remembered_of_one_chain_is_not_said_of_another():
    """Names and formulas are remembered; numbers, signs and brackets never are."""
    settings = [
        (x, weights, activation)
        for x in (1.0, -1.0)
        for weights in ((0.5, -2.0), (-0.5, 2.0), (1.0, 1.0), (0.0, 3e-320))
        for activation in ("sigmoid", "identity", "leaky_relu")
    ]
    first = [json.dumps(describe_chain(ScalarChain(*each), "w1")) for each in settings]
    for each, document in reversed([*zip(settings, first, strict=True)]):
        forget()
        assert json.dumps(describe_chain(ScalarChain(*each), "w1")) == document


def forget() -> None:
    for module in (notation, wide_float, network, drawing, scalar_chain):
        for each in vars(module).values():
            if hasattr(each, "cache_clear"):
                each.cache_clear()


@pytest.mark.parametrize(
    ("gradient", "outcome"),
    [
        (0.0, "vanishes"),
        (0.0999, "vanishes"),
        (-0.1001, "holds"),
        (9.99, "holds"),
        (-10.01, "explodes"),
    ],
)
def test_a_gradient_holds_within_ten_times(gradient, outcome):
    assert name_outcome(WideFloat.from_float(gradient)) == outcome
