"""The chain-rule page: numbers, links between the views, and values changed in place."""

import re

import pytest

from chain_page import (
    DARK,
    PART,
    START,
    assert_shows,
    bar,
    box,
    click,
    do,
    edge,
    equal,
    hover,
    leave,
    lights_of,
    node,
    part,
    read_all,
    read_lit,
    read_math,
    read_query,
    term,
    text,
    visit,
    wait_for,
    wait_for_network,
)
from chainrule.chain import ScalarChain, describe_chain


@pytest.mark.browser
def test_page_starts_with_the_librarys_numbers(shown):
    assert_shows(shown, START)
    assert text(shown, "error") == ""
    lines = [describe["mathml"] for describe in describe_chain(START)["lines"]]
    found = shown.locator(f"{PART.format('lines')} math")
    assert found.evaluate_all("all => all.map(one => one.textContent)") == [
        read_math(line) for line in lines
    ]
    for value in START.nodes:
        label = shown.locator(f"{node(value.id)} title").text_content()
        document = next(n for n in describe_chain(START)["nodes"] if n["id"] == value.id)
        assert document["value"]["text"] in label
        assert document["gradient"]["text"] in label


@pytest.mark.browser
def test_hovering_a_factor_lights_it_everywhere(shown):
    assert read_lit(shown) == DARK
    for factor in (factor.id for factor in START.factors("w1")):
        for place in (term(factor, "product"), term(factor), bar(factor), edge(factor)):
            hover(shown, place)
            assert read_lit(shown) == lights_of(factor), place
            leave(shown)
            assert read_lit(shown) == DARK, place
    hover(shown, term("z2-h2", "numbers"))
    assert read_lit(shown) == lights_of("z2-h2")


SEEN = """all => all.filter(([, wanted]) => ![...document.querySelectorAll(wanted)].some(one => {
    const line = one.querySelector("path.line, rect.hit") || one;
    const at = line.getBoundingClientRect();
    const found = document.elementFromPoint(at.x + at.width / 2, at.y + at.height / 2);
    return at.top >= 0 && at.bottom <= innerHeight && found && (one.contains(found)
        || found.closest("g") === one || found.contains(one) && found.closest("math"));
})).map(([name]) => name)"""
"""Which of some lit things a person does not see: out of the window, or under something."""


@pytest.mark.browser
@pytest.mark.parametrize(("width", "height"), [(1400, 900), (1280, 800)])
def test_what_is_lit_is_seen_wherever_it_is_hovered(page, url, width, height):
    page.set_viewport_size({"width": width, "height": height})
    visit(page, url)
    part(page, "bench").evaluate("one => one.scrollIntoView({ behavior: 'instant' })")
    for factor in START.factors("w1"):
        for place in (term(factor.id, "numbers"), term(factor.id, "product")):
            page.locator(place).hover()
            wanted = [
                ["number", f"{term(factor.id, 'numbers')}.lit"],
                ["formula", f"{term(factor.id)}.lit"],
                ["edge", f"{edge(factor.edge)}.lit"],
            ]
            assert page.evaluate(SEEN, wanted) == [], place


@pytest.mark.browser
def test_a_bar_out_of_the_charts_room_is_brought_into_it(page, url):
    visit(page, url, f"?weights={equal('1', 30)}")
    page.locator(".cr-factors").evaluate(
        "card => scrollBy({ top: card.getBoundingClientRect().top - 60, behavior: 'instant' })"
    )
    page.locator(term("w1-z1", "numbers")).hover()
    assert page.evaluate(SEEN, [["bar", f"{bar('w1-z1')}.lit"]]) == []


@pytest.mark.browser
def test_focusing_a_factor_lights_it_everywhere(shown):
    for place in (term, bar, edge):
        for factor in START.factors("w1"):
            shown.locator(place(factor.id)).first.focus()
            assert read_lit(shown) == lights_of(factor.id), place(factor.id)
        shown.locator(place(factor.id)).first.blur()
        assert read_lit(shown) == DARK


