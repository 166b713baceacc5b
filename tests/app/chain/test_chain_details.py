"""The chain-rule page: long derivations, folded graphs, and what can be taken along."""

import itertools
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from browsing import PATIENCE
from chain_page import (
    PART,
    REAL,
    START,
    ask,
    assert_at_step,
    assert_shows,
    bar,
    box,
    click,
    copy,
    do,
    edge,
    equal,
    hover,
    join,
    leave,
    part,
    read_lit,
    read_math,
    term,
    text,
    visit,
    wait_for,
    wait_for_depth,
    wait_for_network,
)
from chainrule import NetworkSpec
from chainrule.chain import (
    ScalarChain,
    count_stable_layers,
    derive,
    describe_chain,
    draw_graph,
    find_stable_weights,
)
from serving import wait_until


@pytest.mark.browser
@pytest.mark.parametrize("layers", [5, 30])
def test_every_line_of_the_derivation_can_be_shown(page, url, layers):
    visit(page, url, f"?weights={equal('1', layers)}")
    derivation = derive(ScalarChain(1.0, [1.0] * layers))
    lines = part(page, "lines").locator("math")
    folded = [line for line in derivation.lines if not line.hidden]
    assert lines.count() == len(folded) < len(derivation.lines)
    part(page, "lines").get_by_role("button", name="Show them", exact=True).click()
    page.wait_for_function(
        "n => document.querySelectorAll('[data-part=\"lines\"] math').length === n",
        arg=len(derivation.lines),
    )
    assert lines.evaluate_all("all => all.map(one => one.textContent)") == [
        read_math(line.to_mathml()) for line in derivation.lines
    ]
    assert page.evaluate("document.activeElement.dataset.do") == "lines"
    page.keyboard.press("Enter")
    assert lines.count() == len(folded)


