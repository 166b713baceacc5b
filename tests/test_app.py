"""The explorer: served over HTTP, and used in a real browser."""

import re

import httpx
import pytest

from browsing import watch
from chainrule import PRESETS, NetworkSpec, simulate
from chainrule.app.explore_layout import DEFAULT_PRESET


def update(url: str, **controls) -> dict:
    """Ask the server, as the page does, what to show for some controls."""
    values = {"depth": 15, "width": 6, "activation": "sigmoid", "init": "xavier", **controls}
    (callback,) = (
        entry
        for entry in httpx.get(f"{url}/_dash-dependencies").json()
        if "gradient-chart.figure" in entry["output"]
    )
    outputs = [
        dict(zip(("id", "property"), name.rsplit(".", 1), strict=True))
        for name in callback["output"].strip(".").split("...")
    ]
    names = ("depth", "width", "activation", "init", "preset")
    asked = [values.get(name) for name in names]
    (asked_input,) = callback["inputs"]
    body = {
        "output": callback["output"],
        "outputs": outputs,
        "inputs": [{**asked_input, "value": asked}],
        "state": [],
        "changedPropIds": ["asked.data"],
    }
    answer = httpx.post(f"{url}/_dash-update-component", json=body, timeout=60)
    answer.raise_for_status()
    return answer.json()["response"]


def test_page_answers_and_names_no_other_host(url):
    page = httpx.get(url)
    assert page.status_code == 200
    assert 'lang="en"' in page.text
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", page.text)


def test_numbers_are_simulates(url):
    figure = update(url, depth=7, width=5, activation="tanh", init="he")["gradient-chart"]["figure"]
    flow = simulate(NetworkSpec(depth=7, width=32, activation="tanh", init="he"), 16)
    assert figure["data"][1]["y"] == pytest.approx(list(flow.weight_gradient_norms), rel=1e-12)


def test_a_scenarios_other_settings_stay_in_force(url):
    preset = "Deep and rescued (100 layers, residual)"
    spec = PRESETS[preset].spec
    response = update(
        url, depth=20, width=6, activation=spec.activation, init=spec.init, preset=preset
    )
    flow = simulate(spec.replace(depth=20), 16)
    assert response["gradient-chart"]["figure"]["data"][1]["y"] == pytest.approx(
        list(flow.weight_gradient_norms), rel=1e-12
    )
    assert "residual" in response["settings-note"]["children"]


@pytest.mark.parametrize(
    "controls",
    [
        {"depth": 10**9},
        {"depth": "ten"},
        {"width": 4097},
        {"activation": "<script>"},
        {"init": None},
        {"preset": ["a", "list"], "width": 0},
        {"preset": {"a": "dictionary"}, "depth": -1},
    ],
)
def test_hostile_values_get_a_message_and_no_traceback(url, controls):
    text = str(update(url, **controls))
    assert "must be" in text or "unknown" in text
    assert "Traceback" not in text
    assert "/src/" not in text


@pytest.fixture
def page(browser, url):
    """The explorer in a browser; leaving it, nothing must have gone wrong on the page."""
    with watch(browser.new_page(viewport={"width": 1280, "height": 900}), url) as page:
        page.goto(url)
        wait_for_layers(page, PRESETS[DEFAULT_PRESET].spec.depth)
        yield page


CHART = "document.querySelector('#gradient-chart .js-plotly-plot')"


def wait_for_layers(page, count: int) -> None:
    page.wait_for_function(f"{CHART}?.data?.[1]?.x?.length === {count}", timeout=30_000)


def read_chart(page) -> list[float | None]:
    return page.evaluate(f"Array.from({CHART}.data[1].y)")


@pytest.mark.browser
def test_moving_a_slider_by_key_changes_the_chart(page):
    before = read_chart(page)
    page.get_by_role("slider", name="depth").focus()
    page.keyboard.press("ArrowRight")
    wait_for_layers(page, len(before) + 1)
    spec = PRESETS[DEFAULT_PRESET].spec.replace(depth=len(before) + 1)
    expected = list(simulate(spec, 16).weight_gradient_norms)
    assert read_chart(page) == pytest.approx(expected, rel=1e-12)
    assert page.locator("#depth-value").inner_text() == str(len(before) + 1)