@pytest.mark.browser
def test_whole_derivative_lights_every_factor(shown):
    factors = START.factors("w1")
    names = sorted(factor.id for factor in factors)
    edges = sorted(name for factor in factors for name in factor.edges)
    for kind in ("derivative", "value"):
        hover(shown, f'li[data-kind="{kind}"] .factors[data-factor]')
        assert read_lit(shown) == {"graph": edges, "equation": names, "chart": names}
    leave(shown)
    assert read_lit(shown) == DARK


@pytest.mark.browser
def test_factors_are_reached_and_walked_by_keyboard(shown):
    names = [factor.id for factor in START.factors("w1")]
    do(shown, "order-forward").focus()
    shown.keyboard.press("Tab")
    assert shown.evaluate("document.activeElement.dataset.factor") == " ".join(names)
    assert read_lit(shown)["chart"] == sorted(names)
    shown.keyboard.press("Tab")
    for name in names:
        focused = "document.activeElement.dataset.factor"
        assert shown.evaluate(focused) == name
        assert read_lit(shown) == lights_of(name)
        shown.keyboard.press("ArrowRight")
    assert shown.evaluate("document.activeElement.dataset.factor") == names[-1]
    shown.keyboard.press("ArrowLeft")
    assert read_lit(shown) == lights_of(names[-2])
    shown.locator(bar(names[0])).focus()
    shown.keyboard.press("ArrowRight")
    assert read_lit(shown) == lights_of(names[1])


@pytest.mark.browser
def test_what_has_the_focus_is_in_sight(shown):
    """Neither the header nor the graph that stays in sight may lie over it."""
    wait_for_network(shown, "15 layers")
    hidden = []
    do(shown, "copy").focus()
    for key in ["Tab"] * 8 + ["Shift+Tab"] * 8:
        shown.keyboard.press(key)
        hidden += shown.evaluate(
            """() => {
                const focused = document.activeElement;
                const at = focused.getBoundingClientRect();
                const found = document.elementFromPoint(at.x + at.width / 2, at.y + at.height / 2);
                const over = found?.closest("header, .cr-graph");
                return over && !over.contains(focused)
                    ? [focused.dataset.factor || focused.dataset.part || focused.textContent] : [];
            }"""
        )
    assert hidden == []


@pytest.mark.browser
@pytest.mark.parametrize(
    "query", ["", f"?weights={','.join(['1'] * 12)}&biases={','.join(['0'] * 12)}"]
)
def test_tab_reaches_the_graph_once_and_arrow_keys_walk_it(page, url, query):
    visit(page, url, query)
    do(page, "walk-next").focus()
    page.keyboard.press("Tab")
    at = "document.activeElement.dataset.node || document.activeElement.dataset.edge"
    assert page.evaluate(at) == "x"
    walked = ["x"]
    while True:
        page.keyboard.press("ArrowRight")
        now = page.evaluate(at)
        if now == walked[-1]:
            break
        walked.append(now)
    everything = page.locator(".chain-graph .node[role=button], .chain-graph .edge[data-factor]")
    all_of_it = everything.evaluate_all(
        "all => all.filter(one => one.dataset.node || one.dataset.factor)"
        ".map(one => one.dataset.node || one.dataset.edge)"
    )
    assert sorted(walked) == sorted(all_of_it)
    layers = [int(name[1:]) for name in walked if re.fullmatch(r"w\d+", name)]
    assert layers == sorted(layers)
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(at) == walked[-2]
    page.keyboard.press("Tab")
    assert not page.evaluate("Boolean(document.activeElement.closest('.chain-graph'))")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate(at) == walked[-2]


