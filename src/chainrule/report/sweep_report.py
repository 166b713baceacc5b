"""The page of a sweep: a heat map over any two axes, one small map for each value of the others."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from types import MappingProxyType
from typing import Any

from chainrule._utils.html import Content, Markup, element
from chainrule._utils.numbers import format_number
from chainrule.errors import SweepError, suggest
from chainrule.report.page import build_document
from chainrule.sweeps.cells import list_differing
from chainrule.sweeps.records import CellResult, Sweep, name_setting

MAX_MAPS = 60
"""Small maps on one page."""

MAX_ROWS = 1000
"""Rows of the table: a file of `Sweep.write` has all."""

_RATIO = (
    (-1.0, "#2f5fb8"),
    (-0.3, "#bcd0f0"),
    (0.0, "#bfe3d6"),
    (0.3, "#f6bfa6"),
    (1.0, "#c4410f"),
)
_SIZE = ((0.0, "#e3eefb"), (1.0, "#0b4f8a"))
_BROKEN = "#1c1d1f"
_SPAN = 6.0
"""Powers of ten to each side of 1 at which a ratio has its last colour."""

_VERDICTS = {
    "healthy": "#00805d",
    **dict.fromkeys(("vanishing", "underflow", "no gradient"), "#1b6fb0"),
    **dict.fromkeys(("exploding", "non-finite", "large loss"), "#b84c00"),
}
_OTHER = "#8a6100"

_WIDTH, _HEIGHT, _CHARACTER = 1000.0, 26.0, 7.2
_WIDEST, _NARROWEST, _ROOM = 96.0, 3.0, 14.0


@dataclass(frozen=True, slots=True)
class Metric:
    """What a map can show.

    Attributes:
        label: Its name in words.
        kind: "words", "ratio" (1 is best), "size" (more or less than 0) or "share" (0 to 1).
    """

    label: str
    kind: str


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "verdict": Metric("diagnosis", "words"),
        "gradient_ratio": Metric("gradient of the first layer ÷ that of the last", "ratio"),
        "delta_ratio": Metric("‖δ‖ of the first layer ÷ that of the last", "ratio"),
        "chi": Metric("χ of theory", "ratio"),
        "depth_scale": Metric("how many layers far a signal gets, by theory", "size"),
        "gradient_norm": Metric("gradient of all parameters together", "size"),
        "loss": Metric("loss", "size"),
        "sgd": Metric("estimated probability that SGD trains it", "share"),
        "adam": Metric("estimated probability that Adam trains it", "share"),
        "training_accuracy": Metric("accuracy after training", "share"),
    }
)
"""What a map can show, by the names of a sweep's columns."""


