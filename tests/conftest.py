import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings

from browsing import launch_chromium, serve_explorer
from programs import Programs, start_programs

GOLDEN = Path(__file__).parent / "golden"

# The ordinary run is the same every time, so more examples would be the same ones again;
# `make fuzz` searches at random, again and again.
settings.register_profile(
    "ordinary", derandomize=True, database=None, deadline=None, max_examples=40
)
settings.register_profile("fuzz", derandomize=False, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ordinary"))


def _seed() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def pytest_collectstart(collector: pytest.Collector) -> None:
    """What a test file draws while it is imported is the same in every run, too."""
    if isinstance(collector, pytest.Module):
        _seed()


@pytest.fixture(scope="module", autouse=True)
def _fixed_seeds_of_a_module() -> None:
    """What a module's fixtures draw does not depend on the tests that ran before it."""
    _seed()


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    """Every test starts from the same random numbers, whichever tests ran before it."""
    _seed()


@pytest.fixture
def fuzz_seed() -> int:
    """Seed of a test that searches by itself: 0, and another in every round of `make fuzz`."""
    return int(os.environ.get("FUZZ_SEED", "0"))


@pytest.fixture(scope="session", autouse=True)
def _single_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_raises() -> Iterator[None]:
    """As in a terminal: what a shell starts in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """The address of an explorer started as a user starts it."""
    with serve_explorer() as address:
        yield address


@pytest.fixture(scope="session")
def browser():
    with launch_chromium() as chromium:
        yield chromium


@pytest.fixture(scope="session")
def programs() -> Iterator[Programs]:
    """Runs programs that need PyTorch, and not a start of their own."""
    with start_programs() as started:
        yield started


@pytest.fixture(scope="module")
def kept_page(browser) -> Iterator[Any]:
    """One page for the tests of a module; `browsing.empty` leaves it as it was for the next."""
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    yield context.new_page()
    context.close()


def pytest_addoption(parser):
    parser.addoption(
        "--update-golden", action="store_true", help="record outputs instead of comparing them"
    )


@pytest.fixture
def golden(request):
    """Return a function that compares a text with the one recorded under a name."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / f"{name}.txt"
        lines = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
        if request.config.getoption("--update-golden"):
            path.write_text(lines, encoding="utf-8")
        assert lines == path.read_text(encoding="utf-8")

    return compare
