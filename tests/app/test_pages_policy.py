"""The pages in a real browser with their Content-Security-Policy in force."""

import pytest

from browsing import PATIENCE, watch

pytestmark = pytest.mark.browser

DRAWN = {
    "": "#gradient-chart .main-svg",
    "?depth=3&width=8&embed=gradient": "#gradient-chart .main-svg",
    "chain-rule": "#graph-title",
    "learn": "#gradient-chart .main-svg",
    "your-model": "#model-root[data-ready]",
    "runs": "#runs-root[data-ready]",
}
"""What shows that the scripts of a page have done their work."""


def leave(page) -> None:
    page.goto("about:blank")  # what runs on the page ends


@pytest.fixture(scope="module")
def guarded(browser):
    """A page on which the policy is in force."""
    page = browser.new_page(bypass_csp=False)
    yield page
    page.close()


@pytest.mark.parametrize("address", DRAWN)
def test_every_page_works_under_its_policy(guarded, url, address):
    with watch(guarded, url, leave=leave) as page:
        page.goto(f"{url}/{address}", timeout=PATIENCE)
        page.wait_for_selector(DRAWN[address], state="attached", timeout=PATIENCE)


def test_the_policy_forbids_scripts_from_elsewhere_and_in_the_page(guarded, url):
    def is_expected(problem: str) -> bool:
        return "Content Security Policy" in problem

    with watch(guarded, url, expected=is_expected, leave=leave) as page:
        page.goto(f"{url}/your-model", timeout=PATIENCE)
        page.wait_for_selector("#model-root[data-ready]", timeout=PATIENCE)
        page.evaluate(
            """() => {
                const script = document.createElement("script");
                script.textContent = "window.attacked = true";
                document.body.append(script);
            }"""
        )
        assert page.evaluate("() => window.attacked") is None