def build_sweep_report(
    sweep: Sweep, *, columns: str | None = None, rows: str | None = None, color: str = "verdict"
) -> str:
    """Return the page of a sweep as HTML text.

    Args:
        sweep: The results; at least one.
        columns: The axis that goes to the right; the first one that differs, by default.
        rows: The axis that goes down; the next one, by default.
        color: What the cells show; a name of `METRICS`.

    Raises:
        SweepError: If there is no result, an axis is unknown, both are one, or there is no such
            metric.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> from chainrule.sweeps import make_grid, run
        >>> with ThreadPoolExecutor(1) as threads:
        ...     sweep = run(make_grid({"depth": [2, 3]}, seeds=1), threads)
        >>> build_sweep_report(sweep)[:15]
        '<!DOCTYPE html>'
    """
    if not sweep.results:
        raise SweepError("A page of a sweep must have at least one result; got none.")
    if color not in METRICS:
        raise SweepError(f"color: unknown {color!r:.60}. {suggest(color, METRICS)}")
    axes = _list_axes(sweep)
    across, down = _choose_axes(list(axes), columns, rows)
    others = [name for name in axes if name not in (across, down)]
    groups: dict[tuple[Any, ...], dict[tuple[Any, Any], CellResult]] = {}
    for result in sweep:
        key = tuple(result.read_setting(name) for name in others)
        place = result.read_setting(across), result.read_setting(down)
        groups.setdefault(key, {})[place] = result
    paint = _Paint(color, [_read_metric(result, color) for result in sweep])
    keys = [key for key in product(*(axes[name] for name in others)) if key in groups]
    failed = len(sweep.failed)
    words = f"{len(sweep)} cells over {_join(list(axes))}"
    maps = [
        element(
            "figure",
            element("h2", _describe(others, key)) if others else None,
            _draw_map(
                groups[key],
                (across, axes.get(across, [None])),
                (down, axes.get(down, [None])),
                paint,
            ),
        )
        for key in keys[:MAX_MAPS]
    ]
    main: list[Content] = [
        element(
            "header",
            element("p", "Sweep", class_="dim"),
            element("h1", f"{METRICS[color].label[0].upper()}{METRICS[color].label[1:]}"),
            element("p", words + (f"; {failed} failed (×)" if failed else ""), class_="dim"),
        ),
        paint.draw_legend(),
        maps,
        element("p", f"{len(keys) - MAX_MAPS} more maps are not shown.", class_="dim")
        if len(keys) > MAX_MAPS
        else None,
        _build_table(sweep, list(axes)),
        element(
            "footer",
            element("p", "Medians of networks that PyTorch autograd has measured.", class_="dim"),
        ),
    ]
    return build_document("Sweep · chainrule", main)


# --- Axes -----------------------------------------------------------------------------------------


def _list_axes(sweep: Sweep) -> dict[str, list[Any]]:
    """Return the settings that differ, with their values in the order of the cells."""
    differing = list_differing([{"seed": each.seed, **each.settings} for each in sweep])
    names = [*(name for name in differing if name != "seed"), "seed"]
    axes = {}
    for name in names:
        values = {repr(value): value for value in (each.read_setting(name) for each in sweep)}
        if len(values) > 1:
            axes[name] = list(values.values())
    return axes


def _choose_axes(names: list[str], columns: str | None, rows: str | None) -> tuple[str, str]:
    for option, name in (("columns", columns), ("rows", rows)):
        if name is not None and name not in names:
            known = ", ".join(names) or "none"
            raise SweepError(
                f"{option}: must be a setting that differs between cells ({known}); got "
                f"{name!r:.60}."
            )
    if columns is not None and columns == rows:
        raise SweepError(f"columns and rows must be two settings; got {columns!r} for both.")
    left = [name for name in names if name not in (columns, rows)]
    across = columns or (left.pop(0) if left else "")
    return across, rows or (left.pop(0) if left else "")


def _join(names: list[str]) -> str:
    if not names:
        return "no axis"
    words = list(map(_name, names))
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _name(axis: str) -> str:
    return axis.replace("_", " ")


