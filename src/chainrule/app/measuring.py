"""Measuring for many visitors: bounded, newest first, each answer to its own question."""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fastapi import Request

from chainrule.errors import SpecError
from chainrule.flow import GradientFlow
from chainrule.simulation import simulate
from chainrule.spec import NetworkSpec

T = TypeVar("T")

PAGE_BUDGET = 2**27
"""Most weights (depth · width² · seeds) that the page measures at once: a few seconds."""

FIRST_SECONDS = 0.25
"""How long a first answer may take; the whole ensemble follows it where that takes longer."""

_SECONDS_PER_LAYER, _SECONDS_PER_WEIGHT = 2.5e-4, 2e-8
"""What a measurement takes, roughly, on one core: it decides what comes first, not what is said."""

_CACHED_WEIGHTS = 2**26
"""Measurements of so many weights in all are kept for the next question."""

_POLL_SECONDS = 0.1


class Superseded(Exception):  # noqa: N818  (not an error: nobody waits for the answer any more)
    """The visitor has left or asked something newer."""


def plan_seeds(spec: NetworkSpec, seeds: int, *, first: bool) -> int:
    """Return how many networks to measure.

    Args:
        spec: The network.
        seeds: How many are wanted.
        first: Whether a quick first answer is wanted, which the whole ensemble will follow.

    Raises:
        SpecError: If even one network is more than the page measures.
    """
    weights = spec.depth * spec.width**2
    if weights > PAGE_BUDGET:
        raise SpecError(
            f"depth · width² must be at most {PAGE_BUDGET:,} on this page; {spec.depth} · "
            f"{spec.width}² is {weights:,}. Make the network smaller, or measure it on the command "
            "line with `chainrule simulate`."
        )
    seeds = min(seeds, PAGE_BUDGET // weights)
    if not first:
        return seeds
    spare = FIRST_SECONDS - spec.depth * _SECONDS_PER_LAYER
    quick = int(spare / (weights * _SECONDS_PER_WEIGHT)) if spare > 0 else 1
    return seeds if seeds <= quick else max(1, quick)


class Measurer:
    """What measures for all visitors of one process.

    Quick measurements and long ones have a thread each, so that nobody's slider waits behind
    somebody's thousand layers. A small store of recent measurements is kept; it changes no answer,
    because a specification and its seeds determine the numbers.
    """

    def __init__(self) -> None:
        self._quick = ThreadPoolExecutor(1, "quick")
        self._long = ThreadPoolExecutor(1, "long")
        self._store: OrderedDict[tuple[NetworkSpec, int], GradientFlow] = OrderedDict()
        self._lock = threading.Lock()

    async def run(
        self, request: Request, work: Callable[[Callable[[], None]], T], *, long: bool
    ) -> T:
        """Do some work in a thread; give it up if the visitor goes away.

        Args:
            request: Whose work it is.
            work: Does it; called with a function that raises `Superseded` once it is in vain.
            long: Whether it may take longer than a first answer.

        Raises:
            Superseded: If the visitor went away.
        """
        gone = threading.Event()

        def check() -> None:
            if gone.is_set():
                raise Superseded

        pool = self._long if long else self._quick
        future = asyncio.get_running_loop().run_in_executor(pool, _guard, work, check)
        while True:
            done, _ = await asyncio.wait({future}, timeout=_POLL_SECONDS)
            if done:
                return future.result()
            if await request.is_disconnected():
                gone.set()
                future.cancel()
                raise Superseded

    def measure(self, spec: NetworkSpec, seeds: int, check: Callable[[], None]) -> GradientFlow:
        """Return the measurement of an ensemble, from the store or anew.

        Args:
            spec: The network.
            seeds: How many.
            check: Called between networks; may raise to give up.
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


def _guard(work: Callable[[Callable[[], None]], Any], check: Callable[[], None]) -> Any:
    check()  # it may have waited its turn in vain
    return work(check)
