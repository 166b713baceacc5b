"""A training run as charts: the loss, and heat maps of layers × steps with what their colours mean.

Everything that a chart shows is worked out here, once for the page and for the report: which part
of the loss is on its axis, how far each value of a heat map is from what is usual.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10

import numpy as np

from chainrule._utils.numbers import format_number
from chainrule.watch.overviews import LossCurve, NormMap, RateChange, RateCurve
from chainrule.watch.packing import Floats, Integers
from chainrule.watch.reading import RunReader

POINTS, LAYERS, BINS = 600, 48, 160
"""Points of the loss, rows and columns of a heat map, at most."""

BROKEN = 9.0
"""The shade of a cell with a value that is infinite or undefined."""

GROUPS = 4
"""Groups of parameters whose learning rates are drawn at most."""

_WIDE = 30.0
_OFTEN = 0.2
"""The axis of learning rates is logarithmic if the highest is more than `_WIDE` times one below
which some group is in this part of the steps: a warm-up that begins near zero changes nothing."""

_DEEPEST = 3.0
_USUAL_UPDATE = 1e-3
_NEAR = 0.01
"""Part of the points over which the median of the loss is taken, to each side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossChart:
    """The loss, and the part of it that is on the axis.

    Attributes:
        first: First step of each point [points].
        last: Last step of each point [points].
        low: Lowest loss of these steps [points]; undefined if none was finite.
        high: Highest loss of these steps [points].
        median: Median of the losses around each point [points].
        non_finite: Steps whose loss is infinite or undefined [points].
        ticks: Marks of the axis, the first and the last are its ends.
        note: What is drawn, in words.
    """

    first: Integers
    last: Integers
    low: Floats
    high: Floats
    median: Floats
    non_finite: Integers
    ticks: tuple[float, ...]
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RateChart:
    """The learning rates over the steps.

    Attributes:
        first: First step of each point [points].
        last: Last step of each point [points].
        rates: The rate of each group [groups, points]; undefined where there was none.
        heights: Where on the axis each is, from 0 to 1 [groups, points].
        ticks: Marks of the axis: where, and which rate that is.
        note: What is drawn, in words.
    """

    first: Integers
    last: Integers
    rates: Floats
    heights: Floats
    ticks: tuple[tuple[float, float], ...]
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap:
    """Layers × steps.

    Attributes:
        name: "gradient", "update", "dead" or "saturation".
        title: What it shows.
        note: How that is measured, in a few words.
        symbol: What a value is, in a sentence about a cell.
        share: Whether values are shares, to be shown in percent.
        rows: Names of the rows, the first layer first.
        first: First step of each column.
        last: Last step of each column.
        values: The values [rows, columns]; undefined where there is none.
        shades: How far each is from what is usual: from −3 to 3, usual between −1 and 1; of
            shares, from 0 to 3; `BROKEN` for values that are not finite.
        legend: Shades, and what they mean.
    """

    name: str
    title: str
    note: str
    symbol: str
    share: bool
    rows: tuple[str, ...]
    first: Integers
    last: Integers
    values: Floats
    shades: Floats
    legend: tuple[tuple[float, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCharts:
    """All charts of a run.

    Attributes:
        span: First and last step.
        loss: The loss; `None` if none was logged.
        rate: The learning rates; `None` if they never changed.
        changes: Sudden changes of learning rates.
        maps: The heat maps, those with values.
    """

    span: tuple[int, int]
    loss: LossChart | None
    rate: RateChart | None
    changes: tuple[RateChange, ...]
    maps: tuple[HeatMap, ...]


def build_charts(
    reader: RunReader, *, points: int = POINTS, layers: int = LAYERS, bins: int = BINS
) -> RunCharts:
    """Return the charts of a run.

    Args:
        reader: The run.
        points: Points of the loss at most.
        layers: Rows of a heat map at most.
        bins: Columns of a heat map at most.
    """
    norms = reader.norm_map(layers=layers, bins=bins)
    alarm = min((each.step for each in reader.alarms()), default=None)
    span = (int(norms.first[0]), int(norms.last[-1])) if len(norms.first) else (1, 0)
    kinds = {each.layer: each.kind for each in reader.facts.parameters}
    rates = reader.rate_curve(points)
    return RunCharts(
        span=span,
        rate=build_rate(rates),
        changes=rates.changes,
        loss=build_loss(reader.loss_curve(points), alarm),
        maps=tuple(
            each for each in _list_maps(norms, kinds, alarm) if np.isfinite(each.shades).any()
        ),
    )


def build_loss(curve: LossCurve, alarm: int | None = None) -> LossChart | None:
    """Return the chart of a loss; `None` if there is none.

    Args:
        curve: The loss.
        alarm: The step of the first alarm; `None` if there is none.
    """
    if not len(curve.first):
        return None
    median = _smooth((curve.low + curve.high) / 2, max(1, round(_NEAR * len(curve.low))))
    ticks, cut = _choose_axis(curve, median, alarm)
    together = int((curve.last - curve.first).max()) + 1
    each = "each step" if together == 1 else f"lowest and highest of {together:,} steps each"
    note = f"{each}, and the median of those around"
    if cut:
        note += f"; what is above {format_number(ticks[-1])} is cut off"
    return LossChart(
        **{name: getattr(curve, name) for name in ("first", "last", "low", "high", "non_finite")},
        median=median,
        ticks=ticks,
        note=note,
    )


def build_rate(curve: RateCurve) -> RateChart | None:
    """Return the chart of learning rates; `None` if they never changed.

    Args:
        curve: The learning rates.
    """
    known = curve.rates[np.isfinite(curve.rates)]
    if not len(known) or curve.is_constant:
        return None
    rates = curve.rates[:GROUPS]
    high = float(known.max())
    usual = min(
        float(np.quantile(row[np.isfinite(row)], _OFTEN)) for row in rates if np.isfinite(row).any()
    )
    if usual > 0 and high / usual > _WIDE:
        low = float(known[known > 0].min())
        with np.errstate(divide="ignore", invalid="ignore"):
            heights = np.log(rates / low) / np.log(high / low)
        ticks: tuple[tuple[float, float], ...] = ((0.0, low), (1.0, high))
        note = "logarithmic"
    else:
        top = max(high, 0.0) or 1.0
        heights = rates / top
        ticks, note = ((0.0, 0.0), (1.0, top)), ""
    groups = len(curve.rates)
    if groups > len(rates):
        note = "; ".join(filter(None, (note, f"the first {len(rates)} of {groups} groups")))
    return RateChart(
        first=curve.first,
        last=curve.last,
        rates=rates,
        heights=np.clip(heights, 0.0, 1.0),
        ticks=ticks,
        note=note,
    )


def describe_change(change: RateChange) -> str:
    """Return a sudden change of the learning rate in words.

    Args:
        change: The change.
    """
    whose = "" if change.group is None else f" of group {change.group + 1}"
    before, after = format_number(change.before), format_number(change.after)
    return f"learning rate{whose}: {before} → {after}"


def _smooth(values: Floats, near: int) -> Floats:
    """Return the median of the values around each; undefined where no value is."""
    padded = np.pad(values, near, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * near + 1)
    known = ~np.isnan(windows).all(axis=1)
    smooth = np.full(len(values), np.nan)
    smooth[known] = np.nanmedian(windows[known], axis=1)
    return smooth


def _choose_axis(
    curve: LossCurve, median: Floats, alarm: int | None
) -> tuple[tuple[float, ...], bool]:
    """Return the marks of the axis of a loss, and whether something lies above it.

    A loss that grows without end would press everything else to the floor: the axis then ends at
    three times what the run began with, or where the loss was before the first alarm.
    """
    is_known = ~np.isnan(curve.high)
    known = curve.high[is_known]
    if not len(known):
        return (0.0, 1.0), False
    bottom, most = min(0.0, float(curve.low[is_known].min())), float(known.max())
    usual = 3 * float(np.abs(known[: max(3, len(known) // 20)]).max())
    if alarm is None:
        usual = max(usual, 2 * float(np.quantile(median[~np.isnan(median)], 0.75)))
    else:
        usual = max(usual, 1.2 * float(curve.high[is_known & (curve.last < alarm)].max(initial=0)))
    top = min(most, usual) if usual > bottom else most
    size = (top - bottom) / 3 or 1.0
    power = 10.0 ** floor(log10(size))
    step = next(unit * power for unit in (1, 2, 2.5, 5, 10) if unit * power >= size * 0.999)
    start, end = floor(bottom / step), -floor(-top / step - 1e-9) if top > bottom else 1
    ticks = tuple(float(f"{place * step:.6g}") for place in range(start, max(end, start + 1) + 1))
    return ticks, most > ticks[-1]


def _find_usual(norms: NormMap, alarm: int | None) -> float:
    """Return the median gradient of all layers: before the first alarm, while all was well."""
    sound = norms.gradient[:, norms.last < alarm] if alarm is not None else norms.gradient
    for part in (sound, norms.gradient):
        usable = part[np.isfinite(part) & (part > 0)]
        if len(usable):
            return float(np.exp(np.median(np.log(usable))))
    return 1.0


def _list_maps(norms: NormMap, kinds: dict[str, str], alarm: int | None) -> Sequence[HeatMap]:
    rows = tuple(
        f"{name} ({kinds[name]})" if name in kinds and name else name for name in norms.layers
    )
    gradient = norms.gradient
    usual = _find_usual(norms, alarm)
    with np.errstate(divide="ignore", invalid="ignore"):
        shades = np.log10(gradient / usual) / 2
        moves = np.log10(norms.update_ratio / _USUAL_UPDATE)
    shades = np.where(norms.non_finite > 0, BROKEN, shades.clip(-_DEEPEST, _DEEPEST))
    maps = [
        HeatMap(
            name="gradient",
            title="Gradient of every layer",
            note="size of ∂loss/∂W",
            symbol="‖∂𝓛/∂W‖",
            share=False,
            rows=rows,
            first=norms.first,
            last=norms.last,
            values=gradient,
            shades=shades,
            legend=(
                (-2.0, "under 1 % of usual"),
                (0.0, f"usual: {format_number(usual)}"),
                (2.0, "over 100 × usual"),
                *(((BROKEN, "not finite"),) if norms.non_finite.any() else ()),
            ),
        ),
        _hold(
            norms,
            HeatMap(
                name="update",
                title="How far every layer moves",
                note="step ÷ weights, at sampled steps",
                symbol="‖ΔW‖ ÷ ‖W‖",
                share=True,
                rows=rows,
                first=norms.first,
                last=norms.last,
                values=norms.update_ratio,
                shades=moves.clip(-_DEEPEST, _DEEPEST),
                legend=((-2.0, "stands still"), (0.0, "0.01–1 %"), (2.0, "too far")),
            ),
        ),
    ]
    for name, title, note, values in (
        ("dead", "Dead units", "share of units that are off for every example", norms.dead_units),
        ("saturation", "Saturation", "share of outputs where the activation is flat",
         norms.saturation),
    ):  # fmt: skip
        used = np.flatnonzero(~np.isnan(values).all(axis=1)) if values.size else np.zeros(0, int)
        if not len(used):
            continue
        maps.append(
            _hold(
                norms,
                HeatMap(
                    name=name,
                    title=title,
                    note=note,
                    symbol="dead units" if name == "dead" else "flat outputs",
                    share=True,
                    rows=tuple(norms.modules[row] for row in used),
                    first=norms.first,
                    last=norms.last,
                    values=values[used],
                    shades=_DEEPEST * values[used],
                    legend=((0.0, "none"), (1.5, "half"), (3.0, "all")),
                ),
            )
        )
    return maps


def _hold(norms: NormMap, drawn: HeatMap) -> HeatMap:
    """Return a map of sampled steps: a sample stands until the next one."""
    known = ~np.isnan(drawn.values).all(axis=0) if len(drawn.rows) else np.zeros(0, bool)
    places = np.flatnonzero(known)
    if not len(places):
        return drawn
    first = norms.first[places]
    return HeatMap(
        **{
            name: getattr(drawn, name)
            for name in ("name", "title", "note", "symbol", "share", "rows", "legend")
        },
        first=first,
        last=np.append(first[1:] - 1, norms.last[-1]),
        values=drawn.values[:, places],
        shades=drawn.shades[:, places],
    )
