import contextlib
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial

import pytest
import torch

import chainrule
from chainrule._utils.databases import RUN_MARK, connect
from chainrule.errors import SweepError
from chainrule.spec.network_spec import NetworkSpec
from chainrule.sweeps import (
    FactoryCell,
    SpecCell,
    Training,
    make_factory_grid,
    make_grid,
    run,
    running,
)
from chainrule.sweeps.pools import Pool, _hold_interrupt
from chainrule.sweeps.records import Progress
from chainrule.sweeps.store import SweepStore, rescue_store
from sweep_factories import build, build_slowly, die_at, fail_at, interrupt_at, tell_threads
from waiting import wait_until

SPEC = NetworkSpec(width=8, activation="tanh", init="xavier")


@pytest.fixture
def threads():
    with ThreadPoolExecutor(2) as executor:
        yield executor


def test_a_cell_is_measured_as_by_simulate_and_beside_theory(threads):
    spec = SPEC.replace(depth=3, width=64)
    (result,) = run([SpecCell(spec, 4, Training(steps=5))], threads)
    flow = chainrule.simulate(spec, 4)
    measured, foreseen, trained = (
        getattr(result.outcome, name) for name in ("measured", "foreseen", "trained")
    )
    assert measured.weight_gradient_norms == tuple(map(float, flow.weight_gradient_norms))
    assert measured.gradient_ratio == float(flow.gradient_ratio)
    diagnosis = chainrule.diagnose(flow)
    chances = diagnosis.viability.sgd.probability, diagnosis.viability.adam.probability
    assert (measured.sgd, measured.adam) == chances
    assert chances[0] != chances[1]
    assert measured.verdict == str(diagnosis.verdict)
    assert list(foreseen.weight_gradient_bands) == chainrule.theory.predict(spec, 4).list_bands()
    assert trained.steps == 5
    assert not trained.trained


def test_a_factory_is_measured_as_by_inspect_and_draws_from_its_seed(threads):
    state = torch.get_rng_state(), random.getstate(), torch.get_num_threads()
    first, second = run([FactoryCell(build, {"width": 4}, seed) for seed in (1, 2)], threads)
    assert torch.equal(state[0], torch.get_rng_state())
    assert state[1:] == (random.getstate(), torch.get_num_threads())
    with torch.random.fork_rng():
        torch.manual_seed(1)
        flow = chainrule.inspect(*build(4))
    assert first.outcome.measured.loss == float(flow.loss)
    assert first.outcome.measured.loss != second.outcome.measured.loss


def test_results_are_the_same_bits_whatever_measures_them(threads, tmp_path):
    cells = [
        *make_grid({"depth": [2, 4], "activation": ["relu", "gelu"]}, SPEC, seeds=2),
        *make_factory_grid(tell_threads, {"width": [2, 3]}, seeds=(0, 1)),
    ]
    sweeps = [run(cells, threads), run(cells, processes=1), run(cells, processes=2)]
    run(cells[:3], threads, store=tmp_path / "a.db")
    sweeps.append(run(cells, threads, store=tmp_path / "a.db"))
    sweeps.append(run(cells, threads, store=tmp_path / "a.db"))
    assert all(sweep == sweeps[0] for sweep in sweeps)
    assert not sweeps[0].failed
    assert [each.kept for each in sweeps[-2]] == [True] * 3 + [False] * 5
    assert all(each.kept for each in sweeps[-1])


def test_what_a_store_has_is_not_measured_again(threads, tmp_path):
    log, store = tmp_path / "log", tmp_path / "deep/a.db"
    cells = make_factory_grid(build, {"width": [1, 2, 3]}, arguments={"log": str(log)})
    run([cells[0], cells[0]], threads, store=store)
    seen = []
    run(cells, threads, store=store, progress=seen.append)
    assert sorted(log.read_text().split()) == ["1", "2", "3"]
    assert (seen[0].done, seen[0].kept, seen[0].total) == (1, 1, 3)
    assert (seen[-1].done, seen[-1].seconds_left) == (3, 0.0)


