"""The store of runs: what was written is read again, whatever happens to writer and file."""

import contextlib
import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chainrule.errors import RunFileError
from chainrule.watch import store
from chainrule.watch.reading import RunReader, find_runs
from chainrule.watch.records import ABSENT, Sample
from chainrule.watch.schema import find_lock
from chainrule.watch.store import RunWriter
from made_flows import make_chain
from made_runs import (
    make_alarm,
    make_facts,
    make_noisy_sample,
    make_noisy_steps,
    make_records,
    make_run,
    make_sample,
    make_step,
)
from waiting import PATIENCE, wait_until

KILLER = Path(__file__).parent / "kill_writers.py"


def write(path, records, tensors=4, *, resume=False, **fields):
    with RunWriter.open(path, make_facts(tensors, **fields), resume=resume) as writer:
        for record in records:
            writer.write(record)
    return RunReader(path)


def commit_when_asked(patch):
    """Have nothing committed before `flush` and `close`: then every such file is the same."""
    patch.setattr(store, "FLUSH_SECONDS", 1e6)
    patch.setattr(store, "FLUSH_STEPS", 10**9)


def is_same(one, other, error=2**-7):
    """Whether two records hold the same, norms up to a relative error."""

    def agree(name, a, b):
        if isinstance(a, np.ndarray):
            return np.allclose(a, b, rtol=error, atol=0, equal_nan=True)
        if name == "seconds":
            return abs(a - b) <= 1e-6
        if name == "layers":
            return all(is_close(x, y) for x, y in zip(a, b, strict=True))
        if isinstance(a, Mapping):
            a, b = dict(a), dict(b)
        return repr(a) == repr(b)

    names = type(one).__dataclass_fields__
    return all(agree(name, getattr(one, name), getattr(other, name)) for name in names)


def is_close(one, other):
    for name in type(one).__dataclass_fields__:
        a, b = getattr(one, name), getattr(other, name)
        if a != b and not (isinstance(a, float) and b == pytest.approx(a, rel=2**-9, nan_ok=True)):
            return False
    return True


ODD = [
    make_step(1, loss=None, scale=65536.0, skipped="gradient scaler", rates=()),
    make_step(2, loss=math.nan, total_norm=math.inf, bad_rank=3, clipped_from=8.5),
    make_step(5, grad_norms=np.array([ABSENT, 0.0, math.inf, math.nan]), total_norm=math.nan),
    make_step(6, scalars={"accuracy": 0.1, "ü": -math.inf}, rates=(0.1, 1e-300)),
    make_step(9, scalars={"accuracy": math.nan}, grad_norms=np.array([1e-300, 1e308, 1e-45, 1e9])),
]


def test_what_was_written_is_read(tmp_path):
    steps = [*ODD, *(make_step(number) for number in range(10, 700))]
    samples = [
        make_sample(1, layers=(), missing="compiled"),
        make_sample(2, update_norms=np.array([ABSENT, 0.0, math.nan, math.inf])),
        *(make_sample(number) for number in range(50, 700, 10)),
    ]
    alarms = [
        make_alarm(9, value=math.inf, bound=math.nan, evidence=()),
        make_alarm(2, summary="“ü” [x]"),
    ]
    reader = write(tmp_path / "a.db", [*steps, *samples, *alarms], created=5.0, device="cuda:0")
    assert reader.facts == make_facts(created=5.0, device="cuda:0")
    found = reader.steps()
    assert [each.step for each in found] == [each.step for each in steps]
    assert all(is_same(a, b) for a, b in zip(steps, found, strict=True))
    kept = reader.samples()
    assert all(is_same(a, b, 2**-23) for a, b in zip(samples, kept, strict=True))
    assert [each.step for each in reader.steps(after=690)] == list(range(691, 700))
    assert [each.step for each in reader.samples(after=660)] == [670, 680, 690]
    first, second = reader.alarms()
    assert second == alarms[1]
    assert is_same(first, alarms[0])
    assert (first.value, math.isnan(first.bound)) == (math.inf, True)
    assert (reader.live, reader.ended, reader.check(), reader.last_step) == (False, True, "", 699)
    with pytest.raises(ValueError, match="read-only"):
        found[3].grad_norms[0] = 1


