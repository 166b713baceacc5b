"""Measuring for many visitors: bounded, newest first, each answer to its own question."""

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from enum import IntEnum
from typing import Any, TypeVar

from fastapi import Request

from chainrule.errors import SpecError
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.measure.simulation import simulate
from chainrule.spec.network_spec import NetworkSpec

T = TypeVar("T")
Check = Callable[[], None]

PAGE_BUDGET = 2**27
"""Most weights and activations of an ensemble that the page measures: a few seconds."""

NETWORK_BUDGET = 2**26
"""Most of them in one network, which is measured in one piece: it bounds the memory."""

FIRST_SECONDS = 0.25
"""How long a first answer may take; the whole ensemble follows it where that takes longer."""

QUICK_SECONDS = 0.6
"""What takes longer than this even from one network does not hold up the quick ones."""

_CACHED_WEIGHTS = 2**26
"""Measurements of so many weights in all are kept for the next question."""

_NOTICEABLE = 0.002
_PATIENCE = 4.0
_LOOK_SECONDS = 0.05


class Lane(IntEnum):
    """A thread that measures, with a line before it; the lower the number, the more urgent."""

    QUICK = 0  # what somebody sees while dragging a slider
    LONG = 1  # whole ensembles that follow a first answer
    SEARCH = 2  # remedies and files


SEATS = {Lane.QUICK: 64, Lane.LONG: 12, Lane.SEARCH: 12}
"""How many may wait or be served in each lane; whoever comes then is told that it is busy."""


class Superseded(Exception):  # noqa: N818  (not an error: nobody waits for the answer any more)
    """The visitor has left or asked something newer."""


class Busy(Exception):  # noqa: N818  (an answer, not a mistake)
    """Every seat is taken; says so in a sentence for the visitor."""


