"""An expression as data: everything the page needs, as JSON, and linked by ids."""

import json
import math
from xml.etree import ElementTree

import pytest

from chainrule.chain import (
    EXPRESSIONS,
    ScalarGraph,
    derive_expression,
    describe_expression,
    draw_expression,
    get_expression,
)
from chainrule.errors import SpecError

EACH = pytest.mark.parametrize("name", EXPRESSIONS)


def describe(name):
    preset = get_expression(name)
    return preset, describe_expression(preset.build(), preset.wrt)


@EACH
def test_it_survives_json(name):
    _, document = describe(name)
    assert json.loads(json.dumps(document, allow_nan=False)) == document


@EACH
def test_its_numbers_are_those_of_the_graph(name):
    preset, document = describe(name)
    graph = preset.build()
    assert document["gradient"]["value"] == float(graph.gradient(preset.wrt))
    assert document["expression"]["text"] == preset.text
    assert document["expression"]["values"] == preset.values
    for node, told in zip(graph.nodes, document["nodes"], strict=True):
        assert (told["id"], told["kind"]) == (node.id, node.kind)
        assert told["value"]["value"] == float(node.value)
        assert told["gradient"]["value"] == float(node.gradient)
        assert told["operands"] == list(graph.list_operands(node.id))
    paths = document["paths"]
    assert paths["count"] == {"value": len(paths["listed"]), "text": str(len(paths["listed"]))}
    total = math.fsum(path["product"]["value"] for path in paths["listed"])
    assert total == pytest.approx(document["gradient"]["value"], rel=1e-12)
    assert sum(path["share"] for path in paths["listed"]) == pytest.approx(1.0)


@EACH
def test_ids_connect_edges_factors_paths_equations_and_picture(name):
    preset, document = describe(name)
    edges = {edge["id"] for edge in document["edges"]}
    assert {factor["id"] for factor in document["factors"]} == edges
    assert {each for path in document["paths"]["listed"] for each in path["factors"]} == set(
        document["way"]
    )
    picture = ElementTree.fromstring(draw_expression(preset.build(), preset.wrt))
    assert {e.get("data-edge") for e in picture.iter() if e.get("data-edge")} == edges
    nodes = {node["id"] for node in document["nodes"]}
    assert {e.get("data-node") for e in picture.iter() if e.get("data-node")} == nodes
    for line in (*document["lines"], *document["definitions"], *document["backward"]):
        root = ElementTree.fromstring(line["mathml"])
        for element in root.iter():
            assert set((element.get("data-factor") or "").split()) <= edges
    assert {each["node"] for each in document["definitions"]} | {
        node["id"] for node in document["nodes"] if node["kind"] == "number"
    } == nodes


def test_a_node_says_what_it_is():
    document = describe("tied")[1]
    node = next(node for node in document["nodes"] if node["id"] == "u2")
    assert (node["sign"], node["formula"], node["formula_latex"]) == ("×", "w · h₁", r"w \cdot h_1")
    leaf = document["nodes"][0]
    assert (leaf["sign"], leaf["formula"], leaf["operands"]) == (None, None, [])


def test_counts_that_no_float_holds_are_given_as_text():
    lines = [f"h{n} = h{n - 1} + tanh(w*h{n - 1})" for n in range(1, 62)]
    graph = ScalarGraph.parse(";".join(["h0 = tanh(x)", *lines]), {"x": 0.5, "w": 0.1})
    paths = describe_expression(graph, "x")["paths"]
    assert paths["count"]["text"] == str(2**61)
    assert paths["omitted"]["text"] == str(2**61 - 64)
    assert 0 < paths["rest_share"] < 1


def test_what_has_to_be_said_is_in_it():
    graph = ScalarGraph.parse("relu(x) + exp(-y)", {"x": 0.0, "y": 1e4})
    document = describe_expression(graph, "y")
    assert len(document["kinks"]) == 1
    assert "underflows" in document["range_note"]
    assert any("[z > 0]" in note for note in document["symbols"])
    derivation = derive_expression(graph, "y")
    assert document["multiplications"]["sentence"] == derivation.describe_cost()
    assert document["paths"]["sentence"] == derivation.describe_paths()


def test_an_unknown_variable():
    with pytest.raises(SpecError, match="wrt: unknown 'z'"):
        describe_expression(ScalarGraph.parse("x", {"x": 1}), "z")


@EACH
def test_a_brief_document_says_the_same_and_leaves_out_what_a_page_does_not_show(name):
    preset, whole = describe(name)
    brief = describe_expression(preset.build(), preset.wrt, brief=True)
    assert brief["nodes"] == brief["definitions"] == []
    lists = ("lines", "factors", "backward")
    for part in whole.keys() - {"nodes", "definitions", *lists}:
        assert brief[part] == whole[part]
    for part in lists:
        assert "latex" not in json.dumps(brief[part])
        for short, full in zip(brief[part], whole[part], strict=True):
            assert short.items() <= full.items()


def test_what_is_remembered_of_an_expression_holds_none_of_its_numbers():
    program = "h = x + tanh(w*x); h*h + 2*h"
    shown = []
    for x in (0.5, -3.0, 1e-200, 0.5):
        graph = ScalarGraph.parse(program, {"x": x, "w": -x})
        shown.append(json.dumps(describe_expression(graph, "x")) + draw_expression(graph, "x"))
    assert shown[0] == shown[-1]
    assert len(set(shown)) == 3
