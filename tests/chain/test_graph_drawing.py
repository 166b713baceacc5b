"""The graph of an expression as SVG: complete, linked, in columns, nothing on top of anything."""

import itertools
import random
from xml.etree import ElementTree

import pytest

from chainrule.chain import EXPRESSIONS, ScalarGraph, draw_expression
from chainrule.chain.drawing import classify
from chainrule.chain.graph_layout import (
    COLUMN,
    NODE_GAP,
    _count_crossings,
    _fit_growing,
    arrange_graph,
)
from chainrule.chain.notation import render_text
from chainrule.errors import SpecError
from random_expressions import draw_cases
from test_chain_graph import SVG, find, list_boxes, read

BIG = (
    "h1 = relu(w1*x + b1); h2 = gelu(w2*h1 + b2) + h1; h3 = silu(w1*h2 + b1) + h2;"
    "s = max(h3, h1)**2/(1 + exp(-h2)); log(s + 3) - 0.5*h3*x"
)
GRAPHS = {name: (preset.build(), preset.wrt) for name, preset in EXPRESSIONS.items()}
GRAPHS |= {
    "big": (
        ScalarGraph.parse(BIG, {"x": 0.5, "w1": 0.8, "w2": -1.3, "b1": 0.1, "b2": 0.2}),
        "x",
    ),
    "one": (ScalarGraph.parse("x", {"x": 2}), "x"),
    "long names": (
        ScalarGraph.parse("learning_rate*abs(some_long_name)", default=-3e-22),
        "learning_rate",
    ),
    "numbers": (ScalarGraph.parse("1e-30*x**2 - 2*3", {"x": 1e200}), "x"),
    "huge": (ScalarGraph.parse("exp(exp(x))*x", {"x": 30}), "x"),
    "chain": (GRAPHS["chain"][0], "w1"),
}
EACH = pytest.mark.parametrize("name", GRAPHS)


def parse(name, **options):
    graph, variable = GRAPHS[name]
    return ElementTree.fromstring(draw_expression(graph, variable, **options))


def draw_random(count, least, most, seed=0):
    """Yield random graphs of a number of nodes, each with one of its variables."""
    for text, values, _, _ in draw_cases(40 * count, seed):
        try:
            graph = ScalarGraph.parse(text, values)
        except SpecError:
            continue
        if least <= len(graph.nodes) <= most:
            yield graph, graph.variables[-1]
            count -= 1
        if not count:
            return


@EACH
def test_every_node_and_edge_is_drawn_with_its_values(name):
    graph, _ = GRAPHS[name]
    root = parse(name)
    nodes, edges = find(root, "node"), find(root, "edge")
    assert set(nodes) == {node.id for node in graph.nodes}
    assert set(edges) == {edge.id for edge in graph.edges}
    if name == "huge":  # whose powers of ten are powers themselves
        return
    for node in graph.nodes:
        texts = read(nodes[node.id])
        if node.kind == "number":
            assert texts == [str(node.value)]
            continue
        assert str(node.value) in texts
        assert texts[-1] == str(node.gradient)
        assert f"d{render_text(graph.root.symbol)}/d" in "".join(texts)
    for edge in graph.edges:
        assert edges[edge.id].get("data-factor") == edge.id
        assert str(edge.value) in read(edges[edge.id])
        assert classify(edge.value) in edges[edge.id].get("class").split()


@EACH
def test_what_lies_on_no_path_is_paler(name):
    graph, variable = GRAPHS[name]
    root = parse(name)
    way = {factor.id for factor in graph.factors(variable)}
    edges = find(root, "edge")
    assert {each for each in edges if "on-path" in edges[each].get("class")} == way
    ends = {edge.id: (edge.source, edge.target) for edge in graph.edges}
    on_way = {end for each in way for end in ends[each]} | {variable}
    nodes = find(root, "node")
    assert {each for each in nodes if "on-path" in nodes[each].get("class").split()} == on_way


@EACH
def test_nodes_where_gradients_meet_are_marked(name):
    graph, variable = GRAPHS[name]
    way = {factor.id for factor in graph.factors(variable)}
    uses = [edge.source for edge in graph.edges if edge.id in way]
    nodes = find(parse(name), "node")
    marked = {each for each in nodes if "meets" in nodes[each].get("class").split()}
    assert marked == {each for each in uses if uses.count(each) > 1}


@EACH
def test_ids_are_unique_and_begin_with_the_identifier(name):
    ids = [e.get("id") for e in parse(name, identifier="left-2").iter() if e.get("id")]
    assert len(ids) == len(set(ids))
    assert all(each == "left-2" or each.startswith("left-2-") for each in ids)


