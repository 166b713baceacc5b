"""The queue of everything that takes long: bounded, most urgent first, cancelled when in vain.

A process has one `JobQueue`. It has a lane for each kind of work, and each lane a thread of its
own, so that nobody's slider waits for somebody else's thousand layers. What is bounded: how many
jobs wait, how long one computes, and how much memory all of them take together.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Any, TypeVar

from starlette.requests import Request

from chainrule.errors import ChainruleError, SpecError

T = TypeVar("T")
Check = Callable[[], None]
Work = Callable[[Check], T]

MEMORY = 2**27
"""Most tensor entries that all jobs under way may work on together; a larger one works alone."""

SMALL = MEMORY // 64
"""A job that works on so few entries never waits for memory."""

RETRY_SECONDS = 5
"""After so many seconds it makes sense to ask a busy server again."""

WEIGHT = 5.0
"""So many times as long as a job takes, what comes after it may be done first if it is shorter."""

_NOTICEABLE = 0.002
_PATIENCE = 4.0
_LOOK_SECONDS = 0.05


class Lane(IntEnum):
    """A kind of work; the lower the number, the more urgent."""

    QUICK = 0  # what somebody sees while moving a slider
    REFINE = 1  # whole ensembles that follow a quick answer
    LONG = 2  # the same where it takes long
    SEARCH = 3  # remedies and files
    TRAINING = 4  # trainings, which somebody watches
    MAP = 5  # maps of many networks, cell by cell


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a lane allows.

    Attributes:
        seats: How many jobs may wait or be served; whoever comes then hears that it is busy.
        seconds: How long one job may compute. Only its thread's own computing counts, not its
            waiting, so that a job ends the same way on a busy machine.
        yields_to: Lanes that this one makes way for: meanwhile it works a fifth of the time.
    """

    seats: int
    seconds: float
    yields_to: tuple[Lane, ...] = ()


BOUNDS = MappingProxyType(
    {
        Lane.QUICK: Bounds(64, 30.0),
        Lane.REFINE: Bounds(64, 30.0, (Lane.QUICK,)),
        Lane.LONG: Bounds(12, 60.0, (Lane.QUICK, Lane.REFINE)),
        Lane.SEARCH: Bounds(12, 180.0, (Lane.QUICK, Lane.REFINE, Lane.LONG)),
        Lane.TRAINING: Bounds(4, 600.0, (Lane.QUICK, Lane.REFINE)),
        Lane.MAP: Bounds(4, 900.0, (Lane.QUICK, Lane.REFINE, Lane.LONG)),
    }
)
"""What each lane allows."""


class Superseded(Exception):  # noqa: N818  (not an error: nobody waits for the answer any more)
    """The visitor has left or asked something newer."""


class Busy(Exception):  # noqa: N818  (an answer, not a mistake)
    """There is no seat left; says so in a sentence for the visitor."""


class TooLong(SpecError):  # noqa: N818  (as above)
    """A job used up its computing time; says what to make smaller."""


@dataclass(slots=True, eq=False)
class Job:
    """Work that waits or is being done.

    Attributes:
        lane: Its lane.
        size: Tensor entries that it works on.
        due: When its turn is; the earliest comes first.
        future: Its outcome. A job that was cancelled before it began has none, and one that was
            cancelled later ends with `Superseded`.
    """

    lane: Lane
    work: Work[Any]
    size: int
    due: float
    queue: "JobQueue"
    future: Future[Any] = field(default_factory=Future)
    gone: threading.Event = field(default_factory=threading.Event)

    @property
    def ahead(self) -> int:
        """How many jobs of the lane come first; 0 means that it is being done, or has ended."""
        return self.queue.count_ahead(self)

    def cancel(self) -> None:
        """Give the job up: at once if it waits, else the next time that it looks."""
        self.queue.cancel(self)


class _Line:
    """The jobs of one lane: the waiting ones, and the one that is being done."""

    def __init__(self) -> None:
        self.waiting: deque[Job] = deque()
        self.current: Job | None = None
        self.thread: threading.Thread | None = None  # that takes jobs

    @property
    def taken(self) -> int:
        return len(self.waiting) + (self.current is not None)


