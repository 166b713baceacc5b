"""The SQLite file of a sweep: a row per finished cell, each committed as it comes.

    results   address, settings and outcome as JSON, seconds, when

A row that is committed survives `kill -9` and, on a disk that keeps its word, a power cut: the
file has a rollback journal that SQLite plays back by itself when it is opened again. The sweep
that writes is the only one; workers never open the file, so it need not be where they can reach it.
"""

import itertools
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from chainrule._utils.databases import SWEEP_MARK, connect, describe_file, has_mark, take_lock
from chainrule.errors import SweepError, abbreviate
from chainrule.sweeps.records import CellResult, read_outcome, write_outcome

STORE_VERSION = 1
"""Version of the tables; a store with another one is refused."""

_DDL = f"""
PRAGMA application_id = {SWEEP_MARK};
PRAGMA user_version = {STORE_VERSION};
BEGIN;
CREATE TABLE results (
    address TEXT PRIMARY KEY, settings TEXT NOT NULL, seed INTEGER NOT NULL,
    seeds INTEGER NOT NULL, outcome TEXT NOT NULL, failed INTEGER NOT NULL,
    seconds REAL NOT NULL, finished REAL NOT NULL);
COMMIT;
"""
_COLUMNS = "address, settings, seed, seeds, outcome, seconds"
_CHUNK = 500
_LEAST = 256
"""Bytes of a row at least: settings and outcome alone have more."""

_PLACE = {
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN),
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PERM),
}
"""What SQLite says where the place of a file is the reason, not its content."""


class SweepStore:
    """The results of sweeps in a file, and the right to add to them.

    Example:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with SweepStore.open(pathlib.Path(folder) / "sweep.db") as store:
        ...         store.find(["no such address"])
        {}
    """

    def __init__(self, path: Path, lock: sqlite3.Connection, file: sqlite3.Connection) -> None:
        """Hold a file that `open` has opened."""
        self.path = path
        self._lock = lock
        self._file = file

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a store, or make one, and become its only writer.

        Args:
            path: The file. A link leads to the file that is meant, whether or not it exists.

        Raises:
            SweepError: If it is of another version, damaged, no store, in use by another sweep, or
                cannot be written. Nothing is changed then.
        """
        place = _read_path(path)
        lock = file = None
        try:
            if place.exists() and not has_mark(place, SWEEP_MARK):
                raise _describe_other(place)
            place.parent.mkdir(parents=True, exist_ok=True)
            lock = take_lock(place)
            if lock is None:
                raise SweepError(
                    f"A store must have one sweep at a time, and another one is writing {place} "
                    "now. Wait until it has ended, or give another file."
                )
            if not place.exists():
                _make_file(place)
            file = connect(place, "rw")
            _check(place, file)
        except BaseException as error:
            for connection in (file, lock):
                if connection is not None:
                    connection.close()
            if isinstance(error, sqlite3.Error | OSError):
                raise _describe_trouble(place, error) from None
            raise
        return cls(place, lock, file)

    def find(self, addresses: Iterable[str]) -> dict[str, CellResult]:
        """Return what the store has of some cells, by address.

        Raises:
            SweepError: If the file cannot be read.
        """
        wanted = list(addresses)
        found: dict[str, CellResult] = {}
        try:
            for start in range(0, len(wanted), _CHUNK):
                part = wanted[start : start + _CHUNK]
                marks = ",".join("?" * len(part))
                query = f"SELECT {_COLUMNS} FROM results WHERE address IN ({marks})"
                for row in self._file.execute(query, part):
                    found[row[0]] = _read_row(row)
        except sqlite3.Error as error:
            raise _describe_trouble(self.path, error) from None
        except ValueError as error:
            raise _describe_damage(self.path, error) from None
        return found

    def add(self, results: Iterable[CellResult]) -> None:
        """Commit some results together; a failed cell that is measured again is replaced.

        Raises:
            SweepError: If the file cannot be written, for example because the disk is full. Then
                none of these results is added, and all earlier ones stay.
        """
        rows = [
            (
                each.address,
                json.dumps(dict(each.settings), ensure_ascii=False),
                each.seed,
                each.seeds,
                write_outcome(each.outcome),
                int(each.status == "failed"),
                each.seconds,
                time.time(),
            )
            for each in results
        ]
        try:
            self._file.execute("BEGIN IMMEDIATE")
            self._file.executemany("INSERT OR REPLACE INTO results VALUES (?,?,?,?,?,?,?,?)", rows)
            self._file.execute("COMMIT")
        except BaseException as error:  # also Ctrl-C: what comes next needs a free file
            with suppress(sqlite3.Error):
                self._file.execute("ROLLBACK")
            if not isinstance(error, sqlite3.Error):
                raise
            raise SweepError(
                f"{self.path} could not be written: {error}. What was kept before is still there. "
                "Free space or make the file writable, and start the same sweep again: it goes on."
            ) from None

    def close(self) -> None:
        """Let others write the file."""
        self._file.close()
        self._lock.close()

    def __enter__(self) -> Self:
        """Return the store."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the store."""
        self.close()


