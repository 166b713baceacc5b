"""The tutorial: its code runs, and prints what the page says."""

import contextlib
import io
import re
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")


LOSS = re.compile(r"(?<=after training: )\d+\.\d")


def assert_same(printed: str, block: str) -> None:
    """A loss after training may differ by 0.1: processors round differently."""
    assert LOSS.sub("", printed) == LOSS.sub("", block)
    for found, said in zip(LOSS.findall(printed), LOSS.findall(block), strict=True):
        assert float(found) == pytest.approx(float(said), abs=0.101)


def test_it_runs_as_written(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.path", list(sys.path))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    printed = io.StringIO()
    names: dict[str, object] = {"__name__": "tutorial"}
    try:
        for kind, block in re.findall(r"```(python|text)\n(.*?)```", TEXT, re.DOTALL):
            if kind == "python":
                with contextlib.redirect_stdout(printed):
                    exec(compile(block, "tutorial.md", "exec"), names)
            else:
                assert_same(printed.getvalue(), block)
                printed = io.StringIO()
    finally:
        torch.set_num_threads(threads)
    assert printed.getvalue() == ""


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)]+)\)", TEXT))
def test_links_lead_somewhere(target):
    assert (ROOT / "docs" / target).is_file()
