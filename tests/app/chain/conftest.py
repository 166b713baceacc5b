"""The chain-rule page in a browser."""

import pytest

from browsing import PATIENCE, watch
from chain_page import visit


@pytest.fixture(scope="module")
def context(browser):
    """One context for the module, so that scripts are loaded once."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 900},
        permissions=["clipboard-read", "clipboard-write"],
    )
    yield context
    context.close()


@pytest.fixture
def page(context, url):
    """An empty page; leaving it, nothing must have gone wrong on it."""
    with watch(context.new_page(), url) as page:
        page.set_default_timeout(PATIENCE)
        yield page


@pytest.fixture
def shown(page, url):
    """The page with the chain it starts with."""
    return visit(page, url)
