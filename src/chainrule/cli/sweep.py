"""`chainrule sweep`: measure all combinations of some settings, on one machine or on many."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from chainrule.cli.cells import (
    LIMIT,
    CsvOption,
    DaskOption,
    LimitOption,
    ParquetOption,
    ProcessesOption,
    RescueOption,
    RetryOption,
    SetOption,
    StoreOption,
    TrainOption,
    check_files,
    check_scale,
    check_training,
    check_twice,
    end_with_failures,
    keep_going,
    note_rows,
    open_executor,
    read_axes,
    read_settings,
    rescue_results,
    show_progress,
)
from chainrule.cli.options import DebugOption, complete
from chainrule.cli.streams import open_console, print_json, print_note
from chainrule.cli.target import load_function
from chainrule.errors import SweepError, suggest
from chainrule.spec.network_spec import NetworkSpec

if TYPE_CHECKING:
    from chainrule.sweeps.cells import Cell
    from chainrule.sweeps.records import CellResult, Sweep

STEPS = 300
MAX_ROWS = 50
COLORS = (
    "verdict",
    "gradient_ratio",
    "delta_ratio",
    "chi",
    "depth_scale",
    "gradient_norm",
    "loss",
    "sgd",
    "adam",
    "training_accuracy",
)
"""The metrics of `chainrule.report.sweep_report`, which is not loaded for a help text."""


def sweep_command(  # noqa: PLR0913  (one argument per option)
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="TARGET",
            show_default=False,
            help="FILE.py:FUNCTION, which takes the axes as arguments and returns (model, "
            "compute_loss). Without it, networks of the specification are measured.",
        ),
    ] = None,
    axis: Annotated[
        list[str] | None,
        typer.Option(
            "--axis",
            metavar="NAME=VALUES",
            help="depth=2..100, bias_std=0..1..0.1 (with a step), init=he,xavier, or "
            "weight_scale=1,2 (σ_w). Give it several times for all combinations.",
        ),
    ] = None,
    fixed: SetOption = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Networks per cell; with a function, cells with a seed each. [default: 16; 1]",
        ),
    ] = None,
    train: TrainOption = None,
    steps: Annotated[
        int | None,
        typer.Option(metavar="N", help=f"Steps of that training. [default: {STEPS}]"),
    ] = None,
    store: StoreOption = None,
    retry_failed: RetryOption = False,
    rescue: RescueOption = None,
    processes: ProcessesOption = None,
    dask: DaskOption = None,
    limit: LimitOption = LIMIT,
    csv: CsvOption = None,
    parquet: ParquetOption = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a page (HTML): a heat map over two axes, one for each value of the others.",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --report, the axis to the right. [default: first]"),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --report, the axis down. [default: second]"),
    ] = None,
    color: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"With --report, what cells show: {', '.join(COLORS)}.",
            autocompletion=complete(COLORS),
        ),
    ] = COLORS[0],
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
    debug: DebugOption = False,
) -> None:
    """Measure all combinations of some settings.

    A cell that fails is a row with its error; the exit code is then 3.
    """
    from chainrule.sweeps.pools import check_arguments
    from chainrule.sweeps.running import run

    axes, settings = read_axes(axis), read_settings(fixed)
    _check_report(report, [*axes, "seed"], columns, rows, color)
    check_files(
        {"--csv": csv, "--parquet": parquet, "--report": report},
        store,
        rescue,
        retry_failed=retry_failed,
    )
    check_training(train, steps)
    check_arguments(None, processes)
    cells = _make_cells(target, axes, settings, seeds, train, steps, limit)
    with open_executor(dask, processes) as executor, show_progress() as show, keep_going(store):
        rescue_results(rescue, store)
        sweep = run(
            cells,
            executor,
            store=store,
            processes=processes,
            limit=limit,
            retry_failed=retry_failed,
            progress=show,
        )
    for path in (csv, parquet):
        if path is not None:
            note_rows(sweep.write(path), path)
    if report is not None:
        from chainrule._utils.files import write_text
        from chainrule.report.sweep_report import build_sweep_report

        write_text(report, build_sweep_report(sweep, columns=columns, rows=rows, color=color))
        print_note(f"Wrote {report}")
    if as_json:
        print_json(sweep.to_json())
    else:
        _print(sweep, list(axes))
    end_with_failures(
        [(_describe_cell(each, list(axes)), each.outcome.error) for each in sweep.failed],
        len(sweep),
        store,
    )


def _describe_cell(result: "CellResult", axes: Sequence[str]) -> str:
    values = [f"{name}={_write_setting(result.read_setting(name))}" for name in axes]
    return ", ".join(values) or "the cell"


def _make_cells(
    target: str | None,
    axes: dict[str, Sequence[Any]],
    settings: dict[str, Any],
    seeds: int | None,
    train: str | None,
    steps: int | None,
    limit: int,
) -> "Sequence[Cell]":
    from chainrule.sweeps.cells import Training
    from chainrule.sweeps.grids import count_cells, make_factory_grid, make_grid

    if target is None:
        check_scale(axes, settings)
        training = None if train is None else Training(optimizer=train, steps=steps or STEPS)  # type: ignore[arg-type]
        if "weight_scale" in settings:  # it goes with the width, which may be an axis
            axes = {**axes, "weight_scale": [settings.pop("weight_scale")]}
        fields = {**settings, **_repair_words(axes, settings)}
        base = NetworkSpec(**fields)
        named = {name: _keep_words(name, values) for name, values in axes.items()}
        return make_grid(
            named, base, seeds=16 if seeds is None else seeds, training=training, limit=limit
        )
    if train is not None:
        raise SweepError("--train: only networks of the specification can be trained here.")
    check_twice(axes, settings)
    count_cells(axes, limit)
    return make_factory_grid(
        load_function(target),
        axes,
        arguments=settings,
        seeds=range(1 if seeds is None else seeds),
        limit=limit,
    )


def _keep_words(name: str, values: Sequence[Any]) -> Sequence[Any]:
    """Return the values of a field, where "none" is a name in some fields and nothing in others."""
    return ["none" if value is None and name in _NAMED_NONE else value for value in values]


def _repair_words(axes: dict[str, Sequence[Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """Return what the base must have to be legal alone, and settings whose name is "none"."""
    fields = {name: "none" for name in _NAMED_NONE if settings.get(name, "") is None}
    if "weight_std" in settings and "init" not in settings and "init" in axes:
        fields["init"] = "random"
    return fields


_NAMED_NONE = ("residual", "normalization")


def _check_report(
    report: Path | None, axes: list[str], columns: str | None, rows: str | None, color: str
) -> None:
    """Raise unless the page can show what is asked for, before anything is measured."""
    if color not in COLORS:
        raise SweepError(f"--color: unknown {color!r:.60}. {suggest(color, COLORS)}")
    for option, name in (("--columns", columns), ("--rows", rows)):
        if name is None:
            continue
        if report is None:
            raise SweepError(f"{option} must come with --report, whose map it arranges.")
        if name not in axes:
            raise SweepError(f"{option}: {name!r:.60} is no axis. {suggest(name, axes)}")
    if columns is not None and columns == rows:
        raise SweepError(f"--columns and --rows must be two axes; got {columns!r} for both.")


def _print(sweep: "Sweep", axes: Sequence[str]) -> None:
    rows = sweep.to_records()
    trained = any(row["training_accuracy"] is not None for row in rows)
    seeds = len({row["seed"] for row in rows}) > 1
    names = [*axes, *(["seed"] if seeds and "seed" not in axes else [])]
    results = sweep.results[:MAX_ROWS]
    columns = [
        (name, [_write_setting(result.read_setting(name)) for result in results]) for name in names
    ]
    columns += [("verdict", [row["verdict"] or "failed" for row in rows[:MAX_ROWS]])]
    shown = {"first ÷ last gradient": "gradient_ratio", "depth scale": "depth_scale"}
    if trained:
        shown["accuracy"] = "training_accuracy"
    columns += [
        (title, [_write(row[name]) for row in rows[:MAX_ROWS]]) for title, name in shown.items()
    ]
    table = Table(box=None)
    for title, cells in columns:  # in a narrow window titles wrap, and nothing is cut
        widest = max(map(len, (*title.split(), *cells)))
        table.add_column(title, min_width=widest)
    for line in zip(*(cells for _, cells in columns), strict=True):
        table.add_row(*line)
    console = open_console()
    console.print(table, crop=False)
    if len(rows) > MAX_ROWS:
        console.print(f"… and {len(rows) - MAX_ROWS} more; --csv FILE has all.")


def _write_setting(value: Any) -> str:
    return "none" if value is None else _write(value)


def _write(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