def _write(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _describe(names: Sequence[str], values: Sequence[Any]) -> str:
    pairs = zip(names, values, strict=True)
    return ", ".join(f"{_name(name)} {_write(value)}" for name, value in pairs)


# --- Colours --------------------------------------------------------------------------------------


def _read_metric(result: CellResult, name: str) -> Any:
    return result.to_record()[name]


class _Paint:
    """The colours of a metric, over all cells of a sweep."""

    def __init__(self, name: str, values: Sequence[Any]) -> None:
        self.name, self.metric = name, METRICS[name]
        self._words = sorted({value for value in values if isinstance(value, str)})
        numbers = [v for v in values if isinstance(v, float) and math.isfinite(v)]
        self._low, self._high = min(numbers, default=0.0), max(numbers, default=0.0)
        self._log = self._low > 0.0 and self._high / self._low > 100.0

    def choose(self, value: Any) -> str:
        """Return the colour of a value."""
        if isinstance(value, str):
            return _VERDICTS.get(value, _OTHER)
        if not math.isfinite(value):
            return _BROKEN
        return _mix(_RATIO if self.metric.kind == "ratio" else _SIZE, self._place(value))

    def _place(self, value: float) -> float:
        """Return where a number lies on its colour scale."""
        low, high = self._low, self._high
        if self.metric.kind == "ratio":
            power = math.log10(value) if value > 0.0 else -math.inf
            return min(max(power / _SPAN, -1.0), 1.0)
        if self.metric.kind == "share":
            return min(max(value, 0.0), 1.0)
        if high <= low:
            return 0.5
        if self._log:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)

    def _list_samples(self) -> Iterator[tuple[str, Any]]:
        if self.metric.kind == "words":
            yield from ((f"{_shorten(word)}: {word}", word) for word in self._words)
            return
        if self.metric.kind == "ratio":
            values = [10.0**power for power in (-6, -3, 0, 3, 6)]
        elif self.metric.kind == "share":
            values = [0.0, 0.5, 1.0]
        else:
            low, high = self._low, self._high
            middle = math.sqrt(low * high) if self._log else (low + high) / 2.0
            values = list(dict.fromkeys((low, middle, high)))
        yield from ((format_number(value), value) for value in values)

    def draw_legend(self) -> Markup:
        """Return what colours mean."""
        content: list[Content] = []
        x = 0.0
        for label, value in self._list_samples():
            content.append(
                element("rect", x=x, y=2.0, width=18.0, height=18.0, fill=self.choose(value))
            )
            content.append(element("text", label, x=x + 25.0, y=16.0))
            x += 25.0 + _CHARACTER * len(label) + 18.0
        return element(
            "svg", *content, viewBox=f"0 0 {max(x, 10.0):.0f} 22", width=f"{max(x, 10.0):.0f}",
            height="22", role="img", aria_label="what the colours mean",
        )  # fmt: skip


def _mix(stops: Sequence[tuple[float, str]], place: float) -> str:
    for (start, one), (end, other) in pairwise(stops):
        if place <= end:
            part = (place - start) / (end - start)
            pairs = zip(_parse(one), _parse(other), strict=True)
            return "#" + "".join(f"{round(a + part * (b - a)):02x}" for a, b in pairs)
    return stops[-1][1]


def _parse(color: str) -> list[int]:
    return [int(color[at : at + 2], 16) for at in (1, 3, 5)]


def _is_dark(color: str) -> bool:
    """Return whether white reads better on a colour than black (WCAG's relative luminance)."""
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (part / 255.0 for part in _parse(color))
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.179


# --- A map ----------------------------------------------------------------------------------------


def _draw_map(
    cells: Mapping[tuple[Any, Any], CellResult],
    across: tuple[str, Sequence[Any]],
    down: tuple[str, Sequence[Any]],
    paint: _Paint,
) -> Markup:
    """Return a heat map: a rectangle per cell, which says its values where the pointer is."""
    axes = across[0], down[0]
    names = _name(across[0]), _name(down[0])
    labels = [_write(value) if down[0] else "" for value in down[1]]
    left = _CHARACTER * max(map(len, [*labels, names[1]])) + _ROOM
    width = (_WIDTH - left) / max(len(across[1]), 1)
    width = min(max(width, _NARROWEST), _WIDEST)
    content: list[Content] = [element("text", names[1], x=0.0, y=14.0, class_="title")]
    for index, (value, label) in enumerate(zip(down[1], labels, strict=True)):
        y = 22.0 + _HEIGHT * index
        content.append(
            element("text", label, x=left - 8.0, y=y + 17.0, text_anchor="end", class_="tick")
        )
        for number, other in enumerate(across[1]):
            result = cells.get((other, value))
            if result is not None:
                content += _draw_cell(result, left + width * number, y, width, paint, axes)
    bottom = 22.0 + _HEIGHT * len(labels)
    texts = [_write(value) if across[0] else "" for value in across[1]]
    stride = math.ceil((_CHARACTER * max(map(len, texts)) + 6.0) / width)
    content += [
        element("text", text, x=left + width * (number + 0.5), y=bottom + 18.0,
                text_anchor="middle", class_="tick")
        for number, text in enumerate(texts)
        if number % stride == 0
    ]  # fmt: skip
    right = left + width * len(texts)
    content.append(
        element("text", names[0], x=(left + right) / 2, y=bottom + 38.0, text_anchor="middle",
                class_="title")
    )  # fmt: skip
    size = max(right, left + _CHARACTER * len(names[0])) + 4.0
    return element(
        "div",
        element(
            "svg", *content, viewBox=f"0 0 {size:.0f} {bottom + 46:.0f}", width=f"{size:.0f}",
            height=f"{bottom + 46:.0f}", role="img", class_="map",
            aria_label=f"{paint.metric.label} by {' and '.join(filter(None, names))}",
        ),
        class_="scroll", tabindex="0", role="region", aria_label="map",
    )  # fmt: skip


