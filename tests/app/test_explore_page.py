"""The explore page in a real browser."""

import csv
import json
import re
from itertools import product
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from axe import list_serious
from browsing import empty, read_scheme, watch
from chainrule import PRESETS, NetworkSpec, diagnose, find_remedies, load_flow, simulate
from chainrule._utils.numbers import format_number
from chainrule.app.state.controls import CONTROLS
from chainrule.app.state.view import DEFAULT_PRESET, read_view, write_query
from chainrule.figures import build_layer_figure
from explorer import (
    CHART,
    ROOT,
    encode,
    measure,
    open_explorer,
    overlap,
    read_chart,
    read_part,
    wait_for_layers,
    wait_until_settled,
)

pytestmark = pytest.mark.browser

SMALL = "depth=6&width=8&activation=tanh&init=xavier"


@pytest.fixture
def page(kept_page, url):
    """An empty page; leaving it, nothing must have gone wrong on it."""
    with watch(kept_page, url, leave=empty) as page:
        page.set_viewport_size({"width": 1400, "height": 900})
        yield page


@pytest.fixture
def explorer(page, url):
    """The explorer, showing the first scenario."""
    open_explorer(page, url)
    return page


def read_view_of(page):
    """Return the view that the address bar describes."""
    page.wait_for_function(f"location.search === `?${{{ROOT}.dataset.address}}`")
    return read_view(page.evaluate("location.search"))[0]


def test_page_answers_and_names_no_other_host(url):
    page = httpx.get(url, timeout=120)
    assert page.status_code == 200
    assert 'lang="en"' in page.text
    loaded = r"""<(?:script|link|img|iframe)\b[^>]*(?:src|href)=["']?(?:https?:)?//"""
    assert not re.findall(loaded, page.text)


def test_choosing_a_scenario_sets_every_control_and_shows_its_numbers(explorer):
    """One after the other: each must leave nothing of the one before."""
    for preset in PRESETS.values():
        check_scenario(explorer, preset)


def check_scenario(explorer, preset):
    explorer.get_by_role("button", name=preset.label, exact=True).click()
    wait_for_layers(explorer, preset.spec.depth)
    wait_until_settled(explorer)
    assert read_part(explorer, "look-at") == preset.look_at
    assert preset.verdict in explorer.locator(".fv-card").nth(3).inner_text().lower()
    settings = preset.spec.model_dump()
    for control in CONTROLS.values():
        if control.name == "seeds" or not control.when.keys() <= {"init"}:
            continue
        if any(settings[key] not in values for key, values in control.when.items()):
            continue
        shown = explorer.locator(f"#control-{control.name}").input_value()
        value = settings[control.name]
        assert shown == ("" if value is None else f"{value}".removesuffix(".0"))
    flow = simulate(preset.spec, 16)
    expected = [float(n) if 0 < n < float("inf") else None for n in flow.weight_gradient_norms]
    shown = read_chart(explorer)
    assert [value is None for value in shown] == [value is None for value in expected]
    assert [v for v in shown if v] == pytest.approx([v for v in expected if v], rel=1e-12)
    pressed = explorer.locator(".ex-preset[aria-pressed=true]")
    assert pressed.all_inner_texts() == [preset.label]


TYPED = {
    "depth": ("7", {"depth": 7}),
    "width": ("24", {"width": 24}),
    "bias_std": ("0.5", {"bias_std": 0.5}),
    "clip_norm": ("0.25", {"clip_norm": 0.25}),
    "input_scale": ("3", {"input_scale": 3.0}),
    "batch_size": ("8", {"batch_size": 8}),
    "seed": ("5", {"seed": 5}),
}
CHOSEN = {
    "activation": ("relu", {"activation": "relu"}),
    "init": ("he", {"init": "he"}),
    "distribution": ("uniform", {"distribution": "uniform"}),
    "residual": ("scaled", {"residual": "scaled"}),
    "normalization": ("layernorm", {"normalization": "layernorm"}),
}


def test_every_control_is_tried_below():
    assert {*TYPED, *CHOSEN, "weight_std", "seeds"} == set(CONTROLS)


def test_typing_into_controls(page, url):
    open_explorer(page, url, SMALL)
    page.locator(".ex-configure summary").click()
    spec = NetworkSpec.from_query(SMALL)
    for name, (value, changes) in TYPED.items():
        page.locator(".ex-configure").get_by_label(CONTROLS[name].label, exact=True).fill(value)
        page.keyboard.press("Tab")
        wait_until_settled(page)
        spec = spec.replace(**changes)
        assert read_view_of(page).spec == spec, name
        expected = list(simulate(spec, 16).weight_gradient_norms)
        assert read_chart(page) == pytest.approx(expected), name


