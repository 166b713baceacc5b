"""What the page of training runs shows: the list, one run, two runs compared; numbers and words."""

import time
from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from chainrule._utils.numbers import format_number
from chainrule.display.run_charts import (
    HeatMap,
    LossChart,
    RateChart,
    build_charts,
    describe_change,
)
from chainrule.display.runs import (
    compare_runs,
    describe_record,
    find_last,
    measure_speed,
    read_line,
    write_time,
)
from chainrule.watch.export import What
from chainrule.watch.overviews import RateChange
from chainrule.watch.packing import Floats
from chainrule.watch.reading import RunReader
from chainrule.watch.records import Alarm, Evidence

Answer = dict[str, Any]

ALARMS = 60
"""Alarms that are shown at most, the first ones."""

CHANGES = 40
"""Sudden changes of the learning rate that are shown at most, the first ones."""

FLOWS = 500
"""Whole measurements that are offered at most, the last ones."""

TEXT = 1_000
"""Characters of a sentence at most."""

EXPORTS: tuple[tuple[What, str], ...] = (
    ("steps", "loss, rates and norms of every step"),
    ("norms", "gradient of every parameter"),
    ("updates", "updates of every parameter"),
    ("layers", "outputs of layers"),
    ("alarms", "alarms"),
)
"""Tables that can be downloaded, and what is in them."""

_STATES = {"running": "live", "ended": "ended", "stopped": "stopped", "unreadable": "damaged"}


def describe_line(path: Path, name: str) -> Answer:
    """Return a run as a line of the list.

    Args:
        path: The run file.
        name: Its name in addresses.
    """
    line = read_line(path)
    alarms = () if line.state == "unreadable" or not line.alarms else RunReader(path).alarms()
    began = write_time(line.created, time.time())
    return {
        "name": name,
        "state": "damaged" if line.damage else _STATES[line.state],
        "model": line.model[:80],
        "steps": f"{line.step:,}" if line.step else "none",
        "loss": "" if line.loss is None else format_number(line.loss),
        "alarm": f"{alarms[0].kind} at step {alarms[0].step:,}" if alarms else "",
        "more": f"and {len(alarms) - 1} more" if len(alarms) > 1 else "",
        "began": f"today {began}" if began and "-" not in began else began,
        "damage": _hide(line.damage, path),
        "readable": line.state != "unreadable",
    }


def describe_run(reader: RunReader, name: str) -> Answer:
    """Return everything that the page shows of a run.

    Args:
        reader: The run.
        name: Its name in addresses.
    """
    outcome = reader.outcome  # before the rest: what ends meanwhile is asked again
    charts, last, alarms = build_charts(reader), find_last(reader), reader.alarms()
    flows = reader.flow_steps()[-FLOWS:]
    facts = reader.facts
    speed = measure_speed(reader, last) if outcome == "running" else None
    layers = len({each.layer for each in facts.parameters})
    kinds = list(dict.fromkeys(each.kind for each in facts.optimizers))
    state = _STATES[outcome]
    words = [
        f"step {last.step:,}" if last else "no step yet",
        f"loss {format_number(last.loss)}" if last and last.loss is not None else "",
        f"{layers:,} layer{'s' * (layers != 1)} with weights",
        " and ".join(kinds)[:80],
        f"{facts.world_size} processes" if facts.world_size > 1 else "",
        f"{format_number(speed)} steps a second" if speed else "",
    ]
    rows = next((each.rows for each in charts.maps if each.name == "gradient"), ())
    shown = [_describe_alarm(alarm, flows, rows) for alarm in alarms[:ALARMS]]
    return {
        "name": name,
        "model": facts.model[:80],
        "state": state,
        "words": [word for word in words if word],
        "damage": _hide(reader.damage, reader.path),
        "step": last.step if last else 0,
        "span": charts.span,
        "loss": _describe_loss(charts.loss),
        "rate": _describe_rate(charts.rate),
        "maps": [_describe_map(each) for each in charts.maps],
        "alarms": shown,
        "hidden": max(len(alarms) - ALARMS, 0),
        "flows": flows,
        "exports": EXPORTS,
        "events": _list_events(reader, shown, charts.changes, state),
    }


def describe_comparison(one: RunReader, other: RunReader, name: str) -> Answer:
    """Return what the page shows of a second run, and where the two part.

    Args:
        one: The run on the page.
        other: The second run.
        name: Its name in addresses.
    """
    found = compare_runs(one, other)
    if not found.common:
        said = "The two runs have no step with a loss in common."
    elif found.parted is None:
        said = f"Their losses are the same at all {found.common:,} steps that both have."
    else:
        said = f"Their losses part at step {found.parted:,}, of {found.common:,} that both have."
    charts = build_charts(other, layers=1, bins=1)
    return {
        "name": name,
        "parted": found.parted,
        "said": said,
        "settings": [text[:TEXT] for text in found.settings[:40]],
        "span": charts.span,
        "loss": _describe_loss(charts.loss),
        "alarms": [_describe_alarm(alarm, ()) for alarm in found.alarms[1][:ALARMS]],
    }