def test_losses_and_totals_are_exact_and_norms_as_near_as_is_promised(tmp_path):
    steps = list(make_noisy_steps(900, 60, noise=0.5))
    reader = write(tmp_path / "a.db", steps, 60)
    found = reader.steps()
    for name in ("loss", "total_norm", "rates", "step"):
        assert [getattr(each, name) for each in found] == [getattr(each, name) for each in steps]
    for table in reader.iterate_step_tables():
        true = np.array([steps[number - 1].grad_norms for number in table.steps])
        error = np.abs(table.norms / true - 1)
        assert error.max() <= 2.0 ** -(table.precision + 1)
        assert 2 <= table.precision <= 6


def test_a_long_run_needs_little_room(tmp_path):
    path = tmp_path / "a.db"
    records = list(make_noisy_steps(2000, 200, noise=0.2))
    with RunWriter.open(path, make_facts(200)) as writer:
        for record in records:
            writer.write(record)
            if record.step % 50 == 0:
                writer.write(make_noisy_sample(record.step, 200, 200))
                writer.flush()  # as on a slow machine: each piece is written when it is due
    assert path.stat().st_size <= 1024 * 200 * 2
    with contextlib.closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA freelist_count").fetchone() == (0,)
    assert len(RunReader(path).steps()) == 2000


def test_a_flow_is_kept_with_its_step(tmp_path):
    flow = make_chain([1.0, 0.5])
    path = tmp_path / "a.db"
    reader = write(path, [make_sample(3, flow=flow), make_sample(4), make_sample(7, flow=flow)])
    assert reader.flow_steps() == (3, 7)
    assert reader.flow(7) == flow
    assert [each.flow for each in reader.samples()] == [None] * 3
    with pytest.raises(RunFileError, match=r"got 6.*nearest is 7"):
        reader.flow(6)
    with sqlite3.connect(path) as file:
        data = bytearray(file.execute("SELECT data FROM flows WHERE step = 3").fetchone()[0])
        data[len(data) // 2] ^= 255
        file.execute("UPDATE flows SET data = ? WHERE step = 3", (bytes(data),))
    file.close()
    with pytest.raises(RunFileError, match="step 3"):
        reader.flow(3)
    assert reader.flow(7) == flow
    assert "step 3" in RunReader(path).check()


def test_a_run_has_one_writer(tmp_path):
    path = tmp_path / "a.db"
    code = (
        "import sys, types; package = types.ModuleType('chainrule'); "
        f"package.__path__ = {list(__import__('chainrule').__path__)!r}; "
        "sys.modules['chainrule'] = package; from chainrule.errors import RunFileError\n"
        "from chainrule.watch.records import RunFacts\n"
        "from chainrule.watch.store import RunWriter\n"
        "facts = RunFacts(name='a', model='M', parameters=(), optimizers=())\n"
        f"try: RunWriter.open({str(path)!r}, facts, resume=True)\n"
        "except RunFileError as error: print(error)\n"
        "assert 'torch' not in sys.modules"
    )
    with RunWriter.open(path, make_facts()) as writer:
        writer.write(make_step(1))
        with pytest.raises(RunFileError, match="one writer"):
            RunWriter.open(path, make_facts(), resume=True)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert "one writer" in done.stdout, done.stderr
        assert RunReader(path).live
        with pytest.warns(RuntimeWarning, match=r"one writer.*training goes on"):
            other = RunWriter.open(path, make_facts(), resume=True, strict=False)
        with warnings.catch_warnings(action="error"):  # said once
            other.write(make_step(1))
            other.close()
        assert RunReader(path).live
        writer.write(make_step(2))
    assert len(RunReader(path).steps()) == 2
    assert not RunReader(path).live
    RunWriter.open(path, make_facts(), resume=True).close()


def test_it_is_read_while_it_is_written(tmp_path, monkeypatch):
    path = tmp_path / "a.db"
    with RunWriter.open(path, make_facts()) as writer:
        reader = RunReader(path)
        assert (reader.steps(), reader.live, reader.ended) == ((), True, False)
        writer.write(make_step(1))
        wait_until(lambda: reader.steps())  # after a second
        for step in range(2, 400):
            writer.write(make_step(step))
            if step % 97 == 0:
                writer.flush()
                assert [each.step for each in reader.steps()] == list(range(1, step + 1))
    assert (reader.live, reader.ended) == (False, True)


def test_fifty_steps_do_not_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "FLUSH_SECONDS", 1e6)
    path = tmp_path / "a.db"
    with RunWriter.open(path, make_facts()) as writer:
        for step in range(1, 51):
            writer.write(make_step(step))
        wait_until(lambda: len(RunReader(path).steps()) == 50)


