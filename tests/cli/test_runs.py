"""`chainrule runs`: what it prints, deletes and refuses."""

import contextlib
import json
import math
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from chainrule._utils.databases import SWEEP_MARK
from chainrule.cli.runs import COMMANDS
from chainrule.watch.store import RunWriter
from made_runs import make_alarm, make_facts, make_records, make_run, make_step


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A folder in which `runs` holds an older run and a newer one, made the present folder."""
    folder = tmp_path / "work"
    (folder / "runs").mkdir(parents=True)
    (folder / "experiments").mkdir()
    monkeypatch.chdir(folder)
    make_run(folder / "runs/exp1.db", 120)
    path = folder / "runs/exp2.db"
    facts = make_facts(name="exp2", model="Net[x]")
    with RunWriter.open(path, facts) as writer:
        for record in make_records(100):
            writer.write(record)
        writer.write(make_step(101, loss=9.0))
        writer.write(make_step(102, loss=math.nan, total_norm=math.inf))
    old = time.time() - 10 * 86_400
    os.utime(folder / "runs/exp1.db", (old, old))
    return folder / "runs"


def test_help_and_examples(run, runs):
    for name, _, examples in COMMANDS:
        code, out, err = run("runs", name, "--help", columns=80)
        assert (code, err) == (0, "")
        assert max(map(len, out.splitlines())) <= 80
        shown = re.findall(r"^ +(chainrule .*)$", out.partition("Examples:")[2], re.M)
        assert tuple(shown) == examples
        for example in examples:
            assert run(*shlex.split(example)[1:])[0] == 0, example
    out = run("runs", "--help", columns=80)[1]
    for name, _, _ in COMMANDS:
        (line,) = [line for line in out.splitlines() if line.split()[:1] == [name]]
        assert line.endswith(".")
        assert not line.endswith("...")


def test_what_is_no_run_says_what_it_is(run, runs):
    with contextlib.closing(sqlite3.connect(runs / "other.db")) as file:
        file.execute("CREATE TABLE a (b)")
    shutil.copy(runs / "other.db", runs / "sweep.db")
    with contextlib.closing(sqlite3.connect(runs / "sweep.db")) as file:
        file.execute(f"PRAGMA application_id = {SWEEP_MARK}")
    (runs / "short.db").write_bytes((runs / "exp1.db").read_bytes()[:60])
    (runs / "text.db").write_text("no run")
    (runs / "folder.db").mkdir()
    for name, fact in (
        ("other.db", "another program"),
        ("sweep.db", "chainrule sweep"),
        ("short.db", "the beginning of a SQLite database"),
        ("text.db", "no SQLite database"),
        ("folder.db", "a folder"),
    ):
        code, out, err = run("runs", "show", runs / name, columns=400)
        assert (code, out) == (2, "")
        assert fact in err
    for name, fact in (
        ("x" * 300, "There is no such file|Known"),
        ("", "RUN must be a file"),
        ("no/such/run.db", "There is no such file"),
    ):
        code, out, err = run("runs", "show", name, columns=400)
        assert (code, out) == (2, "")
        assert re.search(fact, err)
    _, _, err = run("runs", "show", "exp1", "--folder", "nowhere", columns=400)
    assert "There is no folder nowhere" in err


def test_list_names_every_run_newest_first(run, runs):
    code, out, err = run("runs", "list")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in lines] == ["run", "exp2", "exp1"]
    assert {"ended", "120", "1"} <= set(lines[2].split())
    with RunWriter.open(runs / "exp3.db", make_facts()):
        assert "running" in run("runs", "list")[1]
    (runs / "exp4.db").write_bytes((runs / "exp1.db").read_bytes()[:9000])
    listed = json.loads(run("runs", "list", runs, "--json")[1])
    states = {each["name"]: each["state"] for each in listed}
    assert states["exp3"] == "ended"
    assert [each["loss"] for each in listed if each["name"] == "exp2"] == ["NaN"]
    assert len(listed) == 4


def test_show_says_alarms_in_words(run, runs):
    code, out, err = run("runs", "show", "exp1", columns=80)
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    for fact in ("step 120", "loss 0.00833", "64 steps/s", "‖gradient‖ 0", "SGD", "ended"):
        assert fact in out
    for fact in ("step 60: spike in module 0", "The loss jumped.", "Clip the gradients."):
        assert fact in out
    (row,) = [line for line in out.splitlines() if line.startswith("loss ")]
    assert row.endswith(" 0.00833")
    assert "Net[x]" in run("runs", "show", runs / "exp2.db")[1]
    document = json.loads(run("runs", "show", "exp1", "--json")[1])
    assert document["step"] == 120
    assert document["alarms"][0]["action"] == "Clip the gradients."
    assert document["alarms"][0]["evidence"][0]["value"] == 9.0
    assert [each["name"] for each in document["blocks"]] == ["0", "1"]
    assert document["loss_curve"][0]["high"] == 1.0


def test_learning_rates_that_change_are_shown(run, runs):
    assert "learning rate" not in run("runs", "show", "exp1")[1]
    with RunWriter.open(runs / "rates.db", make_facts()) as writer:
        for step in range(1, 41):
            writer.write(make_step(step, rates=(0.1 if step < 20 else 0.001,)))
    out = run("runs", "show", "rates", columns=80)[1]
    assert "learning rate  █" in out
    assert "step 20: learning rate: 0.1 → 0.001" in out
    document = json.loads(run("runs", "show", "rates", "--json")[1])
    change = {"step": 20, "before": 0.1, "after": 0.001, "group": None}
    assert document["rate_changes"] == [change]


def test_an_empty_run_is_shown(run, runs):
    RunWriter.open(runs / "new.db", make_facts()).close()
    out = run("runs", "show", "new")[1]
    assert "No step yet" in out
    assert json.loads(run("runs", "show", "new", "--json")[1])["loss"] is None
    assert run("runs", "compare", "new", "exp1")[0] == 0


def test_compare_finds_where_two_runs_part(run, runs):
    code, out, err = run("runs", "compare", "exp1", "exp2", columns=80)
    assert (code, err) == (0, "")
    assert "from step 101 on, of 102" in out
    assert "model Sequential and Net[x]" in out
    assert "No alarm." in out
    found = json.loads(run("runs", "compare", "exp1", "exp2", "--json")[1])
    assert found["parted_at"] == 101
    assert {"step": 101, "losses": [1 / 101, 9.0]} in found["rows"]
    assert [len(each) for each in found["alarms"]] == [1, 0]
    same = run("runs", "compare", "exp1", "exp1")[1]
    assert "same at all 120" in same


def test_export_says_what_it_wrote(run, runs, tmp_path):
    code, out, err = run("runs", "export", "exp1", "-o", tmp_path / "a.csv", "--what", "alarms")
    assert (code, out) == (0, "")
    assert "1 rows, 9 columns" in err
    before = (runs / "exp1.db").read_bytes()
    code, _, err = run("runs", "export", "exp1", "-o", "runs/exp1.db")
    assert code == 2
    assert (runs / "exp1.db").read_bytes() == before


def test_prune_deletes_only_what_it_says(run, runs):
    with RunWriter.open(runs / "live.db", make_facts()) as writer:
        writer.write(make_alarm(1))
        writer.flush()
        os.utime(runs / "live.db", (1, 1))
        os.utime(runs / "live.db-wal", (1, 1))
        code, out, err = run("runs", "prune", "--older-than", "5")
        assert (code, out) == (0, "would delete runs/exp1.db\n")
        assert "Kept runs/live.db: it is being written." in err
        assert (runs / "exp1.db").exists()
        document = json.loads(run("runs", "prune", "--older-than", "5", "--yes", "--json")[1])
        assert document["runs"] == ["runs/exp1.db"]
        assert document["bytes"] > 10_000
        assert (runs / "live.db").exists()
    assert sorted(each.stem for each in runs.glob("*.db")) == ["exp2", "live"]
    assert run("runs", "prune", "--keep", "0", "--yes")[0] == 0
    assert list(runs.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        ("show exp9", ["'exp9'", "exp1", "runs"]),
        ("show exp1 --follow --json", ["--follow", "--json"]),
        ("list nowhere", ["nowhere"]),
        ("compare exp1 exp7", ["'exp7'"]),
        ("export exp1 -o a.txt", [".csv", "'a.txt'"]),
        ("export exp1 -o a.csv --what all", ["'all'", "norms"]),
        ("prune", ["--keep", "--older-than"]),
        ("prune --keep -1", ["--keep"]),
        ("show notes.db", ["notes.db"]),
        ("show empty.db", ["empty"]),
    ],
)
def test_errors_say_what_must_hold(run, runs, words, facts):
    (runs.parent / "notes.db").write_text("none of ours" * 1000)
    (runs.parent / "empty.db").touch()
    code, out, err = run("runs", *words.split())
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    for fact in facts:
        assert fact in err


def test_damage_is_said_beside_the_rest(run, runs):
    path = runs / "exp1.db"
    spoiled = bytearray(path.read_bytes())
    spoiled[:100] = bytes(100)
    path.write_bytes(spoiled)
    code, out, err = run("runs", "show", path)
    assert code == 0
    assert "step 120" in out
    assert "damaged" in err


def test_names_do_not_act_on_the_terminal(run, runs):
    with RunWriter.open(runs / "odd.db", make_facts(model="a\x1b[2J[/bold]")) as writer:
        writer.write(make_step(1))
        writer.write(make_alarm(1, summary="\x1b[31m[red]", layer="b\x07"))
    out = run("runs", "show", "odd")[1]
    assert "\x1b" not in out
    assert "[/bold]" in out
    assert "[red]" in out


def test_a_run_is_followed_line_by_line_until_it_ends(runs):
    path = runs / "live.db"
    writer = RunWriter.open(path, make_facts())
    for record in make_records(10):
        writer.write(record)
    writer.flush()
    command = [sys.executable, "-m", "chainrule", "runs", "show", "live", "--follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        first = follower.stdout.readline()
        assert first.startswith("step 10 ")
        writer.write(make_step(11, grad_norms=np.full(4, 3.0)))
        writer.write(make_alarm(11))
        writer.flush()
        rest = [follower.stdout.readline() for _ in range(5)]
        writer.close()
        rest += follower.stdout.read().splitlines(keepends=True)
    assert follower.returncode == 0
    text = "".join(rest)
    assert "step 11 " in text
    assert "step 11: spike in module 0" in text
    assert "Clip the gradients." in text
    assert text.endswith("The run has ended.\n")


def test_files_that_cannot_be_read_are_listed_with_the_reason(run, runs):
    (runs / "zero.db").touch()
    (runs / "noise.db").write_bytes(bytes(range(256)) * 64)
    sqlite3.connect(runs / "other.db").execute("CREATE TABLE a (b)").connection.close()
    code, out, err = run("runs", "list")
    assert code == 0
    states = {line.split()[0]: line.split()[1] for line in out.splitlines()}
    assert states["zero"] == states["noise"] == "unreadable"
    assert "other" not in states
    assert re.search(r"zero\.db.* empty", err)
    assert "noise.db" in err
    found = json.loads(run("runs", "list", "--json")[1])
    assert {each["name"] for each in found if each["state"] == "unreadable"} == {"zero", "noise"}
    for name in ("zero", "noise"):
        code, out, err = run("runs", "show", name)
        assert code != 0
        assert f"{name}.db is there, but it cannot be read" in " ".join(err.split())
    assert run("runs", "prune", "--keep", "0", "--yes")[0] == 0
    assert {each.name for each in runs.glob("*.db")} >= {"zero.db", "noise.db"}
