"""The chain-rule page: what can be read at once, the push, the pass through the graph, the game."""

import itertools

import pytest

from chain_page import (
    PART,
    START,
    click,
    do,
    equal,
    hover,
    node,
    part,
    read_math,
    read_query,
    text,
    visit,
    wait_for,
    wait_for_depth,
)
from chainrule.chain import ScalarChain, derive, describe_chain, nudge_chain
from chainrule.chain.document import describe_nudge, name_outcome

COVERED = """lines => lines.filter(line => {
    line.scrollIntoView({ block: "nearest", behavior: "instant" });
    const at = line.getBoundingClientRect();
    const math = line.querySelector("math").getBoundingClientRect();
    const found = document.elementFromPoint(
        math.x + Math.min(math.width, innerWidth - math.x - 30) / 2, math.y + math.height / 2);
    return at.top < 52 || at.bottom > innerHeight + 1 || !line.contains(found);
}).map(line => line.textContent)"""
"""Which lines of a derivation, each scrolled to, are not wholly seen or lie under something."""


@pytest.mark.browser
def test_a_derivation_of_three_layers_is_read_at_once_on_a_laptop(page, url):
    page.set_viewport_size({"width": 1366, "height": 768})
    visit(page, url)
    part(page, "bench").evaluate("one => one.scrollIntoView({ behavior: 'instant' })")
    boxes = page.locator(f"{PART.format('lines')} li").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect()).map(at => [at.top, at.bottom])"
    )
    assert len(boxes) == len(derive(START).lines)
    assert boxes[0][0] > 52
    assert boxes[-1][1] < 768
    assert all(above[1] <= below[0] for above, below in itertools.pairwise(boxes))
    widths = page.locator(f"{PART.format('lines')} .cr-scroll").evaluate_all(
        "all => all.map(one => one.scrollWidth - one.clientWidth)"
    )
    assert max(widths) <= 0
    graph, first = (part(page, name).bounding_box() for name in ("graph-card", "equation-card"))
    assert graph["x"] + graph["width"] <= first["x"]
    assert graph["y"] == first["y"]
    graph = part(page, "graph").bounding_box()
    svg = page.locator(f"{PART.format('graph')} svg").bounding_box()
    assert svg["width"] >= 0.85 * graph["width"]


@pytest.mark.browser
@pytest.mark.parametrize(
    ("width", "height", "layers"), [(683, 384, 3), (1366, 600, 12), (390, 844, 3)]
)
def test_nothing_lies_over_a_derivation(page, url, width, height, layers):
    page.set_viewport_size({"width": width, "height": height})
    visit(page, url, f"?weights={equal('1', layers)}")
    lines = page.locator(f"{PART.format('lines')} li[data-kind]")
    assert lines.evaluate_all(COVERED) == []


@pytest.mark.browser
def test_a_graph_of_one_layer_fills_its_card(page, url):
    page.set_viewport_size({"width": 1366, "height": 768})
    visit(page, url, "?weights=0.5")
    card = part(page, "graph").bounding_box()
    svg = page.locator(f"{PART.format('graph')} svg").bounding_box()
    assert svg["width"] >= 0.75 * card["width"]
    assert card["height"] <= svg["height"] + 20


@pytest.mark.browser
def test_letters_are_defined_and_linked(shown):
    definitions = describe_chain(START)["definitions"]
    shown_definitions = part(shown, "definitions").locator("math")
    assert shown_definitions.evaluate_all("all => all.map(one => one.textContent)") == [
        read_math(each["mathml"]) for each in definitions
    ]
    hover(shown, f"{PART.format('definitions')} .cr-def:nth-child(2)")
    assert shown.locator(".chain-graph .edge.lit").get_attribute("data-edge") == "z1-h1"
    assert "chain rule" in shown.locator("main").inner_text()
    visit(shown, shown.url.partition("/chain-rule")[0], "?activation=gelu")
    notes = describe_chain(ScalarChain(1.0, START.weights, "gelu"))["symbols"][1:]
    assert notes
    assert all(note in text(shown, "definitions") for note in notes)