def test_choosing_in_lists_by_keyboard(page, url):
    open_explorer(page, url, SMALL)
    page.locator(".ex-configure summary").click()
    spec = NetworkSpec.from_query(SMALL)
    for name, (value, changes) in CHOSEN.items():
        choose_by_keyboard(page, name, value)
        wait_until_settled(page)
        spec = spec.replace(**changes)
        assert read_view_of(page).spec == spec, name
        expected = list(simulate(spec, 16).weight_gradient_norms)
        assert read_chart(page) == pytest.approx(expected), name


def choose_by_keyboard(page, name, value):
    select = page.locator(".ex-configure").get_by_label(CONTROLS[name].label, exact=True)
    select.focus()
    for _ in range(20):
        if select.input_value() == value:
            break
        page.keyboard.press("ArrowDown")
        if page.evaluate("document.activeElement.value") == value:
            break
    else:
        page.keyboard.press("Home")
    if select.input_value() != value:
        select.select_option(value)


def test_the_number_of_networks(page, url):
    open_explorer(page, url, SMALL)
    page.locator(".ex-configure summary").click()
    page.locator(".ex-configure").get_by_label("Networks", exact=True).fill("3")
    page.keyboard.press("Tab")
    wait_until_settled(page)
    assert "Median of 3 networks" in read_part(page, "ensemble")
    expected = list(simulate(NetworkSpec.from_query(SMALL), 3).weight_gradient_norms)
    assert read_chart(page) == pytest.approx(expected)


def test_sigma_matters_only_for_random_weights(page, url):
    open_explorer(page, url, SMALL)
    sigma = page.locator(".ex-configure").get_by_label("Spread of the weights", exact=True)
    assert not sigma.is_visible()
    page.locator(".ex-configure").get_by_label("Initialization", exact=True).select_option("random")
    wait_until_settled(page)
    sigma.fill("0.3")
    page.keyboard.press("Tab")
    wait_until_settled(page)
    spec = NetworkSpec.from_query(SMALL).replace(init="random", weight_std=0.3)
    assert read_view_of(page).spec == spec
    page.locator(".ex-configure").get_by_label("Initialization", exact=True).select_option(
        "orthogonal"
    )
    wait_until_settled(page)
    assert read_part(page, "notices") == ""
    assert read_view_of(page).spec == spec.replace(init="orthogonal", weight_std=1.0)
    page.locator(".ex-configure summary").click()
    assert page.locator(".ex-configure").get_by_label("Distribution", exact=True).is_disabled()


def test_a_slider_by_key(explorer):
    explorer.get_by_role("slider", name="Depth").focus()
    explorer.keyboard.press("ArrowRight")
    wait_for_layers(explorer, 16)
    wait_until_settled(explorer)
    spec = PRESETS[DEFAULT_PRESET].spec.replace(depth=16)
    assert read_chart(explorer) == pytest.approx(list(simulate(spec, 16).weight_gradient_norms))
    assert explorer.locator("#control-depth").input_value() == "16"
    assert "Your own configuration" in read_part(explorer, "look-at")
    explorer.get_by_role("slider", name="Width").focus()
    explorer.keyboard.press("ArrowLeft")
    wait_until_settled(explorer)
    assert read_view_of(explorer).spec == spec.replace(width=32)


def test_a_drag_is_followed_and_ends_where_it_ends(explorer):
    """What is asked moves along with the slider and never goes back; the end is shown."""
    asked, passed = [], []

    def note(request):
        if "/api/explore" in request.url:
            asked.append(read_view(request.url.partition("?")[2])[0].spec.depth)

    explorer.on("request", note)
    box = explorer.get_by_role("slider", name="Depth").bounding_box()
    x, y = box["x"] + 40, box["y"] + box["height"] / 2
    explorer.mouse.move(x, y)
    explorer.mouse.down()
    for step in range(40):
        explorer.mouse.move(x + 4 * step, y)
        passed.append(int(explorer.locator("#control-depth").input_value()))
    explorer.mouse.up()
    wait_until_settled(explorer)
    depth = int(explorer.locator("#control-depth").input_value())
    wait_for_layers(explorer, depth)
    assert depth == passed[-1] > 50
    assert asked == sorted(asked)
    assert asked[-1] == depth
    assert set(asked) <= set(passed)


