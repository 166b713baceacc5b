"""The server as processes and sockets: workers that end with their parent, IPv6, slow clients."""

import os
import re
import select
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from errno import EADDRINUSE
from pathlib import Path

import httpx
import pytest

from chainrule.app.connections import HEADER_BYTES, TimedProtocol
from chainrule.app.server import listen
from chainrule.errors import ChainruleError
from serving import PATIENCE, serve_app, wait_until

pytestmark = pytest.mark.slow

# --- processes ----------------------------------------------------------------------------------


@contextmanager
def start(*options: str):
    """Start the explorer in a session of its own; give the process and the address it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "chainrule", "explore", "--no-browser", "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
        found = re.search(r"http://\S+:\d+", process.stdout.readline() if ready else "")
        assert found, "the explorer did not start"
        yield process, found.group()
    finally:
        for pid in list_children(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.kill()  # does nothing to another that has its number by now
        process.wait(PATIENCE)
        process.stdout.close()


def list_children(pid: int) -> list[int]:
    """Return the children of a process that are not just ending."""
    try:
        return [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except FileNotFoundError:
        return []


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_answered(url: str) -> bool:
    try:
        return httpx.get(f"{url}/api/depth", timeout=PATIENCE).is_success
    except httpx.TransportError:
        return False


on_linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")


@on_linux
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
def test_no_worker_outlives_its_parent(end):
    with start("--workers", "2") as (process, url):
        wait_until(lambda: is_answered(url))
        workers = list_children(process.pid)
        assert len(workers) >= 2
        process.send_signal(end)
        process.wait(PATIENCE)
        wait_until(lambda: not any(is_alive(worker) for worker in workers))


@on_linux
def test_a_worker_that_is_still_starting_does_not_outlive_its_parent():
    with start("--workers", "2") as (process, _):
        wait_until(lambda: len(list_children(process.pid)) >= 2)
        workers = list_children(process.pid)
        process.kill()
        process.wait(PATIENCE)
        wait_until(lambda: not any(is_alive(worker) for worker in workers))


# --- addresses ----------------------------------------------------------------------------------


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


with_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@with_ipv6
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_is_served_and_printed_in_brackets(host):
    with start("--host", host, "--workers", "1") as (_, url):
        assert url.startswith("http://[::1]:")
        wait_until(lambda: is_answered(url))
        refused = httpx.get(f"{url}/", headers={"Host": "attacker.example"}, timeout=PATIENCE)
        assert refused.status_code == 421


@with_ipv6
def test_localhost_means_both_families():
    listeners = listen("localhost", 0)
    try:
        ports = {listener.getsockname()[1] for listener in listeners}
        assert len(ports) == 1
        places = {entry[4][0] for entry in socket.getaddrinfo("localhost", 0)}
        assert {listener.getsockname()[0] for listener in listeners} == places
    finally:
        for listener in listeners:
            listener.close()


@with_ipv6
def test_a_free_port_that_is_taken_on_the_other_family_is_not_insisted_on(monkeypatch):
    """Another program may take it between the two."""
    create, refused = socket.create_server, []

    def create_late(address, *, family, **options):
        if family == socket.AF_INET6 and len(refused) < 3:
            refused.append(address[1])
            raise OSError(EADDRINUSE, "Address already in use")
        return create(address, family=family, **options)

    monkeypatch.setattr(socket, "create_server", create_late)
    listeners = listen("localhost", 0)
    families = {listener.family for listener in listeners}
    for listener in listeners:
        listener.close()
    known = {entry[0] for entry in socket.getaddrinfo("localhost", 0)}
    assert families == known
    assert len(refused) == (3 if socket.AF_INET6 in known else 0)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a" * 300, "256.1.1.1"])
def test_what_is_no_address_is_refused_with_a_sentence(host):
    with pytest.raises(ChainruleError, match="must be able to listen"):
        listen(host, 0)


def test_a_port_that_is_taken_is_refused_with_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ChainruleError, match=f"127.0.0.1:{port}.*--port"):
            listen("127.0.0.1", port)


# --- connections --------------------------------------------------------------------------------


async def answer_ok(scope, receive, send):
    """Answer at once, whatever the body is."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def port():
    with serve_app(answer_ok) as address:
        yield int(address.rpartition(":")[2])


@pytest.fixture
def hasty(monkeypatch):
    """Waits for the headers of a request only for a moment."""
    monkeypatch.setattr(TimedProtocol, "header_seconds", 0.5)


def read_to_end(connection: socket.socket) -> bytes:
    connection.settimeout(PATIENCE)
    parts = []
    try:
        while part := connection.recv(2**16):
            parts.append(part)
    except ConnectionResetError:
        return b"".join(parts)
    return b"".join(parts)


REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("begin", [b"", b"GET / HTTP/1.1\r\nHost: loc", REQUEST + b"GET /"])
def test_a_connection_that_only_keeps_a_place_is_closed(port, hasty, begin):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(begin)
        assert read_to_end(connection).count(b"200 OK") <= begin.count(REQUEST)


def test_a_byte_now_and_then_does_not_keep_it_open(port, hasty):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")

        def is_closed() -> bool:
            try:
                connection.sendall(b"a")
            except OSError:
                return True
            return False

        wait_until(is_closed)


def test_a_body_that_nobody_reads_does_not_keep_it_open(port):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nx")
        assert b"200 OK" in read_to_end(connection)


def test_headers_are_bounded(port):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        with suppress(OSError):
            connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * 4 * HEADER_BYTES)
        assert b"200 OK" not in read_to_end(connection)


def test_several_requests_go_over_one_connection(port):
    with httpx.Client(timeout=120) as client:
        for _ in range(5):
            assert client.get(f"http://127.0.0.1:{port}/").text == "ok"
    with socket.create_connection(("127.0.0.1", port)) as connection:  # all sent before any answer
        connection.sendall(
            REQUEST * 3 + REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        )
        assert read_to_end(connection).count(b"200 OK") == 4
