"""Reading a run file, also while it is written and when it is damaged.

Every call opens the file anew and closes it: nothing is held that could be in a writer's way, and
any thread may ask. What cannot be read is left out and named in `RunReader.damage`.
"""

import os
import shutil
import sqlite3
import tempfile
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from chainrule.errors import FlowFileError, RunFileError
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.loading import decode_flow
from chainrule.watch.overviews import (
    LossCurve,
    NormMap,
    check_count,
    fold_losses,
    fold_norms,
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
from chainrule.watch.salvage import may_be_run, repair_copy
from chainrule.watch.schema import (
    SCHEMA_VERSION,
    TABLES,
    connect,
    is_locked,
    is_run_file,
    read_alarm,
    read_facts,
)

_NO_PLACE = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
"""What SQLite says where it cannot put a file beside the one to read."""

_SKIP = 32
_MAX_MISSES = 4_000

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
        self._source = self.path
        _check_file(self.path)
        try:
            version = self._read_version()
        except RunFileError:
            if not self._repair():
                raise
            version = self._read_version()
        _check_version(self.path, version)
        with self._open() as file:
            self.facts = self._read_facts(file)

    @property
    def live(self) -> bool:
        """Whether a writer has the run now."""
        return is_locked(self.path)

    @property
    def ended(self) -> bool:
        """Whether its last writer closed it; not so while it is written, or when it was killed."""
        with self._open() as file:
            try:
                row = file.execute(
                    "SELECT closed FROM sessions ORDER BY id DESC LIMIT 1"
                ).fetchone()
            except sqlite3.DatabaseError:
                return False
        return row is not None and row[0] is not None

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
        with self._open() as file:
            rows, lost = _read_rows(file, "alarms", "id", "id, id, data", 0, skip=1)
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
        with self._open() as file:
            try:
                return tuple(row[0] for row in file.execute("SELECT step FROM flows ORDER BY step"))
            except sqlite3.DatabaseError:
                self._note("flows", "The list of whole measurements is damaged.")
                return ()

    def flow(self, step: int) -> GradientFlow:
        """Return the whole measurement of a sampled step.

        Args:
            step: One of `flow_steps`.

        Raises:
            RunFileError: If none is kept of this step, or it is damaged.
        """
        try:
            with self._open() as file:
                row = file.execute("SELECT data FROM flows WHERE step = ?", (step,)).fetchone()
            if row is not None:
                return decode_flow(unfold(row[0]))
        except (sqlite3.Error, DamagedError, FlowFileError, TypeError) as error:
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
        with self._open() as file:
            rows, lost = _read_rows(file, name, "last", "first, last, data", after, skip=_SKIP)
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
            told = f"{told} A part of the table of {what} is damaged; what is beside it was read."
        self._note(name, told.strip())

    def _find_range(self) -> tuple[int, int]:
        """Return the first and the last step; 1 and 0 if there is none."""
        with self._open() as file:
            rows, _ = _read_rows(file, "steps", "last", "first, last", 0, skip=_SKIP)
        return (rows[0][0], max(row[1] for row in rows)) if rows else (1, 0)

    def _read_facts(self, file: sqlite3.Connection) -> RunFacts:
        found = []
        rows, lost = _read_rows(file, "sessions", "id", "id, opened, facts", 0, skip=1)
        for _, _, text in rows:
            try:
                found.append(read_facts(text))
            except (ValueError, TypeError, RecursionError):
                lost = True
        if found:
            if lost:
                self._note("facts", "A part of what was known of the run is damaged.")
            return replace(found[-1], created=found[0].created)
        count = _count_parameters(file)
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

    def _read_version(self) -> int:
        """Return the version of the tables; raise if the tables of a run cannot be read."""
        if not is_run_file(self._source):
            raise RunFileError(
                f"A run must be a file that chainrule.watch wrote; {self.path} is none, or its "
                "first bytes are damaged."
            )
        with self._open() as file:
            version = file.execute("PRAGMA user_version").fetchone()[0]
            query = "SELECT name FROM sqlite_master WHERE type = 'table'"
            names = {row[0] for row in file.execute(query)}
        lacking = set(TABLES) - names
        if lacking and version == SCHEMA_VERSION:
            raise RunFileError(
                f"A run must have the tables of one; {self.path} lacks: "
                f"{', '.join(sorted(lacking))}. It is damaged."
            )
        return int(version)

    def _repair(self) -> bool:
        """Read from now on a copy with a new first page, if that gives anything."""
        if not may_be_run(self.path):
            return False
        folder = Path(tempfile.mkdtemp(prefix="chainrule-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        try:
            copy = repair_copy(self.path, folder)
        except (OSError, sqlite3.Error):
            return False
        if copy is None:
            return False
        self._source = copy
        self._note("head", "The first page of the file is damaged; what is behind it was read.")
        return True

    def _note(self, place: str, lost: str) -> None:
        if lost:
            self._lost[place] = lost

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        file = None
        try:
            file = _open_file(self._source)
            yield file
        except sqlite3.Error as error:
            if not self.path.exists():
                raise RunFileError(f"Could not read {self.path}: the file is gone.") from None
            raise RunFileError(
                f"Nothing can be read of {self.path}: {error}. The file is damaged; take a copy of "
                "it, if there is one."
            ) from None
        finally:
            if file is not None:
                file.close()


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
    place = Path(folder)
    try:
        files = [each for each in place.iterdir() if each.is_file() and is_run_file(each)]
    except OSError as error:
        raise RunFileError(
            f"The folder of runs must be one that can be read; {place}: {error.strerror}."
        ) from None
    return tuple(sorted(files, key=lambda each: (-find_time(each), each.name)))


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


def _check_file(path: Path) -> None:
    try:
        size = path.stat().st_size
    except (OSError, ValueError):
        raise RunFileError(f"Could not read {path}: there is no such file.") from None
    if not path.is_file():
        raise RunFileError(f"A run must be a file; {path} is none. Name a file in it.")
    if size == 0:
        raise RunFileError(f"A run must be a file that chainrule.watch wrote; {path} is empty.")


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
    except sqlite3.Error as error:
        file.close()
        if error.sqlite_errorcode & 0xFF not in _NO_PLACE or is_locked(path):
            raise
        file = connect(path, "immutable")
    return file


def _read_rows(
    file: sqlite3.Connection, table: str, key: str, columns: str, after: int, *, skip: int
) -> tuple[list[tuple[Any, Any, Any]], bool]:
    """Return rows whose key is above `after`, and whether some could not be read.

    A damaged page of SQLite ends an ordinary query. Then the rows are asked for one by one, and
    after each failure some keys further on.
    """
    where = f"SELECT {columns} FROM {table} WHERE {key} > ? ORDER BY 1"
    try:
        return _keep_sound(file.execute(where, (after,)).fetchall(), False)
    except sqlite3.DatabaseError:
        pass
    found: dict[int, tuple[Any, Any, Any]] = {}
    order = columns.partition(",")[0]
    query = f"SELECT {columns} FROM {table} WHERE {order} > ? ORDER BY 1 LIMIT 1"
    place, misses = 0, 0
    while misses < _MAX_MISSES:
        try:
            row = file.execute(query, (place,)).fetchone()
        except sqlite3.DatabaseError:
            place += skip
            misses += 1
            continue
        if row is None:
            break
        if not isinstance(row[0], int) or row[0] <= place:
            place += skip
            misses += 1
            continue
        found[row[0]] = row
        place = row[0]
    rows = [row for row in found.values() if key == "id" or row[1] > after]
    return _keep_sound(sorted(rows), True)


def _keep_sound(rows: list[Any], lost: bool) -> tuple[list[Any], bool]:
    sound = [row for row in rows if isinstance(row[0], int) and isinstance(row[1], int | float)]
    return sound, lost or len(sound) < len(rows)


def _count_parameters(file: sqlite3.Connection) -> int:
    """Return how many parameters the first readable step has; 0 if there is none."""
    rows, _ = _read_rows(file, "steps", "last", "first, last, data", 0, skip=_SKIP)
    for _, _, data in rows:
        try:
            return count_parameters(data)
        except (ValueError, TypeError, OverflowError, MemoryError):
            continue
    return 0