def test_late_answers_never_overwrite_newer_ones(explorer):
    """The first answer is held back until the second has been asked for."""
    held = []

    def hold(route):
        if "depth=20" in route.request.url:
            held.append(route)
        else:
            route.continue_()

    explorer.route("**/api/explore?*", hold)
    box = explorer.locator(".ex-configure").get_by_label("Depth (weight layers)", exact=True)
    with explorer.expect_request(lambda request: "depth=20" in request.url):
        box.fill("20")
    explorer.wait_for_timeout(500)  # the page asks anew only after its patience
    box.fill("9")
    wait_for_layers(explorer, 9)
    for route in held:
        route.continue_()
    wait_until_settled(explorer)
    assert len(read_chart(explorer)) == 9
    assert explorer.locator("#control-depth").input_value() == "9"


def test_what_a_quick_answer_lacks_is_read_from_the_one_before(explorer):
    """The whole answer is held back: a chart that is still the old one tells of the old network."""
    held = []
    holding = True

    def hold(route):
        if holding and "depth=18" in route.request.url and "quick=1" not in route.request.url:
            held.append(route)
        else:
            route.continue_()

    explorer.route("**/api/explore?*", hold)
    box = explorer.locator(".ex-configure").get_by_label("Depth (weight layers)", exact=True)
    box.fill("18")
    painted = "document.querySelector('[data-part=results]').dataset.painted"
    explorer.wait_for_function(f"{painted}.includes('depth=18')")
    explorer.locator("#activation-chart").hover()
    assert "% of activations" in explorer.locator(".fv-tip").inner_text()
    details = explorer.locator("details[data-part=table]")
    details.locator("summary").click()
    # It is filled, where it is, once the page has heard that it was opened.
    explorer.evaluate("new Promise((go) => requestAnimationFrame(() => setTimeout(go)))")
    assert details.locator("tbody tr").count() == 0
    holding = False
    for route in held:
        route.continue_()
    wait_until_settled(explorer)
    assert details.locator("tbody tr").count() == 18


def test_every_control_explains_itself_where_one_looks(explorer):
    explorer.locator(".ex-configure summary").click()
    for control in CONTROLS.values():
        box = explorer.locator(f"[data-control={control.name}]")
        field = explorer.locator(f"#control-{control.name}")
        assert field.get_attribute("aria-describedby") == f"control-{control.name}-help"
        if not field.is_visible():
            continue
        ask = box.get_by_role("button", name="what is this?")
        ask.focus()
        explorer.keyboard.press("Enter")
        help_text = box.locator(".ex-help")
        assert help_text.inner_text() == control.help
        assert ask.get_attribute("aria-expanded") == "true"
        assert not overlap(measure(help_text), measure(field))  # it covers nothing
        ask.click()
        assert not help_text.is_visible()


def test_nothing_lies_over_a_control_that_is_used(page, url):
    """Also zoomed in to 200 %: 720 × 450 is what a screen of 1440 × 900 has left then."""
    open_explorer(page, url, SMALL)
    names = ("depth", "depth-slider", "width", "width-slider", "activation", "init")
    for size, name in product([(720, 450), (1440, 600), (390, 844)], names):
        page.set_viewport_size({"width": size[0], "height": size[1]})
        control = page.locator(f"#control-{name}")
        control.focus()
        control.scroll_into_view_if_needed()
        assert control.evaluate(
            """control => {
                const { left, top, width, height } = control.getBoundingClientRect();
                return document.elementFromPoint(left + width / 2, top + height / 2) === control;
            }"""
        ), (size, name)


def test_the_way_to_other_pages_and_back_keeps_the_network(page, url):
    open_explorer(page, url, f"{SMALL}&pin=depth%3D5")
    view = read_view_of(page)
    ways = page.get_by_role("navigation", name="pages")
    ways.get_by_role("link", name="Learn").click()
    page.wait_for_url("**/learn?*")
    ways.get_by_role("link", name="Your model").click()
    page.wait_for_selector("#model-root[data-ready]")
    ways.get_by_role("link", name="Explore").click()
    wait_until_settled(page)
    assert read_view_of(page) == view