@pytest.mark.browser
@pytest.mark.parametrize("way", ["button", "click", "Enter"])
def test_the_graph_unfolds_into_one_row_and_folds_again(page, url, way):
    visit(page, url, f"?weights={equal('1.5', 30)}")
    if way == "button":
        do(page, "graph").click()
    elif way == "click":
        click(page, ".chain-graph .node.fold")
    else:
        page.locator(".chain-graph .node.fold").focus()
        page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('.chain-graph .node.weight').length === 30")
    assert page.locator(".chain-graph .node.fold").count() == 0
    heights = page.locator(".chain-graph .node.weight .shape").evaluate_all(
        "all => all.map(one => one.getAttribute('y'))"
    )
    assert len(set(heights)) == 1
    graph = part(page, "graph")
    assert graph.evaluate("one => one.scrollWidth > 2 * one.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    do(page, "next").click()  # what a step lights is scrolled into sight
    lit = page.locator(edge("z30-h30")).bounding_box()
    assert 0 <= lit["x"] <= 1280
    do(page, "graph").click()
    page.wait_for_function("document.querySelectorAll('.chain-graph .node.fold').length === 1")


@pytest.mark.browser
@pytest.mark.parametrize("view", ["chain", "real"])
@pytest.mark.parametrize("way", ["click", "Enter"])
def test_a_folded_middle_unfolds_where_it_stands(page, url, view, way):
    visit(page, url, f"?weights={equal('1', 9)}")
    wait_for_network(page, "15 layers")
    row = f'[data-view="{view}"] li[data-kind="formulas"]'
    count = {"chain": 18, "real": 30}[view]
    if way == "click":
        click(page, f"{row} .fold")
    else:
        page.locator(f"{row} .fold").focus()
        page.keyboard.press("Enter")
    wait_until(lambda: page.locator(f"{row} .factor").count() == count)
    other = {"chain": "real", "real": "chain"}[view]
    assert page.locator(f'[data-view="{other}"] li[data-kind="formulas"] .fold').count() == 1
    fold = "document.activeElement.dataset.do"
    assert page.evaluate(fold) == {"chain": "fold", "real": "real-fold"}[view]
    page.keyboard.press("Enter")
    assert page.locator(f"{row} .factor").count() == 6


@pytest.mark.browser
def test_what_is_too_long_to_unfold_offers_no_unfolding(page, url):
    visit(page, url, "?depth=200&width=2")
    wait_for_network(page, "200 layers")
    fold = page.locator(f"{REAL} li[data-kind='formulas'] .fold")
    assert fold.get_attribute("role") == "img"
    assert fold.get_attribute("aria-label") == "394 factors folded"
    assert do(page, "real-fold").is_hidden()
    click(page, f"{REAL} li[data-kind='formulas'] .fold")
    assert fold.count() == 1


@pytest.mark.browser
def test_finding_the_weight_gives_the_answer(page, url):
    visit(page, url, "?walk=5")
    for name in ("reveal", "region", "depth-sentence"):
        assert part(page, name).is_hidden()
    part(page, "depth-w").fill("3.9")
    wait_for_depth(page, 3.9, "sigmoid")
    assert part(page, "region").is_hidden()
    part(page, "depth-w").fill("4")
    wait_for_depth(page, 4.0, "sigmoid")
    for name in ("reveal", "region", "depth-sentence"):
        assert part(page, name).is_visible()
    assert "At |w| = 4: a quarter of 4 is 1" in text(page, "depth-task")
    lesson = part(page, "depth-task").get_by_role("link", name="Back to the lesson")
    assert lesson.get_attribute("href") == "/learn"


@pytest.mark.browser
def test_walk_says_what_comes_of_it_where_it_stands(page, url):
    page.set_viewport_size({"width": 390, "height": 844})
    visit(page, url, "?walk=1")
    assert text(page, "walk-sentence") == "∂p/∂w₁ ≈ 0.235"
    box(page, "w1").fill("3")
    wait_for(page, weights="3")
    gradient = describe_chain(ScalarChain(1.0, [3.0]))["gradient"]
    said = f"∂p/∂w₁ {gradient['relation']} {gradient['text']}"
    assert text(page, "walk-sentence") == said
    do(page, "to-graph").click()
    assert part(page, "graph-card").evaluate("one => one.getBoundingClientRect().top") < 200
    visit(page, url, "?walk=3")
    do(page, "walk-step").click()
    factor = describe_chain(START)["factors"][0]
    assert text(page, "walk-sentence").startswith(f"{factor['sentence']}. Product so far:")
    assert read_lit(page)["chart"] == [factor["id"]]


@pytest.mark.browser
@pytest.mark.parametrize(("layers", "height"), [(3, 900), (8, 900), (30, 900), (3, 700)])
def test_the_chain_stays_in_sight_while_the_equation_is_read(page, url, layers, height):
    page.set_viewport_size({"width": 1280, "height": height})
    visit(page, url, f"?weights={equal('1', layers)}")
    page.locator('[data-view="chain"] li[data-kind="value"]').evaluate(
        "line => line.scrollIntoView({ block: 'end', behavior: 'instant' })"
    )
    hover(page, '[data-view="chain"] li[data-kind="numbers"] .factor')
    assert page.evaluate(
        """() => [...document.querySelectorAll('[data-view="chain"] :is(.edge, .link).lit')].some(
            one => {
                const at = one.getBoundingClientRect();
                const found = document.elementFromPoint(at.x + at.width / 2, at.y + at.height / 2);
                return at.top > 40 && at.bottom < innerHeight && found?.closest("svg");
            })"""
    )


@pytest.mark.browser
def test_the_strip_lights_with_the_chain(page, url):
    visit(page, url, f"?weights={equal('1', 8)}")
    hover(page, bar("h3-z4"))
    lit = page.locator(".cr-strip .link.lit")
    assert lit.evaluate_all("all => all.map(one => one.dataset.factor)") == ["h3-z4"]
    hover(page, '.cr-strip .link[data-factor="z2-h2"]')
    assert read_lit(page)["chart"] == ["z2-h2"]
    page.locator(".cr-strip .link").last.focus()
    leave(page)
    page.keyboard.press("ArrowLeft")
    assert read_lit(page)["chart"] == ["h7-z8"]
    page.keyboard.press("Enter")
    page.keyboard.type("4")
    page.keyboard.press("Enter")
    wait_for(page, weights="1,1,1,1,1,1,1,4")


@pytest.mark.browser
def test_enter_on_a_bar_edits_its_weight(shown):
    shown.locator(bar("h1-z2")).focus()
    shown.keyboard.press("Enter")
    shown.keyboard.type("4")
    shown.keyboard.press("Enter")
    wait_for(shown, weights="0.5,4,1.5")
    assert shown.evaluate("document.activeElement.closest('.bar')?.dataset.factor") == "h1-z2"
    assert shown.locator(bar("h1-z2")).get_attribute("role") == "button"
    assert shown.locator(bar("z2-h2")).get_attribute("role") == "img"


@pytest.mark.browser
def test_an_emptied_box_keeps_its_last_good_value_and_says_so(shown):
    part(shown, "depth-w").fill("3")
    wait_for_depth(shown, 3.0, "sigmoid")
    part(shown, "depth-w").fill("")
    assert "keeping 3" in text(shown, "depth-note")
    part(shown, "depth-w").blur()
    part(shown, "depth-activation").select_option("tanh")
    wait_for_depth(shown, 3.0, "tanh")
    assert part(shown, "depth-w").input_value() == "3"
    part(shown, "rnn-w").fill("2")
    part(shown, "rnn-w").fill("")
    assert "keeping 2" in text(shown, "rnn-note")
    part(shown, "rnn-steps").fill("")
    assert "keeping 20" in text(shown, "rnn-note")
    part(shown, "rnn-steps").fill("9999")
    assert "using 200" in text(shown, "rnn-note")
    part(shown, "rnn-steps").blur()
    assert part(shown, "rnn-w").input_value() == "2"
    assert part(shown, "rnn-steps").input_value() == "200"


@pytest.mark.browser
def test_whole_derivative_lights_by_focus_too(shown):
    names = sorted(factor.id for factor in START.factors("w1"))
    for kind in ("derivative", "value"):
        whole = shown.locator(f'[data-view="chain"] li[data-kind="{kind}"] [data-factor]')
        assert whole.get_attribute("tabindex") == "0"
        whole.focus()
        assert read_lit(shown)["chart"] == names
        whole.blur()


@pytest.mark.browser
def test_many_different_weights_have_a_box_each_and_one_for_all(page, url):
    weights = [0.5 + n / 10 for n in range(20)]
    visit(page, url, f"?weights={join(weights)}")
    assert not part(page, "equal").is_checked()
    assert page.locator(f'{PART.format("values")} input[type="number"]').count() == 22
    assert box(page, "w20").input_value() == repr(weights[-1])
    assert box(page, "w").input_value() == ""
    assert box(page, "w").get_attribute("placeholder") == "they differ"
    box(page, "w7").fill("9")
    weights[6] = 9.0
    page.wait_for_function(
        "text => document.getElementById('chain-root').dataset.shown.includes(text)",
        arg=",9,",
    )
    assert_shows(page, ScalarChain(1.0, weights))
    box(page, "w").fill("2")
    wait_for(page, weights=equal("2", 20))
    assert_shows(page, ScalarChain(1.0, [2.0] * 20))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.browser
def test_activations_of_each_layer_can_be_read_and_set(page, url):
    visit(page, url, "?weights=1,2,3&activation=tanh,relu,gelu")
    assert part(page, "activation").input_value() == "mixed"
    selects = part(page, "phis").locator("select")
    assert selects.evaluate_all("all => all.map(one => one.value)") == ["tanh", "relu", "gelu"]
    selects.nth(1).select_option("sigmoid")
    wait_for(page, activation="tanh,sigmoid,gelu")
    assert_shows(page, ScalarChain(1.0, [1.0, 2.0, 3.0], ["tanh", "sigmoid", "gelu"]))
    part(page, "layers").fill("4")
    wait_for(page, activation="tanh,sigmoid,gelu,gelu")
    part(page, "layers").fill("1")
    wait_for(page, activation="tanh")
    part(page, "layers").fill("3")
    wait_for(page, activation="tanh,sigmoid,gelu")
    part(page, "layers").fill("4")
    part(page, "activation").select_option("relu")
    wait_for(page, activation="relu")
    assert part(page, "phis").is_hidden()
    part(page, "activation").select_option("mixed")
    wait_for(page, activation="relu,relu,relu,relu")


@pytest.mark.browser
def test_an_edit_keeps_the_step_where_it_still_makes_sense(shown):
    for _ in range(3):
        do(shown, "next").click()
    box(shown, "w2").fill("4")
    wait_for(shown, weights="0.5,4,1.5")
    leave(shown)
    box(shown, "w2").blur()
    assert_at_step(shown, 3, ScalarChain(1.0, [0.5, 4.0, 1.5]))
    part(shown, "layers").fill("2")
    wait_for(shown, weights="0.5,4")
    assert_shows(shown, ScalarChain(1.0, [0.5, 4.0]))


@pytest.mark.browser
def test_ways_to_the_explorer_and_the_lesson(page, url):
    visit(page, url, "?depth=7&width=16&network_activation=tanh")
    wait_for_network(page, "7 layers × 16 units, Tanh")
    ways = page.get_by_role("navigation", name="ways from here").get_by_role("link")
    links = ways.evaluate_all("all => all.map(one => one.getAttribute('href'))")
    assert links[1] == "/learn"
    spec = NetworkSpec(depth=7, width=16, activation="tanh")
    assert NetworkSpec.from_query(links[0].removeprefix("/?")) == spec


@pytest.mark.browser
def test_region_of_stable_weights_is_a_picture(shown):
    part(shown, "depth-activation").select_option("tanh")
    part(shown, "depth-w").fill("-1.25")
    wait_for_depth(shown, -1.25, "tanh")
    region = part(shown, "region-chart")
    label = region.locator("svg").get_attribute("aria-label")
    low, high = find_stable_weights("tanh").best
    assert f"from {low:#.3g} to {high:#.3g}; now |w| is 1.25" in label

    def place(selector: str, attribute: str) -> float:
        return float(region.locator(selector).get_attribute(attribute))

    # The axis is logarithmic from 0.03 to 100, and everything stands on it.
    left, width = place("rect.axis", "x"), place("rect.axis", "width")

    def find(weight: float) -> float:
        return left + width * (math.log10(weight) - math.log10(0.03)) / math.log10(100 / 0.03)

    assert place("line.marker", "x1") == pytest.approx(find(1.25), abs=0.5)
    assert place("rect.best", "x") == pytest.approx(find(low), abs=0.5)
    assert place("rect.best", "x") + place("rect.best", "width") == pytest.approx(find(high), abs=2)
    outline = region.locator("path.best").get_attribute("d")
    points = [tuple(map(float, p.split())) for p in re.findall(r"[\d.]+ [\d.]+", outline)]
    widths = [
        right[0] - left[0]
        for left, right in zip(points[1:51], reversed(points[51:-1]), strict=True)
    ]
    assert all(a > b for a, b in itertools.pairwise(widths))
    assert "w &lt; 0" in region.inner_html()


def test_layers_a_weight_stays_stable_for(url):
    answer = ask(url, "depth", w=-1.5, activation="tanh", depth=20)
    assert answer["negative"] is True
    expected = count_stable_layers("tanh", depth=20, negative=True)
    assert [layers for _, layers in answer["reach"]] == [layers for _, layers in expected]
    for layers, (low, high) in enumerate(answer["funnel"], 1):
        assert low == pytest.approx(10 ** (-1 / layers))
        assert high == pytest.approx(10 ** (1 / layers))


def split_latex(latex: str) -> list[str]:
    """Return the rows of an aligned environment, spaces left out."""
    found = re.fullmatch(r"\\begin\{aligned\}(.*)\\end\{aligned\}", latex.strip(), re.DOTALL)
    assert found, latex
    return [re.sub(r"\s+", "", row) for row in re.split(r"\\\\", found[1])]


@pytest.mark.browser
@pytest.mark.parametrize("layers", [1, 3, 30])
def test_latex_copied_is_the_derivations(page, url, layers):
    weights = START.weights[:layers] if layers <= 3 else (1.0,) * layers
    visit(page, url, f"?weights={','.join(f'{w:g}' for w in weights)}")
    copied = copy(page, "copy")
    derivation = derive(ScalarChain(1.0, weights))
    assert split_latex(copied) == split_latex(derivation.to_latex())
    if layers > 12:
        do(page, "lines").click()
        do(page, "fold").click()
        page.wait_for_function(
            "document.querySelectorAll('[data-part=\"lines\"] li[data-kind]').length > 50"
        )
        copied = copy(page, "copy")
        assert split_latex(copied) == split_latex(derivation.to_latex(fold=False))


@pytest.mark.browser
def test_graph_downloaded_is_the_librarys(shown):
    with shown.expect_download() as download:
        do(shown, "svg").click()
    assert download.value.suggested_filename == "chain.svg"
    svg = Path(download.value.path()).read_text(encoding="utf-8")
    assert svg == draw_graph(START, "w1", identifier="graph")
    root = ET.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"


TOUCHING = """() => {
    const svg = document.querySelector("#chain-root svg.chain-graph");
    const texts = [...svg.querySelectorAll(".node > text, .edge > text")]
        .filter(text => !text.matches(".operation, .symbol"));
    const shapes = [...svg.querySelectorAll(".node > .shape")];
    const measure = element => {
        const { x, y, width, height } = element.getBoundingClientRect();
        const air = element.matches("text") ? height / 5 : 0;  // above and below the digits
        return { element, left: x, right: x + width, top: y + air, bottom: y + height - air };
    };
    const boxes = [...texts, ...shapes].map(measure);
    const found = [];
    for (const [i, a] of boxes.entries())
        for (const b of boxes.slice(i + 1))
            if (a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom)
                found.push([a, b].map(each => each.element.textContent || each.element.outerHTML));
    return { found, smallest: Math.min(...texts.map(t =>
        parseFloat(getComputedStyle(t).fontSize) * svg.getScreenCTM().a)) };
}"""


@pytest.mark.browser
@pytest.mark.parametrize(
    "query",
    ["", "?weights=-1.234,-2.11,1.5&biases=0.5,-1.25,1", "?weights=1,1,1&activation=tanh&wrt=w2"],
)
def test_labels_of_a_graph_can_be_read_on_a_laptop_and_do_not_touch(page, url, query):
    page.set_viewport_size({"width": 1366, "height": 768})
    visit(page, url, query)
    measured = page.evaluate(TOUCHING)
    assert measured["found"] == []
    assert measured["smallest"] > 12


@pytest.mark.browser
def test_an_edit_keeps_every_element_that_it_does_not_change(page, url):
    visit(page, url, "?weights=0.5,-2,1.5&wrt=w1")
    page.evaluate(
        """() => {
            const parts = ".node[data-node], .edge[data-edge], .bar";
            window.kept = [...document.querySelectorAll(`#chain-root :is(${parts})`)];
        }"""
    )
    other = page.context.new_page()
    other.set_viewport_size({"width": 1280, "height": 900})
    other.set_default_timeout(PATIENCE)
    for value in ("0.75", "-0.75", "1e-9", "0", "0.5"):
        box(page, "w1").fill(value)
        chain = ScalarChain(1.0, [float(value), -2.0, 1.5])
        page.wait_for_function(
            "w => JSON.parse(document.getElementById('chain-root').dataset.shown)"
            ".weights.split(',')[0] === String(w)",
            arg=float(value),
        )
        assert_shows(page, chain)
        visit(other, url, page.evaluate("location.search"))
        assert_same(page, other)
    other.close()
    assert page.evaluate("kept.length > 20 && kept.every(element => element.isConnected)")


def assert_same(page, other) -> None:
    """What edits have left on the page is what a page shows that was opened with the address."""
    for name in ("graph", "lines", "factors", "strip", "factor-table", "nudge", "headline"):
        shown, fresh = (
            each.evaluate(
                """name => document.querySelector(`[data-part="${name}"]`).innerHTML
                    .replace(/ (tabindex|data-forward|style)="[^"]*"/g, "")
                    .replace(/class="([^"]*)"/g, (_, all) => all.split(" ").sort().join(" "))""",
                name,
            )
            for each in (page, other)
        )
        assert shown == fresh, name


@pytest.mark.browser
def test_the_keyboard_stays_where_it_is_while_a_value_changes(shown):
    shown.locator(term("z2-h2", "numbers")).focus()
    shown.evaluate(
        """() => {
            const box = document.querySelector('[data-part="values"] [data-name="w1"]');
            box.value = 2.5;
            box.dispatchEvent(new Event("input", { bubbles: true }));
        }"""
    )
    wait_for(shown, weights="2.5,-2,1.5")
    assert shown.evaluate("document.activeElement.dataset.factor") == "z2-h2"
