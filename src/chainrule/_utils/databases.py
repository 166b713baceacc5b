"""SQLite files: opening one, recognizing one's own, and being its only writer.

Beside a file lies `NAME-lock`, an empty SQLite file on which the writer holds SQLite's exclusive
lock: the system releases it when the process ends, however it ends, and no child process inherits
it.
"""

import sqlite3
from pathlib import Path

MAGIC = b"SQLite format 3\0"
"""How every SQLite file begins."""

RUN_MARK = 0x63_68_72_6E
"""What marks a SQLite file as a training run ("chrn"): its application id."""

SWEEP_MARK = 0x63_68_73_77
"""What marks it as a store of sweeps ("chsw")."""

_OWN = {
    RUN_MARK: "a training run that chainrule.watch wrote (`chainrule runs show` reads it)",
    SWEEP_MARK: "the store of a sweep (`chainrule sweep --store` reads it)",
}
_HEAD = 100
"""Bytes of the header of a SQLite file."""


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


def describe_file(path: Path) -> str:
    """Return what is at a path, for a message about a file that is not as expected.

    Args:
        path: Something that exists.

    Example:
        >>> describe_file(Path("."))
        'a folder'
    """
    if path.is_dir():
        return "a folder"
    if not path.is_file():
        return "no regular file"
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        return f"a file that cannot be read ({error.strerror})"
    if not head:
        return "an empty file"
    if head[:16] != MAGIC:
        return "no SQLite database"
    mark = int.from_bytes(head[68:72], "big")
    short = "the beginning of a SQLite database, without the rest"
    return short if len(head) < _HEAD else _OWN.get(mark, "a SQLite database of another program")


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
