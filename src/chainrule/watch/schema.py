"""The SQLite file of a run: its tables, its version, who may write it, and its facts as text.

    sessions   one row each time a writer opened the run: RunFacts as JSON, when, closed properly?
    steps      one row per flush, later per some hundred steps: first and last step, packed
    samples    the same for sampled steps
    flows      the whole measurement of a sampled step: JSON, packed by zlib
    alarms     one row per alarm, JSON
    endings    what stopped a session before its end; only where something did

The file is in WAL mode while a writer has it, so it can be read at any time. Beside it lies
`NAME-lock`, the lock of `_utils.databases`.
"""

import json
import sqlite3
from pathlib import Path

from pydantic import TypeAdapter

from chainrule._utils import databases
from chainrule._utils.databases import RUN_MARK, connect, find_lock
from chainrule.errors import RunFileError
from chainrule.watch.records import Alarm, RunFacts

SCHEMA_VERSION = 1
"""Version of the tables; a reader refuses a file with another one."""

TABLES = ("sessions", "steps", "samples", "flows", "alarms")

DDL = f"""
PRAGMA page_size = 4096;
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA application_id = {RUN_MARK};
PRAGMA user_version = {SCHEMA_VERSION};
BEGIN;
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY, facts TEXT NOT NULL, opened REAL NOT NULL, closed REAL);
CREATE TABLE steps (first INTEGER PRIMARY KEY, last INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE samples (first INTEGER PRIMARY KEY, last INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE flows (step INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE alarms (id INTEGER PRIMARY KEY, step INTEGER NOT NULL, data TEXT NOT NULL);
COMMIT;
"""

facts_adapter = TypeAdapter(RunFacts)
alarm_adapter = TypeAdapter(Alarm)


def write_facts(facts: RunFacts) -> str:
    """Return a run's facts as JSON."""
    return _dump(facts_adapter, facts)


def write_alarm(alarm: Alarm) -> str:
    """Return an alarm as JSON."""
    return _dump(alarm_adapter, alarm)


def write_ending(file: sqlite3.Connection, text: str) -> None:
    """Note what stopped the last session before its end.

    Args:
        file: The run file, open for writing.
        text: For example "ValueError at step 123".
    """
    file.execute("CREATE TABLE IF NOT EXISTS endings (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
    file.execute("INSERT OR REPLACE INTO endings SELECT max(id), ? FROM sessions", (text,))


def read_facts(text: str) -> RunFacts:
    """Return the facts that JSON text holds.

    Raises:
        ValueError: If it does not hold any.
    """
    return facts_adapter.validate_json(text, strict=True)


def read_alarm(text: str) -> Alarm:
    """Return the alarm that JSON text holds.

    Raises:
        ValueError: If it does not hold one.
    """
    return alarm_adapter.validate_json(text, strict=True)


def _dump(adapter: TypeAdapter[RunFacts] | TypeAdapter[Alarm], value: object) -> str:
    return json.dumps(adapter.dump_python(value), ensure_ascii=False)  # type: ignore[arg-type]


def is_run_file(path: Path) -> bool:
    """Return whether a file says of itself that it is a run of chainrule."""
    return databases.has_mark(path, RUN_MARK)


def take_lock(path: Path) -> sqlite3.Connection:
    """Become the only writer of a run; closing the connection gives that up.

    Raises:
        RunFileError: If another writer has it.
        sqlite3.Error: If the lock file cannot be made.
    """
    lock = databases.take_lock(path)
    if lock is None:
        raise RunFileError(
            f"A run must have one writer, and another one is writing {path} now. Give this "
            "run another file, or wait until the other one has ended."
        )
    return lock


def is_locked(path: Path) -> bool:
    """Return whether a writer has a run now."""
    place = find_lock(path)
    if not place.exists():
        return False
    try:
        lock = connect(place, "ro", timeout=0.0)
    except sqlite3.Error:
        return False
    try:
        lock.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
    except sqlite3.Error:
        return False
    finally:
        lock.close()
    return False