def test_an_error_is_the_result_of_its_cell(threads, tmp_path):
    cells = make_factory_grid(fail_at, {"width": [1, 2, 3]}, arguments={"bad": 2})
    sweep = run(cells, threads, store=tmp_path / "a.db")
    assert [each.status for each in sweep] == ["measured", "failed", "measured"]
    assert "ValueError: a bad width" in sweep.failed[0].outcome.error
    again = run(cells, threads, store=tmp_path / "a.db")
    assert again == sweep
    assert [each.kept for each in again] == [True, True, True]
    retried = run(cells, threads, store=tmp_path / "a.db", retry_failed=True)
    assert [each.kept for each in retried] == [True, False, True]


def test_all_processes_start_at_once():
    """Each loads PyTorch for seconds: one after the other, they would cost a sweep twice that."""
    pool = Pool(2)
    try:
        assert len(multiprocessing.active_children()) == 2
    finally:
        pool.stop()
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_is_reported_and_its_cells_are_tried_once_more(tmp_path):
    settings = {"bad": 2, "marks": str(tmp_path), "always": False}
    cells = make_factory_grid(die_at, {"width": [1, 2, 3, 4]}, arguments=settings)
    with pytest.warns(RuntimeWarning, match="worker died"):
        sweep = run(cells, processes=1)
    assert not sweep.failed
    always = make_factory_grid(die_at, {"width": [1, 2, 3]}, arguments={**settings, "always": True})
    notes = []
    sweep = run(always, processes=1, progress=lambda each: notes.append(each.note))
    assert [each.status for each in sweep] == ["measured", "failed", "measured"]
    assert "died twice" in sweep.failed[0].outcome.error
    assert sum(bool(note) for note in notes) == 2


def test_ctrl_c_keeps_what_is_finished(tmp_path):
    store = tmp_path / "a.db"
    settings = {"bad": 2, "parent": os.getpid(), "store": str(store)}
    cells = make_factory_grid(interrupt_at, {"width": [1, 2, 3]}, arguments=settings)
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(cells, processes=1, store=store)
    assert time.monotonic() - begin < 50
    assert not multiprocessing.active_children()
    assert find_stored(store, cells) == [cells[0].address]


@pytest.mark.parametrize("place", ["sorting", "first statement", "insertion", "commit", "telling"])
def test_ctrl_c_at_any_line_keeps_what_is_finished(tmp_path, monkeypatch, place):
    """Also between the moment that a result is taken and that in which it is in the file."""
    cells = make_factory_grid(build, {"width": [1, 2]})
    left = []

    def tell(progress):
        if not progress.done:
            left.append(place)
        else:
            reach("telling")

    def reach(here):
        if left == [here]:
            left.clear()
            raise KeyboardInterrupt

    class Connection(sqlite3.Connection):
        def execute(self, text, *arguments):
            if text == "COMMIT":
                reach("commit")
            answer = super().execute(text, *arguments)
            if text == "BEGIN IMMEDIATE":
                reach("first statement")
            return answer

        def executemany(self, *arguments):
            answer = super().executemany(*arguments)
            reach("insertion")
            return answer

    def make_result(*parts):
        reach("sorting")
        return make(*parts)

    make = running._make_result
    monkeypatch.setattr(running, "_make_result", make_result)
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Connection))
    with pytest.raises(KeyboardInterrupt):
        run(cells, Immediate(), store=tmp_path / "a.db", progress=tell)
    assert left == []
    monkeypatch.undo()
    again = run(cells, Immediate(), store=tmp_path / "a.db")
    assert [each.kept for each in again] == [True, True]


class Immediate(Executor):
    """Works at once, in the thread that asks."""

    def submit(self, function, /, *arguments):
        answer = Future()
        answer.set_result(function(*arguments))
        return answer


