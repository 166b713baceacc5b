"""`chainrule sweep`: measure all combinations of some settings, on one machine or on many."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table

from chainrule.cli.options import DebugOption
from chainrule.cli.results import check_outputs
from chainrule.cli.streams import open_console, print_json, print_note
from chainrule.cli.target import load_function
from chainrule.errors import SweepError
from chainrule.spec.network_spec import NetworkSpec

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from chainrule.sweeps.cells import Cell
    from chainrule.sweeps.records import Progress, Sweep

LIMIT = 10_000
MAX_ROWS = 50
LINE_SECONDS = 10.0
"""Without a terminal, a line comes after so many seconds at the earliest."""


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
            help="depth=2..100, bias_std=0..1..0.1 (with a step) or init=he,xavier. "
            "Give it several times for all combinations.",
        ),
    ] = None,
    fixed: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting that is the same everywhere."),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Networks per cell; with a function, cells with a seed each. [default: 16; 1]",
        ),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(metavar="OPTIMIZER", help="Train each cell on the digits, too: sgd, adam."),
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", help="Steps of that training.")] = 300,
    store: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep results here; what it has is not measured again."),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Measure stored errors again.")
    ] = False,
    processes: Annotated[
        int | None,
        typer.Option(metavar="N", help="Processes of this machine. [default: its cores]"),
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Measure on the Dask cluster of this scheduler."),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", help="Most cells that are allowed.")] = LIMIT,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a row per cell (.csv).")
    ] = None,
    parquet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a row per cell (.parquet).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
    debug: DebugOption = False,
) -> None:
    """Measure all combinations of some settings."""
    from chainrule.sweeps.cells import list_axes
    from chainrule.sweeps.pools import check_arguments, connect_dask
    from chainrule.sweeps.running import run

    if dask is not None and processes is not None:
        raise SweepError("--processes: the Dask cluster decides how many; leave one of them out.")
    check_arguments(None, processes)
    _check_tables(csv, parquet)
    cells = _make_cells(target, read_axes(axis), read_settings(fixed), seeds, train, steps, limit)
    with ExitStack() as stack:
        executor: Executor | None = None
        if dask is not None:
            executor = stack.enter_context(connect_dask(dask))
        show = stack.enter_context(show_progress())
        try:
            sweep = run(
                cells,
                executor,
                store=store,
                processes=processes,
                limit=limit,
                retry_failed=retry_failed,
                progress=show,
            )
        except KeyboardInterrupt:
            if store is not None:
                print_note(f"What is finished is in {store}; the same command goes on from there.")
            raise
    for path in (csv, parquet):
        if path is not None:
            print_note(f"{sweep.write(path)} rows are in {path}.")
    if as_json:
        print_json(sweep.to_json())
    else:
        _print(sweep, list_axes(cells))


def read_axes(texts: Sequence[str] | None) -> dict[str, Sequence[Any]]:
    """Return the axes that the options of a command give."""
    from chainrule.sweeps.grids import parse_axis

    axes: dict[str, Sequence[Any]] = {}
    for text in texts or ():
        name, values = parse_axis(text)
        if name in axes:
            raise SweepError(f"{name}: each axis must be given once; put its values together.")
        axes[name] = values
    if not axes:
        raise SweepError(
            "A sweep must have an axis, and got none. Add one, such as --axis depth=2..20."
        )
    return axes


def read_settings(texts: Sequence[str] | None) -> dict[str, Any]:
    """Return the settings that the options of a command give."""
    from chainrule.sweeps.grids import parse_value

    settings = {}
    for text in texts or ():
        name, equals, word = text.partition("=")
        if not equals or not name.strip():
            raise SweepError(
                f"--set must be NAME=VALUE, such as --set width=128; got {text!r:.60}."
            )
        settings[name.strip().replace("-", "_")] = parse_value(word.strip())
    return settings


def _make_cells(
    target: str | None,
    axes: dict[str, Sequence[Any]],
    settings: dict[str, Any],
    seeds: int | None,
    train: str | None,
    steps: int,
    limit: int,
) -> "Sequence[Cell]":
    from chainrule.sweeps.cells import Training
    from chainrule.sweeps.grids import count_cells, make_factory_grid, make_grid

    twice = next((name for name in settings if name in axes), None)
    if twice is not None:
        raise SweepError(f"{twice}: must be an axis or set, not both. Leave out one of the two.")
    if target is None:
        training = None if train is None else Training(optimizer=train, steps=steps)  # type: ignore[arg-type]
        fields = {**settings, **_repair_words(axes, settings)}
        base = NetworkSpec(**fields)
        named = {name: _keep_words(name, values) for name, values in axes.items()}
        return make_grid(
            named, base, seeds=16 if seeds is None else seeds, training=training, limit=limit
        )
    if train is not None:
        raise SweepError("--train: only networks of the specification can be trained here.")
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


def _check_tables(csv: Path | None, parquet: Path | None) -> None:
    from chainrule._utils.tables import check_table

    for option, path in ((".csv", csv), (".parquet", parquet)):
        if path is None:
            continue
        if path.suffix.lower() != option:
            raise SweepError(f"--{option[1:]}: the file must end with {option}; got {path.name}.")
        check_table(path, SweepError)
    check_outputs({"--csv": csv, "--parquet": parquet})


@contextmanager
def show_progress() -> "Iterator[Callable[[Progress], None]]":
    """Show a bar with the time left on standard error; plain lines where that is no terminal."""
    console = open_console(stderr=True)
    if not console.is_terminal:
        yield _make_line_printer()
        return
    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    task = bars.add_task("measuring", total=None)

    def show(progress: "Progress") -> None:
        if progress.note:
            bars.console.print(progress.note)
        if progress.done == progress.kept:  # the time left is that of fresh cells
            bars.reset(task, total=progress.total, completed=progress.done)
        failed = f", {progress.failed} failed" if progress.failed else ""
        bars.update(task, completed=progress.done, description=f"measuring{failed}")

    with bars:
        yield show


def _make_line_printer() -> "Callable[[Progress], None]":
    last = -math.inf

    def show(progress: "Progress") -> None:
        nonlocal last
        if progress.note:
            print_note(progress.note)
        now = time.monotonic()
        if now - last < LINE_SECONDS and progress.done < progress.total:
            return
        last = now
        print_note(_describe(progress))

    return show


def _describe(progress: "Progress") -> str:
    parts = [f"{progress.done} of {progress.total} cells"]
    if progress.kept:
        parts.append(f"{progress.kept} of them from the store")
    if progress.failed:
        parts.append(f"{progress.failed} failed")
    if progress.done < progress.total and math.isfinite(progress.seconds_left):
        parts.append(f"about {_write_time(progress.seconds_left)} left")
    return ", ".join(parts) + "."


def _write_time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _print(sweep: "Sweep", axes: Sequence[str]) -> None:
    rows = sweep.to_records()
    trained = any(row["training_accuracy"] is not None for row in rows)
    seeds = len({row["seed"] for row in rows}) > 1
    names = [*axes, *(["seed"] if seeds and "seed" not in axes else [])]
    table = Table(*names, "verdict", "first ÷ last gradient", "depth scale", box=None)
    if trained:
        table.add_column("accuracy")
    for row in rows[:MAX_ROWS]:
        cells = [_write(row[name]) for name in names]
        cells += [row["verdict"] or "failed", _write(row["gradient_ratio"])]
        cells += [_write(row["depth_scale"])]
        table.add_row(*cells, *([_write(row["training_accuracy"])] if trained else []))
    console = open_console()
    console.print(table, crop=False)
    if len(rows) > MAX_ROWS:
        console.print(f"… and {len(rows) - MAX_ROWS} more; --csv FILE has all.")
    failed = sweep.failed
    if failed:
        console.print(
            f"{len(failed)} of {len(rows)} cells failed. The first: {failed[0].outcome.error}"
        )


def _write(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
