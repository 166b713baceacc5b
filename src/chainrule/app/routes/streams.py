"""Answers that come line by line while the queue works on them: trainings, maps.

The work is done in a thread of the queue, never in the event loop, and a visitor who leaves ends
it: what it needs to know lives in its request alone.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from chainrule.app.answers.encoding import encode
from chainrule.app.jobs.queue import Check, JobQueue, Lane, Superseded
from chainrule.errors import ChainruleError

PERIOD = 1 / 15
"""Seconds between two looks at what is there to be sent."""

HEARTBEAT = 1.0
"""Seconds of silence after which an empty line is sent: so a lost connection is noticed."""

Line = dict[str, Any]
Describe = Callable[[Callable[[], bool]], Iterator[Line]]
"""Yields the lines of an answer; called with a function that is true once nobody waits for it."""

_LOG = logging.getLogger(__name__)


class LineResponse(StreamingResponse):
    """A stream of JSON lines whose work ends when the stream does, however it does."""

    def __init__(
        self, start: Line, describe: Describe, queue: JobQueue, *, lane: Lane, size: int, noun: str
    ) -> None:
        """Begin the work.

        Args:
            start: The first line.
            describe: Yields the others, in the queue's thread.
            queue: Where the work waits.
            lane: What kind of work it is.
            size: Tensor entries that it works on.
            noun: What it is called, in messages: "training".

        Raises:
            Busy: If every seat is taken.
        """
        self.work = _Work(describe, queue, lane, size, noun)
        super().__init__(
            _stream(start, self.work),
            media_type="application/x-ndjson",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the lines, and end the work with them."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.work.job.cancel()


class _Work:
    """Work in the queue's thread; the event loop gets its lines one after another.

    Its seat is free when the thread has ended, not before: one at a time.
    """

    def __init__(
        self, describe: Describe, queue: JobQueue, lane: Lane, size: int, noun: str
    ) -> None:
        self.describe = describe
        self.queue = queue
        self.noun = noun
        self.lines: asyncio.Queue[Line | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self.job = queue.submit(self._do, lane=lane, size=size)

    def _do(self, check: Check) -> None:
        def should_stop() -> bool:
            try:
                check()
            except Superseded:
                return True
            return False

        try:
            for line in self.describe(should_stop):
                self._tell(line)
        except ChainruleError as error:
            self._tell({"type": "error", "error": str(error)})
        except Exception:
            _LOG.exception("a %s failed", self.noun)
            reason = f"The server could not finish this {self.noun}."
            self._tell({"type": "error", "error": reason})
        finally:
            self._tell(None)

    def _tell(self, line: Line | None) -> None:
        with suppress(RuntimeError):  # the server has gone: nobody is left to be told
            self._loop.call_soon_threadsafe(self.lines.put_nowait, line)


async def _stream(start: Line, work: _Work) -> AsyncIterator[bytes]:
    yield encode(start) + b"\n"
    told, ended = 0, False
    sent = time.monotonic()
    while not ended:
        lines: list[Line | None] = []
        if work.queue.closing:
            lines = [{"type": "error", "error": "The server is shutting down."}, None]
        elif (ahead := work.job.ahead) and ahead != told:
            status = _describe_wait(ahead, work.noun)
            lines = [{"type": "queued", "ahead": ahead, "status": status}]
            told = ahead
        while not work.lines.empty():
            lines.append(work.lines.get_nowait())
        ended = None in lines
        text = b"".join(encode(line) + b"\n" for line in lines if line is not None)
        if text or time.monotonic() - sent > HEARTBEAT:
            sent = time.monotonic()
            yield text or b"\n"
        if not ended:
            await asyncio.sleep(PERIOD)


def _describe_wait(ahead: int, noun: str) -> str:
    return f"Waiting: {ahead} {f'{noun} comes' if ahead == 1 else f'{noun}s come'} first."