def find_stored(path, cells):
    with SweepStore.open(path) as store:
        return [*store.find(each.address for each in cells)]


def test_bad_input_is_refused_before_anything_runs(tmp_path):
    cell = FactoryCell(build, {"width": 2})
    for arguments, settings, fact in (
        (([],), {}, "at least one"),
        ((iter([cell] * 5),), {"limit": 4}, "limit"),
        (([cell] * 5,), {"limit": 4}, "limit=5"),
        (([3],), {}, "SpecCell"),
        ((3,), {}, "list of cells"),
        (([cell],), {"processes": 0}, "1 to 1024"),
        (([cell], "pool"), {}, "Executor"),
        ((SPEC,), {}, "list of cells"),
        (([cell],), {"limit": "9"}, "limit"),
        (([cell],), {"limit": 0}, "at least 1"),
        (([cell],), {"progress": 3}, "progress"),
    ):
        with pytest.raises(SweepError, match=fact):
            run(*arguments, store=tmp_path / "a.db", **settings)
    assert not list(tmp_path.iterdir())
    with ProcessPoolExecutor(1) as pool, pytest.raises(SweepError, match="pickled"):
        run([FactoryCell(lambda: build(2))], pool)
    with pytest.raises(SweepError, match="pickled"):
        run([FactoryCell(lambda: build(2))])


def test_a_store_that_cannot_be_used_says_why(threads, tmp_path):
    cells, path = [FactoryCell(build, {"width": 2})], tmp_path / "a.db"
    run(cells, threads, store=path)
    with SweepStore.open(path), pytest.raises(SweepError, match="another one"):
        run(cells, threads, store=path)
    file = sqlite3.connect(path)
    file.execute("PRAGMA user_version = 7")
    file.close()
    before = path.read_bytes()
    with pytest.raises(SweepError, match=r"version 1.*has version 7"):
        run(cells, threads, store=path)
    (tmp_path / "text").write_text("no store")
    with pytest.raises(SweepError, match="no SQLite database"):
        run(cells, threads, store=tmp_path / "text")
    assert path.read_bytes() == before
    assert (tmp_path / "text").read_text() == "no store"


def cut_short(path):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])


def cut_to_the_first_bytes(path):
    path.write_bytes(path.read_bytes()[:50])


def empty(path):
    path.write_bytes(b"")


def break_the_schema(path):
    data = path.read_bytes()
    path.write_bytes(data[:100] + b"\xee" * 400 + data[500:])


def break_a_result(path):
    execute(path, "UPDATE results SET outcome = '{}' WHERE rowid = 2")


def break_a_text(path):
    execute(path, "UPDATE results SET settings = CAST(x'7bff' AS TEXT) WHERE rowid = 2")


def break_a_number(path):
    execute(path, "UPDATE results SET seconds = 'long' WHERE rowid = 2")


def lose_the_table(path):
    execute(path, "DROP TABLE results")


def lose_a_column(path):
    execute(path, "ALTER TABLE results DROP COLUMN seconds")


def become_a_newer_one(path):
    execute(path, "PRAGMA user_version = 2")


def become_another_programs(path):
    execute(path, "PRAGMA application_id = 0")


def become_a_run(path):
    execute(path, f"PRAGMA application_id = {RUN_MARK}")


def become_a_folder(path):
    path.unlink()
    path.mkdir()


def execute(path, statement):
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute(statement)
        file.commit()


def read_bytes(path):
    return path.read_bytes() if path.is_file() else None


@pytest.fixture(scope="module")
def kept_sweep(tmp_path_factory):
    """Cells, their results, and the store that has them."""
    path = tmp_path_factory.mktemp("kept") / "a.db"
    cells = make_grid({"depth": range(1, 31)}, SPEC.replace(width=2), seeds=1)
    with ThreadPoolExecutor(1) as executor:
        return cells, run(cells, executor, store=path), path


