"""No page, light or dark, has anything that axe calls serious."""

from typing import Any

import pytest

from axe import COLOR_RULES, list_serious
from browsing import empty, watch
from chainrule.app.state.exercises import EXERCISES

pytestmark = pytest.mark.browser

PAGES = {
    "explorer": ("/", "[data-shown]", ".ex-remedy"),
    "with a pin and theory": (
        "/?depth=4&width=16&activation=relu&init=he&pin=depth%3D6&theory=1",
        "[data-part=compare-result]:not([hidden])",
        "[data-part=theory]:not([hidden])",
    ),
    "tour": (
        "/?depth=15&activation=sigmoid&init=xavier&tour=1",
        ".ex-tour:not([hidden])",
        "[data-tour='1']",
        ".ex-remedy",
    ),
    "exercise": (EXERCISES[0][1], "[data-part=guess]:not([hidden])"),
    "embedded chart": ("/?embed=gradient&depth=6", ".js-plotly-plot .point"),
    "chain": ("/chain-rule", ".cr-line, .factor"),
    "expression": ("/chain-rule?expr=x%2Bsigmoid(w*x)", "svg"),
    "lesson": ("/learn", ".js-plotly-plot .point"),
    "your model": ("/your-model", "#model-root[data-ready]"),
    "sample": ("/your-model?sample=undefined_distance", "[data-shown]"),
    "sample over time": ("/your-model?sample=lost_over_time", ".mo-time .point"),
    "runs": ("/runs", "#runs-root[data-ready]"),
    "no such page": ("/lost", "main"),
}


def leave(page: Any) -> None:
    """Leave a page when nothing is under way any more: what is cut off is no fault of the page."""
    page.wait_for_load_state("networkidle")
    empty(page)


@pytest.mark.parametrize("name", PAGES)
def test_nothing_serious_is_in_the_way_of_anybody(kept_page, url, name):
    path, *ready = PAGES[name]
    with watch(kept_page, url, expected=lambda text: "404" in text, leave=leave) as page:
        page.set_viewport_size({"width": 1280, "height": 900})
        page.emulate_media(reduced_motion="reduce")
        page.goto(f"{url}{path}")
        for selector in ready:
            page.wait_for_selector(selector, state="attached")
        found = {}
        for scheme, rules in (("light", ()), ("dark", COLOR_RULES)):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
            found[scheme] = list_serious(page, rules=rules)
        assert found == {"light": [], "dark": []}
