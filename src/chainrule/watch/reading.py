"""Reading a run file, also while it is written and when it is damaged.

Every call opens the file anew and closes it: nothing is held that could be in a writer's way, and
any thread may ask. What cannot be read is left out and named in `RunReader.damage`.
"""

import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from chainrule._utils.databases import RUN_MARK, connect, describe_file, is_database
from chainrule.errors import FlowFileError, RunFileError
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.loading import decode_flow
from chainrule.watch.overviews import (
    LossCurve,
    NormMap,
    RateCurve,
    check_count,
    fold_losses,
    fold_norms,
    fold_rates,
)
from chainrule.watch.packing import DamagedError, unfold
from chainrule.watch.records import Alarm, ParameterFacts, RunFacts, Sample, StepRecord
from chainrule.watch.rows import (
    SampleTable,
    StepTable,
    count_parameters,
    list_samples,
    list_steps,
    unpack_samples,
    unpack_steps,
)
from chainrule.watch.salvage import Row, carve
from chainrule.watch.schema import (
    SCHEMA_VERSION,
    TABLES,
    is_locked,
    is_run_file,
    read_alarm,
    read_facts,
)

_NO_PLACE = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
"""What SQLite says where it cannot put a file beside the one to read."""

_TRANSIENT = (*_NO_PLACE, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM)
"""What it says where the file may be sound."""

_NAMES = "SELECT name FROM sqlite_master WHERE type = 'table'"

_Table = TypeVar("_Table", StepTable, SampleTable)