def _make_file(path: Path) -> None:
    """Make a store: it is there whole or not at all."""
    draft = path.with_name(f".{path.name[:80]}.{secrets.token_hex(8)}")
    try:
        file = connect(draft, "rwc")
        try:
            file.executescript(_DDL)
        finally:
            file.close()
        os.replace(draft, path)  # nobody else makes it: the lock is ours
    finally:
        draft.unlink(missing_ok=True)


def _read_path(path: object) -> Path:
    """Return the file that a store is to be.

    Raises:
        SweepError: If it is no path, or none that a file can have.
    """
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else path
    if not isinstance(text, str) or not text:
        raise SweepError(
            f"A store must be given as the path of a file, such as 'sweep.db'; got "
            f"{abbreviate(path)}."
        )
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(text)
        return Path(text).resolve() if Path(text).is_symlink() else Path(text)
    except (OSError, ValueError, RuntimeError) as error:  # no right, a null byte, links in a circle
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise SweepError(
            f"A store must be a file that can be reached; {abbreviate(text)} is none: {reason}. "
            "Give another name."
        ) from None


def _check(path: Path, file: sqlite3.Connection) -> None:
    """Raise unless a file is a sound store that can be written.

    Raises:
        SweepError: If it has another version or is damaged.
        sqlite3.Error: If SQLite cannot read or write it.
    """
    file.execute("PRAGMA synchronous = FULL")
    version = file.execute("PRAGMA user_version").fetchone()[0]
    if version != STORE_VERSION:
        raise SweepError(
            f"A store must have version {STORE_VERSION}; {path} has version {version}, from "
            "another chainrule. Nothing was changed. Use that one, or give another file: then "
            "every cell is measured again."
        )
    sound = file.execute("PRAGMA quick_check(1)").fetchone()[0]
    if sound != "ok":
        raise _describe_damage(path, sound)
    try:
        file.execute(f"SELECT {_COLUMNS} FROM results LIMIT 0")
    except sqlite3.OperationalError as error:  # no such table, no such column
        raise _describe_damage(path, error) from None
    file.execute("DELETE FROM results WHERE 0")  # fails now, not after the first cell


def _describe_other(path: Path) -> SweepError:
    """Return what is said of a file that is no store."""
    what = describe_file(path)
    fix = "Delete it, or give another name" if what == "an empty file" else "Give another name"
    if what == "a folder":
        fix = f"Name a file in it, such as {path / 'sweep.db'}"
    return SweepError(
        f"A store must be a file that a sweep has made, or a new one; {path} is {what}. Nothing "
        f"was changed. {fix}."
    )


def _describe_trouble(path: Path, error: sqlite3.Error | OSError) -> SweepError:
    """Return what is said where a file cannot be opened, read or written."""
    if isinstance(error, sqlite3.Error):
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _PLACE:
            return _describe_damage(path, error)
        reason = str(error)
    elif isinstance(error, FileExistsError | NotADirectoryError):
        reason = "what stands before its name is no folder"
    else:
        reason = error.strerror or str(error)
    return SweepError(
        "A store must be a file that can be read and written, in a folder that can be written; "
        f"{path} could not be used: {reason}. Choose another place, or free it."
    )


