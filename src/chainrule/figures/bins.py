"""Histograms on another's bins, and a symmetric logarithmic scale for them."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from chainrule._utils.numbers import MINUS, to_superscript
from chainrule.flow.records import Histogram

WIDE = 100.0
"""Layers whose largest values differ by more than this factor need a logarithmic scale."""


def spread(histogram: Histogram, edges: Sequence[float], *, zero: float = 0.0) -> list[float]:
    """Return the shares of a histogram on other bins, each bin spread evenly over its own width.

    Args:
        histogram: The counts.
        edges: Edges of the bins to fill, ascending; they hold all of the histogram.
        zero: Share of values that are exactly zero: those are put where zero is.
    """
    counts, cells = histogram.counts, len(edges) - 1
    total, shares = sum(counts), [0.0] * cells
    bounds = [
        histogram.low * (1 - index / len(counts)) + histogram.high * (index / len(counts))
        for index in range(len(counts) + 1)  # high − low may overflow
    ]

    def find(value: float) -> int:
        return min(max(bisect_right(edges, value) - 1, 0), cells - 1)

    parts = [count / total for count in counts]
    if zero and histogram.low <= 0.0 <= histogram.high:
        holder = min(max(bisect_right(bounds, 0.0) - 1, 0), len(counts) - 1)
        moved = min(zero, parts[holder])
        parts[holder] -= moved
        shares[find(0.0)] += moved
    for part, (start, end) in zip(parts, pairwise(bounds), strict=True):
        first, last = find(start), min(max(bisect_left(edges, end) - 1, 0), cells - 1)
        if first >= last:
            shares[first] += part
            continue
        for cell in range(first, last + 1):
            overlap = min(end, edges[cell + 1]) / 4 - max(start, edges[cell]) / 4
            shares[cell] += part * max(overlap, 0.0) / (end / 4 - start / 4)
    return shares


@dataclass(frozen=True, slots=True)
class SymmetricLog:
    """A scale that is linear around zero and logarithmic in powers of ten beyond, on both sides.

    Attributes:
        power: Values up to about 10 to this power lie in the linear part.
    """

    power: int

    @classmethod
    def choose(cls, extents: Iterable[float]) -> Self | None:
        """Return the scale that shows all of some largest magnitudes; `None` if a line does."""
        known = [extent for extent in extents if extent > 0 and math.isfinite(extent)]
        if not known or max(known) / WIDE <= min(known):
            return None
        return cls(math.floor(math.log10(min(known))))

    def place(self, value: float) -> float:
        """Return the place of a value: sign(v) · log₁₀(1 + |v| ÷ 10^power)."""
        if value == 0.0:
            return 0.0
        power = math.log10(abs(value)) - self.power
        return math.copysign(power if power > 15 else math.log10(1 + 10.0**power), value)

    def read(self, place: float) -> float:
        """Return the value at a place."""
        power = abs(place) if abs(place) > 15 else math.log10(max(10.0 ** abs(place) - 1, 1e-300))
        power += self.power
        return math.copysign(10.0**power if power < 308 else 1.7e308, place) if place else 0.0

    def list_ticks(self, low: float, high: float) -> tuple[list[float], list[str]]:
        """Return places and labels of zero and of powers of ten between two places."""
        reach = math.floor(max(abs(low), abs(high)))
        step = max(1, math.ceil((high - low) / 8))
        powers = [self.power + n for n in range(step, reach + 1, step)]
        ticks = [(0.0, "0")]
        for power in powers:
            place = self.place(10.0**power)
            text = {0: "1", 1: "10"}.get(power, f"10{to_superscript(power)}")
            ticks += [(place, text), (-place, f"{MINUS}{text}")]
        ticks = sorted(tick for tick in ticks if low <= tick[0] <= high)
        return [place for place, _ in ticks], [text for _, text in ticks]
