"""Flow files that are sent: how many at once, how large, how slowly."""

import socket
import threading
from contextlib import ExitStack

import httpx
import pytest
from fastapi import FastAPI

from chainrule import NetworkSpec, simulate
from chainrule.app import guard
from chainrule.app.guard import Guard
from chainrule.app.jobs.queue import JobQueue, Lane
from chainrule.app.routes import model_page
from chainrule.app.routes.model_page import LIMITS, UPLOADS, Desk
from serving import PATIENCE, serve_app, wait_until

FLOW = simulate(NetworkSpec(depth=2, width=2, batch_size=2), 2).to_json().encode()


@pytest.fixture
def queue():
    queue = JobQueue()
    yield queue
    queue.close()


@pytest.fixture
def desk(monkeypatch):
    desk = Desk()
    monkeypatch.setattr(model_page, "Desk", lambda: desk)
    return desk


@pytest.fixture
def site(queue, desk):
    app = FastAPI()
    model_page.register_routes(app, queue)
    with serve_app(Guard(app, hosts=["*"], script_hashes=())) as address:
        yield address


def begin(site: str, length: int = len(FLOW)) -> socket.socket:
    """Return a connection over which a file has begun to arrive."""
    port = int(site.rpartition(":")[2])
    connection = socket.create_connection(("127.0.0.1", port))
    head = f"POST /api/flow HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
    connection.sendall(head.encode() + FLOW[:10])
    connection.settimeout(PATIENCE)
    return connection


def post(site: str, content=FLOW) -> httpx.Response:
    return httpx.post(f"{site}/api/flow", content=content, timeout=PATIENCE)


def test_so_many_are_received_at_once_and_no_more(site, desk):
    with ExitStack() as stack:
        slow = [stack.enter_context(begin(site)) for _ in range(UPLOADS)]
        wait_until(lambda: desk.free == 0)
        refused = post(site)
        assert refused.status_code == 503
        assert str(UPLOADS) in refused.json()["error"]
        assert int(refused.headers["retry-after"]) > 0
        slow[0].sendall(FLOW[10:])
        assert b"200 OK" in slow[0].recv(2**16)
        wait_until(lambda: desk.free == 1)
        assert post(site).status_code == 200
    wait_until(lambda: desk.free == UPLOADS)


def test_whoever_leaves_gives_the_place_back(site, desk):
    for _ in range(2 * UPLOADS):
        connection = begin(site)
        wait_until(lambda: desk.free == UPLOADS - 1)
        connection.close()
        wait_until(lambda: desk.free == UPLOADS)
    assert post(site).status_code == 200


def test_a_body_that_takes_too_long_gives_the_place_back(site, desk, monkeypatch):
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.2)
    with begin(site) as connection:
        connection.recv(2**16)  # an answer or the end, but not for ever
        wait_until(lambda: desk.free == UPLOADS)


def test_a_file_that_waits_is_not_read_when_its_sender_has_left(site, queue, monkeypatch):
    read = []
    monkeypatch.setattr(model_page, "decode_flow", lambda *_, **__: read.append(1))
    hold, held = threading.Event(), threading.Event()

    def work(check):
        held.set()
        hold.wait(PATIENCE)

    queue.submit(work, lane=Lane.SEARCH)
    assert held.wait(PATIENCE)
    connection = begin(site)
    connection.sendall(FLOW[10:])
    wait_until(lambda: queue.count_taken(Lane.SEARCH) == 2)
    connection.close()
    wait_until(lambda: queue.count_taken(Lane.SEARCH) == 1)
    hold.set()
    wait_until(lambda: queue.count_taken(Lane.SEARCH) == 0)
    assert read == []


def test_other_questions_are_answered_while_files_are_read(site, queue, monkeypatch):
    hold, reading = threading.Event(), threading.Event()
    decode = model_page.decode_flow

    def decode_later(content, *, limits):
        reading.set()
        hold.wait(PATIENCE)
        return decode(content, limits=limits)

    monkeypatch.setattr(model_page, "decode_flow", decode_later)
    with begin(site) as connection:
        connection.sendall(FLOW[10:])
        assert reading.wait(PATIENCE)
        assert httpx.get(f"{site}/api/flow", timeout=PATIENCE).status_code == 405
        hold.set()
        assert b"200 OK" in connection.recv(2**16)


@pytest.mark.parametrize("announced", [True, False])
def test_what_is_too_large_is_refused_with_the_limit(site, announced):
    size = LIMITS.size + 1
    content = b" " * size if announced else (b" " * 2**20 for _ in range(size // 2**20 + 1))
    refused = post(site, content)
    assert refused.status_code == 413
    assert f"{LIMITS.size // 2**20} MiB" in refused.json()["error"]
