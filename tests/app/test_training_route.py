"""The training route: its stream, its waiting line, and visitors who leave or ask for too much."""

import itertools
import json
import math
import time
from contextlib import ExitStack
from functools import partial

import httpx
import pytest
from starlette.testclient import TestClient

from browsing import serve_explorer
from chainrule import NetworkSpec, Verdict, diagnose, simulate
from chainrule.app.answers import training_answer
from chainrule.app.answers.training_answer import (
    Order,
    conclude,
    label_order,
    read_order,
    round_number,
)
from chainrule.app.jobs.queue import JobQueue, Lane
from chainrule.app.routes import training_route
from chainrule.errors import ChainruleError
from chainrule.training.training import (
    CHANCE_LOSS,
    DEFAULT_RATES,
    TrainingRecord,
    measure_chance,
    train,
)
from serving import PATIENCE, serve_app, wait_until
from training_site import create_site, serve_site, train_endlessly


@pytest.fixture(scope="module")
def client():
    with TestClient(create_site()) as client:
        yield client


@pytest.fixture
def site():
    with serve_site() as address:
        yield address


@pytest.fixture
def endless(monkeypatch):
    """Replace trainings by ones that go on until they are told to stop."""
    running = []
    monkeypatch.setattr(training_route, "describe_training", partial(train_endlessly, running))
    return running


def read(answer) -> list[dict]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return [
        json.loads(line, parse_constant=pytest.fail) for line in answer.text.split("\n") if line
    ]


# --- the stream -------------------------------------------------------------------------------


def test_stream_holds_the_librarys_numbers(client):
    spec = NetworkSpec(depth=4, activation="relu", init="he", clip_norm=0.5)
    query = f"{spec.to_query()}&optimizer=adam&learning_rate=0.003&steps=130&seeds=3"
    start, *steps, end = read(client.get(f"/api/train?{query}"))
    expected = list(train(spec, optimizer="adam", learning_rate=0.003, steps=130, every=3))
    assert start["type"] == "start"
    assert NetworkSpec(**start["spec"]) == spec
    assert (start["steps"], start["every"], start["layers"]) == (130, 3, 4)
    assert (start["optimizer"], start["learning_rate"]) == ("adam", 0.003)
    assert start["chance"] == pytest.approx(measure_chance(), rel=1e-3)
    assert start["chance_loss"] == pytest.approx(CHANCE_LOSS, rel=1e-3)
    assert [line["type"] for line in steps] == ["step"] * len(expected)
    for line, record in zip(steps, expected, strict=True):
        assert line["step"] == record.step
        assert line["loss"] == float(f"{record.loss:.4g}")
        assert line["accuracy"] == pytest.approx(record.accuracy, rel=1e-3)
        assert line["norms"] == pytest.approx(record.gradient_norms, rel=1e-3)
        assert line["clipped"] == pytest.approx(record.clipped_norm, rel=1e-3)
        assert line["status"].startswith(f"Step {record.step} of 130: loss ")
        assert line["status"].endswith("% right; chance is 10 %.")
    assert end["type"] == "done"
    assert end["verdict"] == str(diagnose(simulate(spec, 3)).verdict)


def test_defaults_are_the_librarys(client):
    start, *steps, _ = read(client.get("/api/train?depth=1"))
    assert start["spec"] == NetworkSpec(depth=1).model_dump()
    assert (start["optimizer"], start["learning_rate"]) == ("sgd", DEFAULT_RATES["sgd"])
    assert steps[-1]["step"] == start["steps"] == 300
    assert len(steps) <= training_answer.COLUMNS + 1
    start, *_ = read(client.get("/api/train?depth=1&optimizer=adam&steps=1"))
    assert start["learning_rate"] == DEFAULT_RATES["adam"]


def test_divergence_is_told_and_is_legal_json(client):
    query = "depth=15&activation=relu&init=random&learning_rate=1&steps=100"
    *_, last, end = read(client.get(f"/api/train?{query}"))
    assert end["type"] == "diverged"
    assert last["loss"] is None
    assert last["norms"] == [None] * 15
    assert "no finite number" in end["sentence"]
    assert "the diagnosis (exploding) said" in end["sentence"]
    assert end["agrees"] is True


