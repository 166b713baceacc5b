"""Runs as tables for other programs."""

import csv
import math

import numpy as np
import polars
import pytest

from chainrule._utils import tables
from chainrule.errors import FlowFileError, RunFileError
from chainrule.watch.export import export_run
from chainrule.watch.reading import RunReader
from chainrule.watch.records import ABSENT
from chainrule.watch.store import RunWriter
from made_runs import make_alarm, make_facts, make_sample, make_step


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "a.db"
    with RunWriter.open(path, make_facts()) as writer:
        writer.write(make_step(1, loss=None, scalars={"accuracy": 0.5, "loss": 7.0}))
        writer.write(make_step(2, loss=math.nan, skipped="gradient scaler", bad_rank=1))
        writer.write(make_step(3, grad_norms=np.array([ABSENT, 0.0, math.inf, 2.0]), scale=8.0))
        writer.write(make_sample(2, update_norms=np.array([ABSENT, 0.0, 0.02, 0.04])))
        writer.write(make_alarm(2, summary="it, “jumped”\nhigh"))
    return RunReader(path)


def read(reader, tmp_path, what):
    path = tmp_path / f"{what}.csv"
    rows, columns = export_run(reader, path, what)
    with path.open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert (len(table), len(table[0])) == (rows, columns)
    return table


def test_every_part_of_a_run_is_a_table(reader, tmp_path):
    first, second, third = read(reader, tmp_path, "steps")
    assert (first["loss"], second["loss"], third["loss"]) == ("", "nan", repr(1 / 3))
    assert (first["accuracy"], first["logged_loss"], second["accuracy"]) == ("0.5", "7.0", "")
    assert (second["skipped"], second["bad_rank"], third["scale"]) == (
        "gradient scaler",
        "1",
        "8.0",
    )
    assert third["rate_0"] == "0.1"
    norms = read(reader, tmp_path, "norms")[2]
    assert norms == {
        "step": "3", "0.weight": "", "0.bias": "0.0", "1.weight": "inf", "1.bias": "2.0"
    }  # fmt: skip
    updates = read(reader, tmp_path, "updates")
    assert [each["update_norm"] for each in updates[:2]] == ["", "0.0"]
    assert float(updates[3]["update_ratio"]) == pytest.approx(0.02, rel=1e-6)
    layers = read(reader, tmp_path, "layers")
    assert (layers[1]["layer"], layers[1]["dead_units"]) == ("1.act", "0.25")
    assert layers[1]["saturation"] == ""
    assert read(reader, tmp_path, "alarms")[0]["summary"] == "it, “jumped”\nhigh"


def test_parquet_holds_the_same(reader, tmp_path):
    assert export_run(reader, tmp_path / "a.parquet", "norms") == (3, 5)
    frame = polars.read_parquet(tmp_path / "a.parquet")
    assert frame["0.weight"].to_list() == [1.0, 0.5, None]
    assert frame["1.weight"].to_list()[2] == math.inf
    export_run(reader, tmp_path / "b.parquet", "steps")
    assert polars.read_parquet(tmp_path / "b.parquet")["skipped"].to_list()[1] == "gradient scaler"


def test_what_cannot_be_exported_says_why(reader, tmp_path, monkeypatch):
    for path, what, error, fact in (
        ("a.txt", "steps", RunFileError, r"\.csv or \.parquet; got 'a.txt'"),
        ("a.csv", "losses", RunFileError, "norms.*got 'losses'"),
        ("lost/a.csv", "steps", FlowFileError, "lost"),
    ):
        with pytest.raises(error, match=fact):
            export_run(reader, tmp_path / path, what)
    monkeypatch.setattr(tables, "PARQUET_PACKAGES", ("no_such_package",))
    with pytest.raises(RunFileError, match="pip install pyarrow"):
        export_run(reader, tmp_path / "a.parquet")
    assert list(tmp_path.iterdir()) == []