class TestAddresses:
    def test_an_address_sets_everything(self, page, url):
        query = (
            "depth=7&width=32&activation=tanh&init=he&residual=scaled&seeds=4&measure=delta"
            "&scale=linear&layer=3&pin=depth%3D5"
        )
        open_explorer(page, url, query)
        view = read_view(query)[0]
        assert read_view_of(page) == view
        flow = simulate(view.spec, 4)
        assert read_chart(page) == pytest.approx(list(flow.delta_norms))
        assert page.evaluate(f"{CHART}.layout.yaxis.type") == "linear"
        assert "h₃" in read_part(page, "layer-note")
        assert page.locator("[data-part=compare-result]").is_visible()

    @pytest.mark.parametrize(
        "query",
        [
            "depth=0",
            "depth=1e9&width=4",
            "activation=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E",
            "pin=%3Cscript%3Ealert(1)%3C/script%3E&depth=3",
            "seeds=-1&depth=3&layer=99&embed=x&lock=y&hide=z&measure=w&scale=v",
            "depth=3&depth=4&nonsense=%00",
            "weight_std=5&depth=3",
        ],
    )
    def test_hostile_values_become_legal_ones_with_a_notice(self, page, url, query):
        open_explorer(page, url, query)
        assert read_part(page, "notices")
        assert page.locator("[data-part=notices] img, [data-part=notices] script").count() == 0
        assert read_view_of(page) == read_view(query)[0]

    def test_too_large_a_network_is_an_error_that_can_be_left(self, kept_page, url):
        expected = {"expected": lambda problem: "422" in problem}
        with watch(kept_page, url, leave=empty, **expected) as page:
            page.goto(f"{url}/?depth=1000&width=4096")
            page.get_by_text("depth · width · (width + batch size) must be at most").wait_for()
            page.get_by_role("button", name=DEFAULT_PRESET, exact=True).click()
            wait_for_layers(page, PRESETS[DEFAULT_PRESET].spec.depth)
            assert not page.locator("[data-part=error]").is_visible()

    def test_back_goes_one_change_back(self, explorer):
        explorer.get_by_role("button", name="Healthy (ReLU + He)").click()
        wait_until_settled(explorer)
        explorer.wait_for_function("location.search.includes('relu')")
        explorer.locator(".ex-configure").get_by_label("Depth (weight layers)", exact=True).fill(
            "5"
        )
        explorer.keyboard.press("Tab")
        wait_for_layers(explorer, 5)
        wait_until_settled(explorer)
        explorer.wait_for_function("location.search.includes('depth=5')")
        explorer.go_back()
        wait_for_layers(explorer, 15)
        wait_until_settled(explorer)
        assert read_view_of(explorer).spec == PRESETS["Healthy (ReLU + He)"].spec
        explorer.go_back()
        explorer.wait_for_function("document.querySelector('#control-init').value === 'xavier'")
        wait_until_settled(explorer)
        assert read_view_of(explorer).spec == PRESETS[DEFAULT_PRESET].spec

    def test_a_teacher_hides_and_fixes(self, page, url):
        open_explorer(page, url, "depth=6&width=8&lock=depth,activation&hide=width,train,lesson")
        assert page.locator("#control-depth").is_disabled()
        assert page.locator("#control-depth-slider").is_disabled()
        assert page.locator("#control-activation").is_disabled()
        assert not page.locator("#control-width").is_visible()
        assert not page.locator("#train").is_visible()
        assert not page.locator("#lesson").is_visible()
        page.get_by_role("button", name="Healthy (ReLU + He)").click()
        wait_until_settled(page)
        assert page.locator("#control-depth").is_disabled()
        view = read_view_of(page)
        assert (view.spec.depth, view.spec.activation, view.spec.init) == (6, "sigmoid", "he")

    @pytest.mark.parametrize("chart", ["gradient", "activation", "factor"])
    def test_one_chart_alone(self, page, url, chart):
        page.goto(f"{url}/?{SMALL}&embed={chart}")
        page.wait_for_function(f"document.querySelector('#{chart}-chart')?.data?.length > 0")
        assert page.locator(".fv-panel").count() == 1
        assert page.locator(".ex-configure").count() == 0
        assert "depth=6" in page.get_by_role("link", name="Open in full").get_attribute("href")
        caption = read_part(page, "caption")
        for words in ("6", "8", "Tanh", "Xavier"):  # it says which network it is
            assert words in caption
        page.set_viewport_size({"width": 700, "height": 420})  # and fits its frame
        page.wait_for_function("document.documentElement.scrollHeight <= innerHeight")
        page.wait_for_function(
            f"document.querySelector('#{chart}-chart .main-svg').getBoundingClientRect().bottom"
            " <= innerHeight"
        )