@pytest.mark.parametrize("steps", [1, 59, 60, 61, 100, 300, 600, 1000])
def test_records_are_few_whatever_the_number_of_steps(steps):
    order = read_order(f"depth=1&steps={steps}")
    assert 1 <= math.ceil(steps / order.every) <= training_answer.COLUMNS


def test_stopping_ends_the_measurement_before_the_training_too():
    order = read_order("depth=50&width=256&seeds=64&steps=100")
    asked = itertools.count()
    lines = training_answer.describe_training(order, lambda: next(asked) >= 1)
    assert list(lines) == []
    assert next(asked) == 2  # once when it went on, once when it was told to stop


def test_numbers_are_rounded_and_never_infinite():
    assert round_number(1.23456e-30) == 1.235e-30
    assert round_number(math.inf) is None
    assert round_number(math.nan) is None


# --- words ------------------------------------------------------------------------------------


def make_record(accuracy: float = 0.5, diverged: bool = False) -> TrainingRecord:
    return TrainingRecord(
        step=300,
        loss=math.nan if diverged else 1.0,
        accuracy=accuracy,
        examples=1797,
        gradient_norms=(1.0,),
        total_norm=1.0,
        clipped_norm=1.0,
        diverged=diverged,
        last=True,
    )


@pytest.mark.parametrize(
    ("record", "verdict", "optimizer", "outcome", "agrees", "words"),
    [
        (make_record(0.97), "healthy", "sgd", "trained", True, "97 % are right (chance is 10 %)"),
        (make_record(0.97), "healthy", "sgd", "trained", True, "it trains, as the diagnosis said."),
        (make_record(0.97), "vanishing", "sgd", "trained", False, "(vanishing) said otherwise"),
        (make_record(0.97), "exploding", "adam", "trained", False, "Adam rescales"),
        (make_record(0.8), "healthy", "sgd", "partly", None, "another learning rate"),
        (make_record(0.5), "vanishing", "sgd", "partly", None, "right only in part"),
        (make_record(0.1), "vanishing", "sgd", "chance", True, "as the diagnosis (vanishing) said"),
        (make_record(0.14), "vanishing", "sgd", "chance", True, "about as many as by chance"),
        (make_record(0.16), "vanishing", "sgd", "partly", None, "it learns something"),
        (make_record(0.1), "healthy", "sgd", "chance", False, "with SGD 0.03, although"),
        (make_record(0.0, True), "exploding", "sgd", "diverged", True, "(exploding) said."),
        (make_record(0.0, True), "healthy", "adam", "diverged", False, "Adam 0.001, although"),
        (make_record(0.0, True), "vanishing", "sgd", "diverged", None, "another reason"),
    ],
)
def test_end_compares_with_the_diagnosis(record, verdict, optimizer, outcome, agrees, words):
    order = read_order(f"optimizer={optimizer}")
    end = conclude(order, record, Verdict(verdict))
    assert (end["outcome"], end["agrees"], end["verdict"]) == (outcome, agrees, verdict)
    assert words in end["sentence"]
    assert end["sentence"].endswith(".")


@pytest.mark.parametrize("verdict", Verdict)
@pytest.mark.parametrize("record", [make_record(0.9), make_record(0.1), make_record(0, True)])
def test_disagreement_is_said_openly(record, verdict):
    trained, healthy = record.accuracy > 0.8, verdict is Verdict.HEALTHY
    end = conclude(read_order(""), record, verdict)
    if trained != healthy:
        assert end["agrees"] in ((False,) if trained or healthy else (True, None))
    if end["agrees"] is False:
        assert "disagree" in end["sentence"] or "said otherwise" in end["sentence"]
    else:
        assert "disagree" not in end["sentence"]


