"""The report of a training run: one HTML page that needs nothing but itself."""

import time
from collections.abc import Sequence
from itertools import groupby
from math import isnan

import numpy as np

from chainrule._utils.html import Content, Markup, element
from chainrule._utils.numbers import format_number
from chainrule.display.run_charts import (
    BROKEN,
    HeatMap,
    LossChart,
    RunCharts,
    build_charts,
    describe_change,
)
from chainrule.display.runs import describe_record, find_last
from chainrule.report.page import build_document
from chainrule.report.picture import draw_card, draw_words
from chainrule.report.raster import draw_cells
from chainrule.watch.reading import RunReader
from chainrule.watch.records import Alarm

_WIDTH, _LEFT, _RIGHT = 1000.0, 70.0, 14.0
_HEIGHT = 150.0
_CELLS = 320
"""Columns of a picture; a column of the map may be several of them."""

_TOP = 7.0
_ZONES = tuple(
    (place / _TOP, color)
    for place, color in (
        (0, "#2f5fb8"),
        (2, "#bcd0f0"),
        (2, "#bfe3d6"),
        (4, "#3a9d80"),
        (4, "#f6bfa6"),
        (6, "#c4410f"),
        (7, "#1c1d1f"),
    )
)
"""Colours of shades from −3 to 3, and of what is not finite."""

_SHARES = tuple(
    (place / _TOP, color)
    for place, color in ((0, "#d3491a10"), (3, "#d3491a"), (6, "#8a2300"), (7, "#1c1d1f"))
)
"""Colours of shares, from 0 to 3."""

_HOT = "#c4410f"


def build_run_report(reader: RunReader) -> str:
    """Return the report of a training run as HTML text.

    Args:
        reader: The run.

    Example:
        >>> build_run_report(RunReader("lost.db"))
        Traceback (most recent call last):
        chainrule.errors.RunFileError: Could not read lost.db: there is no such file.
    """
    facts, last, alarms = reader.facts, find_last(reader), reader.alarms()
    charts = build_charts(reader)
    stopped = f"stopped by {reader.ending}" if reader.ending else "stopped before its end"
    state = {"running": "still running", "stopped": stopped}.get(reader.outcome, "ended")
    words = [
        facts.model,
        f"{len(facts.parameters):,} parameter tensors",
        " and ".join(dict.fromkeys(each.kind for each in facts.optimizers)),
        facts.device,
        f"{last.step:,} steps" if last else "no step",
        state,
        f"began {_write_day(facts.created)}" if facts.created > 0 else "",
        f"PyTorch {facts.torch_version}" if facts.torch_version else "",
    ]
    main: list[Content] = [
        element(
            "header",
            element("p", "Training run", class_="dim"),
            element("h1", reader.path.stem),
            element("p", " · ".join(word for word in words if word), class_="dim"),
            element("p", reader.damage, class_="bad") if reader.damage else None,
        ),
        element("h2", f"Alarms ({len(alarms)})"),
        [_build_alarm(alarm) for alarm in alarms] or element("p", "No alarm.", class_="good"),
        element("h2", "The run"),
        _build_loss(charts, alarms),
        _build_rate(charts, alarms),
        [_build_map(drawn, charts, alarms) for drawn in charts.maps],
        element(
            "footer",
            element(
                "p",
                "All values were measured by chainrule.watch while the model trained.",
                class_="dim",
            ),
        ),
    ]
    return build_document(f"{reader.path.stem} · chainrule", main)


def draw_run(reader: RunReader, address: str = "") -> str:
    """Return the picture of a training run as the text of an SVG file: its loss and its alarms.

    Args:
        reader: The run.
        address: Where to see it live; written at the foot.

    Example:
        >>> draw_run(RunReader("lost.db"))
        Traceback (most recent call last):
        chainrule.errors.RunFileError: Could not read lost.db: there is no such file.
    """
    last, alarms = find_last(reader), reader.alarms()
    charts = build_charts(reader)
    words = [
        reader.facts.model,
        f"{last.step:,} steps" if last else "no step",
        {"running": "still running", "stopped": "stopped before its end"}.get(
            reader.outcome, "ended"
        ),
        f"loss {format_number(last.loss)}" if last and last.loss is not None else "",
    ]
    first = f"Step {alarms[0].step:,}: {alarms[0].summary}" if alarms else "No alarm."
    note = "The loss; a line for each alarm" if alarms else "The loss"
    if charts.loss is None:
        heading = f"{reader.path.stem}: {' · '.join(filter(None, words))}"
        return draw_words(heading, first, note="A training run", address=address)
    bottom = _HEIGHT + 24
    content = _draw_loss(charts.loss, charts, alarms)
    drawing = element("g", content, _mark_steps(charts, bottom), color="#1f2328")
    return draw_card(
        f"Training run {reader.path.stem}",
        [" · ".join(filter(None, words)), first],
        drawing,
        (_WIDTH, bottom + 26),
        note=note,
        address=address,
    )


