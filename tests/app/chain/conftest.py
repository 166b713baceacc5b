"""The chain-rule page in a browser."""

import pytest

from browsing import PATIENCE, empty, watch
from chain_page import visit


@pytest.fixture
def context(kept_page):
    """Where further pages can be opened."""
    return kept_page.context


@pytest.fixture
def page(kept_page, url):
    """An empty page; leaving it, nothing must have gone wrong on it."""
    with watch(kept_page, url, leave=empty) as page:
        page.set_viewport_size({"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE)
        yield page


@pytest.fixture
def shown(page, url):
    """The page with the chain it starts with."""
    return visit(page, url)