@pytest.mark.parametrize(
    ("change", "fact", "left"),
    [
        (cut_short, "damaged", True),
        (cut_to_the_first_bytes, "the beginning of a SQLite database", False),
        (empty, "an empty file", False),
        (break_the_schema, "no result in it can be read", False),
        (break_a_result, "29 results", True),
        (break_a_text, "29 results", True),
        (break_a_number, "29 results", True),
        (lose_the_table, "no result in it can be read", False),
        (lose_a_column, "no result in it can be read", False),
        (become_a_newer_one, "has version 2", True),
        (become_another_programs, "another program", True),
        (become_a_run, "chainrule runs show", True),
        (become_a_folder, "a folder", False),
    ],
)
def test_a_store_that_is_damaged_or_foreign_is_left_as_it_is(
    threads, tmp_path, kept_sweep, change, fact, left
):
    cells, first, source = kept_sweep
    path = tmp_path / "a.db"
    shutil.copy(source, path)
    change(path)
    before = read_bytes(path)
    with pytest.raises(SweepError, match="Nothing was changed") as caught:
        run(cells, threads, store=path)
    assert fact in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    new = tmp_path / "new.db"
    if left:
        count = rescue_store(path, new)
        assert 10 < count <= len(cells)
        again = run(cells, threads, store=new)
        assert sum(each.kept for each in again) == count
        assert again == first
    else:
        with pytest.raises(SweepError, match="can be read"):
            rescue_store(path, new)
        assert not new.exists()
    assert read_bytes(path) == before


def test_what_is_rescued_replaces_nothing(threads, tmp_path):
    cells, old, new = make_grid({"depth": [2, 3]}, SPEC, seeds=1), tmp_path / "a", tmp_path / "b"
    run(cells, threads, store=old)
    run(cells[:1], threads, store=new)
    before = read_rows(new)
    assert rescue_store(old, new) == 1
    assert before.items() <= read_rows(new).items()
    assert rescue_store(old, new) == 0
    for path, fact in ((old, "another file"), (tmp_path / "c", "no such file")):
        with pytest.raises(SweepError, match=fact):
            rescue_store(path, old)


@pytest.mark.parametrize("path", [3, True, b"a.db", ["a.db"], "", "a\0b", "n" * 300])
def test_a_store_must_be_the_path_of_a_file(threads, path):
    with pytest.raises(SweepError, match=r"path of a file|can be reached"):
        run([FactoryCell(build, {"width": 2})], threads, store=path)


def test_a_store_in_a_folder_that_is_none_says_so(threads, tmp_path):
    (tmp_path / "a").write_text("kept")
    with pytest.raises(SweepError, match="no folder"):
        run([FactoryCell(build, {"width": 2})], threads, store=tmp_path / "a" / "b.db")
    assert (tmp_path / "a").read_text() == "kept"


def test_a_link_leads_to_the_store(threads, tmp_path):
    cell, link = FactoryCell(build, {"width": 2}), tmp_path / "link.db"
    link.symlink_to(tmp_path / "deep" / "a.db")
    assert not run([cell], threads, store=link).results[0].kept
    assert link.is_symlink()
    assert run([cell], threads, store=tmp_path / "deep" / "a.db").results[0].kept
    with SweepStore.open(link), pytest.raises(SweepError, match="another one"):
        run([cell], threads, store=tmp_path / "deep" / "a.db")


def test_a_store_that_cannot_be_written_is_refused_before_a_cell_is_measured(
    threads, tmp_path, monkeypatch
):
    log, path = tmp_path / "log", tmp_path / "a.db"
    cells = make_factory_grid(build, {"width": [1, 2]}, arguments={"log": str(log)})
    run(cells[:1], threads, store=path)
    monkeypatch.setattr(
        "chainrule.sweeps.store.connect", lambda path, mode, **rest: connect(path, "ro", **rest)
    )
    with pytest.raises(SweepError, match="readonly"):
        run(cells, threads, store=path)
    assert log.read_text().split() == ["1"]


