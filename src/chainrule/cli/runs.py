"""`chainrule runs`: the training runs that `chainrule.watch` kept."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chainrule.cli.options import DebugOption, complete
from chainrule.cli.results import check_outputs
from chainrule.cli.streams import open_console, print_json, print_note
from chainrule.errors import ChainruleError, RunFileError, abbreviate, suggest

if TYPE_CHECKING:
    from chainrule.watch.reading import RunReader

WHAT = ("steps", "norms", "updates", "layers", "alarms")

PERIOD = 1.0
"""Seconds between two looks at a run that is followed."""

_SECONDS_PER_DAY = 86_400

FolderOption = Annotated[
    Path, typer.Option("--folder", metavar="FOLDER", help="Where runs are looked for by name.")
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's file, or its name in the folder of runs.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the same as JSON instead.")]


def list_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of runs.")] = Path(
        "runs"
    ),
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the runs of a folder, those written last first."""
    from chainrule.display.runs import read_line, render_lines, to_line_json
    from chainrule.watch.reading import find_runs, find_unreadable

    lines = [read_line(path) for path in (*find_runs(folder), *find_unreadable(folder))]
    for line in lines:
        if line.damage:
            print_note(f"{line.path}: {line.damage}")
    if as_json:
        print_json([to_line_json(line) for line in lines])
    elif lines:
        open_console().print(render_lines(lines), crop=False)
    else:
        print_note(
            f"There is no run in {folder}. chainrule.watch(…, store='{folder}/a.db') writes one."
        )


def show_command(
    run: RunArgument,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Stay, and show what comes, until the run has ended."),
    ] = False,
    folder: FolderOption = Path("runs"),
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show a run: loss, gradients, speed, alarms in words."""
    from chainrule.display.runs import read_view, render_view, to_run_json

    if follow and as_json:
        raise ChainruleError("--json shows a run once; leave out --follow or --json.")
    reader = _read(run, folder)
    if follow:
        _follow(reader)
        return
    view = read_view(reader)
    _note_damage(reader)
    if as_json:
        print_json(to_run_json(view))
    else:
        open_console().print(render_view(view), crop=False)


def compare_command(
    run: RunArgument,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="The run to compare it with.")],
    folder: FolderOption = Path("runs"),
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Compare the losses, settings and alarms of two runs."""
    from chainrule.display.runs import compare_runs, render_comparison, to_comparison_json

    readers = _read(run, folder), _read(other, folder)
    found = compare_runs(*readers)
    for reader in readers:
        _note_damage(reader)
    if as_json:
        print_json(to_comparison_json(found))
    else:
        open_console().print(render_comparison(found), crop=False)


def export_command(
    run: RunArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="A .csv or .parquet file.")
    ],
    what: Annotated[
        str,
        typer.Option(
            metavar="NAME", help=f"What: {', '.join(WHAT)}.", autocompletion=complete(WHAT)
        ),
    ] = "steps",
    folder: FolderOption = Path("runs"),
    debug: DebugOption = False,
) -> None:
    """Write a part of a run as CSV or Parquet."""
    from chainrule.watch.export import export_run

    reader = _read(run, folder)
    check_outputs({"--output": output}, [reader.path], written={})
    rows, columns = export_run(reader, output, what)  # type: ignore[arg-type]
    _note_damage(reader)
    print_note(f"Wrote {output}: {rows:,} rows, {columns:,} columns.")


