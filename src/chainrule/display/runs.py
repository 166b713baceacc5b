"""Training runs in words: a list, one run with its alarms, two runs compared; as text and as JSON.

Nothing needs colours or more than 80 columns. Names are printed as they are; a character that would
act on the terminal is shown as an escape.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from chainrule._utils.databases import find_lock
from chainrule._utils.numbers import encode_number, format_number
from chainrule.display.run_charts import describe_change
from chainrule.display.terminal_tables import SPARKS, show
from chainrule.errors import RunFileError
from chainrule.watch.alarm_constants import RECORD
from chainrule.watch.overviews import LossCurve, NormMap, RateChange, group_names
from chainrule.watch.packing import Floats, is_nothing
from chainrule.watch.reading import RunReader
from chainrule.watch.records import Alarm, StepRecord

CELLS = 48
"""Cells of a sparkline."""

BLOCKS = 12
"""Blocks of layers that are shown at most."""

CHANGES = 5
"""Sudden changes of the learning rate that are shown at most, the last ones."""

ROWS = 16
"""Steps in the table of two runs."""

_PRECISION = "precision of this rule (docs/alarms.md)"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLine:
    """One run in a list.

    Attributes:
        name: The file without its ending.
        path: The file.
        state: "running", "ended", "stopped" (by an error, Ctrl-C or a kill) or "unreadable".
        step: Its last step; 0 if there is none.
        loss: The loss of that step; `None` if it was not logged.
        alarms: Number of alarms.
        model: Class name of the model.
        created: When it began, in seconds since 1970.
        size: Bytes of the file.
        damage: What could not be read.
        ending: What stopped it before its end, where that is known.
    """

    name: str
    path: Path
    state: str
    step: int = 0
    loss: float | None = None
    alarms: int = 0
    model: str = ""
    created: float = 0.0
    size: int = 0
    damage: str = ""
    ending: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """What is shown of one run.

    Attributes:
        line: The run as in a list.
        parameters: Number of parameter tensors.
        optimizers: Class names of the optimizers.
        last: Its last step; `None` if there is none.
        speed: Steps per second, over the last steps; `None` if that cannot be known.
        curve: The loss.
        rates: The highest learning rate [cells]; `None` if none ever changed.
        changes: Sudden changes of learning rates.
        blocks: Names of blocks of layers, and the gradient of each [bins].
        alarms: The alarms.
    """

    line: RunLine
    parameters: int
    optimizers: tuple[str, ...]
    last: StepRecord | None
    speed: float | None
    curve: LossCurve
    rates: Floats | None
    changes: tuple[RateChange, ...]
    blocks: tuple[tuple[str, Floats], ...]
    alarms: tuple[Alarm, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunComparison:
    """Two runs, step by step.

    Attributes:
        names: Their names.
        common: How many steps have a loss in both.
        parted: The first of these at which their losses differ; `None` if there is none.
        rows: Some of these steps with both losses.
        settings: What differs in optimizers and their settings, as "name: one, other".
        alarms: The alarms of each.
    """

    names: tuple[str, str]
    common: int
    parted: int | None
    rows: tuple[tuple[int, float, float], ...]
    settings: tuple[str, ...]
    alarms: tuple[tuple[Alarm, ...], tuple[Alarm, ...]]


def read_line(path: Path) -> RunLine:
    """Return a run as a line of a list; one that cannot be read is one that says so.

    Args:
        path: The file.
    """
    size = sum(each.stat().st_size for each in list_files(path))
    try:
        reader = RunReader(path)
        return _describe(reader, find_last(reader), len(reader.alarms()), size)
    except RunFileError as error:
        return RunLine(name=path.stem, path=path, state="unreadable", size=size, damage=str(error))


def list_files(path: Path) -> list[Path]:
    """Return a run file and what SQLite keeps beside it.

    Args:
        path: The run file.
    """
    beside = (path.with_name(f"{path.name}{end}") for end in ("-wal", "-shm", "-journal"))
    return [each for each in (path, *beside, find_lock(path)) if each.exists()]


def read_view(reader: RunReader, *, cells: int = CELLS, blocks: int = BLOCKS) -> RunView:
    """Return what is shown of a run.

    Args:
        reader: The run.
        cells: Cells of a sparkline.
        blocks: Blocks of layers at most.
    """
    last = find_last(reader)
    alarms = reader.alarms()
    layers = len({each.layer for each in reader.facts.parameters})
    norms = reader.norm_map(layers=max(layers, 1), bins=cells)
    rates = reader.rate_curve(cells)
    return RunView(
        rates=None if rates.is_constant else np.fmax.reduce(rates.rates),
        changes=rates.changes,
        curve=reader.loss_curve(cells),
        blocks=tuple(_join_blocks(norms, blocks)),
        line=_describe(reader, last, len(alarms), 0),
        parameters=len(reader.facts.parameters),
        optimizers=tuple(each.kind for each in reader.facts.optimizers),
        last=last,
        speed=measure_speed(reader, last),
        alarms=alarms,
    )


def compare_runs(one: RunReader, other: RunReader, rows: int = ROWS) -> RunComparison:
    """Return two runs side by side.

    Args:
        one: The first run.
        other: The second run.
        rows: Steps in the table at most.
    """
    losses = [
        {
            step: loss
            for table in reader.iterate_step_tables(norms=False)
            for step, loss, is_unlogged in zip(
                table.steps.tolist(),
                table.fields["loss"].tolist(),
                is_nothing(table.fields["loss"]).tolist(),
                strict=True,
            )
            if not is_unlogged
        }
        for reader in (one, other)
    ]
    first, second = losses
    common = sorted(first.keys() & second.keys())
    parted = next((step for step in common if not _is_same(first[step], second[step])), None)
    places = sorted(
        {round(each) for each in np.linspace(0, len(common) - 1, min(rows, len(common)))}
    )
    chosen = {common[place] for place in places} | ({parted} if parted is not None else set())
    return RunComparison(
        names=(one.path.stem, other.path.stem),
        common=len(common),
        parted=parted,
        rows=tuple((step, first[step], second[step]) for step in sorted(chosen)),
        settings=tuple(_list_differences(one, other)),
        alarms=(one.alarms(), other.alarms()),
    )


def render_lines(lines: Sequence[RunLine], *, now: float | None = None) -> RenderableType:
    """Return runs as a table.

    Args:
        lines: The runs.
        now: The present time, in seconds since 1970.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("run", overflow="fold")
    for heading in ("state", "step", "loss", "alarms", "began", "size"):
        right = heading in {"step", "loss", "alarms", "size"}
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for line in lines:
        table.add_row(
            show(line.name),
            show(line.state, _STYLES.get(line.state, "")),
            f"{line.step:,}" if line.step else "",
            "" if line.loss is None else format_number(line.loss),
            show(str(line.alarms), "bold" if line.alarms else "dim"),
            write_time(line.created, time.time() if now is None else now),
            _write_size(line.size),
        )
    return table