def _describe_alarm(alarm: Alarm, flows: Sequence[int], rows: Sequence[str] = ()) -> Answer:
    place = f" in {_name_layer(alarm.layer, rows)}" if alarm.layer else ""
    near = min(flows, key=lambda step: (abs(step - alarm.step), step), default=None)
    return {
        "step": alarm.step,
        "rule": alarm.rule,
        "kind": alarm.kind[:TEXT],
        "title": f"Step {alarm.step:,}: {alarm.kind}{place}"[:TEXT],
        "what": alarm.summary[:TEXT],
        "why": alarm.cause[:TEXT],
        "do": alarm.action[:TEXT],
        "record": describe_record(alarm),
        "evidence": [_describe_evidence(each) for each in alarm.evidence[:20]],
        "flow": near,
    }


def _name_layer(module: str, rows: Sequence[str]) -> str:
    """Return a module's name, with the number of its row in the charts if it has one."""
    names = [row.partition(" (")[0] for row in rows]
    if module not in names:
        return f"module {module}"
    return f"layer {names.index(module) + 1} (module {module})"


def _describe_evidence(evidence: Evidence) -> list[str]:
    return [
        evidence.name[:200],
        format_number(evidence.value),
        "" if evidence.bound is None else format_number(evidence.bound),
        "" if evidence.step is None else f"{evidence.step:,}",
    ]


def _list_events(
    reader: RunReader, alarms: Sequence[Answer], changes: Sequence[RateChange], state: str
) -> list[Answer]:
    """Return the time line: the beginning, the alarms, changes of the learning rate, the end."""
    facts = reader.facts
    rates = [group["lr"] for each in facts.optimizers for group in each.groups if "lr" in group]
    rate = f", learning rate {format_number(rates[0])}" if rates else ""
    events = [{"step": 0, "text": f"start: {facts.model[:80]}{rate}", "alarm": None}]
    happened = [
        {"step": each["step"], "text": each["title"].partition(": ")[2], "alarm": index}
        for index, each in enumerate(alarms)
    ]
    happened += [
        {"step": each.step, "text": describe_change(each), "alarm": None}
        for each in changes[:CHANGES]
    ]
    events += sorted(happened, key=lambda each: (each["step"], each["alarm"] is not None))
    by = f"stopped by {reader.ending}" if reader.ending else "stopped before its end"
    ends = {"ended": "end of the run", "stopped": f"the run was {by}"}
    if state in ends:
        events.append({"step": reader.last_step, "text": ends[state], "alarm": None})
    return events


def _describe_loss(chart: LossChart | None) -> Answer | None:
    if chart is None:
        return None
    return {
        "first": chart.first.tolist(),
        "last": chart.last.tolist(),
        "low": _round(chart.low),
        "high": _round(chart.high),
        "median": _round(chart.median),
        "bad": chart.non_finite.tolist(),
        "ticks": [[tick, format_number(tick)] for tick in chart.ticks],
        "note": chart.note,
    }


def _describe_rate(chart: RateChart | None) -> Answer | None:
    if chart is None:
        return None
    return {
        "first": chart.first.tolist(),
        "last": chart.last.tolist(),
        "rates": [
            ["" if isnan(rate) else format_number(rate) for rate in row]
            for row in chart.rates.tolist()
        ],
        "heights": [_round(row) for row in chart.heights],
        "ticks": [[height, format_number(rate)] for height, rate in chart.ticks],
        "note": chart.note,
    }


def _describe_map(drawn: HeatMap) -> Answer:
    shades = np.where(np.isnan(drawn.shades), 0, np.round(100 * drawn.shades)).astype(int)
    known = ~np.isnan(drawn.shades)
    return {
        "name": drawn.name,
        "title": drawn.title,
        "note": drawn.note,
        "symbol": drawn.symbol,
        "share": drawn.share,
        "rows": [row[:120] for row in drawn.rows],
        "first": drawn.first.tolist(),
        "last": drawn.last.tolist(),
        "values": [_round(row) for row in drawn.values],
        "shades": [
            [shade if is_known else None for shade, is_known in zip(row, kept, strict=True)]
            for row, kept in zip(shades.tolist(), known.tolist(), strict=True)
        ],
        "legend": [[round(100 * shade), text] for shade, text in drawn.legend],
    }


def _round(values: Floats) -> list[float | None]:
    """Return numbers with the digits that are shown; `None` where there is none."""
    return [None if isnan(value) else float(f"{value:.3g}") for value in values.tolist()]


def _hide(sentence: str, path: Path) -> str:
    """Return a sentence that names a file, without the folder: a visitor need not know it."""
    return sentence.replace(str(path), path.name)[: 2 * TEXT]


def describe_error(error: Exception, path: Path) -> str:
    """Return why a run cannot be read.

    Args:
        error: What reading it raised.
        path: The run file.
    """
    return _hide(str(error), path)