class TestCharts:
    def test_pointing_at_a_layer_marks_it_everywhere(self, explorer):
        for name in ("gradient", "activation", "factor"):
            explorer.locator(f"#{name}-chart").scroll_into_view_if_needed()
            box = explorer.locator(f"#{name}-chart .nsewdrag").first.bounding_box()
            explorer.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
            explorer.wait_for_function(
                "[...document.querySelectorAll('.fv-mark')].filter(m => !m.hidden).length === 3"
            )
            assert "Layer 8: weight gradient" in read_part(explorer, "readout")
            explorer.mouse.move(5, 5)
            explorer.wait_for_function(
                "[...document.querySelectorAll('.fv-mark')].every(m => m.hidden)"
            )

    def test_layers_by_keyboard(self, explorer):
        explorer.locator(".fv-chart").first.focus()
        explorer.keyboard.press("ArrowRight")
        explorer.keyboard.press("ArrowRight")
        assert "Layer 2: weight gradient" in read_part(explorer, "readout")
        explorer.keyboard.press("End")
        assert "Layer 15: weight gradient" in read_part(explorer, "readout")
        explorer.keyboard.press("Enter")
        wait_until_settled(explorer)
        assert "h₁₅" in read_part(explorer, "layer-note")
        assert read_view_of(explorer).layer == 15

    def test_a_click_shows_a_layer_in_full(self, explorer):
        explorer.locator("#activation-chart").scroll_into_view_if_needed()
        box = explorer.locator("#activation-chart .nsewdrag").first.bounding_box()
        explorer.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
        explorer.wait_for_function(
            "document.querySelector('[data-part=layer-note]').innerText.includes('h₈')"
        )
        flow = simulate(PRESETS[DEFAULT_PRESET].spec, 16)
        wait_until_settled(explorer)
        shown = explorer.evaluate(
            "Object.fromEntries(document.querySelector('#layer-chart').data"
            ".map(trace => [trace.name, Array.from(trace.y)]))"
        )
        expected = build_layer_figure(flow, 8)["data"]
        assert shown == {trace["name"]: pytest.approx(trace["y"]) for trace in expected}
        assert sum(shown["activations h"]) == pytest.approx(1)

    def test_the_switch_of_the_main_chart(self, explorer):
        explorer.get_by_text("linear", exact=True).click()
        wait_until_settled(explorer)
        symbols = {"δ": "‖δ‖", "gradient ÷ weight": "‖W‖", "weight gradient": "∂W"}
        for label, symbol in symbols.items():
            explorer.locator(".segmented").first.get_by_text(label, exact=True).click()
            wait_until_settled(explorer)
            assert symbol in explorer.evaluate(f"{CHART}.layout.yaxis.title.text")
            assert explorer.evaluate(f"{CHART}.layout.yaxis.type") == "linear"

    def test_the_table_holds_the_numbers(self, explorer):
        explorer.locator("[data-panel=gradient] summary").get_by_text("as a table").click()
        rows = explorer.locator("[data-part=table] tbody tr")
        rows.first.wait_for()
        assert rows.count() == 15

    def test_zero_gradients_are_never_an_empty_plot(self, page, url):
        open_explorer(page, url, f"preset={encode('Dying ReLU')}")
        assert "exactly zero" in page.locator("#gradient-chart").inner_text()
        assert page.evaluate(f"{CHART}.data[2].x.length") > 0
        assert "exactly zero" in page.locator("#factor-chart").inner_text()

    def test_charts_are_saved(self, explorer):
        files = {}
        for kind in ("SVG", "PNG"):
            with explorer.expect_download() as download:
                explorer.get_by_role("button", name=f"download this chart as {kind}").first.click()
            files[kind] = Path(download.value.path()).read_bytes()
        assert files["PNG"].startswith(b"\x89PNG\r\n\x1a\n")
        assert b"<svg" in files["SVG"][:40]
        assert "Gradient magnitude per layer" in files["SVG"].decode()