def render_view(view: RunView, *, alarms: int | None = None) -> RenderableType:
    """Return a run: where it is, its loss, the gradient of each block, its alarms.

    Args:
        view: What to show.
        alarms: How many alarms at most, the last ones; all by default.
    """
    shown = view.alarms if alarms is None else view.alarms[-alarms:]
    earlier = len(view.alarms) - len(shown)
    line = view.line
    parts: list[RenderableType] = [
        Text.assemble(
            show(line.name, "bold"),
            "  ",
            show(line.state, _STYLES.get(line.state, "")),
            show(f" by {line.ending}" if line.ending else ""),
        ),
        show(
            f"{line.model}, {view.parameters:,} parameter tensors"
            + (f", {' and '.join(view.optimizers)}" if view.optimizers else ""),
            "dim",
        ),
    ]
    if view.last is None:
        return Group(*parts, Text("No step yet."), *_list_alarms(shown))
    parts += [Text(write_step(view.last, view.speed)), Text()]
    rows = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("", f"steps {_write_range(view)}", "lately"):
        rows.add_column(heading, overflow="fold", no_wrap=heading.startswith("steps"))
    if len(view.curve.high):
        loss = view.last.loss
        rows.add_row(
            "loss", draw_spark(view.curve.high), "" if loss is None else format_number(loss)
        )
    if view.rates is not None:
        rows.add_row("learning rate", draw_spark(view.rates), _write_last(view.rates))
    for name, norms in view.blocks:
        rows.add_row(show(f"‖gradient‖ {name}"), draw_spark(norms), _write_last(norms))
    parts.append(rows)
    if len(view.blocks):
        parts.append(show("Each line has its own logarithmic scale.", "dim"))
    if view.changes:
        parts.append(Text())
    for change in view.changes[-CHANGES:]:
        parts.append(show(f"step {change.step:,}: {describe_change(change)}"))
    if earlier:
        noun = "alarm" if earlier == 1 else "alarms"
        parts += [
            Text(),
            show(f"{earlier} earlier {noun}: without --follow they are listed.", "dim"),
        ]
    return Group(*parts, *_list_alarms(shown))


