"""Many visitors at once: who leaves is forgotten, who is quick is not held up, nobody mixed up."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fastapi import FastAPI

from browsing import serve_explorer
from chainrule import NetworkSpec, find_remedies, simulate
from chainrule.app.answers.stored import AnswerStore
from chainrule.app.jobs import measuring
from chainrule.app.jobs.measuring import (
    FIRST_SECONDS,
    QUICK_SECONDS,
    Measurer,
    estimate_seconds,
)
from chainrule.app.jobs.queue import BOUNDS, JobQueue, Lane, Superseded
from chainrule.app.routes import chain_page, explore_page, remedy_route
from serving import PATIENCE, serve_app, wait_until

LONG = "depth=100&width=256&activation=relu&init=he"
QUICK = "depth=4&width=8&activation=tanh&init=xavier"


@pytest.fixture
def queue():
    queue = JobQueue()
    yield queue
    queue.close()


@pytest.fixture
def site(queue):
    app = FastAPI()
    measurer = Measurer()
    explore_page.register_routes(app, queue, measurer, AnswerStore())
    remedy_route.register_routes(app, queue)
    chain_page.register_routes(app, queue, measurer)
    with serve_app(app) as address:
        yield f"{address}/api"


class Endless:
    """Stands in for `simulate`: deep networks are measured until their visitor has left."""

    def __init__(self) -> None:
        self.begun = []
        self.ended = []

    def __call__(self, spec, seeds, *, progress, **options):
        if spec.depth < 50:
            return simulate(spec, seeds, progress=progress, **options)
        self.begun.append(spec)
        try:
            while True:
                time.sleep(0.001)
                progress(0, seeds)
        except BaseException as error:
            self.ended.append(error)
            raise


@pytest.fixture
def endless(monkeypatch):
    stand_in = Endless()
    monkeypatch.setattr(measuring, "simulate", stand_in)
    return stand_in


class Visitor:
    """Asks something in the background, and can leave."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = httpx.Client(timeout=PATIENCE)
        self.answer = None
        self.thread = threading.Thread(target=self._ask)
        self.thread.start()

    def _ask(self) -> None:
        try:
            self.answer = self.client.get(self.url)
        except Exception as error:
            self.answer = error

    def leave(self) -> None:
        for connection in self.client._transport._pool.connections:
            stream = connection._connection._network_stream
            stream.get_extra_info("socket").shutdown(2)
        self.thread.join(PATIENCE)
        self.client.close()


class TestLeaving:
    def test_a_measurement_ends_when_its_visitor_leaves(self, site, queue, endless):
        visitor = Visitor(f"{site}/explore?{LONG}")
        wait_until(lambda: endless.begun)
        visitor.leave()
        wait_until(lambda: queue.count_taken(Lane.LONG) == 0)
        assert [type(error) for error in endless.ended] == [Superseded]

    def test_so_does_a_real_one(self, site, queue, monkeypatch):
        ended = []

        def wait_for_end(check) -> None:
            """Look for as long as the visitor is there: the measurement ends no other way."""
            end = time.monotonic() + PATIENCE
            while time.monotonic() < end:
                check()
                time.sleep(0.001)

        def watch(*args, progress, **options):
            ended.append("begun")
            try:
                simulate(
                    *args, **options, progress=lambda *done: wait_for_end(lambda: progress(*done))
                )
                ended.append("finished")
            except Superseded:
                ended.append("superseded")
                raise

        monkeypatch.setattr(measuring, "simulate", watch)
        visitor = Visitor(f"{site}/explore?{LONG}")
        wait_until(lambda: ended)
        visitor.leave()
        wait_until(lambda: queue.count_taken(Lane.LONG) == 0)
        assert ended == ["begun", "superseded"]

    def test_one_that_waits_is_never_begun(self, site, queue, endless):
        first = Visitor(f"{site}/explore?{LONG}")
        wait_until(lambda: endless.begun)
        second = Visitor(f"{site}/explore?{LONG}&seed=1")
        wait_until(lambda: queue.count_taken(Lane.LONG) == 2)
        second.leave()
        wait_until(lambda: queue.count_taken(Lane.LONG) == 1)
        first.leave()
        wait_until(lambda: queue.count_taken(Lane.LONG) == 0)
        assert len(endless.begun) == 1

    def test_a_search_for_remedies_ends_too(self, site, queue, monkeypatch):
        begun, ended = threading.Event(), []

        def search(*args, progress, **options):
            def wait_for_end(*done) -> None:
                begun.set()
                end = time.monotonic() + PATIENCE
                while time.monotonic() < end:
                    progress(*done)
                    time.sleep(0.001)

            try:
                return find_remedies(*args, progress=wait_for_end, **options)
            except BaseException as error:
                ended.append(type(error))
                raise

        monkeypatch.setattr(remedy_route, "find_remedies", search)
        visitor = Visitor(f"{site}/remedies?depth=5&activation=sigmoid")
        assert begun.wait(PATIENCE)
        visitor.leave()
        wait_until(lambda: queue.count_taken(Lane.SEARCH) == 0)
        assert ended == [Superseded]