@pytest.mark.slow
@pytest.mark.fuzz
def test_killed_writers_lose_nothing_that_was_flushed(tmp_path, fuzz_seed):
    kills = "20" if fuzz_seed else "6"
    done = subprocess.run(
        [sys.executable, str(KILLER), str(tmp_path / "a.db"), kills, str(fuzz_seed)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:2] == [kills, "kills"]


def test_a_run_goes_on_after_its_last_step(tmp_path):
    path = make_run(tmp_path / "a.db", 120)
    with RunWriter.open(path, make_facts(created=9.0, device="cuda:1"), resume=True) as writer:
        assert writer.last_step == 120
        assert writer.last_seconds == pytest.approx(120 / 64, abs=1e-6)
        for step in range(121, 200):
            writer.write(make_step(step))
    reader = RunReader(path)
    assert [each.step for each in reader.steps()] == list(range(1, 200))
    assert (reader.facts.device, reader.facts.created) == ("cuda:1", 1.7e9)
    assert len(reader.alarms()) == 1


@pytest.mark.parametrize("step", [1, 60, 61, 119, 120])
def test_a_run_that_goes_back_replaces_what_came_after(tmp_path, step):
    path = make_run(tmp_path / "a.db", 120)
    new = [make_step(step, loss=9.0), make_step(step + 1, loss=9.0), make_sample(step + 1)]
    reader = write(path, new, resume=True)
    steps = reader.steps()
    assert [each.step for each in steps] == list(range(1, step + 2))
    assert [each.loss == 9.0 for each in steps] == [False] * (step - 1) + [True] * 2
    kept = [number for number in (1, 50, 100) if number < step]
    assert [each.step for each in reader.samples()] == [*kept, step + 1]
    assert len(reader.alarms()) == (step > 60)
    assert reader.check() == ""


def test_a_run_goes_on_with_the_same_model_only(tmp_path):
    path = make_run(tmp_path / "a.db")
    before = path.read_bytes()
    with pytest.raises(RunFileError, match=r"(?s)a\.db.*3 of 4.*1\.weight.*\(2 parameters\).*none"):
        RunWriter.open(path, make_facts(2), resume=True)
    assert path.read_bytes() == before
    new = RunWriter.open(tmp_path / "new/deep/b.db", make_facts(), resume=True)
    assert new.last_step == 0
    new.close()


def test_records_that_do_not_fit_are_refused(tmp_path):
    with RunWriter.open(tmp_path / "a.db", make_facts()) as writer:
        writer.write(make_step(3))
        for record, fact in (
            (make_step(3), "above 3"),
            (replace(make_step(1), step=0), "got 0"),
            (make_step(4, tensors=3), "got 3"),
            (make_sample(4, tensors=5), "got 5"),
        ):
            with pytest.raises(RunFileError, match=fact):
                writer.write(record)
        writer.write(make_sample(2))
    assert [each.step for each in RunReader(tmp_path / "a.db").steps()] == [3]


def open_and_train(path, **settings):
    """Train on, whatever the store does, and return what was said."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        writer = RunWriter.open(path, make_facts(), strict=False, **settings)
        for record in make_records(4000):
            writer.write(record)
        writer.flush()
        writer.write(make_step(4001))
        writer.close()
    return [str(each.message) for each in said]


def test_where_nothing_can_be_written_training_goes_on(tmp_path):
    taken = make_run(tmp_path / "taken.db")
    before = taken.read_bytes()
    (tmp_path / "file").touch()
    for path, fact in (
        (taken, "resume=True"),
        (tmp_path, "must be a file"),
        (tmp_path / "file/a.db", "folder"),
        (Path("/proc/a.db"), "could not be opened"),
    ):
        if path.parts[1] == "proc" and not path.parent.exists():
            continue
        (said,) = open_and_train(path)
        assert fact in said
        assert str(path) in said
        assert "training goes on" in said
        with pytest.raises(RunFileError, match="must"):
            RunWriter.open(path, make_facts())
    assert taken.read_bytes() == before


def test_a_full_disk_is_reported_once(tmp_path, monkeypatch):
    path = tmp_path / "a.db"
    original = store.connect

    def connect(*args, **settings):
        file = original(*args, **settings)
        if args[1] == "rw":
            file.execute("PRAGMA max_page_count = 12")
        return file

    monkeypatch.setattr(store, "connect", connect)
    (said,) = open_and_train(path)
    assert "full" in said
    assert "training goes on" in said
    monkeypatch.undo()
    reader = RunReader(path)
    assert (reader.check(), reader.live, reader.ended) == ("", False, False)
    assert write(path, [make_step(5000)], resume=True).steps()[-1].step == 5000


def test_a_file_that_is_deleted_while_it_is_written_is_reported_once(tmp_path):
    for name, change in (
        ("deleted.db", lambda path: path.unlink()),
        ("moved.db", lambda path: path.rename(tmp_path / "elsewhere.db")),
        ("replaced.db", lambda path: make_run(tmp_path / "new.db").replace(path)),
    ):
        path = tmp_path / name
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            writer = RunWriter.open(path, make_facts())
            writer.write(make_step(1))
            writer.flush()
            change(path)
            for step in range(2, 300):
                writer.write(make_step(step))
            writer.flush()
            writer.close()
        (message,) = [str(each.message) for each in said]
        assert name in message
        assert "deleted, moved or replaced" in message
        assert "training goes on" in message
    # What was flushed is there again once the file is back.
    back = (tmp_path / "elsewhere.db").rename(tmp_path / "moved.db")
    assert RunReader(back).last_step == 1
    assert RunReader(tmp_path / "replaced.db").ended


FULL = """
import resource, sys
import torch
from torch import nn
from chainrule.watch.watching import watch
torch.set_num_threads(1)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # as on a disk that is full then
model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(20)])
optimizer = torch.optim.SGD(model.parameters(), 1e-3)
with watch(model, optimizer, store=sys.argv[1]) as run:
    for _ in range(1500):
        loss = model(torch.rand(2, 2)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.log(loss=loss)
print("trained", run.steps[-1].step)
"""


def test_training_goes_on_when_the_disk_takes_no_more(programs, tmp_path):
    pytest.importorskip("resource")
    path = tmp_path / "full.db"
    done = programs.run(FULL, path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "trained 1500"
    assert done.stderr.count("could not be written") == 1, done.stderr
    assert "training goes on" in done.stderr
    reader = RunReader(path)
    assert (reader.check(), reader.live, reader.ended) == ("", False, False)
    assert 0 < reader.last_step < 1500
    assert reader.steps()[-1].step == reader.last_step
    assert len(list(reader.iterate_step_tables())) > 0


def test_whatever_fails_in_the_thread_does_not_reach_the_loop(tmp_path, monkeypatch):
    def fail(*args, **settings):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(store, "write_alarm", fail)
    writer = RunWriter.open(tmp_path / "a.db", make_facts())
    writer.write(make_alarm(1))
    with pytest.warns(RuntimeWarning, match="by zero"):
        writer.flush()
    writer.close()


@pytest.mark.parametrize("waiting", ["flush", "close"])
def test_ctrl_c_while_the_disk_is_waited_for_loses_nothing(tmp_path, monkeypatch, waiting):
    original, pressed = RunWriter._insert, threading.Event()

    def insert(self, file, records):
        original(self, file, records)
        if not pressed.is_set():  # in the middle of a transaction
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            assert pressed.wait(PATIENCE)
            time.sleep(0.2)  # so that whoever does not wait for it reads too early

    commit_when_asked(monkeypatch)
    monkeypatch.setattr(RunWriter, "_insert", insert)
    path = tmp_path / "a.db"
    writer = RunWriter.open(path, make_facts())
    for step in range(1, 31):
        writer.write(make_step(step))
    with pytest.raises(KeyboardInterrupt):
        getattr(writer, waiting)()
    pressed.set()
    if waiting == "flush":
        writer.write(make_step(31))
    writer.close()
    reader = RunReader(path)
    assert not writer.failure
    assert len(reader.steps()) == (31 if waiting == "flush" else 30)
    assert (reader.check(), reader.live, reader.ended) == ("", False, True)


def test_a_writer_in_a_child_process_does_nothing(tmp_path, monkeypatch):
    with RunWriter.open(tmp_path / "a.db", make_facts()) as writer:
        monkeypatch.setattr(os, "getpid", lambda: -1)
        writer.write(make_step(1))
        writer.flush()
        writer.close()
        monkeypatch.undo()
        assert RunReader(tmp_path / "a.db").live
        writer.write(make_step(2))
    assert [each.step for each in RunReader(tmp_path / "a.db").steps()] == [2]


def test_runs_are_found_newest_first(tmp_path):
    for age, name in ((30, "a.db"), (10, "b.db"), (20, "c")):
        path = make_run(tmp_path / name, 2)
        os.utime(path, (time.time() - age, time.time() - age))
    (tmp_path / "notes.db").write_text("none")
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE a (b)").connection.close()
    assert [path.name for path in find_runs(tmp_path)] == ["b.db", "c", "a.db"]
    with pytest.raises(RunFileError, match="nowhere"):
        find_runs(tmp_path / "nowhere")


def test_what_is_no_run_is_refused_with_its_reason(tmp_path):
    other = tmp_path / "other.db"
    file = sqlite3.connect(other)
    file.execute("CREATE TABLE a (b)")
    file.close()
    text = tmp_path / "text.db"
    text.write_bytes(b"no database" * 9000)
    empty = tmp_path / "empty.db"
    empty.touch()
    for path, fact in (
        (other, "other.db is a SQLite database of another program"),
        (text, "text.db is no SQLite database"),
        (empty, "is empty"),
        (tmp_path, "must be a file"),
        (tmp_path / "lost.db", "no such file"),
    ):
        with pytest.raises(RunFileError, match=fact):
            RunReader(path)
    for path, fact in (
        (other, "another program"),
        (text, "damaged or not a run"),
        (empty, "an empty file"),
    ):
        before = path.read_bytes()
        with pytest.raises(RunFileError, match=fact):
            RunWriter.open(path, make_facts(), resume=True)
        assert path.read_bytes() == before


@pytest.mark.parametrize(("version", "fact"), [(7, "version 7. Upgrade"), (0, "has 0")])
def test_another_schema_version_is_refused(tmp_path, version, fact):
    path = make_run(tmp_path / "a.db")
    file = sqlite3.connect(path)
    file.execute(f"PRAGMA user_version = {version}")
    file.close()
    with pytest.raises(RunFileError, match=fact):
        RunReader(path)
    with pytest.raises(RunFileError, match=f"has {version}"):
        RunWriter.open(path, make_facts(), resume=True)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A run of some hundred pages."""
    path = tmp_path_factory.mktemp("runs") / "a.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_BLOCK_STEPS", (64, 64))
        commit_when_asked(patch)
        writer = RunWriter.open(path, make_facts(40))
        for record in make_noisy_steps(3000, 40):
            writer.write(record)
            if record.step % 25 == 0:
                writer.write(make_noisy_sample(record.step, 40, 20))
            if record.step % 1000 == 0:
                writer.write(make_alarm(record.step))
            if record.step % 50 == 0:
                writer.flush()
        writer.close()
    return path.read_bytes()