def test_an_executor_that_was_shut_down_says_so(tmp_path):
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(SweepError, match="shutdown"):
        run([FactoryCell(build, {"width": 2})], executor)


def test_processes_that_start_see_no_ctrl_c():
    """While it loads PyTorch for seconds, a process would print a traceback."""
    pool = Pool(1)
    try:
        assert pool._executor.submit(read_mask).result() == set()  # it ignores the signal now
        with _hold_interrupt():
            assert signal.SIGINT in read_mask()
        assert signal.SIGINT not in read_mask()
    finally:
        pool.stop()


def read_mask():
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def test_a_full_disk_keeps_what_was_kept(threads, tmp_path, monkeypatch):
    cells, path = make_grid({"depth": range(2, 22)}, SPEC, seeds=1), tmp_path / "a.db"
    original = SweepStore.open.__func__

    def open_small(cls, path):
        store = original(cls, path)
        store._file.execute("PRAGMA max_page_count = 8")
        return store

    with monkeypatch.context() as patch:
        patch.setattr(SweepStore, "open", classmethod(open_small))
        with pytest.raises(SweepError, match="full") as caught:
            run(cells, threads, store=path)
    assert caught.value.results
    sweep = run(cells, threads, store=path)
    assert 0 < sum(each.kept for each in sweep) < len(cells)
    assert not sweep.failed


def read_rows(path):
    with sqlite3.connect(path) as file:
        rows = file.execute("SELECT address, settings, outcome, finished FROM results").fetchall()
    file.close()
    return {row[0]: row[1:] for row in rows}


def make_killed_cells(log):
    return make_factory_grid(build_slowly, {"width": range(1, 501)}, arguments={"log": str(log)})


def sweep_in_thread(store, log):
    with ThreadPoolExecutor(1) as threads:
        run(make_killed_cells(log), threads, store=store)


def sweep_in_process(store, log):
    run(make_killed_cells(log), processes=1, store=store)


@pytest.mark.slow
@pytest.mark.fuzz
def test_killed_at_random_moments_it_loses_nothing_and_computes_nothing_twice(tmp_path, fuzz_seed):
    """SIGKILL again and again; a cell is finished when the store has it."""
    store, log = tmp_path / "a.db", tmp_path / "log"
    log.touch()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["chainrule.sweeps", "sweep_factories"])
    chance = random.Random(fuzz_seed)
    kept = {}
    for kill in range(20 if fuzz_seed else 6):
        process = context.Process(
            target=sweep_in_process if kill % 10 == 3 else sweep_in_thread, args=(store, log)
        )
        begun = len(log.read_text().split())
        process.start()
        while process.is_alive() and len(log.read_text().split()) == begun:
            time.sleep(0.005)
        if kill % 5 == 1:  # however slow the machine is, some cells are finished
            wait_until(lambda before=kept: read_rows(store).keys() - before.keys())
        time.sleep(chance.uniform(0.0, 0.25))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        time.sleep(0.1)  # its worker ends with it
        fresh = {int(each) for each in log.read_text().split()[begun:]}
        assert fresh
        assert not fresh & {json.loads(each[0])["width"] for each in kept.values()}
        rows = read_rows(store)
        assert kept.items() <= rows.items()  # none lost, none written anew
        kept = rows
    assert kept
    with SweepStore.open(store) as again:  # it checks that the file is sound
        assert len(again.find(kept)) == len(kept)


def test_time_left_does_not_count_the_start_of_workers():
    def tell(done, seconds):
        return Progress(
            done=done, total=300, kept=51, failed=0, seconds=seconds, first=1, first_seconds=10.0
        ).seconds_left

    assert tell(52, 10.0) == tell(53, 11.0) == math.inf
    assert tell(54, 12.0) == 246.0
    assert tell(300, 900.0) == 0.0
    unknown = Progress(done=60, total=300, kept=51, failed=0, seconds=9.0)  # none was reported
    assert unknown.seconds_left == math.inf
