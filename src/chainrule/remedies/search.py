"""One search for changes that help: what was tried, how far it is, and what comes first.

What the candidates are and how one is measured, `spec_search` and `model_search` say.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Generic, TypeVar

from chainrule.diagnosis.diagnosis import diagnose
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.remedies.changes import Change
from chainrule.remedies.result import Outcome, Remedy, compare_flows

Progress = Callable[[int, int], None]
"""Called with (measurements done, measurements planned); the search ends when it raises."""

C = TypeVar("C", bound=Change)

_ORDER = tuple(Outcome)


@dataclass(frozen=True, slots=True)
class Tried(Generic[C]):
    """A change with what was measured."""

    change: C
    remedy: Remedy


@dataclass(frozen=True, slots=True)
class Pair(Generic[C]):
    """Two changes made together, not yet measured.

    Attributes:
        change: Both changes.
        alone: What share of the way to the bound the better of the two closed alone.
    """

    change: C
    alone: float


class Search(Generic[C]):
    """The measurements of one call.

    Candidates come from generators that read the search while it runs: what measures well
    already, how many do, how many measurements are left.

    Attributes:
        before: The measurement of the network as it is.
        diagnosis: What is wrong with it.
        tried: What was measured, in the order in which it was.
        done: How many measurements were made, the first one included.
        planned: How many there will be at most, as far as is known.
    """

    def __init__(
        self,
        before: GradientFlow,
        enough: int,
        progress: Progress | None = None,
        limit: int | None = None,
    ) -> None:
        """Start from one measurement.

        Args:
            before: The measurement of the network as it is.
            enough: How many changes that measure well end the search.
            progress: Called with (measurements done, measurements planned).
            limit: Most measurements, the first one included; `None` for any number.
        """
        self.before = before
        self.diagnosis = diagnose(before)
        self.tried: list[Tried[C]] = []
        self.done = 1
        self.planned = limit or 1
        self._enough = enough
        self._limit = limit
        self._progress = progress

    @property
    def left(self) -> float:
        """How many measurements may still be made."""
        return float("inf") if self._limit is None else self._limit - self.done

    @property
    def is_done(self) -> bool:
        """Whether enough changes measure well."""
        return self.count(Outcome.CURES, Outcome.MEASURES) >= self._enough

    def count(self, *outcomes: Outcome) -> int:
        """Return how many of the changes that were measured have one of these outcomes."""
        return sum(entry.remedy.outcome in outcomes for entry in self.tried)

    def has_good(self, kind: str | None = None) -> bool:
        """Return whether some change (of one kind, if given) measures well."""
        return any(
            entry.remedy.is_good and (kind is None or kind in entry.remedy.kinds)
            for entry in self.tried
        )

    def run(
        self,
        candidates: Iterable[C],
        pairs: Iterable[Pair[C]],
        measure: Callable[[C], GradientFlow | None],
    ) -> None:
        """Measure candidates, then pairs; of pairs, keep those that do more than one change alone.

        Args:
            candidates: Single changes, asked for one at a time.
            pairs: Pairs of changes; the first is asked for when all candidates are measured.
            measure: Returns the flow after a change, and calls `advance`; `None` where there is
                none.
        """
        for change in candidates:
            self._try(change, measure)
        for pair in pairs:
            remedy = self._try(pair.change, measure)
            if remedy is None or remedy.is_good:
                continue
            if remedy.outcome is not Outcome.HELPS or remedy.comparison.closed <= pair.alone:
                self.tried.pop()

    def _try(self, change: C, measure: Callable[[C], GradientFlow | None]) -> Remedy | None:
        flow = measure(change)
        if flow is None:
            return None
        remedy = compare_flows(
            self.before,
            flow,
            diagnosis=self.diagnosis,
            title=change.title,
            reason=change.reason,
            kinds=change.kinds,
            edits=change.edits,
        )
        self.tried.append(Tried(change, remedy))
        return remedy

    def keep_best(self, kind: str) -> None:
        """Forget all single changes of a kind but the one with the best effect."""
        rivals = [entry for entry in self.tried if entry.change.kinds == (kind,)]
        if rivals:
            best = min(rivals, key=_rank_effect)
            self.tried = [e for e in self.tried if e is best or e.change.kinds != (kind,)]

    def list_best(self) -> list[C]:
        """Return the changes that were measured, the best effect first, whatever they cost."""
        return [entry.change for entry in sorted(self.tried, key=_rank_effect)]

    def pair_up(self, changes: Sequence[C], combine: Callable[[C, C], C | None]) -> list[Pair[C]]:
        """Return all pairs of measured changes that can be made together, in the order given."""
        closed = {id(entry.change): entry.remedy.comparison.closed for entry in self.tried}
        return [
            Pair(both, max(closed[id(first)], closed[id(second)]))
            for first, second in combinations(changes, 2)
            if (both := combine(first, second)) is not None
        ]

    def replace_remedies(self, change: Callable[[Remedy], Remedy]) -> None:
        """Put what a function makes of it in the place of each remedy."""
        self.tried = [Tried(entry.change, change(entry.remedy)) for entry in self.tried]

    def rank(self, effect: Callable[[Remedy], float] = lambda _: 0.0) -> tuple[Remedy, ...]:
        """Return what was measured by outcome, then by cost.

        Args:
            effect: Which of several changes of one outcome and cost comes first: the largest.
        """
        ranked = sorted(
            self.tried,
            key=lambda entry: (
                _ORDER.index(entry.remedy.outcome),
                entry.change.cost,
                -effect(entry.remedy),
            ),
        )
        return tuple(entry.remedy for entry in ranked)

    def plan(self, further: int) -> None:
        """Note how many measurements may follow, and report it."""
        self.planned += further
        self.advance(0)

    def advance(self, steps: int = 1) -> None:
        """Count measurements, and report how far the search is."""
        self.done += steps
        self.planned = max(self.planned, self.done)
        if self._progress is not None:
            self._progress(self.done, self.planned)

    def finish(self) -> None:
        """Report that nothing more will be measured."""
        self.planned = self.done
        self.advance(0)


def _rank_effect(entry: Tried[C]) -> tuple[int, float]:
    return _ORDER.index(entry.remedy.outcome), -entry.remedy.comparison.closed
