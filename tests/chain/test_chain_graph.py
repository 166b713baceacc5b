"""The computational graph as SVG: well-formed, complete, linked, and nothing on top of anything."""

import itertools
import random
from xml.etree import ElementTree

import pytest

from chainrule.chain import derive, draw_graph
from chainrule.chain.drawing import _DARK, _LIGHT, classify, compute_thickness, measure_text
from chainrule.chain.layout import MAX_LAYERS_SHOWN, arrange
from chainrule.chain.scalar_chain import ScalarChain
from chainrule.chain.wide_float import WideFloat, multiply
from chainrule.errors import SpecError

SVG = "{http://www.w3.org/2000/svg}"


def draw_weights(count, seed=1):
    draw = random.Random(seed)
    return [round(draw.uniform(-3, 3), 2) for _ in range(count)]


CHAINS = {
    "one": (ScalarChain(1.0, [0.5]), "w1"),
    "three": (ScalarChain(1.0, [0.5, -2.0, 1.5]), "w1"),
    "mixed": (
        ScalarChain(0.7, [0.5, -2.0, 1.5], ["leaky_relu", "relu", "tanh"], [0.1, -0.2, 0.3]),
        "w2",
    ),
    "twelve": (ScalarChain(1.0, draw_weights(12)), "w1"),
    "twelve biased": (ScalarChain(1.0, draw_weights(12), "silu", draw_weights(12, 2)), "b3"),
    "thirty": (ScalarChain(1.0, draw_weights(30)), "w1"),
    "thirty, middle": (ScalarChain(1.0, draw_weights(30), "selu", draw_weights(30, 2)), "w15"),
    "thousand": (ScalarChain(1.0, [0.5] * 1000), "x"),
}
EACH = pytest.mark.parametrize("name", CHAINS)


def parse(name, **options):
    chain, variable = CHAINS[name]
    return ElementTree.fromstring(draw_graph(chain, variable, **options))


def find(root, kind):
    return {
        e.get(f"data-{kind}"): e for e in root.iter(f"{SVG}g") if e.get(f"data-{kind}") is not None
    }


def read(element):
    return ["".join(text.itertext()) for text in element.iter(f"{SVG}text")]


@pytest.mark.parametrize("name", ["one", "three", "mixed", "twelve", "twelve biased"])
def test_every_node_and_edge_is_drawn_with_its_values(name):
    chain, variable = CHAINS[name]
    chain = chain.show(variable)
    root = parse(name)
    nodes, edges = find(root, "node"), find(root, "edge")
    assert set(nodes) == {node.id for node in chain.nodes}
    assert set(edges) == {edge.id for edge in chain.edges}
    sources = {edge.id: edge.source for edge in chain.edges}
    starts = {factor.id: sources[factor.edges[0]] for factor in chain.factors(variable)}
    for node in chain.nodes:
        own = [factor for factor, start in starts.items() if start == node.id]
        assert nodes[node.id].get("data-factor").split() == own
        texts = read(nodes[node.id])
        assert str(node.value) in texts
        assert texts[-1] == str(node.gradient)
    for edge in chain.edges:
        assert edges[edge.id].get("data-factor").split() == list(edge.factors)
        if edge.target != "p":
            assert str(edge.value) in read(edges[edge.id])
            assert classify(edge.value) in edges[edge.id].get("class").split()


@EACH
def test_every_factor_of_the_derivation_is_on_an_edge(name):
    chain, variable = CHAINS[name]
    edges = find(parse(name), "edge").values()
    drawn = {factor for edge in edges for factor in edge.get("data-factor").split()}
    wanted = {factor.id for factor in derive(chain, variable).factors}
    assert wanted <= drawn
    marked = [edge for edge in edges if "on-path" in edge.get("class").split()]
    assert {f for edge in marked for f in edge.get("data-factor").split()} >= wanted
    for edge in edges:
        on_path = bool(wanted & set(edge.get("data-factor").split()))
        assert ("on-path" in edge.get("class").split()) is on_path
        assert ("off-path" in edge.get("class").split()) is not on_path


@EACH
def test_ids_are_unique_and_begin_with_the_identifier(name):
    ids = [e.get("id") for e in parse(name, identifier="left-2").iter() if e.get("id")]
    assert len(ids) == len(set(ids))
    assert all(each == "left-2" or each.startswith("left-2-") for each in ids)


@EACH
def test_it_has_a_title_a_description_and_fits_its_frame(name):
    root = parse(name)
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert title.text.startswith("Computational graph: ∂p/∂")
    assert "Factors from output to input" in description.text
    width, height = map(float, root.get("viewBox").split()[2:])
    for box, text in list_boxes(root):
        assert 0 <= box[0] < box[2] <= width, text
        assert 0 <= box[1] < box[3] <= height, text