def read_all(path):
    """Read everything that can be read, and return how many records came, and the damage."""
    reader = RunReader(path)
    counts = len(reader.steps()), len(reader.samples()), len(reader.alarms())
    reader.flow_steps(), reader.loss_curve(50), reader.norm_map(10, 50)
    return counts, reader.check()


def test_a_file_that_is_cut_off_gives_what_is_there(tmp_path, sound):
    path = tmp_path / "a.db"
    for share in (0.99, 0.7, 0.4, 0.2):
        path.write_bytes(sound[: int(len(sound) * share)])
        (steps, _, _), damage = read_all(path)
        assert damage or steps == 3000
        assert steps > 0  # how many depends on when the writer packed them
        with pytest.raises(RunFileError, match="damaged"):
            RunWriter.open(path, make_facts(40), resume=True)
    for size in (1, 90, 5000):
        path.write_bytes(sound[:size])
        with pytest.raises(RunFileError, match=r"a\.db"):
            RunReader(path)


def test_bytes_that_were_overwritten_are_left_out_and_named(tmp_path, sound):
    generator = np.random.default_rng(1)
    path = tmp_path / "a.db"
    told = 0
    for _ in range(15):
        spoiled = bytearray(sound)
        for _ in range(generator.integers(1, 4)):
            place = int(generator.integers(4096, len(sound) - 600))
            spoiled[place : place + 512] = generator.bytes(512)
        path.write_bytes(spoiled)
        (steps, samples, _), damage = read_all(path)
        assert steps > 3000 / 2
        assert samples > 120 / 2
        told += bool(damage)
    assert told >= 8  # some hit free room