class TestStrip:
    """The network drawn, with the pulse that goes back through it."""

    def test_every_layer_stands_above_its_place_on_the_chart(self, explorer):
        depth = PRESETS[DEFAULT_PRESET].spec.depth
        assert explorer.locator(".st-column").count() == depth
        centers = explorer.evaluate(
            "[...document.querySelectorAll('.st-column')].map(c => c.getBoundingClientRect())"
            ".map(r => r.x + r.width / 2)"
        )
        places = explorer.evaluate(
            f"(() => {{ const f = {CHART}._fullLayout, x = {CHART}.getBoundingClientRect().x;"
            " return Array.from({length: %d}, (_, i) => x + f._size.l + f.xaxis.l2p(i + 1)); })()"
            % depth
        )
        assert centers == pytest.approx(places, abs=1.5)

    def test_pointing_at_a_layer_marks_it_and_says_what_is_left_there(self, explorer):
        steps = explorer.evaluate(
            "fetch('/api/explore' + location.search).then(r => r.json()).then(a => a.journey)"
        )
        explorer.locator(".st-column").nth(6).hover()
        assert explorer.locator(".st-column.at").count() == 1
        words = explorer.locator("[data-part=strip-words]").inner_text()
        assert "layer 7" in words
        assert words.endswith(steps[6]["left"])
        assert explorer.locator("#gradient-chart + .fv-mark").is_visible()

    def test_the_pulse_goes_back_and_ends_at_layer_1(self, explorer):
        play = explorer.locator("[data-part=play]")
        play.click()
        explorer.wait_for_function("document.querySelectorAll('.st-column.lit').length > 2")
        lit = explorer.evaluate(
            "[...document.querySelectorAll('.st-column')].map(c => c.classList.contains('lit'))"
        )
        assert lit == sorted(lit)  # the last layers first
        explorer.wait_for_function("!document.querySelector('.st.playing')")
        depth = PRESETS[DEFAULT_PRESET].spec.depth
        words = explorer.locator("[data-part=strip-words]").inner_text()
        assert f"{depth - 1} factors" in words

    def test_with_less_motion_nothing_moves(self, explorer):
        explorer.emulate_media(reduced_motion="reduce")
        explorer.locator("[data-part=play]").click()
        assert explorer.locator(".st.playing").count() == 0
        assert "14 factors" in explorer.locator("[data-part=strip-words]").inner_text()


def test_comparing(explorer):
    explorer.get_by_role("button", name="Pin to compare").click()
    wait_until_settled(explorer)
    explorer.get_by_role("button", name="Healthy (ReLU + He)").click()
    wait_until_settled(explorer)
    text = read_part(explorer, "compare-result")
    assert "activation: Sigmoid → ReLU" in text
    assert "diagnosis: vanishing → healthy" in text
    pinned = simulate(PRESETS[DEFAULT_PRESET].spec, 16)
    assert read_chart(explorer, 3) == pytest.approx(list(pinned.weight_gradient_norms))
    names = "[...document.querySelectorAll('.fv-plot')].flatMap(p => p.data.map(d => d.name))"
    shown = explorer.evaluate(names)
    assert "running product, pinned" in shown
    assert "pinned: mean ± 2 standard deviations" in shown
    explorer.get_by_role("button", name="Swap").click()
    wait_until_settled(explorer)
    assert "activation: ReLU → Sigmoid" in read_part(explorer, "compare-result")
    explorer.locator(".ex-compare").get_by_role("button", name="Unpin").click()
    wait_until_settled(explorer)
    assert not explorer.locator("[data-part=compare-result]").is_visible()
    assert read_view_of(explorer).pin is None


def test_a_first_answer_is_marked_and_refined(page, url):
    """The whole answer is held back until the first one was seen."""
    held = []

    def hold(route):
        if holding and not re.search("(quick|first)=1", route.request.url):
            held.append(route)
        else:
            route.continue_()

    holding = True
    page.route("**/api/explore?*", hold)
    page.goto(f"{url}/?depth=200&width=128&activation=relu&init=he")
    note = page.locator("[data-part=ensemble]")
    expect(note).to_contain_text("First answer")
    holding = False
    for route in held:
        route.continue_()
    expect(note).to_contain_text("Median of 16")


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1600, "light")])
def test_page_fits_and_is_accessible(kept_page, url, scheme, width):
    with watch(kept_page, url, leave=empty) as page:
        page.set_viewport_size({"width": width, "height": 844})
        page.emulate_media(color_scheme=scheme)
        open_explorer(page, url, f"{write_query(PRESETS[DEFAULT_PRESET].spec)}&pin=depth%3D5")
        page.locator(".ex-configure summary").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert read_scheme(page) == scheme
        if width == 390:  # test_accessibility.py looks at wide windows
            assert list_serious(page) == []


def test_the_colour_scheme_switch(explorer, url):
    assert read_scheme(explorer) == "light"
    explorer.get_by_role("button", name="switch between light and dark").click()
    assert read_scheme(explorer) == "dark"
    explorer.goto(f"{url}/your-model")  # the choice is kept, on all pages
    assert read_scheme(explorer) == "dark"
    explorer.get_by_role("button", name="switch between light and dark").click()
    assert read_scheme(explorer) == "light"


def test_a_server_that_is_gone_is_said(explorer, url):
    explorer.route("**/api/explore?*", lambda route: route.fulfill(status=200, body="nonsense"))
    explorer.locator(".ex-configure").get_by_label("Depth (weight layers)", exact=True).fill("5")
    explorer.get_by_text("The server does not answer").wait_for()