def list_boxes(root, x=0.0, y=0.0):
    """Yield every text's box (left, top, right, bottom) and what it says."""
    for child in root:
        dx, dy = x, y
        if moved := child.get("transform"):
            shift = moved.removeprefix("translate(").removesuffix(")").split()
            dx, dy = x + float(shift[0]), y + float(shift[1])
        if child.tag == f"{SVG}text":
            text = "".join(child.itertext())
            classes = child.get("class").split()
            size = 19.0 if "headline" in classes else 17.0 if "symbol" in classes else 12.0
            width = 0.9 * measure_text(text, size)
            left = dx + float(child.get("x"))
            left -= {"start": 0.0, "middle": 0.5, "end": 1.0}[child.get("text-anchor")] * width
            bottom = dy + float(child.get("y"))
            yield (left, bottom - 0.72 * size, left + width, bottom), text
        else:
            yield from list_boxes(child, dx, dy)


@EACH
def test_no_text_lies_on_another(name):
    for (a, first), (b, second) in itertools.combinations(list_boxes(parse(name)), 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, (first, second)


@EACH
def test_nodes_stand_apart_and_edges_end_at_them(name):
    chain, variable = CHAINS[name]
    chain = chain.show(variable)
    layout = arrange(chain, chain.factors(variable)[-1].layer)
    centres = [(place.x, place.y) for place in layout.places.values()]
    for a, b in itertools.combinations(centres, 2):
        assert abs(a[0] - b[0]) >= 100 or abs(a[1] - b[1]) >= 100
    assert all(0 < x < layout.width and 0 < y < layout.height for x, y in centres)
    for edge in layout.edges:
        assert {edge.source, edge.target} <= set(layout.places)
    reached = {edge.target for edge in layout.edges} | {edge.source for edge in layout.edges}
    assert reached == set(layout.places)


class TestFolding:
    def test_up_to_twelve_layers_are_drawn_whole(self):
        chain = ScalarChain(1.0, [0.5] * MAX_LAYERS_SHOWN)
        assert not [name for name in arrange(chain, 1).places if name.startswith("fold")]

    def test_the_middle_of_more_is_one_node_with_its_product(self):
        chain, _ = CHAINS["thirty"]
        layout = arrange(chain, 1)
        assert [name for name in layout.places if name.startswith("fold")] == ["fold4-27"]
        (edge,) = [edge for edge in layout.edges if edge.target == "fold4-27"]
        factors = [f for f in chain.factors("x") if f.id in set(edge.factors)]
        assert len(factors) == len(edge.factors) == 48
        assert edge.value == multiply(factor.exact for factor in factors)
        text = " ".join(read(find(parse("thirty"), "node")["fold4-27"]))
        assert "⋯ 24 layers" in text

    def test_the_layer_asked_for_is_drawn(self):
        chain, _ = CHAINS["thirty, middle"]
        folds = [name for name in arrange(chain, 15).places if name.startswith("fold")]
        assert folds == ["fold4-14", "fold16-27"]

    def test_a_single_layer_is_not_worth_a_fold(self):
        chain = ScalarChain(1.0, [0.5] * 30)
        folds = [name for name in arrange(chain, 5).places if name.startswith("fold")]
        assert folds == ["fold6-27"]


@pytest.mark.parametrize(
    ("value", "effect", "thickness"),
    [
        (0.0, "blocks", 1.0),
        (0.001, "shrinks", 1.0),
        (-0.1, "shrinks", 2.5),
        (1.0, "keeps", 4.0),
        (-0.97, "keeps", pytest.approx(3.98, abs=0.01)),
        (10.0, "grows", 5.5),
        (1e9, "grows", 7.0),
    ],
)
def test_edges_look_as_their_derivative(value, effect, thickness):
    number = WideFloat.from_float(value)
    assert classify(number) == effect
    assert compute_thickness(number) == thickness


def compute_luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(c * w for c, w in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))


@pytest.mark.parametrize("palette", [_LIGHT, _DARK], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["ink", "muted", "gradient", "shrinks", "keeps", "grows"])
def test_every_text_colour_reads_on_its_paper(palette, name):
    """At least 4.5 to 1, the level that WCAG AA asks of text."""
    one, other = sorted((compute_luminance(palette[name]), compute_luminance(palette["paper"])))
    assert (other + 0.05) / (one + 0.05) >= 4.5


def test_colours_can_come_from_the_page_and_follow_its_scheme():
    svg = draw_graph(ScalarChain(1.0, [0.5]))
    assert "@media (prefers-color-scheme:dark)" in svg
    assert all(f"--{name}:var(--chain-{name},{colour});" in svg for name, colour in _DARK.items())


def test_what_underflows_is_said_in_the_headline():
    assert "underflows float64, which shows 0" in draw_graph(ScalarChain(1.0, [0.5] * 1000))
    assert "underflows" not in draw_graph(ScalarChain(1.0, [0.5]))


@pytest.mark.parametrize("identifier", ["", "1a", 'a"b', "a b"])
def test_an_identifier_that_is_none(identifier):
    with pytest.raises(SpecError) as caught:
        draw_graph(ScalarChain(1.0, [0.5]), identifier=identifier)
    assert str(caught.value).startswith("identifier: ")
    assert repr(identifier) in str(caught.value)


def test_an_unknown_variable():
    with pytest.raises(SpecError, match="wrt: unknown 'w7'"):
        draw_graph(ScalarChain(1.0, [0.5]), "w7")