def _write_day(created: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(created))
    except (OverflowError, ValueError, OSError):
        return "at an unknown time"


def _build_alarm(alarm: Alarm) -> Markup:
    place = f" in module {alarm.layer}" if alarm.layer else ""
    said = (("What", alarm.summary), ("Why", alarm.cause), ("Do", alarm.action))
    rows = [
        element(
            "tr",
            element("th", each.name, class_="words", scope="row"),
            element("td", format_number(each.value)),
            element("td", "" if each.bound is None else format_number(each.bound)),
            element("td", "" if each.step is None else f"{each.step:,}"),
        )
        for each in alarm.evidence
    ]
    head = element(
        "tr",
        [element("th", name, scope="col") for name in ("measured", "value", "bound", "step")],
    )
    table = element("table", element("thead", head), element("tbody", rows))
    return element(
        "div",
        element("p", element("b", f"Step {alarm.step:,}: {alarm.kind}{place}"), class_="bad"),
        [element("p", element("b", f"{name}. "), text) for name, text in said if text],
        element("p", describe_record(alarm), class_="dim"),
        element(
            "details",
            element("summary", "The evidence"),
            element("div", table, class_="scroll", tabindex="0", role="region",
                    aria_label="evidence"),
        )
        if rows
        else None,
        class_="finding",
    )  # fmt: skip


def _build_loss(charts: RunCharts, alarms: Sequence[Alarm]) -> Markup:
    chart = charts.loss
    if chart is None:
        return element("p", "No loss was logged: run.log(loss=loss) draws it here.", class_="dim")
    return _frame(
        "Loss", _note_loss(chart), _draw_loss(chart, charts, alarms), _HEIGHT + 24, charts
    )


def _draw_loss(chart: LossChart, charts: RunCharts, alarms: Sequence[Alarm]) -> list[Content]:
    """Return the curve of the loss, with a line for each alarm."""
    low, high = chart.ticks[0], chart.ticks[-1]

    def place(values: np.ndarray) -> list[float]:
        return [
            _HEIGHT + 24 - _HEIGHT * (min(max(value, low), high) - low) / (high - low)
            for value in values.tolist()
        ]

    across = [_find_x(step, charts.span) for step in ((chart.first + chart.last) / 2).tolist()]
    content: list[Content] = []
    for tick in chart.ticks:
        y = place(np.array([tick]))[0]
        content.append(element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
        content.append(
            element("text", format_number(tick), x=_LEFT - 8, y=y + 4, text_anchor="end")
        )
    ranges = list(zip(across, place(chart.low), place(chart.high), chart.low.tolist(), strict=True))
    for known, members in groupby(ranges, key=lambda point: not isnan(point[3])):
        if known:
            steps = "L".join(f"{x:.1f} {low_y:.1f}V{high_y:.1f}" for x, low_y, high_y, _ in members)
            content.append(
                element("path", d=f"M{steps}", stroke="currentColor", stroke_opacity="0.3",
                        fill="none")
            )  # fmt: skip
    points = list(zip(across, place(chart.median), chart.median.tolist(), strict=True))
    for known, part in groupby(points, key=lambda point: not isnan(point[2])):
        if known:
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in part)
            content.append(
                element("polyline", points=line, stroke="currentColor", stroke_width="1.8",
                        fill="none")
            )  # fmt: skip
    content += [
        element("circle", cx=x, cy=24.0, r=3.0, fill=_HOT)
        for x, bad in zip(across, chart.non_finite.tolist(), strict=True)
        if bad
    ]
    content += _draw_alarms(charts, alarms, 24.0, _HEIGHT + 24)
    return content