def prune_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of runs.")] = Path(
        "runs"
    ),
    keep: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Keep the N runs that were written last."),
    ] = None,
    older_than: Annotated[
        float | None,
        typer.Option(metavar="DAYS", min=0, help="Keep runs that were written since then."),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete. Without it, only say what would be deleted.")
    ] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Delete old runs; never one that is being written."""
    from chainrule.display.runs import list_files
    from chainrule.watch.reading import find_runs, find_time
    from chainrule.watch.removal import remove_run

    if keep is None and older_than is None:
        raise ChainruleError(
            "What to keep must be said: the last ones with --keep N, or those of the last days "
            "with --older-than DAYS."
        )
    paths = find_runs(folder)[keep or 0 :]
    if older_than is not None:
        before = time.time() - older_than * _SECONDS_PER_DAY
        paths = tuple(path for path in paths if find_time(path) < before)
    done, size, kept = [], 0, []
    for path in paths:
        bytes_now = sum(each.stat().st_size for each in list_files(path))
        try:
            remove_run(path, really=yes)
        except RunFileError as error:
            kept.append({"run": str(path), "why": str(error)})
            print_note(f"Kept {path}: {error}")
            continue
        done.append(str(path))
        size += bytes_now
    if as_json:
        print_json({"deleted": yes, "runs": done, "bytes": size, "kept": kept})
        return
    console = open_console()
    for each in done:
        console.print(f"{'deleted' if yes else 'would delete'} {each}", soft_wrap=True)
    noun = "run" if len(done) == 1 else "runs"
    print_note(
        f"{len(done)} {noun}, {size / 2**20:.1f} MiB." + ("" if yes or not done else " Add --yes.")
    )


COMMANDS: tuple[tuple[str, Callable[..., None], tuple[str, ...]], ...] = (
    ("list", list_command, ("chainrule runs list", "chainrule runs list experiments --json")),
    (
        "show",
        show_command,
        ("chainrule runs show exp1", "chainrule runs show runs/exp1.db --follow"),
    ),
    (
        "compare",
        compare_command,
        ("chainrule runs compare exp1 exp2", "chainrule runs compare exp1 exp2 --json"),
    ),
    (
        "export",
        export_command,
        (
            "chainrule runs export exp1 -o exp1.csv",
            "chainrule runs export exp1 --what norms -o norms.csv",
        ),
    ),
    (
        "prune",
        prune_command,
        ("chainrule runs prune --keep 20", "chainrule runs prune --older-than 30 --yes"),
    ),
)
"""The commands below `chainrule runs`: name, function, examples."""


def _read(run: str, folder: Path) -> "RunReader":
    """Return the run of a file, or of a name in a folder."""
    from chainrule.watch.reading import RunReader, find_runs

    path = Path(run)
    if not run or not _exists(path):
        paths = find_runs(folder) if _exists(folder) and folder.is_dir() else ()
        named = [each for each in paths if run in {each.stem, each.name}]
        beside = [folder / name for name in (run, f"{run}.db") if run and _exists(folder / name)]
        if not named and beside:
            return _read_anyway(beside[0])
        if not named:
            if len(path.parts) > 1:
                known = "There is no such file."
            elif paths:
                known = suggest(run, [each.stem for each in paths])
            elif _exists(folder) and folder.is_dir():
                known = f"There is no run in {folder}."
            else:
                known = f"There is no folder {folder}; --folder names another one."
            raise RunFileError(
                f"RUN must be a file, or the name of a run in {folder}; got {abbreviate(run)}. "
                f"{known}"
            )
        path = named[0]
    return RunReader(path)


def _exists(path: Path) -> bool:
    """Return whether something is there that can be looked at.

    Raises:
        RunFileError: If that cannot be known, because a folder cannot be looked into.
    """
    try:
        return path.exists()
    except PermissionError as error:
        raise RunFileError(f"Could not read {path}: {error.strerror}.") from None
    except (OSError, ValueError):  # no file can have such a name
        return False


def _read_anyway(path: Path) -> "RunReader":
    """Return what can be read of a file that does not look like a run.

    Raises:
        RunFileError: If that is nothing.
    """
    from chainrule.watch.reading import RunReader

    try:
        return RunReader(path)
    except RunFileError as error:
        raise RunFileError(f"{path} is there, but it cannot be read: {error}") from None


def _note_damage(reader: "RunReader") -> None:
    if reader.damage:
        print_note(f"{reader.path}: {reader.damage}")


def _follow(reader: "RunReader") -> None:
    """Show a run until it has ended or somebody presses Ctrl-C, which is no error here."""
    try:
        if sys.stdout.isatty():
            _follow_live(reader)
        else:
            _follow_lines(reader)
    except KeyboardInterrupt:
        print_note("Stopped looking; the run goes on.")
    _note_damage(reader)


def _follow_live(reader: "RunReader") -> None:
    from rich.live import Live

    from chainrule.display.runs import BLOCKS, read_view, render_view

    console = open_console()
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as screen:
        while True:
            live = reader.live
            begun = time.perf_counter()
            view = read_view(reader, blocks=max(2, min(BLOCKS, console.height - 20)))
            screen.update(render_view(view, alarms=2 if live else None), refresh=True)
            if not live:
                return
            time.sleep(max(PERIOD, 5 * (time.perf_counter() - begun)))  # a long run takes longer


def _follow_lines(reader: "RunReader") -> None:
    """Print a line for the last step of each second, and each alarm once."""
    from chainrule.display.runs import render_alarm, write_step

    console = open_console()
    step, seconds, told = 0, None, 0
    while True:
        live = reader.live
        steps = reader.steps(after=step)
        if steps:
            last = steps[-1]
            begin: tuple[int, Any] = (step, seconds)
            if begin[1] is None:
                begin = steps[0].step, steps[0].seconds
            took = last.seconds - begin[1]
            speed = (last.step - begin[0]) / took if took > 0 else None
            console.print(write_step(last, speed), soft_wrap=True)
            step, seconds = last.step, last.seconds
        alarms = reader.alarms()
        for alarm in alarms[told:]:
            console.print(render_alarm(alarm), crop=False)
        told = len(alarms)
        sys.stdout.flush()
        if not live:
            by = f" by {reader.ending}" if reader.ending else ""
            is_over = reader.ended and not by
            console.print("The run has ended." if is_over else f"The run was stopped{by}.")
            return
        time.sleep(PERIOD)