class RunReader:
    """What is known of one run.

    Attributes:
        path: The file.
        facts: What was known before the first step; of a run that was resumed, what its last
            writer knew, with the time at which it first began.

    Example:
        >>> RunReader("lost.db")
        Traceback (most recent call last):
        chainrule.errors.RunFileError: Could not read lost.db: there is no such file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Look into a run file.

        Args:
            path: The file.

        Raises:
            RunFileError: If there is no such file, it is not a run, nothing of it can be read, or
                it has another schema version.
        """
        self.path = Path(path)
        self._lost: dict[str, str] = {}
        self._carved: tuple[object, dict[str, list[Row]]] | None = None
        _check_file(self.path)
        self._sound = self._check_tables()
        self.facts = self._read_facts()

    @property
    def live(self) -> bool:
        """Whether a writer has the run now."""
        return is_locked(self.path)

    @property
    def ended(self) -> bool:
        """Whether its last writer closed it; not so while it is written, or when it was killed."""
        query = "SELECT closed FROM sessions ORDER BY id DESC LIMIT 1"
        rows = self._query(query) or [(None,)]
        return rows[0][0] is not None

    @property
    def ending(self) -> str:
        """What stopped its last writer, for example "ValueError at step 123"; "" if nothing did."""
        query = "SELECT text FROM endings WHERE id = (SELECT max(id) FROM sessions)"
        rows = self._query(query)
        return rows[0][0][:200] if rows and isinstance(rows[0][0], str) else ""

    @property
    def outcome(self) -> str:
        """How it stands with the run: "running", "ended", or "stopped" before its end.

        A run is stopped by an error or Ctrl-C, which `ending` names, or by a kill, which nobody
        could note.
        """
        if self.live:
            return "running"
        return "ended" if self.ended and not self.ending else "stopped"

    @property
    def last_step(self) -> int:
        """The last step that can be read; 0 if there is none."""
        return self._find_range()[1]

    @property
    def damage(self) -> str:
        """What could not be read so far, in sentences; "" if nothing was lost."""
        return " ".join(self._lost.values())

    def check(self) -> str:
        """Read everything and return `damage`."""
        deque(self.iterate_step_tables(), maxlen=0)
        deque(self.iterate_sample_tables(), maxlen=0)
        self.alarms()
        for step in self.flow_steps():
            try:
                self.flow(step)
            except RunFileError:
                continue  # it is in `damage` now
        if not self.damage and self._query("PRAGMA quick_check(1)") != [("ok",)]:
            self._note("file", "SQLite finds the file damaged; some rows may be missing.")
        return self.damage

    def steps(self, after: int = 0) -> tuple[StepRecord, ...]:
        """Return the steps, in order.

        Args:
            after: Only steps above this one.
        """
        tables = self.iterate_step_tables(after)
        return tuple(record for table in tables for record in list_steps(table, after))

    def samples(self, after: int = 0) -> tuple[Sample, ...]:
        """Return the sampled steps, in order, without their flows: ask `flow` for one.

        Args:
            after: Only steps above this one.
        """
        tables = self.iterate_sample_tables(after)
        return tuple(record for table in tables for record in list_samples(table, after))

    def alarms(self) -> tuple[Alarm, ...]:
        """Return the alarms, in the order in which they came."""
        rows, lost = self._fetch("alarms", "id, id, data")
        found = []
        for _, _, text in rows:
            try:
                found.append(read_alarm(text))
            except (ValueError, TypeError, RecursionError):
                lost = True
        self._note("alarms", "Some alarms are damaged and left out." if lost else "")
        return tuple(found)

    def flow_steps(self) -> tuple[int, ...]:
        """Return the steps of which the whole measurement is kept."""
        rows, lost = self._fetch("flows", "step")
        if lost:
            self._note("flows", "Some whole measurements may be lost.")
        return tuple(row[0] for row in rows)

    def flow(self, step: int) -> GradientFlow:
        """Return the whole measurement of a sampled step.

        Args:
            step: One of `flow_steps`.

        Raises:
            RunFileError: If none is kept of this step, or it is damaged.
        """
        rows = self._query("SELECT step, data FROM flows WHERE step = ?", (step,))
        if rows is None:
            rows = [row for row in self._carve().get("flows", []) if row[0] == step]
        try:
            if rows:
                return decode_flow(unfold(rows[0][1]))
        except (DamagedError, FlowFileError, TypeError) as error:
            lost = f"The whole measurement of step {step} is damaged."
            self._note(f"flow {step}", lost)
            raise RunFileError(
                f"{lost} ({str(error).rstrip('.')}.) Ask for another step; the other values of "
                "the run can be read."
            ) from None
        kept = self.flow_steps()
        near = min(kept, key=lambda each: abs(each - step), default=None)
        raise RunFileError(
            f"The step must be one of the {len(kept)} whose whole measurement is kept; got {step}."
            + ("" if near is None else f" The nearest is {near}.")
        )

    def loss_curve(self, points: int = 1_000) -> LossCurve:
        """Return the loss in a few points, each with the lowest and the highest of some steps.

        Args:
            points: How many at most.
        """
        check_count("points", points)
        tables = self.iterate_step_tables(norms=False)
        return fold_losses([(table.steps, table.fields["loss"]) for table in tables], points=points)

    def rate_curve(self, points: int = 1_000) -> RateCurve:
        """Return the learning rates in a few points, and where they changed suddenly.

        Args:
            points: How many at most.
        """
        check_count("points", points)
        tables = self.iterate_step_tables(norms=False)
        return fold_rates([(table.steps, table.rates) for table in tables], points=points)

    def norm_map(self, layers: int = 64, bins: int = 200) -> NormMap:
        """Return layer × steps: gradient, update ÷ weight, saturation and dead units.

        Args:
            layers: How many rows at most; neighbours are taken together where there are more.
            bins: How many columns at most; neighbouring steps are taken together.
        """
        check_count("layers", layers)
        check_count("bins", bins)
        return fold_norms(
            self.facts,
            self.iterate_step_tables(),
            self.iterate_sample_tables(),
            self._find_range(),
            most=layers,
            bins=bins,
        )

    def iterate_step_tables(self, after: int = 0, *, norms: bool = True) -> Iterator[StepTable]:
        """Give the steps as columns, piece by piece; the first may begin before `after`.

        Args:
            after: Only pieces that hold a step above this one.
            norms: Whether the norms are wanted; without them reading is some times faster.
        """
        return self._iterate_tables("steps", partial(unpack_steps, norms=norms), after)

    def iterate_sample_tables(self, after: int = 0) -> Iterator[SampleTable]:
        """Give the samples as columns, piece by piece; the first may begin before `after`.

        Args:
            after: Only pieces that hold a sample above this one.
        """
        return self._iterate_tables("samples", unpack_samples, after)

    def _iterate_tables(
        self, name: str, unpack: Callable[[bytes, int], _Table], after: int
    ) -> Iterator[_Table]:
        rows, lost = self._fetch(name, "first, last, data", after)
        gaps = []
        newest = 0
        for first, last, data in rows:
            try:
                table = unpack(data, len(self.facts.parameters))
                if table.steps[0] <= newest:
                    raise DamagedError("steps are not in order")
            except (ValueError, TypeError, OverflowError, MemoryError):
                gaps.append((first, last))
                continue
            newest = int(table.steps[-1])
            yield table
        what = {"steps": "steps", "samples": "sampled steps"}[name]
        told = ""
        if gaps:
            places = ", ".join(f"{first} to {last}" for first, last in gaps[:5])
            more = f" and {len(gaps) - 5} more ranges" if len(gaps) > 5 else ""
            told = f"Damaged and left out: {what} {places}{more}."
        if lost:
            told = f"{told} The table of {what} is damaged; what was found of it is read."
        self._note(name, told.strip())

    def _find_range(self) -> tuple[int, int]:
        """Return the first and the last step; 1 and 0 if there is none."""
        rows, _ = self._fetch("steps", "first, last")
        return (rows[0][0], max(row[1] for row in rows)) if rows else (1, 0)

    def _read_facts(self) -> RunFacts:
        found = []
        rows, lost = self._fetch("sessions", "id, opened, facts")
        for _, _, text in rows:
            try:
                found.append(read_facts(text))
            except (ValueError, TypeError, RecursionError):
                lost = True
        if found:
            if lost:
                self._note("facts", "A part of what was known of the run is damaged.")
            return replace(found[-1], created=found[0].created)
        count = self._count_parameters()
        self._note("facts", "The names of the parameters and the settings of the run are lost.")
        return RunFacts(
            name=self.path.stem,
            model="unknown",
            parameters=tuple(
                ParameterFacts(name=f"parameter {number}", layer="", kind="unknown", shape=())
                for number in range(1, count + 1)
            ),
            optimizers=(),
        )

    def _count_parameters(self) -> int:
        """Return how many parameters the first readable step has; 0 if there is none."""
        for _, _, data in self._fetch("steps", "first, last, data")[0]:
            try:
                return count_parameters(data)
            except (ValueError, TypeError):
                continue
        return 0

    def _check_tables(self) -> bool:
        """Return whether SQLite finds the tables of a run; raise if not even rows can be found."""
        mark, version = self._query("PRAGMA application_id"), self._query("PRAGMA user_version")
        names = self._query(_NAMES)
        if mark == [(RUN_MARK,)] and version and names:
            _check_version(self.path, version[0][0])
            if {row[0] for row in names}.issuperset(TABLES):
                return True
        elif version and names is not None:
            raise RunFileError(
                f"A run must be a file that chainrule.watch wrote; {self.path} is "
                f"{describe_file(self.path)}. Name a run: `chainrule runs list` shows them."
            )
        if not any(self._carve().values()):
            what = "damaged" if is_run_file(self.path) else describe_file(self.path)
            raise RunFileError(
                f"A run must be a file that chainrule.watch wrote; {self.path} is {what}, and no "
                "row of a run can be read in it. Nothing was changed. If it was a run, take a copy "
                "of it, if there is one."
            )
        self._note("head", "The beginning of the file is damaged; what is behind it was read.")
        return False

    def _fetch(self, table: str, columns: str, after: int = 0) -> tuple[list[Row], bool]:
        """Return rows in order, those that end above `after`, and whether the table is damaged."""
        names = columns.split(", ")
        ends = "last" if "last" in names else names[0]
        rows = None
        if self._sound:
            query = f"SELECT {columns} FROM {table} WHERE {ends} > ? ORDER BY {names[0]}"
            rows = self._query(query, (after,))
        lost = rows is None
        if rows is None:
            last = 1 if ends == "last" else 0
            rows = [row for row in self._carve().get(table, []) if row[last] > after]
            rows = [row[: len(names)] for row in rows]
        right = [row for row in rows if all(isinstance(each, int | float) for each in row[:2])
                 or len(row) == 1]  # fmt: skip
        return right, lost or len(right) < len(rows)

    def _query(self, query: str, values: Sequence[object] = ()) -> list[Row] | None:
        """Return what SQLite answers; `None` where it says that the file is damaged."""
        file = None
        try:
            file = _open_file(self.path)
            return file.execute(query, values).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:  # a message may quote the file
            if not self.path.exists():
                raise RunFileError(f"Could not read {self.path}: the file is gone.") from None
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _TRANSIENT:
                raise RunFileError(
                    f"Could not read {self.path} now: {error}. Try again, or copy the file and "
                    "the files beside it to a folder that can be written."
                ) from None
            return None
        finally:
            if file is not None:
                file.close()

    def _carve(self) -> dict[str, list[Row]]:
        """Return the rows that stand in the pages of the file, whatever SQLite finds."""
        try:
            now = self.path.stat()
            key = (now.st_mtime_ns, now.st_size)
            if self._carved is None or self._carved[0] != key:
                self._carved = (key, carve(self.path))
        except OSError as error:
            raise RunFileError(f"Could not read {self.path}: {error.strerror}.") from None
        return self._carved[1]

    def _note(self, place: str, lost: str) -> None:
        if lost:
            self._lost[place] = lost


