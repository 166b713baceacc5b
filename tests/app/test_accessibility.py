"""No page, light or dark, has anything that axe calls serious."""

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from browsing import PATIENCE, empty, watch
from chainrule.app.state.exercises import EXERCISES

pytestmark = pytest.mark.browser

PAGES = {
    "explorer": ("/", "[data-shown]"),
    "with a pin": (
        "/?depth=6&activation=relu&init=he&pin=depth%3D6",
        "[data-part=compare-result]:not([hidden])",
    ),
    "theory": ("/?depth=4&width=16&theory=1", "[data-part=theory]:not([hidden])"),
    "tour": ("/?tour=1", ".ex-tour:not([hidden])"),
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


def list_serious(page: Any, scheme: str) -> list[str]:
    """Return what is serious; in the dark only colors differ, so only contrast is looked at."""
    rules = {"runOnly": ["color-contrast", "link-in-text-block"]} if scheme == "dark" else {}
    return [
        f"{violation['id']}: {node['html'][:160]}"
        for violation in Axe().run(page, options=rules).response["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def leave(page: Any) -> None:
    """Leave a page when nothing is under way any more: what is cut off is no fault of the page."""
    page.wait_for_load_state("networkidle")
    empty(page)


@pytest.mark.parametrize("name", PAGES)
def test_nothing_serious_is_in_the_way_of_anybody(kept_page, url, name):
    path, ready = PAGES[name]
    with watch(kept_page, url, expected=lambda text: "404" in text, leave=leave) as page:
        page.set_default_timeout(PATIENCE)
        page.set_viewport_size({"width": 1280, "height": 900})
        page.emulate_media(reduced_motion="reduce")
        page.goto(f"{url}{path}")
        page.wait_for_selector(ready)
        found = {}
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
            found[scheme] = list_serious(page, scheme)
        assert found == {"light": [], "dark": []}