def test_any_damage_is_a_sentence(tmp_path, monkeypatch, fuzz_seed):
    commit_when_asked(monkeypatch)
    sound = make_run(tmp_path / "a.db", 300, 12).read_bytes()
    path = tmp_path / "b.db"
    generator = np.random.default_rng(fuzz_seed)
    for _ in range(30):
        spoiled = bytearray(sound)
        for _ in range(generator.integers(1, 6)):
            size = int(generator.choice([1, 4, 32, 512, 4096]))
            place, other = generator.integers(0, len(sound) - size, 2)
            pieces = generator.bytes(size), bytes(size), spoiled[other : other + size]
            spoiled[place : place + size] = pieces[generator.integers(3)]
        path.write_bytes(spoiled)
        with contextlib.suppress(RunFileError):
            counts, damage = read_all(path)
            assert damage or counts == (300, 7, 1)
        with contextlib.suppress(RunFileError):
            RunWriter.open(path, make_facts(12), resume=True).close()
        for beside in tmp_path.glob("b.db-*"):
            beside.unlink()


def test_a_damaged_first_page_costs_no_step(tmp_path, sound):
    path = tmp_path / "a.db"
    for spoil in (slice(0, 16), slice(0, 100), slice(0, 4096), slice(100, 4096)):
        spoiled = bytearray(sound)
        spoiled[spoil] = b"\xa5" * (spoil.stop - spoil.start)
        path.write_bytes(spoiled)
        counts, damage = read_all(path)
        assert counts == (3000, 120, 3)
        assert "beginning" in damage
    assert path.read_bytes() == bytes(spoiled)