def plan_seeds(spec: NetworkSpec, seeds: int, *, first: bool) -> int:
    """Return how many networks to measure.

    Args:
        spec: The network.
        seeds: How many are wanted.
        first: Whether a quick first answer is wanted, which the whole ensemble will follow.

    Raises:
        SpecError: If even one network is more than the page measures.
    """
    entries = _count_entries(spec)
    if entries > NETWORK_BUDGET:
        raise SpecError(
            f"depth · width · (width + batch size) must be at most {NETWORK_BUDGET:,} on this "
            f"page; {spec.depth} · {spec.width} · ({spec.width} + {spec.batch_size}) is "
            f"{entries:,}. {_suggest_depth(spec)} Larger ones can be measured on the command line: "
            "chainrule simulate."
        )
    seeds = min(seeds, PAGE_BUDGET // entries)
    while first and seeds > 1 and estimate_seconds(spec, seeds) > FIRST_SECONDS:
        seeds -= 1
    return seeds


def _suggest_depth(spec: NetworkSpec) -> str:
    depth = NETWORK_BUDGET // (spec.width * (spec.width + spec.batch_size))
    if depth < 1:
        return "Make the width or the batch smaller."
    layers = "layer is" if depth == 1 else "layers are"
    return f"With this width and batch {depth:,} {layers} possible."


def estimate_seconds(spec: NetworkSpec, seeds: int) -> float:
    """Return what a measurement takes on one core, roughly.

    It decides what comes first, not what is said. Fitted to a few shapes on a busy core: expect it
    to be within a factor of a few.
    """
    width, batch = spec.width, spec.batch_size
    unit = width * 8e-9 + batch * 1.2e-8 + width * batch * 1e-10
    drawing = 5e-5 + 1e-10 * width**3 if spec.init == "orthogonal" else 0.0
    return spec.depth * (2.5e-4 + seeds * (width * unit + drawing))


def _count_entries(spec: NetworkSpec) -> int:
    return spec.depth * spec.width * (spec.width + spec.batch_size)


class _Line:
    """One lane: its thread, and how many are in it."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.thread = ThreadPoolExecutor(1, f"chainrule-{lane.name.lower()}")
        self.taken = 0


class Measurer:
    """What measures for all visitors of one process.

    Each lane has a thread of its own, so that nobody's slider waits behind somebody's thousand
    layers, and less urgent ones make way: they work at least a fifth of the time. A small store of
    recent measurements is kept; it changes no answer, because a specification and its seeds
    determine the numbers.
    """

    def __init__(self) -> None:
        self._lines = {lane: _Line(lane) for lane in Lane}
        self._store: OrderedDict[tuple[NetworkSpec, int], GradientFlow] = OrderedDict()
        self._lock = threading.Lock()
        self._left = threading.Condition()  # guards the counts; tells when somebody is done

    async def run(self, request: Request, work: Callable[[Check], T], *, lane: Lane) -> T:
        """Do some work in a thread; give it up if the visitor goes away.

        Args:
            request: Whose work it is.
            work: Does it; called with a function that it must call often: it raises `Superseded`
                once the work is in vain, and makes way for more urgent work.
            lane: How urgent it is.

        Raises:
            Superseded: If the visitor went away.
            Busy: If too many wait already.
        """
        line = self._lines[lane]
        with self._left:
            if line.taken >= SEATS[lane]:
                raise Busy(
                    f"The server is busy: {line.taken} measurements come first. It is asked again "
                    "in a few seconds."
                )
            line.taken += 1
        gone = threading.Event()
        check = self._make_check(gone, lane)
        running = line.thread.submit(_guard, work, check)
        running.add_done_callback(lambda _: self._leave(line))
        answer = asyncio.wrap_future(running)
        leaving = asyncio.ensure_future(_await_leaving(request))
        watched: set[asyncio.Future[Any]] = {answer, leaving}
        try:
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            raise Superseded
        finally:
            gone.set()
            answer.cancel()  # if it has not begun it never will
            leaving.cancel()
            with suppress(asyncio.CancelledError):
                await leaving

    def count_taken(self, lane: Lane) -> int:
        """Return how many are waiting or being served in a lane."""
        return self._lines[lane].taken

    def _leave(self, line: _Line) -> None:
        with self._left:
            line.taken -= 1
            self._left.notify_all()

    def _make_check(self, gone: threading.Event, lane: Lane) -> Check:
        resumed: float | None = None

        def check() -> None:
            nonlocal resumed
            if gone.is_set():
                raise Superseded
            now = time.monotonic()
            if resumed is None:
                resumed = now
            worked = now - resumed
            if lane is not Lane.QUICK and worked > _NOTICEABLE:
                self._make_way(lane, gone, now + _PATIENCE * worked)
                resumed = time.monotonic()

        return check

    def _make_way(self, lane: Lane, gone: threading.Event, until: float) -> None:
        with self._left:
            while any(self._lines[other].taken for other in Lane if other < lane):
                rest = until - time.monotonic()
                if rest <= 0 or gone.is_set():
                    break
                self._left.wait(min(rest, _LOOK_SECONDS))
        if gone.is_set():
            raise Superseded

    def measure(self, spec: NetworkSpec, seeds: int, check: Check) -> GradientFlow:
        """Return the measurement of an ensemble, from the store or anew.

        Args:
            spec: The network.
            seeds: How many.
            check: Called again and again; may raise to give up.
        """
        key = (spec, seeds)
        with self._lock:
            if key in self._store:
                self._store.move_to_end(key)
                return self._store[key]
        flow = simulate(spec, seeds, progress=lambda _done, _all: check())
        with self._lock:
            self._store[key] = flow
            while len(self._store) > 1 and self._count_weights() > _CACHED_WEIGHTS:
                self._store.popitem(last=False)
        return flow

    def _count_weights(self) -> int:
        """Return a measure of the memory that the store takes: figures go with the layers."""
        return sum(2**12 * spec.depth * seeds for spec, seeds in self._store)


def _guard(work: Callable[[Check], T], check: Check) -> T:
    check()  # it may have waited its turn in vain
    return work(check)


async def _await_leaving(request: Request) -> None:
    """Wait until the visitor's connection is closed."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