@pytest.mark.parametrize(
    ("order", "record", "rates"),
    [
        ("", make_record(0.5), ["0.3"]),
        ("learning_rate=0.1", make_record(0.5), ["0.3"]),
        ("learning_rate=0.3", make_record(0.5), []),  # not the same again
        ("learning_rate=0.5", make_record(0.1), []),
        ("learning_rate=0.3", make_record(0, True), ["0.003"]),
        ("learning_rate=0.003", make_record(0, True), ["0.0003"]),
        ("optimizer=adam", make_record(0.5), ["0.01"]),
        ("optimizer=adam&learning_rate=0.01", make_record(0.5), []),
        ("optimizer=adam&learning_rate=0.0001", make_record(0, True), []),
        ("", make_record(0.9), []),
    ],
)
def test_rates_to_try_next_are_larger_or_smaller(order, record, rates):
    assert conclude(read_order(order), record, Verdict.HEALTHY)["rates"] == rates


@pytest.mark.parametrize(
    ("record", "verdict", "rates"),
    [
        (make_record(0.1), Verdict.VANISHING, []),  # another rate seldom helps
        (make_record(0.5), Verdict.VANISHING, ["0.3"]),
        (make_record(0, True), Verdict.EXPLODING, ["0.003"]),
    ],
)
def test_a_start_that_gets_nowhere_needs_more_than_a_rate(record, verdict, rates):
    assert conclude(read_order(""), record, verdict)["rates"] == rates


@pytest.mark.parametrize(("steps", "every"), [(1, 1), (60, 1), (61, 2), (120, 2), (1000, 17)])
def test_a_whole_training_fits_into_sixty_columns(steps, every):
    assert read_order(f"steps={steps}").every == every
    assert steps / every <= 60


def test_label_names_every_setting_that_differs():
    spec = NetworkSpec(
        depth=1,
        width=8,
        activation="tanh",
        init="random",
        weight_std=0.5,
        distribution="uniform",
        bias_std=0.1,
        residual="scaled",
        normalization="layernorm",
        clip_norm=2.0,
    )
    order = Order(spec=spec, optimizer="adam", learning_rate=0.01, steps=100, seeds=1)
    assert label_order(order) == (
        "1 layer of 8, Tanh, random σ = 0.5, uniform, biases σ = 0.1, scaled residual "
        "connections, layernorm, clipped at 2, Adam 0.01"
    )


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("depth=0", "depth: must be a whole number from 1 to 1000"),
        ("depth=ten", "depth: must be a whole number"),
        ("depth=3&depth=4", "depth"),
        ("steps=3&steps=4", "steps: must be given once"),
        ("colour=blue", "colour: no such field"),
        ("activation=<script>", "activation: unknown"),
        ("optimizer=lbfgs", "optimizer: unknown 'lbfgs'"),
        ("optimizer=", "optimizer: unknown ''"),
        ("learning_rate=nan", "learning_rate: must be a number above 0"),
        ("learning_rate=-1", "learning_rate: must be a number above 0"),
        ("learning_rate=1e999", "learning_rate: must be a number above 0"),
        ("learning_rate=fast", "learning_rate: must be a number; got 'fast'"),
        ("steps=0", "steps: must be a whole number from 1 to 1000; got '0'"),
        ("steps=1001", "steps: must be a whole number from 1 to 1000"),
        ("steps=²", "steps: must be a whole number"),
        ("steps=" + "9" * 3000, "steps: must be a whole number"),
        ("seeds=-1", "seeds: must be a whole number"),
        ("depth=1000&width=4096", "Possible instead, with the rest as it is: a width up to 55."),
        ("depth=1000&width=4096&steps=1", "would take too long"),
        ("a=" + "b" * 5000, "The address must have at most 4000 characters"),
        ("%ff%00=%fe", "no such field"),
    ],
)
def test_hostile_queries_get_a_sentence_and_no_traceback(client, query, words):
    answer = client.get(f"/api/train?{query}")
    assert answer.status_code == 422
    assert words in answer.json()["error"]
    assert "Traceback" not in answer.text
    assert len(answer.text) < 1000


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_only_get_is_answered(client, method):
    assert client.request(method, "/api/train?depth=1&steps=1").status_code == 405


def test_without_scikit_learn_the_answer_is_the_install_line(client, monkeypatch):
    def fail(*_):
        raise ChainruleError('Run: pip install "chainrule[app]"')

    monkeypatch.setattr(training_route, "describe_order", fail)
    answer = client.get("/api/train?depth=1")
    assert answer.status_code == 503
    assert "pip install" in answer.json()["error"]