def find_runs(folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Return the run files of a folder, those written last first.

    A run file is recognized by its first bytes, whatever its name is.

    Args:
        folder: The folder; folders in it are not looked into.

    Raises:
        RunFileError: If there is no such folder.

    Example:
        >>> find_runs(".")
        ()
    """
    files = [each for each in _list_folder(folder) if is_run_file(each)]
    return tuple(sorted(files, key=lambda each: (-find_time(each), each.name)))


def find_unreadable(folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Return the files of a folder that are named like runs and are no SQLite database.

    They are empty, damaged, or may not be read. Databases of other programs are none of them.

    Args:
        folder: The folder; folders in it are not looked into.

    Raises:
        RunFileError: If there is no such folder.

    Example:
        >>> find_unreadable(".")
        ()
    """
    found = [each for each in _list_folder(folder) if each.suffix == ".db"]
    return tuple(sorted(each for each in found if each.name[0] != "." and not is_database(each)))


def find_time(path: Path) -> float:
    """Return when a run was last written, in seconds since 1970.

    Args:
        path: The run file; its newest steps are in the file beside it.
    """
    times = [0.0]
    for each in (path, path.with_name(f"{path.name}-wal")):
        try:
            times.append(each.stat().st_mtime)
        except OSError:
            continue
    return max(times)


def _list_folder(folder: str | os.PathLike[str]) -> list[Path]:
    place = Path(folder)
    try:
        return [each for each in place.iterdir() if each.is_file()]
    except OSError as error:
        raise RunFileError(
            f"The folder of runs must be one that can be read; {place}: {error.strerror}."
        ) from None


def _check_file(path: Path) -> None:
    try:
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise RunFileError(f"Could not read {path}: there is no such file.") from None
    except OSError as error:
        raise RunFileError(f"Could not read {str(path)[:200]}: {error.strerror}.") from None
    if not path.is_file():
        fix = " Name a file in it." if path.is_dir() else " Name a file."
        raise RunFileError(f"A run must be a file; {path} is {describe_file(path)}.{fix}")
    if size == 0:
        raise RunFileError(
            f"A run must be a file that chainrule.watch wrote; {path} is empty: nothing of a run "
            "is in it. Name another file, or delete it."
        )
    try:
        path.open("rb").close()
    except OSError as error:
        raise RunFileError(
            f"Could not read {path}: {error.strerror}. Ask for the right to read it, or copy it to "
            "a folder of yours."
        ) from None


def _check_version(path: Path, version: int) -> None:
    if version > SCHEMA_VERSION:
        raise RunFileError(
            f"This chainrule reads runs of schema version {SCHEMA_VERSION}; {path} has version "
            f"{version}. Upgrade with: pip install --upgrade chainrule"
        )
    if version < SCHEMA_VERSION:
        raise RunFileError(
            f"A run must have schema version {SCHEMA_VERSION}; {path} has {version}. It is "
            "damaged, or was not written by chainrule."
        )


def _open_file(path: Path) -> sqlite3.Connection:
    """Open a file for reading; one in a folder that cannot be written is taken as it lies there."""
    file = connect(path, "ro")
    try:
        file.execute("PRAGMA trusted_schema = OFF")
        file.execute("PRAGMA cell_size_check = ON")
        file.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        file.close()
        changes = path.with_name(f"{path.name}-wal")  # what is in it would be passed over
        whole = not changes.exists() or changes.stat().st_size == 0
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _NO_PLACE or not whole:
            raise
        file = connect(path, "immutable")
    return file
