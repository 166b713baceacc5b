"""The queue: order, seats, cancelling, time and memory of its jobs."""

import threading
import time

import pytest
from fastapi.testclient import TestClient

from chainrule.app.application import create_app
from chainrule.app.jobs import queue as queue_module
from chainrule.app.jobs.queue import (
    BOUNDS,
    MEMORY,
    SMALL,
    Bounds,
    Busy,
    JobQueue,
    Lane,
    Superseded,
    TooLong,
)
from chainrule.errors import SpecError
from serving import PATIENCE


@pytest.fixture
def queue():
    queue = JobQueue()
    yield queue
    queue.close()


class Gate:
    """Work that goes on until it may end."""

    def __init__(self) -> None:
        self.begun, self.open = threading.Event(), threading.Event()

    def __call__(self, check) -> str:
        self.begun.set()
        while not self.open.wait(0.001):
            check()
        return "done"


def test_first_come_first_served_one_at_a_time(queue):
    gate, order = Gate(), []
    first = queue.submit(gate, lane=Lane.LONG)
    others = [
        queue.submit(lambda _, n=number: order.append(n), lane=Lane.LONG) for number in range(3)
    ]
    assert gate.begun.wait(PATIENCE)
    assert [job.ahead for job in (first, *others)] == [0, 1, 2, 3]
    others[1].cancel()
    others[1].cancel()
    assert others[1].future.cancelled()
    assert [job.ahead for job in (first, others[0], others[2])] == [0, 1, 2]
    gate.open.set()
    others[2].future.result(PATIENCE)
    assert first.future.result(PATIENCE) == "done"
    assert order == [0, 2]
    assert queue.count_taken(Lane.LONG) == 0


def test_the_short_comes_before_the_long_that_has_not_waited_long(queue, monkeypatch):
    gate, order = Gate(), []
    queue.submit(gate, lane=Lane.QUICK)
    assert gate.begun.wait(PATIENCE)
    now = 100.0
    monkeypatch.setattr(queue_module.time, "monotonic", lambda: now)
    jobs = []
    for name, seconds in (("long", 1.0), ("short", 0.1), ("as short", 0.1)):
        work = lambda _, name=name: order.append(name)  # noqa: E731
        jobs.append(queue.submit(work, lane=Lane.QUICK, seconds=seconds))
    now += queue_module.WEIGHT
    late = queue.submit(lambda _: order.append("late"), lane=Lane.QUICK, seconds=0.1)
    assert [job.ahead for job in (*jobs, late)] == [3, 1, 2, 4]
    monkeypatch.undo()
    gate.open.set()
    late.future.result(PATIENCE)
    assert order == ["short", "as short", "long", "late"]


@pytest.mark.parametrize("lane", Lane)
def test_every_lane_is_bounded(queue, lane):
    gate = Gate()
    for _ in range(BOUNDS[lane].seats):
        queue.submit(gate, lane=lane)
    with pytest.raises(Busy, match=f"{BOUNDS[lane].seats} jobs"):
        queue.submit(gate, lane=lane)
    gate.open.set()


def test_a_job_under_way_ends_when_it_is_cancelled(queue):
    gate = Gate()
    job = queue.submit(gate, lane=Lane.SEARCH)
    assert gate.begun.wait(PATIENCE)
    job.cancel()
    with pytest.raises(Superseded):
        job.future.result(PATIENCE)
    assert queue.count_taken(Lane.SEARCH) == 0


def test_lanes_do_not_wait_for_each_other(queue):
    gate = Gate()
    queue.submit(gate, lane=Lane.LONG)
    assert gate.begun.wait(PATIENCE)
    for lane in (Lane.QUICK, Lane.SEARCH, Lane.TRAINING):
        assert queue.submit(lambda _: "here", lane=lane).future.result(PATIENCE) == "here"
    gate.open.set()


def test_errors_come_back_and_the_lane_goes_on(queue):
    def fail(check):
        raise SpecError("It must hold.")

    for error in (fail, lambda _: 1 / 0):
        with pytest.raises((SpecError, ZeroDivisionError)):
            queue.submit(error, lane=Lane.QUICK).future.result(PATIENCE)
    assert queue.submit(lambda _: 3, lane=Lane.QUICK).future.result(PATIENCE) == 3


def test_closing_ends_everything(queue):
    gate = Gate()
    running, waiting = (queue.submit(gate, lane=Lane.TRAINING) for _ in range(2))
    assert gate.begun.wait(PATIENCE)
    queue.close()
    with pytest.raises(Superseded):
        running.future.result(PATIENCE)
    assert waiting.future.cancelled()
    with pytest.raises(Busy, match="shutting down"):
        queue.submit(gate, lane=Lane.QUICK)
    queue.join(PATIENCE)
    assert not list_alive(queue)


def test_no_work_goes_on_without_its_application():
    app = create_app()
    gate = Gate()
    with TestClient(app):
        job = app.state.queue.submit(gate, lane=Lane.LONG)
        assert gate.begun.wait(PATIENCE)
        assert list_alive(app.state.queue)
    with pytest.raises(Superseded):
        job.future.result(PATIENCE)
    app.state.queue.join(PATIENCE)
    assert not list_alive(app.state.queue)


