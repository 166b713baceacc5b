"""The chain-rule page: other chains, and addresses that bring them back."""

import math
import re

import pytest

from browsing import PATIENCE, empty, expect, watch
from chain_page import (
    PART,
    START,
    assert_shows,
    bar,
    box,
    click,
    count_entries,
    do,
    equal,
    hover,
    node,
    part,
    read_all,
    read_lit,
    read_query,
    term,
    text,
    visit,
    wait_for,
    wait_for_cards,
    wait_for_depth,
    wait_for_network,
)
from chainrule.chain import ScalarChain, derive, describe_chain
from serving import wait_until


@pytest.mark.browser
def test_thirty_layers_are_folded_and_unfold(page, url):
    visit(page, url, f"?weights={equal('1', 30)}")
    chain = ScalarChain(1.0, [1.0] * 30)
    row = '[data-view="chain"] li[data-kind="formulas"]'
    assert_shows(page, chain)
    assert page.locator(f"{row} .factor").count() == 6
    fold = page.locator(f"{row} .fold")
    assert page.locator('[data-part="layers-range"]').get_attribute("max") == "30"
    assert "54 factors" in fold.text_content()
    assert page.locator(".chain-graph .node.fold").count() == 1
    hover(page, f"{row} .fold")
    lit = read_lit(page)
    assert len(lit["chart"]) == 54
    assert [name for name in lit["graph"] if "28" not in name] != []
    hover(page, bar("h14-z15"))
    assert "lit" in fold.get_attribute("class").split()
    assert "lit" in page.locator(".chain-graph .node.fold").get_attribute("class").split() or (
        page.locator('.chain-graph .edge.lit[data-factor~="h14-z15"]').count() == 1
    )
    assert do(page, "fold").inner_text() == "Show all factors"
    do(page, "fold").click()
    wait_until(lambda: page.locator(f"{row} .factor").count() == 60)
    assert page.locator(f"{row} .fold").count() == 0
    hover(page, term("h14-z15"))
    assert read_lit(page)["chart"] == ["h14-z15"]
    do(page, "fold").click()
    assert page.locator(f"{row} .factor").count() == 6


@pytest.mark.browser
def test_what_is_left_out_of_a_long_derivation_is_said(page, url):
    visit(page, url, f"?weights={equal('1', 30)}")
    hidden = describe_chain(ScalarChain(1.0, [1.0] * 30))["hidden_lines"]
    assert hidden > 0
    assert f"{hidden} more lines" in text(page, "lines")


@pytest.mark.browser
def test_three_layers_offer_no_folding(shown):
    assert do(shown, "fold").is_hidden()


@pytest.mark.browser
def test_other_variables_biases_and_activations(shown):
    options = part(shown, "wrt").locator("option").evaluate_all("all => all.map(o => o.value)")
    assert options == ["x", "w1", "w2", "w3"]
    part(shown, "wrt").select_option("w2")
    wait_for(shown, wrt="w2")
    assert_shows(shown, START, "w2")
    part(shown, "biased").check()
    wait_for(shown, biases="0,0,0")
    assert_shows(shown, ScalarChain(1.0, START.weights, "sigmoid", [0.0] * 3), "w2")
    part(shown, "wrt").select_option("b1")
    wait_for(shown, wrt="b1")
    box(shown, "b2").fill("-0.5")
    wait_for(shown, biases="0,-0.5,0")
    biased = ScalarChain(1.0, START.weights, "sigmoid", [0.0, -0.5, 0.0])
    assert_shows(shown, biased, "b1")
    click(shown, node("b3"))
    shown.keyboard.type("2")
    shown.keyboard.press("Enter")
    wait_for(shown, biases="0,-0.5,2")
    part(shown, "activation").select_option("gelu")
    wait_for(shown, activation="gelu")
    assert_shows(shown, ScalarChain(1.0, START.weights, "gelu", [0.0, -0.5, 2.0]), "b1")
    part(shown, "biased").uncheck()
    wait_for(shown, wrt="w1", biases="undefined")
    assert_shows(shown, ScalarChain(1.0, START.weights, "gelu"))


@pytest.mark.browser
def test_erratum_is_shown_for_sigmoid_only(shown):
    erratum = describe_chain(START)["erratum"]
    part(shown, "erratum-card").locator("summary").click()
    assert erratum["sentence"] in text(shown, "erratum")
    cells = part(shown, "erratum").locator("tbody tr").first.inner_text().split()
    layer = erratum["layers"][0]
    assert cells == [str(layer["layer"]), layer["right"]["text"], layer["wrong"]["text"]]
    part(shown, "activation").select_option("tanh")
    wait_for(shown, activation="tanh")
    assert part(shown, "erratum-card").is_hidden()