def test_rows_are_found_where_sqlite_finds_none(sound, tmp_path):
    path = tmp_path / "a.db"
    path.write_bytes(sound)
    for table in ("steps", "samples", "alarms", "sessions", "flows"):
        file = sqlite3.connect(path)
        query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        root = file.execute(query, (table,)).fetchone()[0]
        file.close()
        spoiled = bytearray(sound)
        spoiled[(root - 1) * 4096 : root * 4096] = bytes(4096)
        path.write_bytes(spoiled)
        (steps, samples, alarms), damage = read_all(path)
        assert damage
        assert (steps == 3000) or table == "steps"
        assert (samples, alarms) == (120, 3) or table in {"samples", "alarms"}
        path.write_bytes(sound)


def test_what_a_killed_writer_left_beside_the_file_is_found_too(tmp_path):
    path, copy = tmp_path / "a.db", tmp_path / "b.db"
    with RunWriter.open(path, make_facts()) as writer:
        for record in make_records(300):
            writer.write(record)
        writer.flush()
        for end in ("", "-wal"):
            (tmp_path / f"b.db{end}").write_bytes((tmp_path / f"a.db{end}").read_bytes())
    spoiled = bytearray(copy.read_bytes())
    spoiled[:4096] = bytes(4096)
    copy.write_bytes(spoiled)
    assert read_all(copy)[0] == (300, 7, 0)