def render_comparison(found: RunComparison) -> RenderableType:
    """Return two runs compared.

    Args:
        found: The comparison.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("step", justify="right")
    for name in found.names:
        table.add_column(show(f"loss of {name}"), justify="right", overflow="fold")
    for step, *losses in found.rows:
        cells = map(format_number, losses)
        table.add_row(f"{step:,}", *cells, style="bold" if step == found.parted else "")
    parts: list[RenderableType] = [table, Text(), Text(_say_parting(found))]
    if found.settings:
        parts.append(show(f"Settings that differ: {'; '.join(found.settings)}."))
    for name, alarms in zip(found.names, found.alarms, strict=True):
        parts += [Text(), show(f"Alarms of {name}", "bold"), *_list_alarms(alarms, gap=False)]
    return Group(*parts)


def write_step(step: StepRecord, speed: float | None = None) -> str:
    """Return a step as one line.

    Args:
        step: The step.
        speed: Steps per second.

    Example:
        >>> write_step(StepRecord(step=9, seconds=1, grad_norms=np.ones(1), total_norm=1.0))
        'step 9   gradient 1'
    """
    pieces = [f"step {step.step:,}"]
    if step.loss is not None:
        pieces.append(f"loss {format_number(step.loss)}")
    pieces.append(f"gradient {format_number(step.total_norm)}")
    if step.rates:
        pieces.append(f"rate {', '.join(dict.fromkeys(map(format_number, step.rates)))}")
    if speed is not None:
        pieces.append(f"{format_number(speed)} steps/s")
    if step.skipped:
        pieces.append(f"skipped: {step.skipped}")
    return "   ".join(pieces)


def draw_spark(values: Floats, cells: int = CELLS) -> Text:
    """Return numbers as a sparkline on a logarithmic scale of at least two powers of ten.

    Zero is the lowest cell; what is infinite is `!`, and a gap where there is nothing.

    Args:
        values: The numbers [n], of which at most the last `cells` are drawn.
        cells: Cells at most.

    Example:
        >>> print(draw_spark(np.array([1.0, 10.0, 100.0, np.nan, np.inf])))
        ▁▅█ !
    """
    shown = values[-cells:]
    usable = shown[np.isfinite(shown) & (shown > 0)]
    if len(usable):
        low, high = (math.log10(each) for each in (usable.min(), usable.max()))
        middle, span = (low + high) / 2, max(high - low, 2.0)
    text = Text()
    for value in shown.tolist():
        if math.isnan(value):
            text.append(" ")
        elif math.isinf(value):
            text.append("!", style="bold red")
        elif value <= 0:
            text.append(SPARKS[0])
        else:
            height = (math.log10(value) - middle) / span + 0.5
            text.append(SPARKS[round(height * (len(SPARKS) - 1))])
    return text


def render_alarm(alarm: Alarm) -> RenderableType:
    """Return an alarm: what happened where, why, and what to do.

    Args:
        alarm: The alarm.
    """
    place = f" in module {alarm.layer}" if alarm.layer else ""
    head = Text.assemble(
        ("! ", "bold red"), show(f"step {alarm.step:,}: {alarm.kind}{place}", "bold")
    )
    body = [show(each) for each in (alarm.summary, alarm.cause, alarm.action) if each]
    return Group(head, *(Padding(each, (0, 0, 0, 2), expand=False) for each in body))


def describe_record(alarm: Alarm) -> str:
    """Return how often the rule of an alarm was right on known programs, as a sentence.

    Args:
        alarm: The alarm.
    """
    if alarm.rule in RECORD:
        right, said, _, _ = RECORD[alarm.rule]
        if said:
            return f"On known programs, this alarm was right in {right} of {said} cases."
    for each in alarm.evidence:
        if each.name == _PRECISION:
            return f"On known programs, this alarm was right in {100 * each.value:.0f} % of cases."
    return "How often this alarm is right was not measured."


def to_run_json(view: RunView) -> dict[str, Any]:
    """Return a run as plain data, ready for JSON.

    Args:
        view: What to show.
    """
    last = view.last
    return {
        **to_line_json(view.line),
        "parameters": view.parameters,
        "optimizers": list(view.optimizers),
        "total_norm": None if last is None else encode_number(last.total_norm),
        "rates": [] if last is None else [encode_number(each) for each in last.rates],
        "speed": encode_number(view.speed),
        "rate_changes": [
            {
                "step": each.step,
                "before": encode_number(each.before),
                "after": encode_number(each.after),
                "group": each.group,
            }
            for each in view.changes
        ],
        "loss_curve": [
            {
                "first": int(first),
                "last": int(to),
                "low": _encode_known(low),
                "high": _encode_known(high),
                "non_finite": int(bad),
            }
            for first, to, low, high, bad in zip(
                *(view.curve.first, view.curve.last, view.curve.low, view.curve.high),
                view.curve.non_finite,
                strict=True,
            )
        ],
        "blocks": [
            {"name": name, "gradient": [_encode_known(each) for each in norms.tolist()]}
            for name, norms in view.blocks
        ],
        "alarms": [to_alarm_json(alarm) for alarm in view.alarms],
    }


def to_line_json(line: RunLine) -> dict[str, Any]:
    """Return a run of a list as plain data, ready for JSON.

    Args:
        line: The run.
    """
    values = {name: getattr(line, name) for name in RunLine.__dataclass_fields__}
    return values | {"path": str(line.path), "loss": encode_number(line.loss)}


def to_comparison_json(found: RunComparison) -> dict[str, Any]:
    """Return a comparison as plain data, ready for JSON.

    Args:
        found: The comparison.
    """
    return {
        "runs": list(found.names),
        "common_steps": found.common,
        "parted_at": found.parted,
        "rows": [
            {"step": step, "losses": [encode_number(one), encode_number(other)]}
            for step, one, other in found.rows
        ],
        "settings": list(found.settings),
        "alarms": [[to_alarm_json(alarm) for alarm in alarms] for alarms in found.alarms],
    }


def to_alarm_json(alarm: Alarm) -> dict[str, Any]:
    """Return an alarm as plain data, ready for JSON.

    Args:
        alarm: The alarm.
    """
    values = {name: getattr(alarm, name) for name in Alarm.__dataclass_fields__}
    numbers = {name: encode_number(values[name]) for name in ("value", "bound")}
    evidence = [
        {
            "name": each.name,
            "value": encode_number(each.value),
            "bound": encode_number(each.bound),
            "step": each.step,
        }
        for each in alarm.evidence
    ]
    return values | numbers | {"evidence": evidence}


_STYLES = {"running": "bold green", "stopped": "yellow", "unreadable": "bold red"}


def _describe(reader: RunReader, last: StepRecord | None, alarms: int, size: int) -> RunLine:
    return RunLine(
        name=reader.path.stem,
        path=reader.path,
        state=reader.outcome,
        step=0 if last is None else last.step,
        loss=None if last is None else last.loss,
        alarms=alarms,
        model=reader.facts.model,
        created=reader.facts.created,
        size=size,
        damage=reader.damage,
        ending=reader.ending,
    )


def find_last(reader: RunReader) -> StepRecord | None:
    """Return the last step of a run; `None` if there is none.

    Args:
        reader: The run.
    """
    records = reader.steps(after=max(reader.last_step - 1, 0))
    return records[-1] if records else None


def measure_speed(reader: RunReader, last: StepRecord | None) -> float | None:
    """Return the steps per second over the last steps; `None` if that cannot be known.

    Args:
        reader: The run.
        last: Its last step.
    """
    if last is None:
        return None
    near = reader.steps(after=max(last.step - 50, 0))
    took = near[-1].seconds - near[0].seconds if near else 0.0
    return (near[-1].step - near[0].step) / took if took > 0 else None


def _join_blocks(norms: NormMap, most: int) -> Iterator[tuple[str, Floats]]:
    """Give blocks of layers and the norm of each: of all its parameters together."""
    for name, members in group_names(norms.layers, most):
        part = norms.gradient[members]
        known = ~np.isnan(part)
        total = np.hypot.reduce(np.where(known, part, 0.0), axis=0)
        total = np.where(known.any(axis=0), total, np.nan)
        yield name, np.where(norms.non_finite[members].any(axis=0), np.inf, total)


def _list_differences(one: RunReader, other: RunReader) -> Iterator[str]:
    """Give what differs in two runs' models and settings."""
    a, b = one.facts, other.facts
    for name in ("model", "device", "world_size", "torch_version", "chainrule_version"):
        if getattr(a, name) != getattr(b, name):
            yield f"{name} {getattr(a, name)} and {getattr(b, name)}"
    if len(a.parameters) != len(b.parameters):
        yield f"parameters {len(a.parameters)} and {len(b.parameters)}"
    if len(a.optimizers) != len(b.optimizers):
        yield f"optimizers {len(a.optimizers)} and {len(b.optimizers)}"
    for number, (left, right) in enumerate(zip(a.optimizers, b.optimizers, strict=False)):
        if left.kind != right.kind:
            yield f"optimizer {left.kind} and {right.kind}"
        if len(left.groups) != len(right.groups):
            place = f" of optimizer {number}" if number else ""
            yield f"groups{place} {len(left.groups)} and {len(right.groups)}"
        for index, (first, second) in enumerate(zip(left.groups, right.groups, strict=False)):
            place = f" of group {number}.{index}" if len(left.groups) > 1 or number else ""
            for key in dict.fromkeys([*first, *second]):
                if first.get(key) != second.get(key):
                    yield (
                        f"{key}{place} {format_number(first.get(key))} and "
                        f"{format_number(second.get(key))}"
                    )


