from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from browsing import launch_chromium, serve_explorer

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session", autouse=True)
def _single_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """The address of an explorer started as a user starts it."""
    with serve_explorer() as address:
        yield address


@pytest.fixture(scope="session")
def browser():
    with launch_chromium() as chromium:
        yield chromium


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
