import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from chainrule.cli.cells import SOME_FAILED
from chainrule.cli.sweep import COLORS
from chainrule.report.sweep_report import METRICS
from waiting import PATIENCE


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
        (("--axis", "depth=2", "--steps", "5"), "--train"),
        (("--axis", "depth=2", "--retry-failed"), "--store"),
        (("--axis", "depth=2", "--rescue", "a.db"), "--store"),
        (("--axis", "depth=2", "--limit", "0"), "--limit"),
        (("--axis", "depth=2", "--set", "width=5"), "once"),
        (("--axis", "depth=2", "--set", "seed="), "NAME=VALUE"),
        (("--axis", "depth=2", "--store", "a.csv", "--csv", "a.csv"), "different file"),
        (("--axis", "weight_scale=1", "--axis", "init=he"), "init"),
        (("--axis", "weight_scale=1", "--set", "weight_std=2"), "weight_std"),
        (("--axis", "weight_scale=-1"), "weight_scale=-1"),
        (("--axis", "weight_scale=nan"), "at least 0"),
    ],
)
def test_what_cannot_be_says_why(sweep, words, fact):
    code, out, err = sweep(*words)
    assert (code, out) == (2, "")
    assert fact in err


def test_the_weight_scale_is_an_axis_and_goes_with_the_width(run, tmp_path):
    table, page, store = (tmp_path / name for name in ("a.csv", "a.html", "a.db"))
    words = ("--axis", "weight_scale=1,1.5", "--axis", "width=4,16", "--set", "depth=2")
    words += ("--seeds", "1", "--processes", "1", "--store", store)
    code, out, _ = run("sweep", *words, "--csv", table, "--report", page)
    assert code == 0
    head, *rows = (line.split() for line in out.splitlines())
    assert head[:3] == ["weight_scale", "width", "verdict"]
    assert [row[:2] for row in rows] == [["1", "4"], ["1", "16"], ["1.5", "4"], ["1.5", "16"]]
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["weight_std"]) for row in rows] == [0.5, 0.25, 0.75, 0.375]
    assert {row["init"] for row in rows} == {"random"}
    text = page.read_text(encoding="utf-8")
    assert "over weight scale and width" in text or "over width and weight scale" in text
    fixed = ("--axis", "width=4,16", "--set", "weight_scale=1.5", "--set", "depth=2")
    code, _, err = run("sweep", *fixed, *words[6:])
    assert code == 0
    assert "2 of them from the store" in err  # the same networks have the same address


FACTORIES = """
from torch import nn

def build(width):
    if width > 4:
        raise ValueError(f"too wide: {width}")
    model = nn.Linear(2, width)
    return model, lambda model: model.weight.square().sum()
"""


def test_cells_that_fail_end_with_a_code_of_their_own(start, tmp_path):
    (tmp_path / "some.py").write_text(FACTORIES)
    words = ("sweep", "some.py:build", "--axis", "width=2,5,6", "--processes", "1")
    done = start(*words, "--json", "--csv", "a.csv", "--store", "a.db")
    assert done.returncode == 3
    rows = json.loads(done.stdout)
    assert [row["status"] for row in rows] == ["measured", "failed", "failed"]
    assert "2 of 3 cells" in done.stderr
    assert "width=5" in done.stderr
    assert "too wide: 6" in done.stderr
    line = FACTORIES.splitlines().index('        raise ValueError(f"too wide: {width}")') + 1
    assert f"some.py, line {line}, in build: raise ValueError" in done.stderr
    assert "--retry-failed" in done.stderr
    with open(tmp_path / "a.csv", newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == [row["status"] for row in rows]
    again = start(*words, "--store", "a.db")
    assert again.returncode == 3
    assert "3 of them from the store" in again.stderr


def test_an_argument_called_as_a_value_is_no_value(start, tmp_path):
    (tmp_path / "other.py").write_text(
        "from torch import nn\n\n"
        "def build(loss, verdict):\n"
        "    scale = {'mse': 2.0, 'huber': 3.0}[loss]\n"
        "    model = nn.Linear(2, 2)\n"
        "    return model, lambda m: scale * m.weight.square().sum()\n"
    )
    words = ("sweep", "other.py:build", "--axis", "loss=mse,huber,l1", "--axis", "verdict=5,6")
    done = start(*words, "--processes", "1", "--csv", "a.csv")
    assert done.returncode == 3
    head, *lines = (line.split() for line in done.stdout.splitlines())
    assert head[:3] == ["loss", "verdict", "verdict"]
    pairs = [[loss, verdict] for loss in ("mse", "huber", "l1") for verdict in "56"]
    assert [line[:2] for line in lines] == pairs
    assert "loss=l1, verdict=5" in done.stderr
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [[row["setting_loss"], row["setting_verdict"]] for row in rows] == pairs
    assert [bool(row["loss"]) for row in rows] == [True] * 4 + [False] * 2


ENDLESS = """
import time
from torch import nn

def build(width):
    time.sleep(0.05)
    model = nn.Linear(2, 2)
    return model, lambda model: model.weight.square().sum()
"""


def test_ctrl_c_at_any_moment_prints_no_traceback(tmp_path):
    (tmp_path / "some.py").write_text(ENDLESS)
    words = ["sweep", "some.py:build", "--axis", "width=1..600", "--processes", "1"]
    program = subprocess.Popen(
        [sys.executable, "-m", "chainrule", *words],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )
    assert "0 of 600" in program.stderr.readline()  # its process starts now, and loads PyTorch
    time.sleep(0.2)
    os.killpg(program.pid, signal.SIGINT)
    _, err = program.communicate(timeout=PATIENCE)
    assert program.returncode == 130
    assert "Traceback" not in err
    assert "--store" in err
    assert err.endswith("Interrupted.\n")


def test_in_a_narrow_window_no_word_is_cut(run):
    words = ("sweep", "--axis", "depth=2,3", "--axis", "normalization=none,layernorm")
    words += ("--set", "width=4", "--seeds", "1", "--processes", "1")
    code, out, _ = run(*words, columns=40)
    assert code == 0
    assert "…" not in out
    assert out.count("layernorm") == 2


def test_the_exit_code_of_failed_cells_is_in_the_help(run):
    for words in ((), ("sweep",), ("map",)):
        code, out, _ = run(*words, "--help")
        assert code == 0
        assert str(SOME_FAILED) in out


def test_a_damaged_store_is_rescued_into_another(sweep, tmp_path):
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    axis = ("--axis", "depth=1..9")
    assert sweep(*axis, "--store", old)[0] == 0
    old.write_bytes(old.read_bytes()[:30_000])
    before = old.read_bytes()
    code, out, err = sweep(*axis, "--store", old)
    assert (code, out) == (2, "")
    assert "--rescue" in err
    code, _, err = sweep(*axis, "--store", new, "--rescue", old)
    assert code == 0
    assert f"of {old}" in err.replace("\n", "")
    assert "of them from the store" in err
    assert old.read_bytes() == before
