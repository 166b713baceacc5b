import csv
import math

import polars
import pytest

from chainrule.errors import SweepError
from chainrule.sweeps import CellResult, Measured, Outcome, Sweep
from chainrule.sweeps.records import read_outcome, write_outcome

MEASURED = Measured(
    verdict="exploding",
    rules=("a", "b"),
    loss=math.inf,
    gradient_norm=None,
    gradient_ratio=0.1 + 0.2,
    delta_ratio=-math.inf,
    weight_gradient_norms=(1e-310, None, math.nan),
    delta_norms=(),
    sgd=None,
    adam=0.25,
)


def make(outcome, **settings):
    return CellResult(address="a", settings=settings, seed=0, seeds=1, outcome=outcome)


def test_an_outcome_is_read_back_bit_for_bit():
    text = write_outcome(Outcome(measured=MEASURED))
    again = read_outcome(text)
    assert repr(again) == repr(Outcome(measured=MEASURED))
    assert write_outcome(again) == text


def test_rows_have_the_same_columns_in_every_format(tmp_path):
    sweep = Sweep(
        (make(Outcome(measured=MEASURED), width=2), make(Outcome(error="No."), width=3, kind="b"))
    )
    rows = sweep.to_records()
    assert [list(row) for row in rows] == [list(rows[0])] * 2
    assert [row["status"] for row in rows] == ["measured", "failed"]
    assert [row["width"] for row in rows] == [2, 3]
    assert sweep.write(tmp_path / "a.csv") == 2
    with open(tmp_path / "a.csv", newline="") as file:
        assert float(next(csv.DictReader(file))["gradient_ratio"]) == 0.1 + 0.2
    assert sweep.write(tmp_path / "a.parquet") == 2
    assert polars.read_parquet(tmp_path / "a.parquet")["loss"].to_list() == [math.inf, None]
    assert sweep.to_json()[0]["loss"] == "Infinity"
    with pytest.raises(SweepError, match=r"\.csv or \.parquet"):
        sweep.write(tmp_path / "a.txt")


def test_an_argument_may_be_called_as_any_column():
    columns = list(make(Outcome(measured=MEASURED)).to_record())
    row = make(Outcome(measured=MEASURED), **dict.fromkeys(columns, "mine")).to_record()
    assert [row[f"setting_{name}"] for name in columns] == ["mine"] * len(columns)
    assert "mine" not in [row[name] for name in columns]


def test_an_argument_called_as_a_value_has_a_column_of_its_own(tmp_path):
    given = {"loss": "mse", "seed": 7, "verdict": True, "training_loss": 0.5, "width": 2}
    sweep = Sweep((make(Outcome(measured=MEASURED), **given), make(Outcome(error="No."), **given)))
    rows = sweep.to_records()
    for row in rows:
        assert {name: row[f"setting_{name}"] for name in given if name != "width"} == {
            name: value for name, value in given.items() if name != "width"
        }
        assert (row["width"], row["seed"], row["training_loss"]) == (2, 0, None)
    assert [row["loss"] for row in rows] == [math.inf, None]
    assert [row["verdict"] for row in rows] == ["exploding", None]
    assert [each.read_setting("loss") for each in sweep] == ["mse", "mse"]
    assert sweep.write(tmp_path / "a.csv") == 2
    with open(tmp_path / "a.csv", newline="") as file:
        assert next(csv.DictReader(file))["setting_loss"] == "mse"


def test_a_column_with_text_in_it_is_text_and_numbers_stay_numbers(tmp_path):
    given = ((1, 1, "a"), (0.5, "auto", "b"), (None, None, "a"))
    failed = Outcome(error="No.")
    sweep = Sweep(
        tuple(make(failed, rate=rate, size=size, kind=kind) for rate, size, kind in given)
    )
    assert sweep.write(tmp_path / "a.parquet") == 3
    frame = polars.read_parquet(tmp_path / "a.parquet")
    assert frame["rate"].to_list() == [1.0, 0.5, None]
    assert frame["size"].to_list() == ["1", "auto", None]
    assert frame["kind"].to_list() == ["a", "b", "a"]


def test_a_sweep_of_no_cells_is_a_table_without_rows(tmp_path):
    for name in ("a.csv", "a.parquet"):
        assert Sweep(()).write(tmp_path / name) == 0
    assert (tmp_path / "a.csv").read_text().split() == ["address"]
    assert polars.read_parquet(tmp_path / "a.parquet").shape == (0, 1)
