"""A run as tables for other programs."""

import os
from pathlib import Path
from typing import Any, Literal, get_args

from chainrule._utils.tables import Rows, check_table, write_table
from chainrule.errors import RunFileError, abbreviate
from chainrule.watch.packing import Floats, is_nothing
from chainrule.watch.reading import RunReader

What = Literal["steps", "norms", "updates", "layers", "alarms"]

_STEP_HEAD = ("step", "seconds", "loss", "total_norm", "clipped_from", "scale")
_LAYER_FIELDS = (
    *("mean", "std", "delta_norm", "saturation", "dead_units", "zero_share", "subnormal_share"),
)
_ALARM_FIELDS = (
    *("step", "rule", "kind", "layer", "value", "bound", "summary", "cause", "action"),
)


def export_run(
    reader: RunReader, path: str | os.PathLike[str], what: What = "steps"
) -> tuple[int, int]:
    """Write a part of a run to a file and return its rows and columns.

    Args:
        reader: The run.
        path: The file; its ending says how: `.csv` or `.parquet`.
        what: "steps" (loss, total norm, rates, what was logged), "norms" (‖gradient‖, a column per
            parameter), "updates" (‖W‖, ‖ΔW‖ and their ratio, a row per sampled step and parameter),
            "layers" (what was sampled of modules) or "alarms".

    Raises:
        RunFileError: If the ending or `what` is another one, no package for Parquet is installed,
            or a column would be there twice.
        FlowFileError: If the file cannot be written.

    Example:
        >>> export_run(RunReader("lost.db"), "lost.csv")
        Traceback (most recent call last):
        chainrule.errors.RunFileError: Could not read lost.db: there is no such file.
    """
    target = Path(path)
    if what not in get_args(What):
        known = ", ".join(get_args(What))
        raise RunFileError(f"What to export must be one of {known}; got {abbreviate(what)}.")
    check_table(target, RunFileError)
    head, rows = _TABLES[what](reader)
    count = write_table(target, head, rows, RunFileError)
    return count, len(head)


def _list_steps(reader: RunReader) -> tuple[list[str], Rows]:
    names: dict[str, None] = {}
    groups = 0
    for table in reader.iterate_step_tables(norms=False):
        names |= dict.fromkeys(table.scalars)
        groups = max(groups, table.rates.shape[1])
    rates = [f"rate_{group}" for group in range(groups)]
    head = [*_STEP_HEAD, *rates, "skipped", "bad_rank"]
    head += [name if name not in head else f"logged_{name}" for name in names]

    def give() -> Rows:
        for table in reader.iterate_step_tables(norms=False):
            count = len(table.steps)
            columns = [
                table.steps.tolist(),
                table.seconds.tolist(),
                *(_fill(table.fields[name], count) for name in _STEP_HEAD[2:]),
                *(
                    _fill(table.rates[:, group] if group < table.rates.shape[1] else None, count)
                    for group in range(groups)
                ),
                [table.skipped.get(index) for index in range(count)],
                [table.bad_ranks.get(index) for index in range(count)],
                *(_fill(table.scalars.get(name), count) for name in names),
            ]
            yield from zip(*columns, strict=True)

    return head, give()


def _list_norms(reader: RunReader) -> tuple[list[str], Rows]:
    head = ["step", *(each.name for each in reader.facts.parameters)]

    def give() -> Rows:
        for table in reader.iterate_step_tables():
            for step, norms in zip(table.steps.tolist(), table.norms.tolist(), strict=True):
                yield [step, *(None if norm < 0 else norm for norm in norms)]

    return head, give()


def _list_updates(reader: RunReader) -> tuple[list[str], Rows]:
    names = [each.name for each in reader.facts.parameters]

    def give() -> Rows:
        for sample in reader.samples():
            values = zip(
                names,
                *(each.tolist() for each in (sample.weight_norms, sample.update_norms)),
                sample.ratios.tolist(),
                strict=True,
            )
            for name, *numbers in values:
                yield [sample.step, name, *(None if each < 0 else each for each in numbers)]

    return ["step", "parameter", "weight_norm", "update_norm", "update_ratio"], give()


def _list_layers(reader: RunReader) -> tuple[list[str], Rows]:
    def give() -> Rows:
        for sample in reader.samples():
            for layer in sample.layers:
                numbers = (getattr(layer, field) for field in _LAYER_FIELDS)
                yield [sample.step, layer.name, layer.kind, *numbers, layer.non_finite]

    return ["step", "layer", "kind", *_LAYER_FIELDS, "non_finite"], give()


def _list_alarms(reader: RunReader) -> tuple[list[str], Rows]:
    alarms = reader.alarms()
    return list(_ALARM_FIELDS), (
        [getattr(alarm, field) for field in _ALARM_FIELDS] for alarm in alarms
    )


_TABLES = {
    "steps": _list_steps,
    "norms": _list_norms,
    "updates": _list_updates,
    "layers": _list_layers,
    "alarms": _list_alarms,
}


def _fill(values: Floats | None, count: int) -> list[Any]:
    """Return a column; `None` where there is nothing."""
    if values is None:
        return [None] * count
    nothing = is_nothing(values.copy()).tolist()
    return [
        None if absent else value for absent, value in zip(nothing, values.tolist(), strict=True)
    ]
