"""The explorer: served over HTTP, and used in a real browser."""

import os
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from chainrule import PRESETS, NetworkSpec, simulate
from chainrule.app.explore_page import DEFAULT_PRESET

CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of an explorer started as a user starts it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "chainrule", "explore", "--no-browser", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], 60)
        line = process.stdout.readline() if ready else ""
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, f"the explorer did not start: {line}{process.stdout.read() if line else ''}"
        yield found.group()
    finally:
        process.terminate()
        process.communicate(timeout=20)


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
    inputs = [{**entry, "value": values[entry["id"]]} for entry in callback["inputs"]]
    body = {
        "output": callback["output"],
        "outputs": outputs,
        "inputs": inputs,
        "state": [{**entry, "value": values.get("preset")} for entry in callback["state"]],
        "changedPropIds": ["depth.value"],
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
    ],
)
def test_hostile_values_get_a_message_and_no_traceback(url, controls):
    text = str(update(url, **controls))
    assert "must be" in text or "unknown" in text
    assert "Traceback" not in text
    assert "/src/" not in text


@pytest.fixture(scope="module")
def browser():
    executable = shutil.which("chromium")
    if executable is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is missing; install it (Debian: apt-get install chromium)")
        pytest.skip("chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, url):
    """The explorer in a browser; leaving it, nothing must have gone wrong on the page."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    page.on(
        "request",
        lambda r: None if r.url.startswith((url, "data:", "blob:")) else problems.append(r.url),
    )
    page.goto(url)
    wait_for_layers(page, PRESETS[DEFAULT_PRESET].spec.depth)
    yield page
    page.close()
    assert problems == []


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