def list_alive(queue):
    threads = [line.thread for line in queue._lines.values()]
    return [thread for thread in threads if thread is not None and thread.is_alive()]


def test_computing_time_is_bounded_and_waiting_does_not_count(queue, monkeypatch):
    monkeypatch.setattr(queue_module, "BOUNDS", {Lane.QUICK: Bounds(4, 0.05)})
    slow, gate = threading.Event(), threading.Event()

    def sleep(check):
        slow.set()
        gate.wait(0.2)  # four times as long as it may compute
        check()
        return "slept"

    def compute(check):
        while True:
            check()

    assert queue.submit(sleep, lane=Lane.QUICK).future.result(PATIENCE) == "slept"
    with pytest.raises(TooLong, match=r"Lower the depth, the width"):
        queue.submit(compute, lane=Lane.QUICK).future.result(PATIENCE)


def test_memory_is_shared_and_the_largest_works_alone(queue):
    gates = {lane: Gate() for lane in (Lane.LONG, Lane.SEARCH)}
    queue.submit(gates[Lane.LONG], lane=Lane.LONG, size=2 * MEMORY)
    assert gates[Lane.LONG].begun.wait(PATIENCE)
    second = queue.submit(gates[Lane.SEARCH], lane=Lane.SEARCH, size=SMALL + 1)
    small = queue.submit(lambda _: "small", lane=Lane.TRAINING, size=SMALL)
    assert small.future.result(PATIENCE) == "small"
    # What waits for memory has not begun, and can be cancelled.
    assert queue.count_taken(Lane.SEARCH) == 1
    assert not gates[Lane.SEARCH].begun.is_set()
    second.cancel()
    assert second.future.cancelled()
    third = queue.submit(lambda _: "third", lane=Lane.SEARCH, size=MEMORY)
    gates[Lane.LONG].open.set()
    assert third.future.result(PATIENCE) == "third"


def test_jobs_that_fit_into_the_memory_together_work_at_once(queue):
    first, second = Gate(), Gate()
    queue.submit(first, lane=Lane.LONG, size=MEMORY - SMALL - 1)
    assert first.begun.wait(PATIENCE)
    fits = queue.submit(lambda _: "fits", lane=Lane.TRAINING, size=SMALL + 1)
    assert fits.future.result(PATIENCE) == "fits"
    queue.submit(second, lane=Lane.SEARCH, size=SMALL + 2)
    assert not second.begun.wait(0.2)
    first.open.set()
    assert second.begun.wait(PATIENCE)
    second.open.set()


class TestMakingWay:
    @pytest.fixture
    def job(self, queue):
        """A job of the search lane that is being done."""
        gate = Gate()
        job = queue.submit(gate, lane=Lane.SEARCH)
        assert gate.begun.wait(PATIENCE)
        yield job
        gate.open.set()

    def test_less_urgent_work_waits_for_more_urgent_work(self, queue, job, monkeypatch):
        monkeypatch.setattr(queue_module, "_PATIENCE", 1e9)
        urgent, passed = Gate(), threading.Event()
        check = queue.make_check(job)

        def work() -> None:
            time.sleep(0.01)  # it has worked for a noticeable time
            check()
            passed.set()

        queue.submit(urgent, lane=Lane.QUICK)
        assert urgent.begun.wait(PATIENCE)
        thread = threading.Thread(target=work)
        thread.start()
        assert not passed.wait(0.2)
        urgent.open.set()
        assert passed.wait(PATIENCE)
        thread.join()

    def test_but_not_for_ever(self, queue, job):
        urgent = Gate()
        queue.submit(urgent, lane=Lane.QUICK)
        assert urgent.begun.wait(PATIENCE)
        check = queue.make_check(job)
        for _ in range(5):
            time.sleep(0.003)
            check()
        urgent.open.set()

    def test_whoever_makes_way_notices_that_it_is_in_vain(self, queue, job):
        urgent = Gate()
        queue.submit(urgent, lane=Lane.QUICK)
        check = queue.make_check(job)
        check()
        job.cancel()
        with pytest.raises(Superseded):
            check()
        urgent.open.set()


def test_a_thread_that_cannot_start_leaves_no_dead_lane(monkeypatch):
    def start(_):
        raise RuntimeError("can't start new thread")

    queue = JobQueue()
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(Busy, match="thread"):
        queue.submit(lambda _: 1, lane=Lane.QUICK)
    monkeypatch.undo()
    assert queue.count_taken(Lane.QUICK) == 0
    assert queue.submit(lambda _: 2, lane=Lane.QUICK).future.result(60) == 2
    queue.close()
    queue.join(60)


def test_a_queue_works_again_when_it_is_opened_again():
    queue = JobQueue()
    for _ in range(2):
        queue.open()
        assert queue.submit(lambda _: 1, lane=Lane.QUICK).future.result(60) == 1
        queue.close()
        queue.join(60)
    with pytest.raises(Busy):
        queue.submit(lambda _: 1, lane=Lane.QUICK)


def test_an_application_that_starts_anew_works_again():
    app = create_app()
    for _ in range(2):
        with TestClient(app):
            job = app.state.queue.submit(lambda _: 1, lane=Lane.QUICK)
            assert job.future.result(60) == 1
