"""`GET /api/train`: a training as a stream of lines, one at a time, and a bounded queue.

What a training needs to know lives in its request alone: any number of worker processes can serve
it (each trains one network at a time), and a visitor who leaves ends it. The work itself is done
in a thread of the queue, never in the event loop.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import suppress

from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from chainrule.app.answers.encoding import encode
from chainrule.app.answers.training_answer import (
    Line,
    Order,
    describe_order,
    describe_training,
    read_order,
)
from chainrule.app.jobs.measuring import count_entries
from chainrule.app.jobs.queue import Busy, Check, JobQueue, Lane, Superseded
from chainrule.app.routes.replies import refuse
from chainrule.errors import ChainruleError, SpecError

PERIOD = 1 / 15
"""Seconds between two looks at what is there to be sent."""

HEARTBEAT = 1.0
"""Seconds of silence after which an empty line is sent: so a lost connection is noticed."""

_LOG = logging.getLogger(__name__)


def register_routes(server: FastAPI, queue: JobQueue) -> None:
    """Answer `GET /api/train`.

    The answer is a stream of lines, each a JSON object with a `type`: "start" (what will be
    trained), "queued" (`ahead`: how many come first; whenever that changes), "step" (a record), at
    last "done", "diverged" or "error". Empty lines mean nothing. Refused are, as JSON with an
    `error`: 422 what cannot be trained, 503 when every seat is taken.

    Streams end early when the queue is closed.

    Args:
        server: Where to register.
        queue: Where the trainings wait.
    """

    @server.get("/api/train", include_in_schema=False)
    async def answer_training(request: Request) -> Response:
        try:
            order = read_order(request.url.query)
            start = await run_in_threadpool(describe_order, order)
            return _TrainingResponse(order, start, queue)
        except SpecError as error:
            return refuse(422, str(error))
        except (ChainruleError, Busy) as error:  # scikit-learn is missing; no seat is left
            return refuse(503, str(error))


class _TrainingResponse(StreamingResponse):
    """A stream whose training ends when the stream does, however it does."""

    def __init__(self, order: Order, start: Line, queue: JobQueue) -> None:
        self.training = _Training(order, queue)
        super().__init__(
            _stream(start, self.training),
            media_type="application/x-ndjson",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.training.job.cancel()


class _Training:
    """A training in the queue's thread; the event loop gets its lines one after another.

    Its seat is free when the thread has ended, not before: one training at a time.
    """

    def __init__(self, order: Order, queue: JobQueue) -> None:
        self.order = order
        self.queue = queue
        self.lines: asyncio.Queue[Line | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self.job = queue.submit(self._work, lane=Lane.TRAINING, size=count_entries(order.spec))

    def _work(self, check: Check) -> None:
        def should_stop() -> bool:
            try:
                check()
            except Superseded:
                return True
            return False

        try:
            for line in describe_training(self.order, should_stop):
                self._tell(line)
        except ChainruleError as error:
            self._tell({"type": "error", "error": str(error)})
        except Exception:
            _LOG.exception("a training failed")
            reason = "The server could not finish this training."
            self._tell({"type": "error", "error": reason})
        finally:
            self._tell(None)

    def _tell(self, line: Line | None) -> None:
        with suppress(RuntimeError):  # the server has gone: nobody is left to be told
            self._loop.call_soon_threadsafe(self.lines.put_nowait, line)


async def _stream(start: Line, training: _Training) -> AsyncIterator[bytes]:
    yield encode(start) + b"\n"
    told, ended = 0, False
    sent = time.monotonic()
    while not ended:
        lines: list[Line | None] = []
        if training.queue.closing:
            lines = [{"type": "error", "error": "The server is shutting down."}, None]
        elif (ahead := training.job.ahead) and ahead != told:
            lines = [{"type": "queued", "ahead": ahead, "status": _describe_wait(ahead)}]
            told = ahead
        while not training.lines.empty():
            lines.append(training.lines.get_nowait())
        ended = None in lines
        text = b"".join(encode(line) + b"\n" for line in lines if line is not None)
        if text or time.monotonic() - sent > HEARTBEAT:
            sent = time.monotonic()
            yield text or b"\n"
        if not ended:
            await asyncio.sleep(PERIOD)


def _describe_wait(ahead: int) -> str:
    return f"Waiting: {ahead} {'training comes' if ahead == 1 else 'trainings come'} first."
