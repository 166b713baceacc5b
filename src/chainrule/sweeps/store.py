"""The SQLite file of a sweep: a row per finished cell, each committed as it comes.

    results   address, settings and outcome as JSON, seconds, when

A row that is committed survives `kill -9` and, on a disk that keeps its word, a power cut: the
file has a rollback journal that SQLite plays back by itself when it is opened again. The sweep
that writes is the only one; workers never open the file, so it need not be where they can reach it.
"""

import json
import os
import secrets
import sqlite3
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from chainrule._utils.databases import connect, has_mark, take_lock
from chainrule.errors import SweepError
from chainrule.sweeps.records import CellResult, read_outcome, write_outcome

STORE_VERSION = 1
"""Version of the tables; a store with another one is refused."""

APPLICATION = 0x63_68_73_77
"""What marks a SQLite file as a store of sweeps ("chsw"): its application id."""

_DDL = f"""
PRAGMA application_id = {APPLICATION};
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

        Raises:
            SweepError: If it is of another version, damaged, no store, in use by another sweep, or
                cannot be written.
        """
        place = Path(path)
        lock = file = None
        try:
            if place.exists() and not has_mark(place, APPLICATION):
                raise SweepError(
                    f"A store must be a file that a sweep has made, or a new one; {place} is "
                    "something else. Give another name."
                )
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
            file.execute("PRAGMA synchronous = FULL")
            _check(place, file)
        except BaseException as error:
            for connection in (file, lock):
                if connection is not None:
                    connection.close()
            if isinstance(error, sqlite3.Error | OSError):
                raise SweepError(
                    f"A store must be in a folder that can be written; {place} could not be "
                    f"opened: {error}. Choose another place, or free it."
                ) from None
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
        except (sqlite3.Error, ValueError) as error:
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
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._file.execute("ROLLBACK")
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


def _check(path: Path, file: sqlite3.Connection) -> None:
    try:
        version = file.execute("PRAGMA user_version").fetchone()[0]
        if version != STORE_VERSION:
            raise SweepError(
                f"A store must have version {STORE_VERSION}; {path} has {version}, from another "
                "chainrule. Use that one, or give another file."
            )
        sound = file.execute("PRAGMA quick_check(1)").fetchone()[0]
        if sound != "ok":
            raise _describe_damage(path, sound)
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise _describe_damage(path, error) from None
        raise


def _describe_damage(path: Path, what: object) -> SweepError:
    return SweepError(
        f"A store must be sound; {path} is damaged: {what}. Keep a copy of it, and give another "
        "file."
    )


def _read_row(row: tuple[str, str, int, int, str, float]) -> CellResult:
    address, settings, seed, seeds, outcome, seconds = row
    return CellResult(
        address=address,
        settings=json.loads(settings),
        seed=seed,
        seeds=seeds,
        outcome=read_outcome(outcome),
        seconds=seconds,
        kept=True,
    )