def _describe_damage(path: Path, what: object) -> SweepError:
    lines = [line for line in str(what).splitlines() if "***" not in line] or [""]
    reason = lines[0][:200].rstrip(".: ")
    count = sum(1 for _ in _list_readable(path))
    if not count:
        return SweepError(
            f"A store must be sound; {path} is damaged ({reason}), and no result in it can be "
            "read. Nothing was changed. Keep a copy of it, and give another file."
        )
    noun = "1 result" if count == 1 else f"{count:,} results"
    return SweepError(
        f"A store must be sound; {path} is damaged ({reason}). {noun} in it can still be read. "
        "Nothing was changed. To go on with them, give another file and name this one: --store "
        "NEW --rescue OLD on the command line, chainrule.sweeps.rescue_store(old, new) in Python."
    )


def rescue_store(damaged: str | os.PathLike[str], store: str | os.PathLike[str]) -> int:
    """Copy what can be read of a damaged store into another one, and return how many results.

    The damaged file is only read. Cells whose result is lost are measured again by the sweep that
    the other store is given to. It works with a sound store, too.

    Args:
        damaged: The store that something has happened to.
        store: Another file; it is made if it does not exist. A result that it has stays.

    Raises:
        SweepError: If nothing can be read, both are one file, or the other store cannot be used.

    Example:
        >>> rescue_store("lost.db", "new.db")
        Traceback (most recent call last):
        chainrule.errors.SweepError: Could not read lost.db: there is no such file.
    """
    source, target = _read_path(damaged), _read_path(store)
    if not source.exists():
        raise SweepError(f"Could not read {source}: there is no such file.")
    if target.exists() and target.samefile(source):
        raise SweepError(
            f"What is rescued must go to another file; got {source} for both. Name a new store."
        )
    rows = iter(_list_readable(source))
    first = next(rows, None)
    if first is None:
        what = describe_file(source)
        raise SweepError(
            f"A store that is rescued must have a result that can be read; {source} has none"
            + (". Measure the cells again." if "store of a sweep" in what else f": it is {what}.")
        )
    count = 0
    with SweepStore.open(target) as opened:
        while chunk := [*([first] if first else []), *itertools.islice(rows, _CHUNK)]:
            first = None
            kept = opened.find(each.address for each in chunk)
            fresh = [each for each in chunk if each.address not in kept]
            opened.add(fresh)
            count += len(fresh)
    return count


def _list_readable(path: Path) -> Iterator[CellResult]:
    """Give the results of a damaged file, each looked up by its number: some are found by that."""
    query = f"SELECT {_COLUMNS} FROM results WHERE rowid = ?"
    try:
        size = path.stat().st_size
        file = connect(path, "immutable")
    except (sqlite3.Error, OSError):
        return
    with closing(file):
        most = size // _LEAST + 1000
        try:
            file.execute("PRAGMA writable_schema = ON")  # so that SQLite reads a file cut short
            file.execute("SELECT 1 FROM results LIMIT 0")
        except sqlite3.Error:
            return
        with suppress(sqlite3.Error):  # cells that were measured again have higher numbers
            last = file.execute("SELECT max(rowid) FROM results").fetchone()[0] or 0
            most = max(most, min(last, 10 * most))
        for number in range(1, most + 1):
            try:
                row = file.execute(query, (number,)).fetchone()
                result = None if row is None else _read_row(row)
            except (sqlite3.Error, ValueError):
                continue
            if result is not None:
                yield result


def _read_row(row: tuple[str, str, int, int, str, float]) -> CellResult:
    """Return the result that a row holds.

    Raises:
        ValueError: If it holds none.
    """
    address, settings, seed, seeds, outcome, seconds = row
    try:
        read = json.loads(settings)
        told = read_outcome(outcome)
    except (ValueError, TypeError, RecursionError):
        raise ValueError("a row holds no result") from None
    whole = isinstance(seed, int) and isinstance(seeds, int) and isinstance(seconds, float)
    if not whole or not isinstance(read, dict) or not (told.error or told.measured):
        raise ValueError("a row holds no result")
    return CellResult(
        address=address,
        settings=read,
        seed=seed,
        seeds=seeds,
        outcome=told,
        seconds=seconds,
        kept=True,
    )
