"""What the pages measure: how much of it, how long it takes, and a store of recent results."""

import threading
from collections import OrderedDict

from chainrule.app.jobs.queue import Check
from chainrule.errors import SpecError
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.measure.simulation import simulate
from chainrule.spec.network_spec import NetworkSpec

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


def plan_seeds(spec: NetworkSpec, seeds: int, *, first: bool) -> int:
    """Return how many networks to measure.

    Args:
        spec: The network.
        seeds: How many are wanted.
        first: Whether a quick first answer is wanted, which the whole ensemble will follow.

    Raises:
        SpecError: If even one network is more than the page measures.
    """
    entries = count_entries(spec)
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


def count_entries(spec: NetworkSpec) -> int:
    """Return the weights and activations of one network, which its memory goes by."""
    return spec.depth * spec.width * (spec.width + spec.batch_size)


class Measurer:
    """Measures, and keeps what was measured lately.

    The store changes no answer, because a specification and its seeds determine the numbers.
    """

    def __init__(self) -> None:
        self._store: OrderedDict[tuple[NetworkSpec, int, bool], GradientFlow] = OrderedDict()
        self._lock = threading.Lock()

    def measure(
        self, spec: NetworkSpec, seeds: int, check: Check, *, histograms: bool = True
    ) -> GradientFlow:
        """Return the measurement of an ensemble, from the store or anew.

        Args:
            spec: The network.
            seeds: How many.
            check: Called again and again; may raise to give up.
            histograms: Whether the distribution of activations is wanted, too.
        """
        key = (spec, seeds, histograms)
        with self._lock:
            if key in self._store:
                self._store.move_to_end(key)
                return self._store[key]
        flow = simulate(spec, seeds, progress=lambda _done, _all: check(), histograms=histograms)
        with self._lock:
            self._store[key] = flow
            while len(self._store) > 1 and self._count_weights() > _CACHED_WEIGHTS:
                self._store.popitem(last=False)
        return flow

    def _count_weights(self) -> int:
        """Return a measure of the memory that the store takes: values go with the layers."""
        return sum(2**12 * spec.depth * seeds for spec, seeds, _ in self._store)
