"""SQLite files: opening one, recognizing one's own, and being its only writer.

Beside a file lies `NAME-lock`, an empty SQLite file on which the writer holds SQLite's exclusive
lock: the system releases it when the process ends, however it ends, and no child process inherits
it.
"""

import sqlite3
from pathlib import Path

MAGIC = b"SQLite format 3\0"
"""How every SQLite file begins."""


def connect(path: Path, mode: str, *, timeout: float = 5.0) -> sqlite3.Connection:
    """Return a connection to a SQLite file.

    Args:
        path: The file.
        mode: "ro", "rw", "rwc", or "immutable": read only, and nobody writes it meanwhile.
        timeout: Seconds to wait for another connection's lock.

    Raises:
        sqlite3.Error: If it cannot be opened.
    """
    query = "mode=ro&immutable=1" if mode == "immutable" else f"mode={mode}"
    return sqlite3.connect(
        f"{path.resolve().as_uri()}?{query}",
        uri=True,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
    )


def is_database(path: Path) -> bool:
    """Return whether a file can be read and begins as a SQLite file does."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def has_mark(path: Path, application: int) -> bool:
    """Return whether a file is a SQLite file with this application id."""
    try:
        with path.open("rb") as file:
            head = file.read(72)
    except OSError:
        return False
    return head[:16] == MAGIC and head[68:72] == application.to_bytes(4, "big")


def find_lock(path: Path) -> Path:
    """Return the lock file of a SQLite file."""
    return path.with_name(f"{path.name}-lock")


def take_lock(path: Path) -> sqlite3.Connection | None:
    """Become the only writer of a file; closing the connection gives that up.

    Returns:
        The lock; `None` if another writer has it.

    Raises:
        sqlite3.Error: If the lock file cannot be made.
    """
    lock = connect(find_lock(path), "rwc", timeout=1.0)  # a reader may be looking just now
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        lock.close()
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
            return None
        raise
    except BaseException:
        lock.close()
        raise
    return lock