@pytest.mark.browser
def test_moving_a_slider_by_mouse_changes_the_chart(page):
    thumb = page.get_by_role("slider", name="depth").bounding_box()
    x, y = thumb["x"] + thumb["width"] / 2, thumb["y"] + thumb["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 80, y, steps=8)
    page.mouse.up()
    page.wait_for_function(f"{CHART}.data[1].x.length > 20")
    page.wait_for_function(
        f"String({CHART}.data[1].x.length) === document.querySelector('#depth-value').innerText"
    )


@pytest.mark.browser
def test_page_is_live_while_a_slider_is_dragged(page):
    """Overtaken settings are skipped, so that the chart follows the drag instead of queueing."""
    page.evaluate(
        """() => {
            window.seen = new Set();
            const value = document.querySelector("#depth-value");
            new MutationObserver(() => seen.add(value.innerText)).observe(
                value, { childList: true, characterData: true, subtree: true });
        }"""
    )
    asked = []
    page.on("request", lambda r: asked.append(r) if "update-component" in r.url else None)
    thumb = page.get_by_role("slider", name="depth").bounding_box()
    x, y = thumb["x"] + thumb["width"] / 2, thumb["y"] + thumb["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(40):
        page.mouse.move(x + 3 * step, y)
        page.wait_for_timeout(20)
    page.mouse.up()
    page.wait_for_function(
        f"String({CHART}.data[1].x.length) === "
        "document.querySelector('[role=slider]').getAttribute('aria-valuenow')"
    )
    assert page.evaluate("seen.size") >= 3
    assert len(asked) <= page.evaluate("seen.size") + 2


@pytest.mark.browser
def test_a_changed_scenario_is_ones_own_and_can_be_chosen_again(page):
    page.get_by_role("slider", name="depth").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('#preset').value === ''")
    assert "Your own configuration" in page.locator("#look-at").inner_text()
    page.locator("#preset").click()
    page.get_by_role("option", name=DEFAULT_PRESET).click()
    wait_for_layers(page, PRESETS[DEFAULT_PRESET].spec.depth)
    page.wait_for_function(
        "text => document.querySelector('#look-at').innerText === text",
        arg=PRESETS[DEFAULT_PRESET].look_at,
    )


@pytest.mark.browser
def test_an_address_sets_the_controls(page, url):
    page.goto(f"{url}/?depth=7&activation=tanh&init=he&width=32")
    wait_for_layers(page, 7)
    spec = NetworkSpec(depth=7, width=32, activation="tanh", init="he")
    assert read_chart(page) == pytest.approx(list(simulate(spec, 16).weight_gradient_norms))


@pytest.mark.browser
@pytest.mark.parametrize("name", PRESETS)
def test_choosing_a_scenario_shows_its_numbers(page, name):
    preset = PRESETS[name]
    page.get_by_role("combobox", name="Scenario").or_(page.locator("#preset")).first.click()
    page.get_by_role("option", name=name).click()
    wait_for_layers(page, preset.spec.depth)
    page.wait_for_function(
        "text => document.querySelector('#look-at').innerText === text", arg=preset.look_at
    )
    card = page.locator("#cards .card").nth(3).inner_text()
    assert preset.verdict in card.lower()
    flow = simulate(preset.spec, 16)
    expected = [float(n) if 0 < n < float("inf") else None for n in flow.weight_gradient_norms]
    shown = read_chart(page)
    assert [value is None for value in shown] == [value is None for value in expected]
    assert [v for v in shown if v] == pytest.approx([v for v in expected if v], rel=1e-12)


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_phone(browser, url, scheme):
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page.goto(url)
    wait_for_layers(page, PRESETS[DEFAULT_PRESET].spec.depth)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    shown = page.evaluate("document.documentElement.dataset.mantineColorScheme")
    assert shown == scheme
    page.close()