@pytest.mark.browser
def test_same_weight_everywhere(shown):
    part(shown, "equal").check()
    wait_for(shown, weights="0.5,0.5,0.5")
    assert box(shown, "w1").count() == 0
    box(shown, "w").fill("2")
    wait_for(shown, weights="2,2,2")
    assert_shows(shown, ScalarChain(1.0, [2.0] * 3))
    part(shown, "layers").fill("5")
    wait_for(shown, weights="2,2,2,2,2")
    part(shown, "equal").uncheck()
    box(shown, "w4").fill("1")
    wait_for(shown, weights="2,2,2,1,2")


@pytest.mark.browser
def test_same_weight_everywhere_stays_true_after_editing_one(shown):
    part(shown, "equal").check()
    wait_for(shown, weights="0.5,0.5,0.5")
    click(shown, node("w2"))
    shown.keyboard.type("4")
    shown.keyboard.press("Enter")
    shown.wait_for_function("document.getElementById('chain-root').dataset.shown.includes('4')")
    weights = set(read_query(shown)["weights"][0].split(","))
    assert part(shown, "equal").is_checked() == (len(weights) == 1)


@pytest.mark.browser
@pytest.mark.parametrize(
    ("weight", "activation", "kind"),
    [("1e-7", "sigmoid", "underflow"), ("1e10", "identity", "overflow"), ("0", "tanh", "normal")],
)
def test_values_beyond_float64_are_shown_as_such(page, url, weight, activation, kind):
    visit(page, url, f"?weights={equal(weight, 50)}&activation={activation}")
    chain = ScalarChain(1.0, [float(weight)] * 50, activation)
    gradient = chain.gradient("w1")
    assert gradient.range == kind
    assert_shows(page, chain)
    assert text(page, "range") == derive(chain).describe_range()
    shown = text(page, "step-product")
    if kind != "normal":
        assert re.fullmatch(r"[−-]?\d\.\d+·10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+", shown)
        assert f"log₁₀|∂p/∂w₁| ≈ {gradient.log10:.1f}".replace("-", "−") in text(page, "range")
    for pieces in (".bar text", ".chain-graph .value", ".chain-graph .gradient"):
        texts = page.locator(pieces).evaluate_all("all => all.map(one => one.textContent.trim())")
        assert texts
        assert all(texts)
        assert not {"NaN", "null", "undefined", "Infinity", "∞"} & set(texts)
    cells = page.locator(f"{PART.format('factor-table')} td")
    assert all(cells.evaluate_all("all => all.map(one => one.textContent)"))


@pytest.mark.browser
def test_address_brings_back_what_was_shown(shown, context, url):
    part(shown, "layers").fill("4")
    part(shown, "activation").select_option("tanh")
    part(shown, "biased").check()
    box(shown, "b2").fill("0.25")
    box(shown, "w4").fill("1e-7")
    box(shown, "x").fill("-0.5")
    part(shown, "wrt").select_option("b1")
    wait_for(shown, x="-0.5", wrt="b1", biases="0,0.25,0,0", weights="0.5,-2,1.5,1e-7")
    chain = ScalarChain(-0.5, [0.5, -2.0, 1.5, 1e-7], "tanh", [0.0, 0.25, 0.0, 0.0])
    assert_shows(shown, chain, "b1")
    before = read_all(shown)
    shown.reload()
    wait_for(shown)
    assert read_all(shown) == before
    with watch(context.new_page(), url) as other:
        other.goto(shown.url)
        wait_for(other)
        assert read_all(other) == before


@pytest.mark.browser
def test_address_brings_back_the_walk(shown):
    do(shown, "walk-next").click()
    do(shown, "walk-next").click()
    wait_for(shown, weights="0.5,-2")
    before = read_all(shown)
    assert before["walk"] == "2 of 7: Two layers"
    shown.reload()
    wait_for(shown, weights="0.5,-2")
    assert read_all(shown) == before


FOREIGN = "#chain-root :is(img, b, script):not(.cr-key b)"
HOSTILE = {
    "not numbers": "?weights=nan,inf,1e999,two&x=nan&biases=x,y",
    "empty": "?weights=,,,&x=&biases=,&wrt=&activation=",
    "markup": "?weights=%3Cscript%3Ealert(1)%3C/script%3E&x=%3Cb%3E&wrt=%22%3E%3Cimg%20src=x%3E",
    "unknown activation": "?activation=%3Cimg%20src=x%20onerror=alert(1)%3E",
    "too many layers": f"?weights={','.join(['1'] * 2000)}",
    "unknown variable": "?wrt=w99",
    "walk beyond": "?walk=99",
    "walk between": "?walk=1.5",
    "walk below": "?walk=-3",
    "broken escapes": "?weights=%E0%A4%A&x=%00",
    "network": "?depth=1e9&width=-4&init=%3Cb%3E&network_activation=nothing&seed=x",
    "per layer": "?weights=1,2&activation=tanh,relu",
}