@pytest.mark.browser
def test_the_order_can_be_turned_and_is_kept(page, url):
    visit(page, url)
    lines = page.locator(f"{PART.format('lines')} math")
    do(page, "order-forward").click()
    forward = [read_math(line.to_mathml()) for line in derive(START, order="forward").lines]
    page.wait_for_function(
        "lines => [...document.querySelectorAll('[data-part=\"lines\"] math')]"
        ".map(one => one.textContent).join() === lines.join()",
        arg=forward,
    )
    assert read_query(page)["order"] == ["forward"]
    page.reload()
    wait_for(page)
    assert lines.evaluate_all("all => all.map(one => one.textContent)") == forward
    assert do(page, "order-forward").get_attribute("aria-pressed") == "true"
    do(page, "order-backward").click()
    page.wait_for_function("!location.search.includes('order')")


@pytest.mark.browser
def test_every_line_is_spoken_as_it_is_written(shown):
    def spoken(kind: str) -> list[str]:
        return shown.locator(f'{PART.format("lines")} li[data-kind="{kind}"] .factor').evaluate_all(
            "all => all.map(one => one.getAttribute('aria-label').split(';')[0])"
        )

    assert spoken("product")[:2] == ["∂p by ∂z₃", "∂z₃ by ∂h₂"]
    assert spoken("formulas")[:2] == ["h₃ times (1 − h₃)", "w₃"]
    assert spoken("numbers")[:2] == ["0.243", "1.5"]
    wholes = shown.locator(f"{PART.format('lines')} math").evaluate_all(
        "all => all.map(one => one.getAttribute('aria-label'))"
    )
    assert len(set(wholes)) == len(wholes)


@pytest.mark.browser
@pytest.mark.parametrize("push", ["0.01", "1"])
def test_a_push_is_followed_to_the_output(page, url, push):
    visit(page, url, f"?push={push}")
    stops = describe_nudge(nudge_chain(START, "w1", float(push)))["stops"]
    moved = part(page, "nudge").locator("li")
    assert moved.evaluate_all(
        "all => all.map(one => one.querySelector('.cr-moved').textContent)"
    ) == [f"Δ{stop['symbol']} {stop['predicted']['text']}" for stop in stops]
    assert moved.locator(".dim").all_inner_texts()[1:] == [
        f"really {stop['true']['text']}" for stop in stops[1:]
    ]
    said = text(page, "nudge-sentence")
    assert stops[-1]["predicted"]["text"] in said
    assert stops[-1]["true"]["text"] in said
    assert do(page, f"nudge-{push}").get_attribute("aria-pressed") == "true"
    hover(page, f'{PART.format("nudge")} li[data-factor="h1-z2"]')
    assert page.locator(".chain-graph .edge.lit").get_attribute("data-edge") == "h1-z2"


@pytest.mark.browser
def test_gradients_appear_in_the_graph_as_the_pass_reaches_them(shown):
    def read() -> tuple[set[str], set[str]]:
        nodes, edges = shown.evaluate(
            """() => [".node[data-node]", ".edge[data-edge]"].map(selector =>
                [...document.querySelectorAll(`[data-part="graph"] ${selector}`)]
                    .filter(one => !one.matches(".ahead"))
                    .map(one => one.dataset.node || one.dataset.edge))"""
        )
        return set(nodes), set(edges)

    everything = read()
    do(shown, "next").click()
    assert read() == ({"p", "h3", "z3", "w3"}, {"h3-p", "z3-h3", "w3-z3"})
    do(shown, "next").click()
    do(shown, "next").click()
    nodes, edges = read()
    assert nodes == {"p", "h3", "z3", "w3", "h2", "z2", "w2"}
    assert "h1-z2" not in edges
    assert text(shown, "step-math") == "0.365 × 0.174 ≈ 0.0633"
    shown.wait_for_function(
        """() => ["z1", "z2"].map(name => getComputedStyle(document.querySelector(
            `[data-part="graph"] [data-node="${name}"] .gradient`)).opacity).join() === "0,1" """
    )
    back = shown.locator(f"{PART.format('graph')} .edge[data-edge='z2-h2'] .line")
    assert back.get_attribute("marker-start")
    assert back.get_attribute("marker-end") is None
    do(shown, "reset").click()
    assert read() == everything
    assert back.get_attribute("marker-start") is None