class TestCrowds:
    def test_quick_questions_are_answered_beside_a_long_one(self, site, endless):
        visitor = Visitor(f"{site}/explore?{LONG}")
        wait_until(lambda: endless.begun)
        for seed in range(5):
            answer = httpx.get(f"{site}/explore?{QUICK}&seed={seed}&first=1", timeout=PATIENCE)
            assert answer.json()["view"]["settings"]["seed"] == str(seed)
        visitor.leave()
        assert not isinstance(visitor.answer, httpx.Response)

    def test_a_crowd_of_long_ones_is_told_that_it_is_busy(self, site, queue, endless):
        visitors = [Visitor(f"{site}/explore?{LONG}&seed={seed}") for seed in range(30)]
        wait_until(lambda: sum(visitor.answer is not None for visitor in visitors) == 18)
        refused = [visitor.answer for visitor in visitors if visitor.answer is not None]
        assert {answer.status_code for answer in refused} == {503}
        assert {answer.headers["Retry-After"] for answer in refused} == {"5"}
        assert "busy: 12 jobs" in refused[0].json()["error"]
        assert queue.count_taken(Lane.LONG) == BOUNDS[Lane.LONG].seats == 12
        assert httpx.get(f"{site}/explore?{QUICK}&first=1", timeout=PATIENCE).is_success
        for visitor in visitors:
            visitor.leave()
        wait_until(lambda: queue.count_taken(Lane.LONG) == 0)
        assert len(endless.begun) <= 12

    def test_every_answer_belongs_to_its_question(self, site):
        def ask(number: int) -> None:
            depth = 2 + number % 7
            query = f"depth={depth}&width=8&activation=relu&seed={number}&seeds=3"
            answer = httpx.get(f"{site}/explore?{query}&first=1", timeout=PATIENCE).json()
            spec = NetworkSpec(depth=depth, width=8, activation="relu", seed=number)
            expected = [float(norm) for norm in simulate(spec, 3).weight_gradient_norms]
            assert answer["figures"]["gradient"]["data"][1]["y"] == expected

        with ThreadPoolExecutor(12) as pool:
            list(pool.map(ask, range(60)))


class TestEstimates:
    def test_what_is_larger_takes_longer(self):
        base = NetworkSpec(depth=10, width=32, batch_size=16)
        for change in ({"depth": 20}, {"width": 64}, {"batch_size": 256}):
            assert estimate_seconds(base.replace(**change), 4) > estimate_seconds(base, 4)
        assert estimate_seconds(base, 8) > estimate_seconds(base, 4)

    @pytest.mark.parametrize("init", ["he", "orthogonal"])
    @pytest.mark.parametrize("seeds", [1, 64])
    @pytest.mark.parametrize("batch", [1, 64, 4095])
    @pytest.mark.parametrize("width", [1, 64, 1023])
    def test_of_any_shape_what_is_larger_takes_longer(self, width, batch, seeds, init):
        base = NetworkSpec(depth=3, width=width, batch_size=batch, init=init)
        seconds = estimate_seconds(base, seeds)
        assert seconds > 0.0
        for change in ({"depth": 4}, {"width": width + 1}, {"batch_size": batch + 1}):
            assert estimate_seconds(base.replace(**change), seeds) > seconds
        assert estimate_seconds(base, seeds + 1) > seconds

    def test_the_usual_network_is_answered_whole_and_at_once(self):
        assert estimate_seconds(NetworkSpec(depth=15, width=64), 16) < FIRST_SECONDS

    def test_a_thousand_layers_are_begun_at_once(self):
        assert estimate_seconds(NetworkSpec(depth=1000, width=64), 1) < QUICK_SECONDS


def test_two_workers_give_the_bytes_that_one_gives(url):
    queries = [f"{QUICK}&seed={seed}&first=1" for seed in range(3)]
    queries.append("depth=60&width=32&activation=relu&init=he&pin=depth%3D5&first=1")
    with serve_explorer("--workers", "2") as pair, ThreadPoolExecutor(8) as pool:
        for query in queries:
            expected = httpx.get(f"{url}/api/explore?{query}", timeout=PATIENCE).content
            answers = pool.map(
                lambda query: httpx.get(f"{pair}/api/explore?{query}", timeout=120).content,
                [query] * 8,
            )
            assert set(answers) == {expected}
        page = httpx.get(pair, timeout=PATIENCE)
        assert "chainrule" in page.text
