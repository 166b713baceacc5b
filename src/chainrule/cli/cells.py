"""What `chainrule sweep` and `chainrule map` share: options, progress, and cells that failed."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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

from chainrule.cli.results import check_outputs
from chainrule.cli.streams import open_console, print_error, print_note
from chainrule.errors import SweepError

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from chainrule.sweeps.records import Progress

LIMIT = 10_000
SOME_FAILED = 3
"""The exit code where some cells could not be measured; all others are."""

MAX_ERRORS = 3
LINE_SECONDS = 10.0
"""Without a terminal, a line comes after so many seconds at the earliest."""

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A setting that is the same everywhere."),
]
TrainOption = Annotated[
    str | None,
    typer.Option(metavar="OPTIMIZER", help="Train each cell on the digits, too: sgd, adam."),
]
StoreOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Keep results here; what it has is not measured again."),
]
RetryOption = Annotated[
    bool, typer.Option("--retry-failed", help="With --store: measure stored errors again.")
]
RescueOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="With --store: first take over what can be read of this damaged store.",
    ),
]
ProcessesOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="Processes of this machine. [default: its cores]"),
]
DaskOption = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Measure on the Dask cluster of this scheduler."),
]
LimitOption = Annotated[int, typer.Option(metavar="N", min=1, help="Most cells that are allowed.")]
CsvOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write a row per cell (.csv).")
]
ParquetOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write a row per cell (.parquet).")
]


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
        name, equals, word = (part.strip() for part in text.partition("="))
        if not equals or not name or not word:
            raise SweepError(
                f"--set must be NAME=VALUE, such as --set width=128; got {text!r:.60}."
            )
        name = name.replace("-", "_")
        if name in settings:
            raise SweepError(f"--set {name}: must be given once; got two values.")
        settings[name] = parse_value(word)
    return settings


def check_twice(axes: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise if a setting is both an axis and set.

    Raises:
        SweepError: If so.
    """
    twice = next((name for name in settings if name in axes), None)
    if twice is not None:
        raise SweepError(f"{twice}: must be an axis or set, not both. Leave out one of the two.")


def check_scale(axes: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise if a setting is given twice, or a weight scale comes with what it decides.

    Raises:
        SweepError: If so.
    """
    check_twice(axes, settings)
    if "weight_scale" in axes or "weight_scale" in settings:
        for name in ("init", "weight_std"):
            if name in settings or name in axes:
                raise SweepError(
                    f"weight_scale: decides {name}, so both must not be given. Leave out one of "
                    "them."
                )


def check_training(train: str | None, steps: int | None) -> None:
    """Raise if there are steps of no training.

    Raises:
        SweepError: If so.
    """
    if train is None and steps is not None:
        raise SweepError(
            "--steps must come with --train, whose steps they are. Give --train sgd or adam."
        )


def check_files(
    outputs: dict[str, Path | None],
    store: Path | None,
    rescue: Path | None,
    *,
    retry_failed: bool,
) -> None:
    """Raise unless all files can be used, before anything is measured.

    Args:
        outputs: What is written, by option.
        store: The store.
        rescue: The damaged one.
        retry_failed: Whether stored errors are to be measured again.

    Raises:
        SweepError: If an option has no store to go with, or a file has the wrong ending.
        FlowFileError: If a file cannot be written, or would take the place of another.
    """
    from chainrule._utils.tables import check_table

    for option, given in (("--retry-failed", retry_failed), ("--rescue", rescue is not None)):
        if given and store is None:
            raise SweepError(f"{option} must come with --store, the file of the results.")
    for option in ("--csv", "--parquet"):
        path, ending = outputs.get(option), f".{option[2:]}"
        if path is None:
            continue
        if path.suffix.lower() != ending:
            raise SweepError(f"{option}: the file must end with {ending}; got {path.name}.")
        check_table(path, SweepError)
    check_outputs(outputs, [path for path in (store, rescue) if path is not None])


@contextmanager
def open_executor(dask: str | None, processes: int | None) -> "Iterator[Executor | None]":
    """Give the executor of a Dask cluster; nothing without its address.

    Raises:
        SweepError: If a number of processes is given, too, or the cluster does not answer.
    """
    if dask is None:
        yield None
        return
    if processes is not None:
        raise SweepError("--processes: the Dask cluster decides how many; leave one of them out.")
    from chainrule.sweeps.pools import connect_dask

    with connect_dask(dask) as executor:
        yield executor


@contextmanager
def keep_going(store: Path | None) -> Iterator[None]:
    """Say how to go on where Ctrl-C ends a sweep."""
    try:
        yield
    except KeyboardInterrupt:
        if store is not None:
            print_note(f"What is finished is in {store}; the same command goes on from there.")
        else:
            print_note("Nothing is kept. With --store FILE, a sweep goes on where it stopped.")
        raise


def rescue_results(rescue: Path | None, store: Path | None) -> None:
    """Take over what can be read of a damaged store, if one is named."""
    if rescue is None or store is None:
        return
    from chainrule.sweeps.store import rescue_store

    count = rescue_store(rescue, store)
    print_note(f"Took over {count:,} {'result' if count == 1 else 'results'} of {rescue}.")


def note_rows(count: int, path: Path) -> None:
    """Say how many rows are in a file."""
    print_note(f"Wrote {path}: {count:,} {'row' if count == 1 else 'rows'}.")


def end_with_failures(failed: Sequence[tuple[str, str]], total: int, store: Path | None) -> None:
    """Say which cells failed, and end with the exit code for that; return if none did.

    Args:
        failed: Each cell in words, and its error.
        total: Number of cells.
        store: Where the errors are kept, too.

    Raises:
        typer.Exit: If a cell failed.
    """
    if not failed:
        return
    groups: dict[str, list[str]] = {}
    for name, error in failed:
        groups.setdefault(error, []).append(name)
    noun = "cell" if total == 1 else "cells"
    lines = [f"{len(failed)} of {total} {noun} could not be measured (exit code {SOME_FAILED})."]
    for error, names in [*groups.items()][:MAX_ERRORS]:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        lines.append(f"{names[0]}{more}: {error}")
    if len(groups) > MAX_ERRORS:
        lines.append(f"And {len(groups) - MAX_ERRORS} more of other kinds; --csv FILE has all.")
    if store is not None:
        lines.append(f"The errors are in {store}; --retry-failed measures these cells again.")
    print_error("\n".join(lines), label="failed: ")
    raise typer.Exit(SOME_FAILED)


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