class TestRemedies:
    def test_at_least_three_measured_changes_and_one_click_cures(self, explorer):
        explorer.wait_for_selector(".ex-remedy")
        spec = PRESETS[DEFAULT_PRESET].spec
        shown = explorer.locator(".ex-remedies > .ex-remedy-list > .ex-remedy")
        assert shown.count() >= 3
        found = find_remedies(spec)
        assert shown.nth(0).locator("h4").inner_text() == found[0].title
        text = shown.nth(0).locator(".ex-remedy-figure").inner_text()
        for flow in (found[0].before, found[0].after):
            assert format_number(min(flow.weight_gradient_norms)) in text
        assert read_part(explorer, "do").startswith(found[0].title)
        assert found[0].title in explorer.locator("[data-part=apply-first]").inner_text()
        shown.nth(0).get_by_role("button", name="apply").click()
        explorer.wait_for_function(
            "document.querySelectorAll('.fv-card')[3].innerText.includes('Healthy')"
        )
        wait_until_settled(explorer)
        assert read_view_of(explorer).spec == found[0].spec
        explorer.locator("[data-part=do]", has_text="Nothing needs to change").wait_for()
        assert explorer.locator(".ex-remedy").count() == 0
        assert str(found[0].verdict_before) in read_part(explorer, "undo")
        explorer.locator("[data-part=undo] button").click()
        wait_until_settled(explorer)
        assert read_view_of(explorer).spec == spec
        assert not explorer.locator("[data-part=undo]").is_visible()
        explorer.go_back()
        wait_until_settled(explorer)
        explorer.go_back()
        explorer.wait_for_selector(".ex-remedy")

    def test_what_does_not_help_is_shown_as_such(self, explorer):
        explorer.wait_for_selector(".ex-remedy", state="attached")
        explorer.get_by_text("Measured, and no help").click()
        refuted = explorer.locator("[data-part=refuted] .ex-remedy")
        titles = refuted.locator("h4").all_inner_texts()
        expected = [r.title for r in find_remedies(PRESETS[DEFAULT_PRESET].spec).refuted]
        assert titles == expected


def test_training_and_cancelling(page, url):
    open_explorer(page, url, "depth=150&width=64&seeds=2")  # a minute: it is not over before
    train = page.locator("#train")
    train.scroll_into_view_if_needed()  # its script is loaded once it comes near
    train.locator("[data-part=steps]").select_option("600")
    train.get_by_role("button", name="Train").click()
    train.get_by_text(re.compile(r"Step \d+ of 600")).first.wait_for()
    train.get_by_role("button", name="Cancel").click()
    train.get_by_text(re.compile("[Cc]ancelled|[Ss]topped")).first.wait_for()
    page.get_by_role("button", name="Healthy (ReLU + He)").click()
    wait_until_settled(page)
    train.locator("[data-part=steps]").select_option("300")
    train.get_by_role("button", name="Train").click()
    train.get_by_text(re.compile("it trains|more than 80 %|% are right")).first.wait_for()


class TestKeeping:
    def test_files_hold_what_is_on_screen(self, page, url, tmp_path):
        open_explorer(page, url, f"{SMALL}&seeds=3")
        flow = simulate(NetworkSpec.from_query(SMALL), 3)
        texts = {}
        for name in ("flow.json", "numbers.csv", "numbers.json", "report.html"):
            with page.expect_download() as download:
                page.locator(f"#share a[href*='{name}']").click()
            download.value.save_as(tmp_path / name)
            texts[name] = (tmp_path / name).read_text(encoding="utf-8")
        assert load_flow(tmp_path / "flow.json") == flow
        rows = list(csv.DictReader(texts["numbers.csv"].splitlines()))
        assert len(rows) == 6
        numbers = [float(value) for row in rows for value in row.values() if is_number(value)]
        assert float(flow.weight_gradient_norms[0]) in numbers
        summary = json.loads(texts["numbers.json"])
        assert summary["gradient_at_first_layer"] == float(flow.weight_gradient_norms[0])
        assert summary["verdict"] == diagnose(flow).verdict
        assert texts["report.html"].lower().startswith("<!doctype html>")
        assert "<script src" not in texts["report.html"]

    def test_the_link_is_copied(self, page, url):
        open_explorer(page, url, SMALL)
        page.get_by_role("button", name="Copy link").click()
        page.get_by_text("Copied.").wait_for()
        link = page.evaluate("navigator.clipboard.readText()")
        view, notices = read_view(link.partition("?")[2])
        assert view.spec == NetworkSpec.from_query(SMALL)
        assert notices == ()

    def test_a_teacher_prepares_a_page(self, page, url):
        open_explorer(page, url, SMALL)
        page.get_by_text("Prepare this page for a class").click()
        page.locator("[data-teacher=lock]").get_by_label("Depth (weight layers)").check()
        page.locator("[data-teacher=hide]").get_by_label("the lesson").check()
        address = page.get_by_label("address of the prepared page").input_value()
        view, _ = read_view(address.partition("?")[2])
        assert (view.lock, view.hide) == (("depth",), ("lesson",))
        code = page.get_by_label("code to embed one chart").input_value()
        embedded = re.search(r'src="[^"]*\?([^"]*)"', code).group(1)
        assert read_view(embedded)[0].embed == "gradient"


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_settings_out_of_sight_are_named(page, url):
    open_explorer(page, url, f"{SMALL}&residual=scaled&batch_size=8")
    assert read_part(page, "in-force") == "Residual connections: scaled by 1/√depth. Batch size: 8."
    open_explorer(page, url, SMALL)
    assert not page.locator("[data-part=in-force]").is_visible()


