"""A run file whose first page is damaged: a copy of it with the first page of an empty run.

SQLite reads nothing of a file without its first page, which holds the marks of the file and where
the tables begin. All run files are made by the same statements, so their first pages differ in some
counters only, and that of an empty run can take its place.
"""

import shutil
import sqlite3
from pathlib import Path

from chainrule.watch.schema import APPLICATION, DDL, MAGIC, TABLES, connect

_PAGE = 4096
_ROOTS = range(2, 2 + len(TABLES))
_LEAF, _BRANCH = 0x0D, 0x05


def may_be_run(path: Path) -> bool:
    """Return whether a file looks like a damaged run: not like another program's, and not like none.

    Args:
        path: The file.
    """
    with path.open("rb") as file:
        head = file.read(72)
        marks = []
        for page in _ROOTS:  # where an empty run has its tables
            file.seek(page * _PAGE)
            marks += file.read(1)
    others = head[:16] == MAGIC and head[68:72] != APPLICATION.to_bytes(4, "big")
    return not others and sum(mark in {_LEAF, _BRANCH} for mark in marks) > len(TABLES) // 2


def repair_copy(path: Path, folder: Path) -> Path | None:
    """Return a copy of a run file with a new first page; `None` if it cannot be one.

    Args:
        path: The damaged file; it is only read.
        folder: An empty folder for the copy.
    """
    blank, copy = folder / "blank.db", folder / "copy.db"
    file = connect(blank, "rwc")
    try:
        file.executescript(DDL)
    finally:
        file.close()
    page = _read_page(blank)
    size = path.stat().st_size
    shutil.copyfile(path, copy)
    head = bytearray(page)
    head[28:32] = (size // len(page)).to_bytes(4, "big")  # pages of the file
    head[32:40] = bytes(8)  # no free pages: none is taken for one by mistake
    beside = path.with_name(f"{path.name}-wal")
    if beside.exists():  # what was not yet moved into the file
        shutil.copyfile(beside, copy.with_name(f"{copy.name}-wal"))
        head[18:20] = b"\2\2"
    with copy.open("r+b") as out:
        out.write(head)
    return copy if _holds_rows(copy) else None


def _read_page(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(100)
        file.seek(0)
        return file.read(int.from_bytes(head[16:18], "big"))


def _holds_rows(path: Path) -> bool:
    """Return whether a table of the copy has a first row: then it is a run."""
    for query in (
        "SELECT id FROM sessions LIMIT 1",
        "SELECT first FROM steps LIMIT 1",
        "SELECT first FROM samples LIMIT 1",
    ):
        file = None
        try:
            file = connect(path, "rw")
            if file.execute(query).fetchone() is not None:
                return True
        except sqlite3.Error:
            continue
        finally:
            if file is not None:
                file.close()
    return False
