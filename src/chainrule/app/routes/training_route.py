"""`GET /api/train`: a training as a stream of lines, one at a time, and a bounded waiting line.

What a training needs to know lives in its request alone: any number of worker processes can serve
it (each trains one network at a time), and a visitor who leaves ends it. The work itself is done
in a thread of its own, never in the event loop.
"""

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from chainrule.app.answers.training_answer import (
    Line,
    Order,
    describe_order,
    describe_training,
    read_order,
)
from chainrule.app.jobs.waiting_line import Ticket, WaitingLine
from chainrule.errors import ChainruleError, SpecError

WAITING = 3
"""How many trainings may wait while one is under way."""

PERIOD = 1 / 15
"""Seconds between two looks at what is there to be sent."""

HEARTBEAT = 1.0
"""Seconds of silence after which an empty line is sent: so a lost connection is noticed."""

_LOG = logging.getLogger(__name__)


def register_routes(server: FastAPI, *, waiting: int = WAITING) -> None:
    """Answer `GET /api/train`.

    The answer is a stream of lines, each a JSON object with a `type`: "start" (what will be
    trained), "queued" (`ahead`: how many come first; whenever that changes), "step" (a record), at
    last "done", "diverged" or "error". Empty lines mean nothing. Refused are, as JSON with an
    `error`: 422 what cannot be trained, 503 when every seat is taken, 403 pages of other sites.

    Streams end early if `server.state.closing` becomes true.

    Args:
        server: Where to register.
        waiting: How many trainings may wait while one is under way.
    """
    line = WaitingLine(waiting)

    @server.get("/api/train", include_in_schema=False)
    async def answer_training(request: Request) -> Response:
        if _is_foreign(request):
            return _refuse(403, "Only the explorer's own page may start a training.")
        try:
            order = read_order(request.url.query)
            start = await run_in_threadpool(describe_order, order)
        except SpecError as error:
            return _refuse(422, str(error))
        except ChainruleError as error:  # scikit-learn is missing
            return _refuse(503, str(error))
        ticket = line.enter()
        if ticket is None:
            return _refuse(
                503,
                f"busy: a training is under way and {waiting} "
                f"{'is' if waiting == 1 else 'are'} waiting; try again in a minute.",
            )
        return _TrainingResponse(
            order, start, ticket, lambda: getattr(server.state, "closing", False)
        )


def _refuse(status: int, reason: str) -> Response:
    headers = {"Retry-After": "60"} if status == 503 else None
    return JSONResponse({"error": reason}, status_code=status, headers=headers)


def _is_foreign(request: Request) -> bool:
    """Whether a browser says that another site's page asks; programs do not say."""
    if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return True
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host")


class _TrainingResponse(StreamingResponse):
    """A stream whose training ends when the stream does, however it does."""

    def __init__(
        self, order: Order, start: Line, ticket: Ticket, is_closing: Callable[[], bool]
    ) -> None:
        self.job = _Job(order, ticket)
        super().__init__(
            _stream(start, self.job, is_closing),
            media_type="application/x-ndjson",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.job.end()


class _Job:
    """A training in a thread; the event loop gets its lines through a queue.

    Its place is free when the thread has ended, not before: one training at a time.
    """

    def __init__(self, order: Order, ticket: Ticket) -> None:
        self.order = order
        self.ticket = ticket
        self.lines: asyncio.Queue[Line | None] = asyncio.Queue()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Start training."""
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(
            target=self._work, args=(loop,), name="chainrule-training", daemon=True
        )
        self._thread.start()

    def end(self) -> None:
        """Stop training before the next step, if it is still going on, or stop waiting."""
        self._stopped.set()
        if self._thread is None:
            self.ticket.leave()

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            for line in describe_training(self.order, self._stopped.is_set):
                _tell(loop, self.lines.put_nowait, line)
        except Exception as error:
            if not isinstance(error, ChainruleError):
                _LOG.exception("a training failed")
            known = isinstance(error, ChainruleError)
            reason = str(error) if known else "The server could not finish this training."
            _tell(loop, self.lines.put_nowait, {"type": "error", "error": reason})
        finally:
            _tell(loop, self.ticket.leave)
            _tell(loop, self.lines.put_nowait, None)


def _tell(
    loop: asyncio.AbstractEventLoop, call: Callable[..., object], *arguments: Line | None
) -> None:
    with suppress(RuntimeError):  # the server has gone: nobody is left to be told
        loop.call_soon_threadsafe(call, *arguments)


async def _stream(start: Line, job: _Job, is_closing: Callable[[], bool]) -> AsyncIterator[str]:
    yield _encode(start)
    told, begun, ended = 0, False, False
    sent = time.monotonic()
    while not ended:
        lines: list[Line | None] = []
        if is_closing():
            lines = [{"type": "error", "error": "The server is shutting down."}, None]
        elif not begun and (ahead := job.ticket.ahead):
            if ahead != told:
                lines = [{"type": "queued", "ahead": ahead, "status": _describe_wait(ahead)}]
                told = ahead
        elif not begun:
            job.begin()
            begun = True
        else:
            while not job.lines.empty():
                lines.append(job.lines.get_nowait())
        ended = None in lines
        text = "".join(_encode(line) for line in lines if line is not None)
        if text or time.monotonic() - sent > HEARTBEAT:
            sent = time.monotonic()
            yield text or "\n"
        if not ended:
            await asyncio.sleep(PERIOD)


def _describe_wait(ahead: int) -> str:
    return f"Waiting: {ahead} {'training comes' if ahead == 1 else 'trainings come'} first."


def _encode(line: Line) -> str:
    return json.dumps(line, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
