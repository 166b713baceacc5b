"""Deleting run files."""

import contextlib
import sqlite3
from pathlib import Path

from chainrule._utils.databases import find_lock
from chainrule.errors import RunFileError
from chainrule.watch.schema import is_locked, take_lock


def remove_run(path: Path, *, really: bool = True) -> None:
    """Delete a run and what SQLite keeps beside it, unless it is being written.

    Args:
        path: The run file.
        really: Whether to delete; otherwise only what would stop that is found.

    Raises:
        RunFileError: If a writer has the run, or the file cannot be deleted.
    """
    try:
        if not really:
            if is_locked(path):
                raise RunFileError("it is being written.")
            return
        with contextlib.closing(take_lock(path)):  # so that nobody begins to write it meanwhile
            for end in ("", "-wal", "-shm", "-journal"):
                path.with_name(f"{path.name}{end}").unlink(missing_ok=True)
        find_lock(path).unlink(missing_ok=True)
    except OSError as error:
        raise RunFileError(f"it could not be deleted: {error.strerror}.") from None
    except sqlite3.Error as error:
        raise RunFileError(f"it could not be deleted: {error}.") from None