@pytest.mark.browser
@pytest.mark.parametrize("query", HOSTILE.values(), ids=HOSTILE)
def test_hostile_addresses_do_no_harm(kept_page, url, query):
    def is_refusal(problem: str) -> bool:
        return "status of 422" in problem

    with watch(kept_page, url, expected=is_refusal, leave=empty) as page:
        page.set_default_timeout(PATIENCE)
        page.goto(f"{url}/chain-rule{query}")
        page.wait_for_function(
            """() => document.getElementById("chain-root")?.dataset.shown
                || document.querySelector('[data-part="error"]')?.textContent"""
        )
        assert page.locator(FOREIGN).count() == 0
        for name in ("next", "back", "play", "play", "reset", "copy"):
            do(page, name).dispatch_event("click")
        onward = do(page, "walk-next")
        if not text(page, "walk-title").startswith("7 of 7"):
            assert onward.is_enabled()
            onward.dispatch_event("click")
            assert re.match(r"\d of 7: ", text(page, "walk-title"))
        part(page, "layers").fill("2")
        part(page, "activation").select_option("tanh")
        wait_for(page, activation="tanh")
        assert text(page, "error") == ""
        weights = [float(w) for w in read_query(page)["weights"][0].split(",")]
        assert len(weights) == 2
        assert all(map(math.isfinite, weights))


NOTICES = {
    "too many": (f"?weights={','.join(['1'] * 60)}", "weights: 60 came; the first 50 are shown."),
    "no number": ("?weights=1,nan", "w₂: “nan” is no finite number; using 1."),
    "no x": ("?x=", "x: “” is no finite number; using 1."),
    "activation": ("?activation=sigmiod", "activation: “sigmiod” is not known; using sigmoid."),
    "activations": ("?activation=tanh,relu", "activation: 2 came for 3 layers; using sigmoid."),
    "variable": ("?wrt=w9", "gradient of p with respect to: “w9” is no variable"),
    "biases": ("?biases=1", "biases: 1 came for 3 layers; those missing are 0."),
    "walk": ("?walk=99", "walk: it has 7 steps; showing step 7."),
    "no walk": ("?walk=abc", "walk: “abc” is no finite number; not started."),
    "depth": ("?depth=1000000", "depth “1000000” is not possible; using 1000."),
    "no depth": ("?depth=NaN", "depth of the real network: “NaN” is no finite number; left out."),
    "card": ("?depth_w=", "w of “Why it vanishes”: “” is no finite number; using 1."),
    "steps": ("?time_steps=0", "steps: 0 is not possible; using 1."),
    "clip": ("?time_clip=-1", "clip: “-1” is no number above 0; never clipping."),
}


@pytest.mark.browser
@pytest.mark.parametrize(("query", "notice"), NOTICES.values(), ids=NOTICES)
def test_what_was_corrected_in_an_address_is_said(page, url, query, notice):
    visit(page, url, query + ("&width=8" if "depth=1000000" in query else ""))
    said = part(page, "notice")
    page.wait_for_function(
        "text => document.querySelector('[data-part=\"notice\"]').textContent.includes(text)",
        arg=notice,
        timeout=120_000,
    )
    assert said.get_attribute("role") == "alert"
    assert said.is_visible()
    box(page, "x").fill("2")
    assert said.is_hidden()


@pytest.mark.browser
def test_a_good_address_has_no_notice(shown):
    wait_for_network(shown, "15 layers")
    assert part(shown, "notice").is_hidden()


@pytest.mark.browser
@pytest.mark.parametrize(
    ("typed", "layers"), [("99", 50), ("2.4", 2), ("", 3), ("-4", 1), ("0", 1), ("1e9", 50)]
)
def test_the_layers_box_says_what_it_can_have(shown, typed, layers):
    part(shown, "layers").fill(typed)
    part(shown, "layers").blur()
    wait_for_count(shown, layers)
    assert "a whole number from 1 to 50" in text(shown, "notice")
    assert part(shown, "layers").input_value() == str(layers)


def wait_for_count(page, layers: int) -> None:
    page.wait_for_function(
        "n => JSON.parse(document.getElementById('chain-root').dataset.shown)"
        ".weights.split(',').length === n",
        arg=layers,
    )