@pytest.mark.browser
def test_the_steps_stand_under_the_graph_on_a_phone(page, url):
    page.set_viewport_size({"width": 390, "height": 844})
    visit(page, url)
    button = do(page, "next")
    button.evaluate("one => one.scrollIntoView({ block: 'end', behavior: 'instant' })")
    graph = part(page, "graph").bounding_box()
    assert graph["y"] > 0
    click(page, node("x"))
    page.keyboard.press("Escape")
    # A slider that moves changes a graph that is in sight.
    slider = page.locator('[data-part="values"] input[type="range"][data-name="w1"]')
    slider.evaluate("one => one.scrollIntoView({ block: 'end', behavior: 'instant' })")
    assert part(page, "graph").bounding_box()["y"] + 60 < slider.bounding_box()["y"]
    assert part(page, "headline").bounding_box()["y"] + 400 > 0


GUESSES = ["vanishes", "explodes", "holds", "vanishes"]
"""What each of the game's networks does."""


@pytest.mark.browser
def test_the_game_asks_twice_and_counts_both(shown):
    shown.wait_for_function("document.querySelector('[data-part=\"game-picture\"] svg')")
    for number, outcome in enumerate(GUESSES, 1):
        assert text(shown, "game-round") == f"network {number} of 4"
        picture = part(shown, "game-picture").locator("svg")
        hidden = picture.locator(".gradient, .local").evaluate_all(
            "all => all.every(one => getComputedStyle(one).display === 'none')"
        )
        assert hidden
        strokes = picture.locator(".edge .line").evaluate_all(
            "all => [...new Set(all.map(one => getComputedStyle(one).stroke))]"
        )
        assert len(strokes) == 1
        do(shown, "guess-holds").click()
        assert picture.count() == 0
        assert part(shown, "game-picture").locator("math").count() == 2
        do(shown, f"guess-{outcome}").click()
        assert f"it {outcome}." in text(shown, "game-task")
        assert part(shown, "game-guess").is_hidden()
        if number < len(GUESSES):
            do(shown, "game-next").click()
            shown.wait_for_function(
                "n => document.querySelector('[data-part=\"game-round\"]').textContent"
                ".startsWith(`network ${n}`)",
                arg=number + 1,
            )
    assert "1 of 4 from the graph, 4 of 4 from the equation" in text(shown, "game-score")
    do(shown, "game-again").click()
    shown.wait_for_function("document.querySelector('[data-part=\"game-picture\"] svg')")
    assert text(shown, "game-score") == ""


def test_the_games_networks_do_three_different_things():
    sigmoid, relu, leaky, tanh = (
        name_outcome(ScalarChain(1.0, weights, activation).gradient("w1"))
        for weights, activation in (
            ([2, 1.5] * 4, "sigmoid"),
            ([1.8, 1.5, 2.1, 1.4, 1.9, 1.6, 2, 1.7], "relu"),
            ([1.9, 0.6, 1.4, 0.8, 1.5, 0.7, 1.2, 0.9], "leaky_relu"),
            ([3, 2.5] * 4, "tanh"),
        )
    )
    assert [sigmoid, relu, leaky, tanh] == GUESSES


@pytest.mark.browser
def test_less_motion_sends_no_pulse(page, url):
    page.emulate_media(reduced_motion="reduce")
    visit(page, url)
    page.evaluate("window.requestAnimationFrame = () => 0")  # a pulse stays where it starts
    do(page, "next").click()
    assert page.locator(".chain-graph .pulse").count() == 0
    page.emulate_media(reduced_motion="no-preference")
    do(page, "next").click()
    assert page.locator(".chain-graph .pulse text").text_content() == "0.243"


@pytest.mark.browser
def test_the_depth_card_takes_over_the_chain(page, url):
    visit(page, url, "?weights=1.1,2&activation=tanh")
    do(page, "take-chain").click()
    wait_for_depth(page, 1.1, "tanh")
    query = read_query(page)
    assert (query["depth_w"], query["depth_activation"]) == (["1.1"], ["tanh"])


@pytest.mark.browser
def test_the_erratum_is_folded_and_shows_where_the_forms_differ(page, url):
    visit(page, url, f"?weights={equal('1', 30)}")
    card = part(page, "erratum-card")
    assert card.locator("table").is_hidden()
    card.locator("summary").click()
    layers = describe_chain(ScalarChain(1.0, [1.0] * 30))["erratum"]["layers"]
    differ = [
        [str(layer["layer"]), layer["right"]["text"], layer["wrong"]["text"]]
        for layer in layers
        if layer["right"]["text"] != layer["wrong"]["text"]
    ]
    rows = card.locator("tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    assert 0 < len(differ) < 30
    assert rows == differ[:12]
    assert f"In {30 - len(differ)} more layers" in card.inner_text()
