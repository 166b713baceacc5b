import csv
import json

import pytest

from chainrule.cli.sweep import COLORS
from chainrule.report.sweep_report import METRICS


@pytest.fixture
def sweep(run, tmp_path):
    return lambda *words: run(
        "sweep", *words, "--set", "width=4", "--seeds", "1", "--processes", "1"
    )


def test_a_sweep_is_kept_and_goes_on(sweep, tmp_path):
    store, table = tmp_path / "a.db", tmp_path / "a.csv"
    code, out, err = sweep("--axis", "depth=2,3", "--store", store, "--json")
    assert code == 0
    assert [row["depth"] for row in json.loads(out)] == [2, 3]
    code, out, err = sweep("--axis", "depth=2,3", "--store", store, "--csv", table)
    assert code == 0
    assert "2 of them from the store" in err
    assert "verdict" in out
    with open(table, newline="") as file:
        assert [row["depth"] for row in csv.DictReader(file)] == ["2", "3"]


def test_a_page_is_written(sweep, tmp_path):
    place = tmp_path / "page.html"
    axes = ("--axis", "depth=2,3", "--axis", "init=he,xavier")
    code, _, err = sweep(*axes, "--report", place, "--columns", "init", "--color", "loss")
    assert code == 0
    assert str(place) in err.replace("\n", "")
    assert "init he, depth 2" in place.read_text(encoding="utf-8")


def test_what_can_be_shown_is_what_the_page_shows():
    assert tuple(METRICS) == COLORS


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        ((), "--axis"),
        (("--axis", "depth=2.."), "2.."),
        (("--axis", "deph=2"), "depth"),
        (("--axis", "depth=2..9", "--limit", "3"), "--limit 8"),
        (("--axis", "depth=2", "--axis", "depth=3"), "once"),
        (("--axis", "width=2"), "not both"),
        (("--axis", "depth=2", "--csv", "a.txt"), ".csv"),
        (("--axis", "depth=2", "--train", "lion"), "sgd"),
        (("--axis", "depth=2", "--color", "los"), "loss"),
        (("--axis", "depth=2", "--rows", "depth"), "--report"),
        (("--axis", "depth=2", "--report", "a.html", "--rows", "dept"), "depth"),
        (("--axis", "depth=2", "--dask", "tcp://x:1"), "--processes"),
    ],
)
def test_what_cannot_be_says_why(sweep, words, fact):
    code, out, err = sweep(*words)
    assert (code, out) == (2, "")
    assert fact in err