@pytest.mark.browser
def test_address_brings_back_the_cards(shown):
    part(shown, "depth-w").fill("-3.5")
    part(shown, "depth-activation").select_option("tanh")
    part(shown, "rnn-w").fill("0.9")
    part(shown, "rnn-steps").fill("30")
    part(shown, "rnn-activation").select_option("relu")
    part(shown, "rnn-clip").fill("2")
    wait_for_depth(shown, -3.5, "tanh")
    names = ["depth-w", "depth-w-range", "depth-activation", "depth-end", "depth-sentence"]
    names += ["rnn-w", "rnn-steps", "rnn-activation", "rnn-clip", "rnn-sentence"]
    shown.wait_for_function(
        "document.querySelector('[data-part=\"rnn-sentence\"]').textContent.match(/[Cc]lip/)"
    )

    def look() -> list[str]:
        return [part(shown, name).evaluate("one => one.value ?? one.textContent") for name in names]

    before = look()
    shown.reload()
    wait_for(shown)
    wait_for_depth(shown, -3.5, "tanh")
    shown.wait_for_function(
        "document.querySelector('[data-part=\"rnn-sentence\"]').textContent.match(/[Cc]lip/)"
    )
    assert look() == before


@pytest.mark.browser
def test_back_button_returns_through_the_walk(shown):
    do(shown, "walk-next").click()
    wait_for(shown, weights="0.5")
    box(shown, "w1").fill("3")
    wait_for(shown, weights="3")
    do(shown, "walk-next").click()
    wait_for(shown, weights="0.5,-2")
    shown.go_back()
    wait_for(shown, weights="3")
    assert text(shown, "walk-title") == "1 of 7: One layer"
    assert_shows(shown, ScalarChain(1.0, [3.0]))
    shown.go_back()
    wait_for(shown, weights="0.5")
    shown.go_back()
    wait_for(shown, weights="0.5,-2,1.5")
    assert text(shown, "walk-title") == "A guided walk in seven steps"
    shown.go_forward()
    wait_for(shown, weights="0.5")


@pytest.mark.browser
def test_each_finished_edit_is_undone_by_back(shown):
    count = count_entries(shown)
    field = box(shown, "w1")
    field.click()
    field.press("ControlOrMeta+a")
    shown.keyboard.type("1.25")  # one edit, through 1 and 1. and 1.2
    wait_for(shown, weights="1.25,-2,1.5")
    assert count() == 1
    field = box(shown, "w2")
    field.click()
    field.press("ControlOrMeta+a")
    shown.keyboard.type("7")
    wait_for(shown, weights="1.25,7,1.5")
    assert count() == 2
    part(shown, "activation").select_option("tanh")
    wait_for(shown, activation="tanh")
    click(shown, node("x"))
    shown.get_by_label("new value of x").fill("0.5")
    shown.keyboard.press("Enter")
    wait_for(shown, x="0.5")
    assert count() == 4
    shown.go_back()
    wait_for(shown, x="1", activation="tanh")
    shown.go_back()
    wait_for(shown, activation="sigmoid", weights="1.25,7,1.5")
    shown.go_back()
    wait_for(shown, weights="1.25,-2,1.5")
    assert box(shown, "w2").input_value() == "-2"
    shown.go_back()
    wait_for(shown, weights="0.5,-2,1.5")
    assert_shows(shown, START)


@pytest.mark.browser
def test_showing_the_same_chain_another_way_is_no_edit(shown):
    count = count_entries(shown)
    do(shown, "order-forward").click()
    shown.wait_for_function("location.search.includes('order=forward')")
    assert count() == 0


@pytest.mark.browser
def test_notices_beyond_four_are_folded_and_can_be_read(page, url):
    bad = "x=a&weights=b&activation=c&wrt=d&depth_w=e&depth_activation=f&time_w=g&time_steps=h"
    visit(page, url, f"?{bad}")
    wait_for_cards(page)
    box = part(page, "notice")
    shown = box.locator(":scope > p")
    assert shown.count() == 4
    folded = box.locator("details > p")
    assert folded.count() >= 2
    assert not folded.first.is_visible()
    box.locator("summary").click()
    assert folded.first.is_visible()
    assert str(folded.count()) in box.locator("summary").inner_text()


@pytest.mark.browser
def test_an_answer_that_comes_later_leaves_notices_unfolded(page, url):
    held = []
    page.route("**/api/network?*", lambda route: held.append(route))
    bad = "x=a&weights=b&activation=c&wrt=d&depth_w=e&depth_activation=f&time_w=g&time_steps=h"
    visit(page, url, f"?{bad}&width=-4")
    box = part(page, "notice")
    box.locator("summary").click()
    folded = box.locator("details > p")
    before = folded.count()
    wait_until(lambda: held or page.wait_for_timeout(10))
    held[0].continue_()
    wait_for_cards(page)
    expect(folded).to_have_count(before + 1)
    assert folded.first.is_visible()
