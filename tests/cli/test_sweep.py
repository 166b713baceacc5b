import csv
import json

import pytest


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
        (("--axis", "depth=2", "--dask", "tcp://x:1"), "--processes"),
    ],
)
def test_what_cannot_be_says_why(sweep, words, fact):
    code, out, err = sweep(*words)
    assert (code, out) == (2, "")
    assert fact in err
