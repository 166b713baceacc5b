"""The chain-rule page: for every reader: phones, dark mode, accessibility, and what is seen."""

import pytest

from axe import list_serious
from browsing import read_scheme
from chain_page import (
    click,
    do,
    equal,
    node,
    part,
    read_math,
    visit,
    wait_for_cards,
    wait_for_network,
)
from chainrule.chain import measure_recurrence


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "layers"), [("light", 3), ("dark", 30)])
def test_page_fits_a_phone(page, url, scheme, layers):
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme=scheme)
    visit(page, url, f"?weights={equal('1', layers)}")
    wait_for_network(page, "15 layers")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert read_scheme(page) == scheme
    click(page, node("w1"))
    editor = page.locator(".cr-edit").bounding_box()
    assert editor["x"] >= 0
    assert editor["x"] + editor["width"] <= 390
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.browser
def test_dark_mode_reaches_the_graph_and_the_charts(page, url):
    looks = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        visit(page, url)
        looks[scheme] = page.evaluate(
            """() => [
                getComputedStyle(document.body).backgroundColor,
                getComputedStyle(document.querySelector(".chain-graph .value")).fill,
                getComputedStyle(document.querySelector(".bar.shrinks rect.value")).fill,
                getComputedStyle(document.querySelector(".chain-graph .shrinks .line")).stroke,
                getComputedStyle(document.querySelector("math")).color,
            ]"""
        )
    assert all(a != b for a, b in zip(*looks.values(), strict=True))


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_the_chain_page(page, url, scheme):
    # Without motion, no colour is on its way from one to another.
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    visit(page, url, "?weights=0.5,-2,1.5&biases=0,0,1&walk=5")
    wait_for_network(page, "15 layers")
    do(page, "reveal").click()
    do(page, "next").click()
    page.locator("summary").first.click()
    click(page, node("w2"))
    assert list_serious(page) == []


@pytest.mark.browser
def test_axe_finds_nothing_serious_in_thirty_layers(page, url):
    page.emulate_media(reduced_motion="reduce")
    visit(page, url, f"?weights={equal('1', 30)}")
    do(page, "fold").click()
    page.locator('[data-view="chain"] li[data-kind="formulas"] .factor').nth(59).wait_for()
    assert list_serious(page) == []


@pytest.mark.browser
def test_an_address_with_a_network_alone_leads_to_that_network(page, url):
    visit(page, url, "?depth=6&width=16&network_activation=tanh")
    wait_for_network(page, "6 layers × 16 units")
    page.wait_for_function(
        """() => {
            const { top } =
                document.querySelector('[data-part="real-card"]').getBoundingClientRect();
            return scrollY > 500 && top >= 50 && top < innerHeight / 2;
        }"""
    )
    for query in ("?depth=6&width=16&weights=1,2", "?depth=6&width=16&walk=1"):
        visit(page, url, query)
        wait_for_network(page, "6 layers × 16 units")
        assert page.evaluate("scrollY") == 0
    page.get_by_role("button", name="The same in a real, wide network").click()
    assert page.evaluate("scrollY") > 500


@pytest.mark.browser
def test_the_tied_equation_and_every_line_through_time_are_seen(shown):
    recurrence = measure_recurrence(1.3, 20, x=0.1, activation="identity")
    shown.wait_for_function("document.querySelector('[data-part=\"rnn-equation\"] math')")
    written = part(shown, "rnn-equation").locator("math").text_content()
    assert written == read_math(recurrence.to_mathml())
    paths = (
        part(shown, "rnn-chart")
        .locator("path")
        .evaluate_all(
            "all => all.map(one => [one.getAttribute('d'), one.getAttribute('stroke-dasharray')])"
        )
    )
    shapes = [shape for shape, _ in paths]
    assert shapes[0] == shapes[1]  # w^t is the whole product here: it must lie above, and be dashed
    assert paths[0][1] is None
    assert paths[1][1]
    swatches = (
        part(shown, "rnn-chart")
        .locator(".cr-swatch line")
        .evaluate_all("all => all.map(one => one.getAttribute('stroke-dasharray'))")
    )
    assert swatches == [dash for _, dash in paths]


@pytest.mark.browser
@pytest.mark.parametrize("place", ["low", "high"])
def test_the_editor_opens_where_it_is_seen(page, url, place):
    page.set_viewport_size({"width": 1280, "height": 700})
    visit(page, url)
    target = page.locator(node("w2"))
    edge_of_window = 650 if place == "low" else 140
    target.evaluate(
        "(one, at) => scrollBy({ top: one.getBoundingClientRect().top - at, behavior: 'instant' })",
        edge_of_window,
    )
    target.evaluate("one => one.focus({ preventScroll: true })")
    page.keyboard.press("Enter")
    form = page.locator(".cr-edit").evaluate(
        "one => { const at = one.getBoundingClientRect(); return [at.top, at.bottom]; }"
    )
    assert form[0] >= 56
    assert form[1] <= 700


@pytest.mark.browser
def test_numbers_whose_power_is_a_power_stay_inside_the_charts(page, url):
    visit(page, url, "?weights=1e300,-1e300,1e300&depth_w=1e300")
    wait_for_cards(page)
    page.wait_for_function(
        "document.querySelector('[data-part=\"depth-end\"]').textContent.includes('10^(')"
    )
    outside = page.evaluate(
        """() => [...document.querySelectorAll(
            '[data-part="factors"] text, [data-part="depth-chart"] svg.cr-chart text'
        )].filter(text => {
            const [at, chart] = [text, text.closest("svg")].map(one => one.getBoundingClientRect());
            return at.left < chart.left || at.right > chart.right;
        }).map(text => text.textContent)"""
    )
    assert outside == []
    assert "e+" not in part(page, "depth-chart").inner_text()
    overlaps = page.evaluate(
        """() => {
            const texts = [...document.querySelectorAll(".chain-graph text")]
                .map(one => [one.textContent, one.getBoundingClientRect()]);
            return texts.flatMap(([a, one], i) => texts.slice(i + 1).filter(([, other]) =>
                Math.min(one.right, other.right) - Math.max(one.left, other.left) > 3 &&
                Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top) > 6
            ).map(([b]) => [a, b]));
        }"""
    )
    assert overlaps == []


@pytest.mark.browser
def test_on_a_phone_the_graph_starts_where_the_walk_does(page, url):
    page.set_viewport_size({"width": 390, "height": 844})
    visit(page, url, "?walk=1")
    at = page.locator(node("p")).bounding_box()
    assert 0 <= at["x"] <= 390 - at["width"]


@pytest.mark.browser
def test_the_walk_ends_with_a_way_to_the_real_network(page, url):
    visit(page, url, "?walk=5")
    wait_for_cards(page)
    part(page, "depth-task").get_by_role("button", name="On to a real network").click()
    page.wait_for_function(
        """() => {
            const { top } =
                document.querySelector('[data-part="real-card"]').getBoundingClientRect();
            return top >= 0 && top < innerHeight / 2;
        }"""
    )


@pytest.mark.browser
def test_a_depth_that_is_no_number_leaves_the_pages_own_network(page, url):
    visit(page, url, "?depth=NaN")
    wait_for_network(page, "15 layers × 64 units, Sigmoid")