def test_lost_facts_leave_the_numbers(tmp_path, sound):
    path = tmp_path / "a.db"
    path.write_bytes(sound)
    file = sqlite3.connect(path)
    file.execute("UPDATE sessions SET facts = '{}'")
    file.commit()
    file.close()
    reader = RunReader(path)
    assert len(reader.facts.parameters) == 40
    assert len(reader.steps()) == 3000
    assert "names" in reader.damage


def test_a_run_can_be_read_where_nothing_can_be_written(tmp_path, monkeypatch):
    from chainrule.watch import reading

    path = make_run(tmp_path / "a.db")
    original = reading.connect

    def connect(path, mode, **settings):
        if mode == "ro":
            error = sqlite3.OperationalError("unable to open database file")
            error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
            file = original(path, mode, **settings)
            file.close()

            class Refusing:
                def execute(self, *args):
                    raise error

                def close(self):
                    pass

            return Refusing()
        return original(path, mode, **settings)

    monkeypatch.setattr(reading, "connect", connect)
    assert len(RunReader(path).steps()) == 120


def test_a_closed_run_is_one_plain_file(tmp_path):
    path = make_run(tmp_path / "a.db")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.db", find_lock(path).name]
    assert find_lock(path).stat().st_size == 0


def test_samples_of_changing_layers_are_kept(tmp_path):
    def sample(step):
        whole = make_sample(step)
        return whole if step % 3 else Sample(
            step=step, weight_norms=whole.weight_norms, update_norms=whole.update_norms,
            missing="eager replay failed",
        )  # fmt: skip

    reader = write(tmp_path / "a.db", [sample(step) for step in range(1, 60)])
    assert [bool(each.layers) for each in reader.samples()] == [bool(n % 3) for n in range(1, 60)]
    assert reader.samples()[2].missing == "eager replay failed"


def test_a_run_that_is_closed_in_its_own_thread_does_not_wait_for_itself(tmp_path, monkeypatch):
    original, closed = RunWriter._insert, threading.Event()

    def insert(self, file, records):
        original(self, file, records)
        self.close()  # as `__del__` of any object may: the garbage collector runs in any thread
        self.flush()
        closed.set()

    monkeypatch.setattr(RunWriter, "_insert", insert)
    writer = RunWriter.open(tmp_path / "a.db", make_facts())
    writer.write(make_step(1))
    assert closed.wait(PATIENCE)
    writer.close()
    reader = RunReader(tmp_path / "a.db")
    assert (len(reader.steps()), reader.live, reader.ended) == (1, False, True)


def test_where_no_thread_can_start_no_file_is_left(tmp_path, monkeypatch):
    def start(_):
        raise RuntimeError("can't start new thread")

    path = tmp_path / "a.db"
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RunFileError, match="thread"):
        RunWriter.open(path, make_facts())
    monkeypatch.undo()
    assert not path.exists()
    RunWriter.open(path, make_facts()).close()