@pytest.mark.browser
@pytest.mark.parametrize(
    ("way", "place", "name", "expected"),
    [
        ("click", node("w2"), "w2", ScalarChain(1.0, [0.5, 4.0, 1.5])),
        ("click", node("x"), "x", ScalarChain(4.0, [0.5, -2.0, 1.5])),
        ("click", term("h1-z2"), "w2", ScalarChain(1.0, [0.5, 4.0, 1.5])),
        ("click", term("w1-z1"), "x", ScalarChain(4.0, [0.5, -2.0, 1.5])),
        ("Enter", node("w3"), "w3", ScalarChain(1.0, [0.5, -2.0, 4.0])),
        ("Enter", term("h2-z3", "numbers"), "w3", ScalarChain(1.0, [0.5, -2.0, 4.0])),
    ],
    ids=["graph w2", "graph x", "equation w2", "equation x", "graph, key", "equation, key"],
)
def test_editing_a_value_in_place(shown, way, place, name, expected):
    if way == "click":
        click(shown, place)
    else:
        shown.locator(place).focus()
        shown.keyboard.press("Enter")
    editor = shown.locator(".cr-edit input")
    assert float(editor.input_value()) == (
        START.x if name == "x" else START.weights[int(name[1]) - 1]
    )
    shown.keyboard.type("4")
    shown.keyboard.press("Enter")
    weights = ",".join(f"{weight:g}" for weight in expected.weights)
    wait_for(shown, x=f"{expected.x:g}", weights=weights)
    assert shown.locator(".cr-edit").count() == 0
    assert_shows(shown, expected)
    assert box(shown, name).input_value() == "4"


@pytest.mark.browser
def test_editing_keeps_the_keyboards_place(shown):
    shown.locator(node("w2")).focus()
    shown.keyboard.press("Enter")
    shown.keyboard.type("4")
    shown.keyboard.press("Enter")
    wait_for(shown, weights="0.5,4,1.5")
    assert shown.evaluate("document.activeElement.dataset.node") == "w2"


@pytest.mark.browser
def test_escape_leaves_the_value(shown):
    before = read_all(shown)
    shown.locator(node("w2")).focus()
    shown.keyboard.press("Enter")
    shown.keyboard.type("9")
    shown.keyboard.press("Escape")
    assert shown.locator(".cr-edit").count() == 0
    assert shown.evaluate("document.activeElement.dataset.node") == "w2"
    assert read_query(shown)["weights"] == ["0.5,-2,1.5"]
    assert read_all(shown) == before


@pytest.mark.browser
def test_leaving_the_editor_leaves_the_value(shown):
    click(shown, node("w2"))
    shown.keyboard.type("9")
    part(shown, "activation").focus()
    assert shown.locator(".cr-edit").count() == 0
    assert read_query(shown)["weights"] == ["0.5,-2,1.5"]


@pytest.mark.browser
@pytest.mark.parametrize("typed", ["", "-", "1e999"])
def test_what_is_no_number_keeps_the_old_value(shown, typed):
    click(shown, node("w1"))
    shown.keyboard.press("Delete")
    shown.keyboard.type(typed)
    shown.keyboard.press("Enter")
    assert read_query(shown)["weights"] == ["0.5,-2,1.5"]
    box(shown, "w2").fill("")
    shown.keyboard.type(typed[:1].strip("1"))
    assert read_query(shown)["weights"] == ["0.5,-2,1.5"]
    box(shown, "w3").fill("2")
    wait_for(shown, weights="0.5,-2,2")
    assert_shows(shown, ScalarChain(1.0, [0.5, -2.0, 2.0]))


@pytest.mark.browser
def test_a_box_left_empty_shows_the_value_in_force(shown):
    box(shown, "w2").fill("")
    box(shown, "w3").focus()
    assert box(shown, "w2").input_value() == "-2"


@pytest.mark.browser
def test_boxes_and_sliders_change_the_numbers(shown):
    box(shown, "w1").fill("-0.25")
    wait_for(shown, weights="-0.25,-2,1.5")
    assert_shows(shown, ScalarChain(1.0, [-0.25, -2.0, 1.5]))
    assert box(shown, "w1", "range").input_value() == "-0.25"
    box(shown, "x", "range").focus()
    shown.keyboard.press("ArrowRight")
    wait_for(shown, x="1.05")
    assert_shows(shown, ScalarChain(1.05, [-0.25, -2.0, 1.5]))
    assert box(shown, "x").input_value() == "1.05"


@pytest.mark.browser
def test_typing_two_digits_of_layers_keeps_the_weights(shown):
    part(shown, "layers").click(click_count=3)
    shown.keyboard.type("12")
    shown.wait_for_function(
        "JSON.parse(document.getElementById('chain-root').dataset.shown)"
        ".weights.split(',').length === 12"
    )
    weights = read_query(shown)["weights"][0]
    assert weights.startswith("0.5,-2,1.5,")