def check_texts(svg):
    root = ElementTree.fromstring(svg)
    width, height = map(float, root.get("viewBox").split()[2:])
    boxes = list(list_boxes(root))
    for box, text in boxes:
        assert 0 <= box[0] < box[2] <= width, text
        assert 0 <= box[1] < box[3] <= height, text
    for (a, first), (b, second) in itertools.combinations(boxes, 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, (first, second)


@EACH
def test_no_text_lies_on_another_or_beyond_the_frame(name):
    check_texts(draw_expression(*GRAPHS[name]))


@pytest.mark.parametrize(("least", "most"), [(3, 8), (9, 16), (17, 30)])
def test_no_text_lies_on_another_in_any_graph_of_usual_size(least, most):
    graphs = list(draw_random(8, least, most))
    assert len(graphs) == 8
    for graph, variable in graphs:
        check_texts(draw_expression(graph, variable))


@EACH
def test_it_has_a_title_and_a_description(name):
    root = parse(name)
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert title.text.startswith("Computational graph: d")
    assert "edges lie on a path" in description.text


@EACH
def test_operands_stand_left_of_results_and_nodes_apart(name):
    graph, _ = GRAPHS[name]
    nodes = {node.id: (40.0, 90.0) for node in graph.nodes}
    edges = {edge.id: (edge.source, edge.target) for edge in graph.edges}
    layout = arrange_graph(nodes, edges, dict.fromkeys(edges, 50.0))
    for source, target in edges.values():
        assert layout.places[source][0] + COLUMN <= layout.places[target][0]
    for (x, y), (a, b) in itertools.combinations(layout.places.values(), 2):
        assert abs(x - a) >= COLUMN - 1e-9 or abs(y - b) >= NODE_GAP - 1e-6
    for each, (source, target) in edges.items():
        points = [layout.places[source], *layout.routes[each], layout.places[target]]
        assert all(x < a for (x, _), (a, _) in itertools.pairwise(points))
        for x, y in layout.routes[each]:
            near = [b for a, b in layout.places.values() if a == x]
            assert all(abs(y - b) > 60 for b in near)


def test_a_chain_lies_on_a_line():
    graph, _ = GRAPHS["chain"]
    nodes = {node.id: (40.0, 90.0) for node in graph.nodes}
    edges = {edge.id: (edge.source, edge.target) for edge in graph.edges}
    places = arrange_graph(nodes, edges, {}).places
    spine = [places[node][1] for node in ("u1", "h1", "u2", "h2", "u3", "p")]
    assert max(spine) - min(spine) < 15


def test_crossings_are_counted_and_avoided():
    above = {"a": ["d"], "b": ["c"], "e": ["c", "d"]}
    assert _count_crossings([["a", "b"], ["c", "d"]], above) == 1
    assert _count_crossings([["b", "a"], ["c", "d"]], above) == 0
    assert _count_crossings([["a", "e", "b"], ["c", "d"]], above) == 3
    edges = {"1": ("a", "d"), "2": ("b", "c"), "3": ("c", "p"), "4": ("d", "p")}
    places = arrange_graph(dict.fromkeys("abcdp", (40.0, 90.0)), edges, {}).places
    assert (places["a"][1] < places["b"][1]) == (places["d"][1] < places["c"][1])


def test_heights_are_the_nearest_that_grow():
    draw = random.Random(0)
    for _ in range(50):
        values = [draw.uniform(-1, 1) for _ in range(draw.randint(1, 7))]
        weights = [draw.uniform(0.1, 2) for _ in values]
        fitted = _fit_growing(values, weights)
        assert fitted == sorted(fitted)

        def cost(each, values=values, weights=weights):
            return sum(w * (a - b) ** 2 for a, b, w in zip(each, values, weights, strict=True))

        for _ in range(40):  # no other growing row is nearer
            other = sorted(value + draw.gauss(0, 0.2) for value in fitted)
            assert cost(fitted) <= cost(other) + 1e-12


def test_two_edges_between_the_same_nodes_go_apart():
    root = parse("square")
    paths = {
        each.get("data-edge"): each.find(f"{SVG}path[@class='line']").get("d")
        for each in root.iter(f"{SVG}g")
        if each.get("data-edge")
    }
    assert len(set(paths.values())) == 2


def test_the_largest_graph_is_drawn():
    lines = [f"h{n} = h{n - 1} + tanh(w*h{n - 1})" for n in range(1, 60)]
    graph = ScalarGraph.parse(";".join(["h0 = x + 0", *lines]), {"x": 0.5, "w": 0.1})
    root = ElementTree.fromstring(draw_expression(graph, "w"))
    assert len(find(root, "node")) == len(graph.nodes)


@pytest.mark.parametrize("identifier", ["", "1a", 'a"b', "a b"])
def test_an_identifier_that_is_none(identifier):
    with pytest.raises(SpecError, match="identifier: "):
        draw_expression(GRAPHS["one"][0], identifier=identifier)


def test_an_unknown_variable():
    with pytest.raises(SpecError, match="wrt: unknown 'w7'"):
        draw_expression(GRAPHS["square"][0], "w7")