def _list_alarms(alarms: Sequence[Alarm], *, gap: bool = True) -> Iterator[RenderableType]:
    if gap:
        yield Text()
    if not alarms:
        yield show("No alarm.", "dim")
    for alarm in alarms:
        yield render_alarm(alarm)


def _say_parting(found: RunComparison) -> str:
    if not found.common:
        return "The two runs have no step with a loss in common."
    if found.parted is None:
        return f"Their losses are the same at all {found.common:,} steps that both have."
    return f"Their losses differ from step {found.parted:,} on, of {found.common:,} that both have."


def _is_same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def _encode_known(value: float | None) -> float | str | None:
    """Return a number for JSON; nothing where an undefined one says that there was none."""
    return None if value is None or math.isnan(value) else encode_number(float(value))


def _write_range(view: RunView) -> str:
    if not len(view.curve.first):
        return f"to {view.line.step:,}"
    return f"{int(view.curve.first[0]):,} to {view.line.step:,}"


def _write_last(values: Floats) -> str:
    known = values[~np.isnan(values)]
    return format_number(float(known[-1])) if len(known) else ""


def write_time(created: float, now: float) -> str:
    """Return when something was, today without the date.

    Args:
        created: The time, in seconds since 1970.
        now: The present time, likewise.
    """
    try:
        there, today = time.localtime(created), time.localtime(now)
    except (OverflowError, ValueError, OSError):
        return ""
    if created <= 0:
        return ""
    same = there[:3] == today[:3]
    return time.strftime("%H:%M" if same else "%Y-%m-%d %H:%M", there)


def _write_size(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 1024:.0f} KiB"