# --- the waiting line ---------------------------------------------------------------------------


class Visitor:
    """A client that reads a stream line by line."""

    def __init__(self, stack: ExitStack, site: str, query: str = "depth=1&steps=1"):
        self._own = stack.enter_context(ExitStack())
        client = self._own.enter_context(httpx.Client(timeout=PATIENCE))
        self.answer = self._own.enter_context(client.stream("GET", f"{site}/api/train?{query}"))
        self._lines = self.answer.iter_lines()

    def hear(self, kind: str) -> dict:
        """Return the next line of a kind."""
        end = time.monotonic() + PATIENCE
        while (line := json.loads(next(self._lines) or "{}")).get("type") != kind:
            assert time.monotonic() < end, f"there was no line {kind!r}"
        return line

    def leave(self) -> None:
        self._own.close()


def test_one_trains_three_wait_and_the_next_is_told_it_is_busy(site, endless):
    with ExitStack() as stack:
        first = Visitor(stack, site, "depth=2")
        first.hear("step")
        waiting = []
        for ahead in (1, 2, 3):
            visitor = Visitor(stack, site, f"depth={ahead + 2}")
            assert visitor.hear("start")["layers"] == ahead + 2
            line = visitor.hear("queued")
            assert line["ahead"] == ahead
            assert line["status"].startswith(f"Waiting: {ahead} training")
            waiting.append(visitor)
        refused = httpx.get(f"{site}/api/train?depth=1", timeout=120)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        assert "busy: 4 jobs come first" in refused.json()["error"]
        assert [order.spec.depth for order in endless] == [2]  # one at a time

        waiting[1].leave()  # somebody in the middle goes home: the last moves up
        assert waiting[2].hear("queued")["ahead"] == 2
        newcomer = Visitor(stack, site, "depth=9")  # and there is room again
        assert newcomer.hear("queued")["ahead"] == 3

        first.leave()
        waiting[0].hear("step")
        assert [order.spec.depth for order in endless] == [3]
        waiting[0].leave()
        waiting[2].hear("step")
        assert [order.spec.depth for order in endless] == [5]
        waiting[2].leave()
        newcomer.hear("step")
        assert [order.spec.depth for order in endless] == [9]
    wait_until(lambda: not endless)


def test_leaving_ends_a_real_training_and_frees_its_place():
    queue = JobQueue()
    with ExitStack() as stack:
        site = stack.enter_context(serve_app(create_site(queue)))
        visitor = Visitor(stack, site, "depth=60&steps=1000&optimizer=adam")
        visitor.hear("step")
        assert queue.count_taken(Lane.TRAINING) == 1
        visitor.leave()
        assert Visitor(stack, site).hear("done")["step"] == 1
        wait_until(lambda: queue.count_taken(Lane.TRAINING) == 0)


def test_other_requests_are_answered_while_it_trains(site, endless):
    with ExitStack() as stack:
        visitor = Visitor(stack, site)
        visitor.hear("step")
        assert httpx.get(site, timeout=PATIENCE).status_code == 200
        assert len(endless) == 1
        visitor.leave()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("/secret/path"), "The server could not finish this training."),
        (MemoryError(), "The server could not finish this training."),
        (ChainruleError("It must hold."), "It must hold."),
    ],
)
def test_an_error_while_training_is_told_without_details_and_frees_the_place(
    client, monkeypatch, error, said
):
    def fail(order, should_stop):
        yield {"type": "step", "step": 0}
        raise error

    monkeypatch.setattr(training_route, "describe_training", fail)
    for _ in range(6):
        *_, end = read(client.get("/api/train?depth=1"))
        assert end == {"type": "error", "error": said}


def test_the_explorer_ends_when_asked_to_while_it_trains():
    """Leaving `serve_explorer` asks it to end, and fails if it does not."""
    with ExitStack() as stack:
        with serve_explorer() as address:
            visitors = [
                Visitor(stack, address, "depth=100&width=100&steps=1000&optimizer=adam")
                for _ in range(2)
            ]
            visitors[1].hear("queued")
        for visitor in visitors:
            assert visitor.hear("error")["error"] == "The server is shutting down."