def test_at_a_busy_server_the_page_says_so_and_asks_again(kept_page, url):
    with watch(kept_page, url, expected=lambda problem: "503" in problem, leave=empty) as page:
        page.set_viewport_size({"width": 1400, "height": 900})
        refuse_once(page, url)


def refuse_once(page, url):
    open_explorer(page, url, SMALL)
    sentence = "The server is busy: 12 measurements come first."
    refused = []

    def refuse(route):
        if not busy:
            route.continue_()
            return
        refused.append(route.request.url)
        route.fulfill(status=503, headers={"Retry-After": "1"}, json={"error": sentence})

    busy = True
    page.route("**/api/explore?*", refuse)
    page.locator("#control-depth").fill("7")
    page.get_by_text(sentence).wait_for()
    assert len(read_chart(page)) == 6
    busy = False
    wait_for_layers(page, 7)
    wait_until_settled(page)
    assert read_part(page, "progress") == ""
    assert {"depth=7" in each for each in refused} == {True}


class TestFixed:
    def test_scenarios_and_remedies_keep_what_is_fixed(self, page, url):
        open_explorer(page, url, "depth=15&init=xavier&lock=activation,depth,residual")
        page.get_by_role("button", name="Deep and rescued").click()
        wait_until_settled(page)
        view = read_view_of(page)
        assert (view.spec.activation, view.spec.depth) == ("sigmoid", 15)
        assert (view.spec.residual, view.spec.init) == ("none", "pytorch")
        page.wait_for_selector(".ex-remedy")
        residual = page.locator(".ex-remedy", has_text="Residual connections, scaled").first
        assert residual.get_by_role("button", name="apply").is_disabled()


def test_changes_of_the_network_before_are_not_offered(explorer):
    explorer.wait_for_selector(".ex-remedy")
    explorer.route("**/api/remedies?*", lambda route: None)  # never answered
    explorer.get_by_role("button", name="Exploding (ReLU + random, spread 1)").click()
    wait_until_settled(explorer)
    assert explorer.locator(".ex-remedy").count() == 0
    assert "Measuring changes" in explorer.locator("#what-to-change").inner_text()
    explorer.unroute("**/api/remedies?*")


def test_remedies_and_comparison_keep_the_number_of_networks(page, url):
    open_explorer(page, url, "depth=15&init=xavier&seeds=5")
    page.wait_for_selector(".ex-remedy")
    assert "same 5 networks" in page.locator("#what-to-change").inner_text()
    page.get_by_role("button", name="Pin to compare").click()
    wait_until_settled(page)
    assert read_part(page, "notices") == ""
    page.locator(".ex-remedy").first.get_by_role("button", name="apply").click()
    wait_until_settled(page)
    assert read_view_of(page).seeds == 5


def test_back_after_a_key_and_a_scenario(explorer):
    explorer.get_by_role("slider", name="Depth").focus()
    explorer.keyboard.press("ArrowRight")
    wait_for_layers(explorer, 16)
    wait_until_settled(explorer)
    explorer.get_by_role("button", name="Healthy (ReLU + He)").click()
    wait_for_layers(explorer, 15)
    wait_until_settled(explorer)
    explorer.go_back()
    wait_for_layers(explorer, 16)
    wait_until_settled(explorer)
    explorer.go_back()
    wait_for_layers(explorer, 15)


def test_a_slow_pinned_network_is_refined_too(page, url):
    pin = encode("depth=60&width=128&activation=relu&init=he")
    open_explorer(page, url, f"depth=5&width=8&pin={pin}")
    other = simulate(NetworkSpec(depth=60, width=128, activation="relu", init="he"), 16)
    assert read_chart(page, 3) == pytest.approx(list(other.weight_gradient_norms))
