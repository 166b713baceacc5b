"""`find_remedies`, and the search among changes of a specification."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

from torch import Tensor, nn

from chainrule.diagnosis.rule import Verdict
from chainrule.errors import SpecError
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.measure.simulation import BUDGET, simulate
from chainrule.remedies.changes import COSTS
from chainrule.remedies.model_search import find_model_remedies
from chainrule.remedies.result import Outcome, Remedies
from chainrule.remedies.search import Pair, Progress, Search
from chainrule.remedies.spec_changes import (
    SpecChange,
    choose_ingredients,
    combine_spec_changes,
    list_spec_changes,
    scale_weights,
)
from chainrule.spec.network_spec import NetworkSpec
from chainrule.training.optimizers import OptimizerLike

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

MIN_SCALED_DEPTH, MAX_SCALE = 3, 1e6
"""From how many layers on, and up to which σ, a scale of the weights is looked for."""


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
    prove: bool = ...,
    optimizer: OptimizerLike | None = ...,
    batches: Iterable[Any] | None = ...,
    progress: Progress | None = ...,
) -> Remedies: ...
def find_remedies(*args: Any, **options: Any) -> Remedies:
    """Return changes worth trying for a network that is not healthy, each of them measured.

    `find_remedies(spec)` changes the specification and measures ensembles; see
    `find_spec_remedies` for its arguments. `find_remedies(model, compute_loss)` changes copies of
    your model; see `find_model_remedies`. What cures or measures well comes first, then
    changes that help, the cheapest first in each. Changes that do not help are in `refuted`.

    Raises:
        SpecError: If the arguments are not legal or the network itself exceeds the budget.
        InspectionError: If the model cannot be measured.
        RemedyError: If arguments for a model are not legal.

    Example:
        >>> from chainrule import NetworkSpec
        >>> find_remedies(NetworkSpec(depth=15, activation="relu", init="pytorch"))[0].changes
        {'init': 'he'}
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
    with, and judged by the metric of the gravest finding. It measures well if the changed network
    is diagnosed healthy and plain SGD is likely to train it; it helps if the metric comes at least
    a quarter of the way nearer to its bound and nothing else goes wrong that was not wrong before.
    Everything else is refuted. Pairs of changes are tried where no single one measures well, or
    fewer than three help.

    How often the first remedy really trains the network is measured by `benchmarks/remedies.py`;
    docs/viability.md has the table.

    Args:
        spec: The network. A healthy one has no remedies.
        seeds: How many networks to measure each time, or their seeds; by default 16, and down to
            3 the larger the network is.
        enough: Stop when so many changes measure well. A kind of change of which one does is then
            not tried further, unless fewer than three remedies come out.
        budget: Most weights (depth · width² · seeds) of one measurement; candidates beyond it are
            ignored; `None` for any number.
        progress: Called with (measurements done, measurements planned), again and again while each
            is under way. The search ends when it raises, which is the way to cancel it.

    Returns:
        The remedies, ranked; the same for the same arguments.

    Raises:
        SpecError: If the arguments are not legal or the network itself exceeds the budget.

    Example:
        >>> find_spec_remedies(NetworkSpec(depth=15, activation="sigmoid", width=16), 2)[0].title
        'Residual connections, scaled by 1/√depth'
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
    start = None if progress is None else lambda _done, _all: progress(0, 1)
    before = simulate(spec, members, budget=budget, progress=start)
    search: Search[SpecChange] = Search(before, enough, progress)

    def tick(_done: int, _all: int) -> None:
        search.advance(0)  # so that `progress` can cancel while a measurement is under way

    def measure(change: SpecChange) -> GradientFlow | None:
        """Measure with the seeds of the network as it is; `None` beyond the budget."""
        weights = change.spec.depth * change.spec.width**2 * before.ensemble_size
        if budget is not None and weights > budget:
            return None
        flow = simulate(change.spec, before.seeds, budget=budget, progress=tick)
        search.advance()
        return flow

    if search.diagnosis.verdict is not Verdict.HEALTHY:
        search.run(_list_candidates(search, spec, tick), _list_pairs(search, spec), measure)
    search.finish()
    return Remedies(before=before, diagnosis=search.diagnosis, tried=search.rank())


