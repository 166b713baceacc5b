import csv
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from chainrule.sweeps.measuring import measure_cell
from chainrule.sweeps.pools import GivenPool
from chainrule.sweeps.records import Outcome


def open_threads(executor, processes, cells):
    return GivenPool(ThreadPoolExecutor(1))


@pytest.fixture
def draw(run):
    return lambda *words: run("map", *words, "--set", "width=8", "--seeds", "1", "--processes", "1")


AXES = ("--axis", "weight_scale=0.5,2.8", "--axis", "depth=2,30")


def test_a_map_is_drawn_kept_and_written(draw, tmp_path):
    store, table = tmp_path / "a.db", tmp_path / "a.csv"
    code, out, err = draw(*AXES, "--store", store, "--csv", table)
    assert code == 0
    top, foot = (line for line in out.splitlines() if "│" in line)
    assert top.split() == ["30", "│-", "+"]
    assert foot.split() == ["2", "│·", "·"]
    assert "σ_w" in out
    with open(table, newline="") as file:
        assert [(row["x"], row["y"]) for row in csv.DictReader(file)] == [
            ("0.5", "2"), ("2.8", "2"), ("0.5", "30"), ("2.8", "30"),
        ]  # fmt: skip
    code, out, err = draw(*AXES, "--store", store, "--json")
    assert code == 0
    assert "4 of them from the store" in err
    assert [cell["depth"] for cell in json.loads(out)["cells"]] == [2, 2, 30, 30]


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        (("--axis", "depth=2,3"), "two axes"),
        (("--axis", "depth=2", "--axis", "weight=2"), "weight_scale"),
        ((*AXES, "--train", "lion"), "sgd"),
        ((*AXES, "--limit", "3"), "limit=4"),
        ((*AXES, "--csv", "a.txt"), ".csv"),
        ((*AXES, "--parquet", "a.csv"), ".parquet"),
        ((*AXES, "--steps", "5"), "--train"),
        ((*AXES, "--retry-failed"), "--store"),
        ((*AXES, "--set", "init=he"), "init"),
        ((*AXES, "--set", "depth=3"), "not both"),
        ((*AXES, "--dask", "tcp://x:1"), "--processes"),
    ],
)
def test_what_cannot_be_says_why(draw, words, fact):
    code, out, err = draw(*words)
    assert (code, out) == (2, "")
    assert fact in err


def test_cells_that_fail_are_said_with_their_place(draw, monkeypatch):
    def fail(cell):
        if cell.spec.depth == 3:
            return Outcome(error="It was too deep."), 0.0
        return measure_cell(cell)

    monkeypatch.setattr("chainrule.sweeps.pools.measure_cell", fail)
    monkeypatch.setattr("chainrule.sweeps.running.open_pool", open_threads)
    code, out, err = draw("--axis", "weight_scale=0.5,1", "--axis", "depth=2,3")
    assert code == 3
    assert "?" in out
    assert "2 of 4 cells" in err
    assert "weight_scale=0.5, depth=3 and 1 more: It was too deep." in err