def _build_rate(charts: RunCharts, alarms: Sequence[Alarm]) -> Markup | None:
    chart = charts.rate
    if chart is None:
        return None
    top, height = 24.0, 60.0
    content: list[Content] = []
    for share, rate in chart.ticks:
        y = top + height * (1 - share)
        content.append(element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
        content.append(
            element("text", format_number(rate), x=_LEFT - 8, y=y + 4, text_anchor="end")
        )
    ends = [
        (_find_x(first - 0.5, charts.span), _find_x(last + 0.5, charts.span))
        for first, last in zip(chart.first.tolist(), chart.last.tolist(), strict=True)
    ]
    for row in chart.heights.tolist():
        points = zip(ends, row, strict=True)
        for known, members in groupby(points, key=lambda point: not isnan(point[1])):
            if known:
                steps = [(place, top + height * (1 - share)) for place, share in members]
                line = " ".join(f"{x:.1f},{y:.1f}" for pair, y in steps for x in pair)
                content.append(
                    element("polyline", points=line, stroke="currentColor", stroke_width="1.8",
                            fill="none")
                )  # fmt: skip
    content += _draw_alarms(charts, alarms, top, top + height)
    sudden = [f"step {each.step:,}: {describe_change(each)}" for each in charts.changes[:10]]
    note = "; ".join(filter(None, (chart.note, *sudden))) or "of every step"
    return _frame("Learning rate", note, content, top + height, charts)


def _note_loss(chart: LossChart) -> str:
    bad = int(chart.non_finite.sum())
    return chart.note + (f"; {bad:,} steps are infinite or undefined (dots)" if bad else "")


def _build_map(drawn: HeatMap, charts: RunCharts, alarms: Sequence[Alarm]) -> Markup:
    first, last = charts.span
    steps = first + (np.arange(_CELLS) + 0.5) / _CELLS * (last - first + 1)
    columns = np.searchsorted(drawn.first, steps, side="right") - 1
    rows: list[list[float | None]] = []
    shares = drawn.name in {"dead", "saturation"}
    for shades in drawn.shades:
        row: list[float | None] = []
        for column in columns.tolist():
            shade = float(shades[column]) if column >= 0 else float("nan")
            if isnan(shade):
                row.append(None)
            elif shade >= BROKEN:
                row.append(_TOP)
            else:
                row.append(shade if shares else shade + 3)
        rows.append(row)
    height = max(60.0, min(150.0, 12.0 * len(rows)))
    picture = draw_cells(rows, _SHARES if shares else _ZONES, _TOP)
    content: list[Content] = [
        element(
            "image",
            x=_LEFT,
            y=24.0,
            width=_WIDTH - _LEFT - _RIGHT,
            height=height,
            preserveAspectRatio="none",
            class_="cells",
            href=picture,
        ),
        element("text", str(len(rows)), x=_LEFT - 8, y=36.0, text_anchor="end"),
        element("text", "layer 1", x=_LEFT - 8, y=height + 22, text_anchor="end"),
        *_draw_alarms(charts, alarms, 24.0, height + 24),
    ]
    legend = "; ".join(text for _, text in drawn.legend)
    colors = "from white to red" if shares else "blue, green, red"
    return _frame(drawn.title, f"{drawn.note} ({colors}: {legend})", content, height + 24, charts)


def _draw_alarms(
    charts: RunCharts, alarms: Sequence[Alarm], top: float, bottom: float
) -> list[Content]:
    places = [_find_x(alarm.step, charts.span) for alarm in alarms]
    return [
        element("line", x1=x, x2=x, y1=top, y2=bottom, stroke=_HOT, stroke_width="1.5")
        for x in places
    ]


def _find_x(step: float, span: tuple[int, int]) -> float:
    share = (step - span[0] + 0.5) / max(span[1] - span[0] + 1, 1)
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * min(max(share, 0.0), 1.0)


def _mark_steps(charts: RunCharts, bottom: float) -> list[Content]:
    """Return the numbers of the first, the middle and the last step, below a chart."""
    first, last = charts.span
    return [
        element("text", f"step {step:,}" if step == first else f"{step:,}",
                x=_find_x(step, charts.span), y=bottom + 18, text_anchor=anchor)
        for step, anchor in ((first, "start"), ((first + last) // 2, "middle"), (last, "end"))
    ]  # fmt: skip


def _frame(
    title: str, note: str, content: list[Content], bottom: float, charts: RunCharts
) -> Markup:
    drawing = element(
        "svg",
        content,
        _mark_steps(charts, bottom),
        viewBox=f"0 0 {_WIDTH:.0f} {bottom + 26:.0f}",
        role="img",
        aria_label=f"{title}: {note}",
        width="100%",
    )
    return element(
        "figure",
        element("h3", title),
        element("p", note, class_="dim"),
        element("div", drawing, class_="scroll", tabindex="0", role="region", aria_label=title),
    )
