"""A long run in few numbers: the loss in bins of steps, norms as layer × bins of steps."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from chainrule.errors import RunFileError, abbreviate
from chainrule.watch.packing import Floats, Integers, is_nothing
from chainrule.watch.records import RunFacts
from chainrule.watch.rows import SampleTable, StepTable


@dataclass(frozen=True, slots=True, kw_only=True)
class LossCurve:
    """The loss of a run, some steps together.

    Attributes:
        first: First step with a loss of each point [points].
        last: Last step with a loss of each point [points].
        low: Lowest finite loss of these steps [points]; undefined if there is none.
        high: Highest finite loss of these steps [points].
        non_finite: Steps whose loss is infinite or undefined [points].
    """

    first: Integers
    last: Integers
    low: Floats
    high: Floats
    non_finite: Integers


@dataclass(frozen=True, slots=True, kw_only=True)
class RateChange:
    """A learning rate that was set to another value from one step to the next.

    Attributes:
        step: The first step with the new rate.
        before: The rate before.
        after: The new rate.
        group: The optimizer's group, counted over all optimizers; `None` if all changed.
    """

    step: int
    before: float
    after: float
    group: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RateCurve:
    """The learning rates of a run, some steps together.

    Attributes:
        first: First step of each point [points].
        last: Last step of each point [points].
        rates: The rate of each group at the last step of each point [groups, points]; undefined
            where there was none. Groups that always had the same rate are one.
        changes: Sudden changes: by hand, by a schedule in stairs, by a restart.
    """

    first: Integers
    last: Integers
    rates: Floats
    changes: tuple[RateChange, ...]

    @property
    def is_constant(self) -> bool:
        """Whether no rate ever changed."""
        known = [row[~np.isnan(row)] for row in self.rates]
        return not self.changes and all(len(row) == 0 or np.ptp(row) == 0 for row in known)


@dataclass(frozen=True, slots=True, kw_only=True)
class NormMap:
    """Layer × steps, some steps together.

    Attributes:
        first: First step of each bin [bins].
        last: Last step of each bin [bins].
        layers: Names of the rows of `gradient` and `update_ratio`: modules with parameters; several
            neighbours as "first … last".
        gradient: ‖gradient‖ of the parameters of a row [layers, bins], the geometric mean over the
            steps; 0 where all were zero, undefined where there was none.
        update_ratio: ‖ΔW‖ ÷ ‖W‖ of the parameters of a row, likewise, at sampled steps.
        non_finite: Steps at which a gradient of the row was not finite [layers, bins].
        modules: Names of the rows of `saturation` and `dead_units`: modules that were sampled.
        saturation: Mean share of values where an activation is flat [modules, bins]; undefined
            where that was not measured.
        dead_units: Mean share of units that are zero for every example [modules, bins].
    """

    first: Integers
    last: Integers
    layers: tuple[str, ...]
    gradient: Floats
    update_ratio: Floats
    non_finite: Integers
    modules: tuple[str, ...]
    saturation: Floats
    dead_units: Floats


def check_count(name: str, value: int) -> None:
    """Raise unless a number of points, rows or bins is one.

    Raises:
        RunFileError: If it is not a whole number above zero.
    """
    if type(value) is not int or value < 1:
        raise RunFileError(f"{name} must be a whole number above zero; got {abbreviate(value)}.")


def fold_losses(tables: Sequence[tuple[Integers, Floats]], *, points: int) -> LossCurve:
    """Return the loss in at most so many points.

    Args:
        tables: Step numbers and losses, in order; undefined where there was no loss.
        points: How many points at most.
    """
    pairs = [(steps[known], losses[known]) for steps, losses in tables
             if (known := ~is_nothing(losses)).any()]  # fmt: skip
    if not pairs:
        none, no_steps = np.empty(0), np.empty(0, np.int64)
        return LossCurve(first=no_steps, last=no_steps, low=none, high=none, non_finite=no_steps)
    steps = np.concatenate([pair[0] for pair in pairs])
    losses = np.concatenate([pair[1] for pair in pairs])
    count = min(points, len(steps))
    starts = np.arange(count) * len(steps) // count
    ends = np.append(starts[1:], len(steps)) - 1
    finite = np.isfinite(losses)
    low = np.minimum.reduceat(np.where(finite, losses, np.inf), starts)
    high = np.maximum.reduceat(np.where(finite, losses, -np.inf), starts)
    known = np.isfinite(low)
    return LossCurve(
        first=steps[starts],
        last=steps[ends],
        low=np.where(known, low, np.nan),
        high=np.where(known, high, np.nan),
        non_finite=np.add.reduceat((~finite).astype(np.int64), starts),
    )


SUDDEN, CALM = 1.25, 1.02
"""A change by this factor is sudden if the step before changed the rate by less than the other."""


def fold_rates(tables: Sequence[tuple[Integers, Floats]], *, points: int) -> RateCurve:
    """Return the learning rates in at most so many points, and where they changed suddenly.

    Args:
        tables: Step numbers and rates [steps, groups], in order; undefined where there was none.
        points: How many points at most.
    """
    tables = [(steps, rates) for steps, rates in tables if rates.size]
    if not tables:
        none = np.empty(0, np.int64)
        return RateCurve(first=none, last=none, rates=np.empty((0, 0)), changes=())
    steps = np.concatenate([each for each, _ in tables])
    groups = max(rates.shape[1] for _, rates in tables)
    rates = np.full((len(steps), groups), np.nan)
    place = 0
    for _, part in tables:
        rates[place : place + len(part), : part.shape[1]] = part
        place += len(part)
    count = min(points, len(steps))
    starts = np.arange(count) * len(steps) // count
    ends = np.append(starts[1:], len(steps)) - 1
    known = np.where(np.isnan(rates), -np.inf, rates)  # where neither had a rate, they agree
    _, firsts = np.unique(known, axis=1, return_index=True)
    return RateCurve(
        first=steps[starts],
        last=steps[ends],
        rates=np.ascontiguousarray(rates[np.ix_(ends, np.sort(firsts))].T),
        changes=_list_changes(steps, rates),
    )


def _list_changes(steps: Integers, rates: Floats) -> tuple[RateChange, ...]:
    """Return sudden changes; what a schedule changes a little at every step is none."""
    if len(steps) < 3:
        return ()
    before, after = rates[:-1], rates[1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.abs(np.log(after / before))
    factor[before == after] = 0.0
    sudden = factor[1:] > np.log(SUDDEN)
    sudden &= factor[:-1] < np.log(CALM)
    found = []
    for place in np.flatnonzero(sudden.any(axis=1)):
        groups = np.flatnonzero(sudden[place])
        group = int(groups[0])
        found.append(
            RateChange(
                step=int(steps[place + 2]),
                before=float(rates[place + 1, group]),
                after=float(rates[place + 2, group]),
                group=None if len(groups) == rates.shape[1] else group,
            )
        )
    return tuple(found)


def fold_norms(
    facts: RunFacts,
    steps: Iterable[StepTable],
    samples: Iterable[SampleTable],
    span: tuple[int, int],
    *,
    most: int,
    bins: int,
) -> NormMap:
    """Return the map of a run.

    Args:
        facts: The run's facts.
        steps: Its steps, as tables in order.
        samples: Its samples, as tables in order.
        span: First and last step.
        most: How many rows at most.
        bins: How many columns at most.
    """
    first, last = span
    bins = max(min(bins, last - first + 1), 0)
    edges = first + np.arange(bins + 1) * (last - first + 1) // max(bins, 1)
    rows = _group_layers(facts, most)
    gradients, ratios = _Means(len(rows.names), edges), _Means(len(rows.names), edges)
    broken = np.zeros((len(rows.names), bins), np.int64)
    for table in steps:
        norms = _join(table.norms, rows)
        gradients.add(table.steps, norms)
        bad = np.isinf(norms)
        if bad.any():
            np.add.at(broken.T, gradients.find_bins(table.steps), bad.astype(np.int64))
    kept = list(samples)
    modules = list(dict.fromkeys(name for table in kept for name, _ in table.layers))
    places = {name: place for place, name in enumerate(modules)}
    shares = [_Means(len(modules), edges, logarithmic=False) for _ in range(2)]
    for sample in kept:
        weights, updates = _join(sample.weight_norms, rows), _join(sample.update_norms, rows)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios.add(sample.steps, np.where(weights > 0, updates / weights, np.nan))
        columns = [places[name] for name, _ in sample.layers]
        for means, field in zip(shares, ("saturation", "dead_units"), strict=True):
            values = np.full((len(sample.steps), len(modules)), np.nan)
            values[:, columns] = sample.values[field]
            means.add(sample.steps, values)
    saturation, dead = (means.read() for means in shares)
    shown = np.flatnonzero(~np.isnan(np.hstack([saturation, dead])).all(axis=1))
    names, saturation, dead = _take_together(
        [modules[place] for place in shown], saturation[shown], dead[shown], most
    )
    return NormMap(
        first=edges[:-1],
        last=edges[1:] - 1,
        layers=rows.names,
        gradient=gradients.read(),
        update_ratio=ratios.read(),
        non_finite=broken,
        modules=names,
        saturation=saturation,
        dead_units=dead,
    )


def group_names(names: Sequence[str], most: int) -> list[tuple[str, list[int]]]:
    """Return names in at most so many groups of neighbours, named by what they share or span.

    Args:
        names: Names with dots, as those of modules.
        most: How many groups at most.

    Example:
        >>> group_names(["a.0", "a.1", "b"], 2)
        [('a', [0, 1]), ('b', [2])]
    """
    deepest = max((name.count(".") + 1 for name in names), default=1)
    for depth in range(deepest, 0, -1):
        groups: dict[str, list[int]] = {}
        for index, name in enumerate(names):
            groups.setdefault(".".join(name.split(".")[:depth]), []).append(index)
        if len(groups) <= most:
            return list(groups.items())
    heads = list(groups.items()) if names else []
    found = []
    for number in range(min(most, len(heads))):
        low, high = (len(heads) * each // most for each in (number, number + 1))
        label = heads[low][0] if high - low == 1 else f"{heads[low][0]} … {heads[high - 1][0]}"
        found.append((label, [index for _, members in heads[low:high] for index in members]))
    return found


@dataclass(frozen=True, slots=True)
class _Rows:
    """Which parameters belong to each row of a map: they are sorted by row."""

    names: tuple[str, ...]
    order: Integers
    starts: Integers


def _group_layers(facts: RunFacts, most: int) -> _Rows:
    layers = list(dict.fromkeys(each.layer for each in facts.parameters))
    places = {layer: place for place, layer in enumerate(layers)}
    count = min(most, len(layers))
    rows = np.array([places[each.layer] * count // len(layers) for each in facts.parameters], int)
    names = []
    for row in range(count):
        low, high = (-(-len(layers) * each // count) for each in (row, row + 1))
        label = layers[low] if high - low == 1 else f"{layers[low]} … {layers[high - 1]}"
        names.append(label or "(model)")
    order = np.argsort(rows, kind="stable")
    return _Rows(tuple(names), order, np.searchsorted(rows[order], np.arange(count)))


def _take_together(
    names: Sequence[str], saturation: Floats, dead: Floats, most: int
) -> tuple[tuple[str, ...], Floats, Floats]:
    """Return rows, neighbours as their mean where there are too many."""
    count = min(most, len(names))
    if count == len(names):
        return tuple(names), saturation, dead
    edges = [-(-len(names) * each // count) for each in range(count + 1)]
    labels = tuple(
        names[low] if high - low == 1 else f"{names[low]} … {names[high - 1]}"
        for low, high in pairwise(edges)
    )
    means = []
    for values in (saturation, dead):
        known = ~np.isnan(values)
        total = np.add.reduceat(np.where(known, values, 0), edges[:-1], axis=0)
        number = np.add.reduceat(known, edges[:-1], axis=0, dtype=np.float64)
        means.append(total / np.where(number > 0, number, np.nan))
    return labels, means[0], means[1]


def _join(norms: Floats, rows: _Rows) -> Floats:
    """Return the norm of each row of parameters [steps, rows]; undefined if there is none.

    A row with a norm that is infinite or undefined is infinite.
    """
    if not len(rows.starts):
        return np.empty((len(norms), 0))
    if np.any(np.diff(rows.order) < 0):
        norms = norms[:, rows.order]
    ordinary = (norms >= 0) & (norms < np.inf)
    plain = ordinary.all()
    kept = norms if plain else np.where(ordinary, norms, 0)
    unit = kept.max(initial=0.0) or 1.0  # no square of it is too large
    squares = np.square(kept / unit)
    total = unit * np.sqrt(np.add.reduceat(squares.T, rows.starts, axis=0)).T
    if not plain:
        absent = norms < 0
        total[np.logical_and.reduceat(absent, rows.starts, axis=1)] = np.nan
        total[np.logical_or.reduceat(~(ordinary | absent), rows.starts, axis=1)] = np.inf
    return total


class _Means:
    """Means of rows over bins of steps: of logarithms, or of the values themselves."""

    def __init__(self, rows: int, edges: Integers, *, logarithmic: bool = True) -> None:
        self._edges = edges
        self._logarithmic = logarithmic
        shape = (max(len(edges) - 1, 0), rows)
        self._total, self._count, self._zeros = (np.zeros(shape) for _ in range(3))

    def find_bins(self, steps: Integers) -> NDArray[np.intp]:
        """Return the bin of each step."""
        return np.searchsorted(self._edges, steps, side="right").clip(1, len(self._edges) - 1) - 1

    def add(self, steps: Integers, values: Floats) -> None:
        """Take in values [steps, rows]; what is not finite is left out."""
        places = self.find_bins(steps)
        starts = np.flatnonzero(np.diff(places, prepend=-1))
        used = np.isfinite(values)
        if self._logarithmic:
            zeros = values == 0
            used &= ~zeros
            if zeros.any():
                self._zeros[places[starts]] += np.add.reduceat(zeros, starts, dtype=np.float64)
        kept = values
        if not used.all():
            kept = np.where(used, values, 1.0 if self._logarithmic else 0.0)
        if self._logarithmic:
            kept = np.log(kept)
        self._total[places[starts]] += np.add.reduceat(kept, starts, axis=0)
        self._count[places[starts]] += np.add.reduceat(used, starts, axis=0, dtype=np.float64)

    def read(self) -> Floats:
        """Return the means [rows, bins]."""
        with np.errstate(invalid="ignore"):
            mean = self._total / np.where(self._count > 0, self._count, np.nan)
        if self._logarithmic:
            mean = np.exp(mean)
            mean[(self._count == 0) & (self._zeros > 0)] = 0.0
        return np.ascontiguousarray(mean.T)