def choose_seeds(spec: NetworkSpec) -> int:
    """Return how many networks of a specification are measured quickly: 16, down to 3."""
    return max(3, min(16, WEIGHTS // (spec.depth * max(spec.width, NARROW) ** 2)))


def _list_candidates(
    search: Search[SpecChange], spec: NetworkSpec, tick: Progress
) -> Iterator[SpecChange]:
    """Yield single changes until there are enough cures; one cure of a kind is enough."""
    singles = list(list_spec_changes(spec, search.diagnosis.verdict))
    dearer = [single for single in singles if COSTS[single.kinds[0]] > COSTS["gain"]]
    cheaper = singles[: len(singles) - len(dearer)]
    search.plan(len(singles) + SEARCH_STEPS + 1 + MAX_PAIRS)
    left_out: list[SpecChange] = []
    for group in (cheaper, dearer):
        for change in group:
            if search.is_done or search.has_good(change.kinds[0]):
                left_out.append(change)
            else:
                yield change
                search.keep_best("depth")  # of fewer layers, the most that are healthy
        if group is cheaper and not search.is_done and not search.has_good("initialization"):
            std = _find_scale(search, spec, tick)
            if std is not None:
                yield scale_weights(spec, std)
    for change in left_out:
        if search.count(Outcome.MEASURES, Outcome.HELPS) >= WANTED:
            return
        yield change
        search.keep_best("depth")


def _list_pairs(search: Search[SpecChange], spec: NetworkSpec) -> Iterator[Pair[SpecChange]]:
    """Yield pairs of the best changes, the cheapest first, where too few help alone."""
    if search.has_good() and search.count(Outcome.MEASURES, Outcome.HELPS) >= WANTED:
        return
    parts = sorted(choose_ingredients(search.list_best()), key=lambda part: part.cost)
    pairs = search.pair_up(parts, lambda one, other: combine_spec_changes(spec, one, other))
    for pair in sorted(pairs, key=lambda pair: pair.change.cost)[:MAX_PAIRS]:
        if search.is_done:
            return
        yield pair


def _find_scale(search: Search[SpecChange], spec: NetworkSpec, tick: Progress) -> float | None:
    """Look for the scale of the weights at which the gradient keeps its size backward.

    ln(‖δ_1‖ ÷ ‖δ_L‖) ÷ (L − 1), the logarithm of a layer's gradient gain, is brought to 0 over the
    logarithm of σ: between two scales that enclose it by interpolation, else by the step that
    would be right if gains were proportional to σ. What was measured already counts as a start.

    Returns:
        The best σ; `None` where none was tried.
    """
    if spec.normalization != "none" or spec.depth < MIN_SCALED_DEPTH:
        return None  # normalization undoes the scale
    measured = [search.before]
    measured += [e.remedy.after for e in search.tried if e.change.kinds == ("initialization",)]
    points = dict(point for flow in measured if (point := _read_gain(flow)) is not None)
    tried: set[float] = set()
    best: tuple[float, float] | None = None
    for _ in range(SEARCH_STEPS):
        std = _propose_scale(points)
        if std is None or std in tried or std > MAX_SCALE:
            break
        tried.add(std)
        changed = scale_weights(spec, std).spec
        seeds = search.before.seeds[:SEARCH_SEEDS]
        point = _read_gain(simulate(changed, seeds, budget=None, progress=tick))
        search.advance()
        distance = math.inf if point is None else abs(point[1])
        if best is None or (point is not None and distance < best[0]):
            best = (distance, std)
        if point is None or distance * (spec.depth - 1) < math.log(2.0):
            break
        points.update([point])
    return None if best is None else best[1]


def _read_gain(flow: GradientFlow) -> tuple[float, float] | None:
    """Return (ln σ, mean ln of a layer's gradient gain) of a flow, if it has one."""
    ratio, spec = flow.delta_ratio, flow.spec
    if ratio is None or spec is None or not 0.0 < ratio < math.inf:
        return None
    if spec.weight_std_drawn <= 0.0:
        return None
    return math.log(spec.weight_std_drawn), math.log(ratio) / (spec.depth - 1)


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