def _draw_cell(
    result: CellResult, x: float, y: float, width: float, paint: _Paint, axes: tuple[str, str]
) -> list[Content]:
    value = _read_metric(result, paint.name)
    failed = result.status == "failed"
    text = "×" if failed else "–" if value is None else _write_short(value)
    fill = "none" if value is None else paint.choose(value)
    gap = 1.0 if width > 2.0 * _NARROWEST else 0.0
    said = result.outcome.error if failed else _describe_cell(result)
    named = [name for name in axes if name]
    place = _describe(named, [result.read_setting(name) for name in named])
    parts: list[Content] = [
        element(
            "rect", x=x, y=y, width=width - gap, height=_HEIGHT - 1.0, fill=fill,
            class_="grid" if value is None else None, pointer_events="all",
            data_tip="\n".join(filter(None, (place, said))),
        )
    ]  # fmt: skip
    if isinstance(value, str) and _CHARACTER * len(text) + 4.0 > width:
        text = _shorten(text)
    if _CHARACTER * len(text) + 4.0 <= width:
        tone = "tick" if value is None else "on-dark" if _is_dark(fill) else "on-light"
        parts.append(
            element("text", text, x=x + width / 2, y=y + 17.0, text_anchor="middle", class_=tone,
                    pointer_events="none")
        )  # fmt: skip
    return parts


def _write_short(value: Any) -> str:
    return value if isinstance(value, str) else format_number(value)


def _shorten(word: str) -> str:
    """Return the first letters of a diagnosis: who does not tell the colours apart reads them."""
    return "".join(part[0] for part in word.replace("-", " ").split()).upper()[:3]


def _describe_cell(result: CellResult) -> str:
    row = result.to_record()
    return "\n".join(
        f"{metric.label}: {_write_short(row[name])}"
        for name, metric in METRICS.items()
        if row[name] is not None
    )


def _build_table(sweep: Sweep, axes: list[str]) -> Markup:
    """Return the values as a table; who does not see colours reads them here."""
    titles = [name if name == "seed" else name_setting(name) for name in axes]
    records = [
        result.to_record()
        | {title: result.read_setting(name) for title, name in zip(titles, axes, strict=True)}
        for result in sweep.results[:MAX_ROWS]
    ]
    names = [*titles, *METRICS, "error"]
    shown = [name for name in names if any(record[name] is not None for record in records)]
    head = element("tr", [element("th", _name(name), scope="col") for name in shown])
    body = [
        element("tr", [element("td", _write_entry(record[name])) for name in shown])
        for record in records
    ]
    more = len(sweep) - len(records)
    return element(
        "details",
        element("summary", "All values" + (f"; {more} more rows are left out" if more else "")),
        element(
            "div",
            element("table", element("thead", head), element("tbody", body)),
            class_="scroll", tabindex="0", role="region", aria_label="all values",
        ),
    )  # fmt: skip


def _write_entry(value: Any) -> str:
    if value is None:
        return "–"
    return format_number(value) if isinstance(value, float) else str(value)