class JobQueue:
    """All work of a process that takes long."""

    def __init__(self) -> None:
        self._lines = {lane: _Line() for lane in Lane}
        self._changed = threading.Condition()  # guards the lines; told about every change
        self._ending: list[threading.Thread] = []
        self.closing = False

    def submit(self, work: Work[Any], *, lane: Lane, size: int = 0, seconds: float = 0.0) -> Job:
        """Return a job that will be done.

        Args:
            work: Does it, in a thread; called with a function that it must call often: it raises
                `Superseded` once the work is in vain, `TooLong` once it has used up its time, and
                makes way for more urgent work.
            lane: What kind of work it is.
            size: Tensor entries that it works on.
            seconds: What it takes, roughly: of what waits in a lane, the short comes before the
                long, unless that has waited for long.

        Raises:
            Busy: If too many wait already, the server is about to end, or no thread can start.
        """
        job = Job(lane, work, size, time.monotonic() + WEIGHT * seconds, self)
        with self._changed:
            line = self._lines[lane]
            if self.closing:
                raise Busy("The server is shutting down.")
            if line.taken >= BOUNDS[lane].seats:
                raise Busy(
                    f"The server is busy: {line.taken} jobs come first. Ask again in a few seconds."
                )
            if line.thread is None:
                line.thread = self._start(line, lane)
            place = len(line.waiting)
            while place and line.waiting[place - 1].due > job.due:
                place -= 1
            line.waiting.insert(place, job)
            self._changed.notify_all()
        return job

    def _start(self, line: _Line, lane: Lane) -> threading.Thread:
        """Return a thread that does the jobs of a lane.

        Raises:
            Busy: If none can start, for now.
        """
        thread = threading.Thread(
            target=self._serve, args=(line,), name=f"chainrule-{lane.name}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            raise Busy(f"The server is busy: {error}. Ask again in a few seconds.") from None
        return thread

    async def run(
        self,
        request: Request,
        work: Work[T],
        *,
        lane: Lane,
        size: int = 0,
        seconds: float = 0.0,
    ) -> T:
        """Do some work in a thread; give it up if the visitor goes away.

        Args:
            request: Whose work it is.
            work: Does it; see `submit`.
            lane: What kind of work it is.
            size: Tensor entries that it works on.
            seconds: What it takes, roughly; see `submit`.

        Raises:
            Superseded: If the visitor went away.
            Busy: If too many wait already, or the server is about to end.
            TooLong: If it took too long.
        """
        job = self.submit(work, lane=lane, size=size, seconds=seconds)
        answer = asyncio.wrap_future(job.future)
        leaving = asyncio.ensure_future(_await_leaving(request))
        watched: set[asyncio.Future[Any]] = {answer, leaving}
        try:
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise Superseded
            if answer.cancelled() or (self.closing and isinstance(answer.exception(), Superseded)):
                raise Busy("The server is shutting down.")
            return answer.result()
        finally:
            job.cancel()
            answer.cancel()
            leaving.cancel()
            with suppress(asyncio.CancelledError):
                await leaving

    def cancel(self, job: Job) -> None:
        """Give a job up; twice, or after its end, this changes nothing."""
        job.gone.set()
        with self._changed:
            waiting = self._lines[job.lane].waiting
            if job in waiting:
                waiting.remove(job)
                job.future.cancel()
            self._changed.notify_all()

    def open(self) -> None:
        """Take jobs again, after `close`: an application may start anew."""
        with self._changed:
            self.closing = False

    def close(self) -> None:
        """Give all jobs up and take no more; each thread ends when its job has noticed."""
        with self._changed:
            self.closing = True
            lines = self._lines.values()
            jobs = [job for line in lines for job in (*line.waiting, line.current)]
            self._ending = [each for each in self._ending if each.is_alive()]
            self._ending += [line.thread for line in lines if line.thread is not None]
            for line in lines:
                line.thread = None  # it ends; `open` may let another one take its place
            self._changed.notify_all()
        for job in jobs:
            if job is not None:
                self.cancel(job)

    def join(self, seconds: float) -> None:
        """Wait until the threads have ended, after `close`; some seconds at most."""
        end = time.monotonic() + seconds
        for thread in self._ending:
            thread.join(max(0.0, end - time.monotonic()))

    def count_taken(self, lane: Lane) -> int:
        """Return how many jobs wait or are being done in a lane."""
        return self._lines[lane].taken

    def count_ahead(self, job: Job) -> int:
        """Return how many jobs of its lane come before a job."""
        with self._changed:
            line = self._lines[job.lane]
            if job not in line.waiting:
                return 0
            return line.waiting.index(job) + (line.current is not None)

    def _serve(self, line: _Line) -> None:
        def is_over() -> bool:
            return line.thread is not threading.current_thread()

        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: is_over() or (line.waiting and self._has_room(line.waiting[0]))
                )
                if is_over():
                    return
                job = line.current = line.waiting.popleft()
                job.future.set_running_or_notify_cancel()
            outcome, error = self._do(job)
            with self._changed:
                if line.current is job:  # else another thread has taken this one's place
                    line.current = None
                self._changed.notify_all()
            # Told last: whoever hears the outcome finds the seat free.
            if error is None:
                job.future.set_result(outcome)
            else:
                job.future.set_exception(error)
            del job, outcome, error

    def _has_room(self, job: Job) -> bool:
        """Whether the memory for a job is free.

        A small job never waits for memory; one that is larger than all of it works alone.
        """
        if job.size <= SMALL:
            return True
        sizes = [line.current.size for line in self._lines.values() if line.current]
        return not any(sizes) or sum(sizes) + job.size <= MEMORY

    def _do(self, job: Job) -> tuple[Any, BaseException | None]:
        check = self.make_check(job)
        try:
            check()
            return job.work(check), None
        except CancelledError as error:  # would look like a job that never began
            return None, Superseded(*error.args)
        except (Superseded, ChainruleError) as error:
            error.__traceback__ = None  # it holds everything that the work had in memory
            return None, error
        except BaseException as error:
            return None, error

    def make_check(self, job: Job) -> Check:
        """Return the function that a job's work calls often."""
        bounds = BOUNDS[job.lane]
        begun = time.thread_time()
        resumed = time.monotonic()

        def check() -> None:
            nonlocal resumed
            if job.gone.is_set():
                raise Superseded
            if time.thread_time() - begun > bounds.seconds:
                raise TooLong(
                    f"This must take at most {bounds.seconds:.0f} seconds of computing here, and "
                    "needs more. Lower the depth, the width, the batch size or the number of seeds."
                )
            now = time.monotonic()
            worked = now - resumed
            if bounds.yields_to and worked > _NOTICEABLE:
                self._make_way(job, now + _PATIENCE * worked)
                resumed = time.monotonic()

        return check

    def _make_way(self, job: Job, until: float) -> None:
        urgent = BOUNDS[job.lane].yields_to
        with self._changed:
            while any(self._lines[lane].taken for lane in urgent):
                rest = until - time.monotonic()
                if rest <= 0 or job.gone.is_set():
                    break
                self._changed.wait(min(rest, _LOOK_SECONDS))
        if job.gone.is_set():
            raise Superseded


async def _await_leaving(request: Request) -> None:
    """Wait until the visitor's connection is closed."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
