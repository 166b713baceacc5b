"""`find_remedies`: changes worth trying, each measured before and after."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, overload

from torch import Tensor, nn

from chainrule.diagnosis.diagnosis import Diagnosis, diagnose
from chainrule.diagnosis.rules import Verdict
from chainrule.errors import SpecError
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.measure.simulation import BUDGET, simulate
from chainrule.remedies.model_search import find_model_remedies
from chainrule.remedies.result import Outcome, Remedies, Remedy, compare_flows
from chainrule.remedies.spec_changes import (
    COSTS,
    Treatment,
    choose_ingredients,
    combine_treatments,
    list_treatments,
    scale_weights,
)
from chainrule.spec.network_spec import NetworkSpec

WANTED = 3
"""Remedies that are looked for in any case: with fewer, more is tried."""

MAX_PAIRS = 16
"""Most pairs of changes that are measured."""

SEARCH_STEPS = 6
"""Most measurements on the way to a scale of the weights."""

SEARCH_SEEDS = 4
"""Networks of each of these; the scale that was found is then measured with all seeds."""

WEIGHTS = 2**20
"""Weights (depth · width² · seeds) of one measurement that the number of seeds is chosen by."""

NARROW = 32
"""Layers narrower than this take as long as layers of this width."""

Progress = Callable[[int, int], None]


@overload
def find_remedies(
    spec: NetworkSpec,
    seeds: int | Sequence[int] | None = ...,
    *,
    enough: int = ...,
    budget: int | None = ...,
    progress: Progress | None = ...,
) -> Remedies: ...
@overload
def find_remedies(
    model: nn.Module,
    compute_loss: Callable[[Any], Tensor],
    *,
    enough: int = ...,
    measurements: int = ...,
    copy_limit: int = ...,
    progress: Progress | None = ...,
) -> Remedies: ...
def find_remedies(*args: Any, **options: Any) -> Remedies:
    """Return changes worth trying for a network that is not healthy, each of them measured.

    `find_remedies(spec)` changes the specification and measures ensembles; see
    `find_spec_remedies` for its arguments. `find_remedies(model, compute_loss)` changes copies of
    your own model; see `model_remedies.find_model_remedies`. What is found is ranked: cures, then
    what helps, the cheapest first; what was measured in vain is kept apart.

    Raises:
        SpecError: If the arguments are not legal or the network itself exceeds the budget.
        InspectionError: If the model cannot be measured.
        RemedyError: If arguments for a model are not legal.
    """
    if isinstance(args[0] if args else options.get("model"), nn.Module):
        return find_model_remedies(*args, **options)
    return find_spec_remedies(*args, **options)


def find_spec_remedies(
    spec: NetworkSpec,
    seeds: int | Sequence[int] | None = None,
    *,
    enough: int = 4,
    budget: int | None = BUDGET,
    progress: Progress | None = None,
) -> Remedies:
    """Return changes of a specification that help, each of them measured.

    Every candidate is measured by `simulate` with the seeds that the network itself was measured
    with, and judged by the metric of the gravest finding. It cures if the changed network is
    diagnosed healthy and plain SGD is likely to train it; it helps if the metric comes at least a
    quarter of the way nearer to its bound and nothing else goes wrong that was not wrong before.
    Everything else is refuted. Pairs of changes are tried where no single one cures, or fewer than
    three help.

    How often the first remedy really trains the network is measured by `benchmarks/remedies.py`;
    docs/viability.md has the table.

    Args:
        spec: The network. A healthy one has no remedies.
        seeds: How many networks to measure each time, or their seeds; by default 16, and down to
            3 the larger the network is.
        enough: Stop when so many cures are found. A kind of change that has a cure is then not
            tried further, unless fewer than three remedies come out.
        budget: Most weights (depth · width² · seeds) of one measurement; candidates beyond it are
            passed over; `None` for any number.
        progress: Called with (measurements done, measurements planned), again and again while each
            is under way. The search ends when it raises, which is the way to cancel it.

    Returns:
        The remedies, ranked; the same for the same arguments.

    Raises:
        SpecError: If the arguments are not legal or the network itself exceeds the budget.
    """
    if not isinstance(spec, NetworkSpec):
        raise SpecError(
            f"spec: must be a NetworkSpec; got {type(spec).__name__}. "
            "Build one with chainrule.NetworkSpec(depth=15, activation='sigmoid'), or give a "
            "torch.nn.Module and its compute_loss."
        )
    if not isinstance(enough, int) or isinstance(enough, bool) or enough < 1:
        raise SpecError(f"enough: must be a whole number above 0; got {enough!r:.60}.")
    members = choose_seeds(spec) if seeds is None else seeds
    tick = None if progress is None else lambda _done, _all: progress(0, 1)
    before = simulate(spec, members, budget=budget, progress=tick)
    search = _Search(spec, before, diagnose(before), enough, budget, progress)
    if search.diagnosis.verdict is not Verdict.HEALTHY:
        search.run()
    elif progress is not None:
        progress(1, 1)
    return Remedies(before=before, diagnosis=search.diagnosis, tried=search.rank())


def choose_seeds(spec: NetworkSpec) -> int:
    """Return how many networks of a specification are measured quickly: 16, down to 3."""
    return max(3, min(16, WEIGHTS // (spec.depth * max(spec.width, NARROW) ** 2)))


class _Search:
    """The measurements of one call."""

    def __init__(
        self,
        spec: NetworkSpec,
        before: GradientFlow,
        diagnosis: Diagnosis,
        enough: int,
        budget: int | None,
        progress: Progress | None,
    ) -> None:
        self.spec = spec
        self.before = before
        self.diagnosis = diagnosis
        self.enough = enough
        self.budget = budget
        self.progress = progress
        self.tried: list[tuple[Treatment, Remedy]] = []
        self.done = 1
        self.planned = 1

    def run(self) -> None:
        singles = list(list_treatments(self.spec, self.diagnosis.verdict))
        dearer = [single for single in singles if COSTS[single.kinds[0]] > COSTS["gain"]]
        cheaper = singles[: len(singles) - len(dearer)]
        self.planned += len(singles) + SEARCH_STEPS + 1 + MAX_PAIRS
        self._advance(0)
        passed_over = self._try(cheaper)
        if not self._is_done() and not self._has_cure("initialization"):
            self._try_scale()
        passed_over += self._try(dearer)
        for treatment in passed_over:
            if self._count_remedies() >= WANTED:
                break
            self._measure(treatment)
        if not self._count(Outcome.CURES) or self._count_remedies() < WANTED:
            self._try_pairs()
        self.planned = self.done
        self._advance(0)

    def rank(self) -> tuple[Remedy, ...]:
        return tuple(remedy for _, remedy in sorted(self.tried, key=_rank_price))

    def _try(self, treatments: Sequence[Treatment]) -> list[Treatment]:
        """Measure treatments until there are enough cures; return those passed over."""
        passed_over = []
        for treatment in treatments:
            if self._is_done() or self._has_cure(treatment.kinds[0]):
                passed_over.append(treatment)
            else:
                self._measure(treatment)
        return passed_over

    def _try_pairs(self) -> None:
        """Measure pairs; keep those that cure, or help more than either of their changes."""
        best = sorted(self.tried, key=_rank_effect)
        closed = {treatment: remedy.comparison.closed for treatment, remedy in best}
        parts = choose_ingredients([treatment for treatment, _ in best])
        pairs = [
            (pair, max(closed[first], closed[second]))
            for first, second in combinations(sorted(parts, key=lambda part: part.cost), 2)
            if (pair := combine_treatments(self.spec, first, second))
        ]
        pairs.sort(key=lambda entry: entry[0].cost)
        for pair, alone in pairs[:MAX_PAIRS]:
            if self._is_done():
                break
            if self._measure(pair):
                remedy = self.tried[-1][1]
                helps_more = remedy.outcome is Outcome.HELPS and remedy.comparison.closed > alone
                if not (remedy.is_cure or helps_more):
                    self.tried.pop()

    def _try_scale(self) -> None:
        """Look for the scale of the weights at which the gradient keeps its size backward.

        ln(‖δ_1‖ ÷ ‖δ_L‖) ÷ (L − 1), the logarithm of a layer's gain, is brought to 0 over the
        logarithm of σ: between two scales that enclose it by interpolation, else by the step that
        would be right if gains were proportional to σ. What was measured already counts as a start.
        """
        spec = self.spec
        if spec.normalization != "none" or spec.depth < 3:
            return  # normalization undoes the scale
        points: dict[float, float] = {}
        self._note_gain(points, self.before)
        for treatment, remedy in self.tried:
            if treatment.kinds == ("initialization",):
                self._note_gain(points, remedy.after)
        tried: set[float] = set()
        best = None
        for _ in range(SEARCH_STEPS):
            std = _propose_scale(points)
            if std is None or std in tried or std > 1e6:
                break
            tried.add(std)
            flow = simulate(
                scale_weights(spec, std).spec,
                self.before.seeds[:SEARCH_SEEDS],
                budget=None,
                progress=self._tick,
            )
            self._advance(1)
            gain = self._note_gain(points, flow)
            if best is None or (gain is not None and abs(gain) < best[0]):
                best = (math.inf if gain is None else abs(gain), std)
            if gain is None or abs(gain) * (spec.depth - 1) < math.log(2.0):
                break
        if best:
            self._measure(scale_weights(spec, best[1]))

    def _note_gain(self, points: dict[float, float], flow: GradientFlow) -> float | None:
        """Add (ln σ, mean ln gain of a layer) of a flow, if it has a gain, and return the gain."""
        ratio, spec = flow.delta_ratio, flow.spec
        if ratio is None or spec is None or not 0.0 < ratio < math.inf:
            return None
        if spec.weight_std_drawn <= 0.0:
            return None
        gain = math.log(ratio) / (spec.depth - 1)
        points[math.log(spec.weight_std_drawn)] = gain
        return gain

    def _measure(self, treatment: Treatment) -> bool:
        """Measure a treatment and note it; `False` if it is beyond the budget."""
        flow = self._simulate(treatment.spec)
        if flow is not None:
            self._note(treatment, flow)
        return flow is not None

    def _simulate(self, spec: NetworkSpec) -> GradientFlow | None:
        """Return a measurement with the seeds of the one before; `None` beyond the budget."""
        weights = spec.depth * spec.width**2 * self.before.ensemble_size
        if self.budget is not None and weights > self.budget:
            return None
        flow = simulate(spec, self.before.seeds, budget=self.budget, progress=self._tick)
        self._advance(1)
        return flow

    def _note(self, treatment: Treatment, flow: GradientFlow) -> None:
        remedy = compare_flows(
            self.before,
            flow,
            diagnosis=self.diagnosis,
            title=treatment.title,
            reason=treatment.reason,
            kinds=treatment.kinds,
        )
        if treatment.kinds == ("depth",):  # a search for the largest depth that is healthy
            rivals = [pair for pair in self.tried if pair[0].kinds == ("depth",)]
            self.tried = [pair for pair in self.tried if pair[0].kinds != ("depth",)]
            self.tried.append(min([*rivals, (treatment, remedy)], key=_rank_effect))
        else:
            self.tried.append((treatment, remedy))

    def _count(self, outcome: Outcome) -> int:
        return sum(remedy.outcome is outcome for _, remedy in self.tried)

    def _count_remedies(self) -> int:
        return self._count(Outcome.CURES) + self._count(Outcome.HELPS)

    def _is_done(self) -> bool:
        return self._count(Outcome.CURES) >= self.enough

    def _has_cure(self, kind: str) -> bool:
        return any(kind in remedy.kinds and remedy.is_cure for _, remedy in self.tried)

    def _tick(self, _done: int, _all: int) -> None:
        """Let whoever watches cancel while a measurement is under way."""
        self._advance(0)

    def _advance(self, steps: int) -> None:
        self.done += steps
        self.planned = max(self.planned, self.done)
        if self.progress is not None:
            self.progress(self.done, self.planned)


_ORDER = tuple(Outcome)


def _rank_effect(pair: tuple[Treatment, Remedy]) -> tuple[int, float]:
    remedy = pair[1]
    return _ORDER.index(remedy.outcome), -remedy.comparison.closed


def _rank_price(pair: tuple[Treatment, Remedy]) -> tuple[int, tuple[int, ...]]:
    treatment, remedy = pair
    return _ORDER.index(remedy.outcome), treatment.cost


def _propose_scale(points: Mapping[float, float]) -> float | None:
    """Return the σ to try next from known (ln σ, ln gain of a layer), to three digits."""
    if not points:
        return None
    below = max((p for p in points.items() if p[1] < 0), default=None)
    above = min((p for p in points.items() if p[1] >= 0), default=None)
    if below is not None and above is not None and below[0] < above[0]:
        share = -below[1] / (above[1] - below[1])
        place = below[0] + min(max(share, 0.1), 0.9) * (above[0] - below[0])
    else:
        nearest = min(points.items(), key=lambda point: abs(point[1]))
        place = nearest[0] - min(max(nearest[1], -2.0), 2.0)
    return float(f"{math.exp(place):.3g}")
