"""Rows of a damaged run file, found page by page without SQLite.

SQLite reads nothing behind a damaged page that leads to others: the first one, the root of a table.
The rows themselves stand in leaf pages, and long ones go on in overflow pages. Here every page is
looked at, whatever leads to it. The format: https://www.sqlite.org/fileformat2.html; all run files
have pages of 4,096 bytes and note for every page what it is (pointer maps).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chainrule.watch.packing import MAX_SIZE, DamagedError, unpack_parts

PAGE = 4096
"""Bytes of a page of a run file."""

_LEAF = 0x0D
_FREE = 2
_ENTRIES = PAGE // 5
_WAL_HEAD, _FRAME_HEAD = 32, 24

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Pages:
    """The pages of a file, newer ones from the file of the last changes (WAL) beside it."""

    file: bytes
    newer: dict[int, bytes]

    def read(self, number: int) -> bytes:
        """Return a page, counted from 1; empty if there is none."""
        return self.newer.get(number) or self.file[(number - 1) * PAGE : number * PAGE]

    def count(self) -> int:
        """Return how many pages there are."""
        return max(-(-len(self.file) // PAGE), *self.newer, 0)

    def is_free(self, number: int) -> bool:
        """Return whether a page is noted to be unused: its rows were replaced."""
        group, entry = divmod(number - 2, _ENTRIES + 1)
        noted = self.read(2 + group * (_ENTRIES + 1))
        return number > 2 and noted[5 * (entry - 1) : 5 * (entry - 1) + 1] == bytes([_FREE])


def carve(path: Path) -> dict[str, list[Row]]:
    """Return the rows of each table that stand whole in some page, in the order of their keys.

    A row of steps or samples is first step, last step, data; of sessions key, time, facts; of
    alarms key, key, data; of flows step, data.

    Args:
        path: The damaged file; it is only read.

    Raises:
        OSError: If it cannot be read.
    """
    beside = path.with_name(f"{path.name}-wal")
    changes = beside.read_bytes() if beside.exists() else b""
    pages = _Pages(path.read_bytes(), _read_changes(changes))
    found: dict[str, dict[int, Row]] = {}
    for number in range(1, pages.count() + 1):
        if not pages.is_free(number):
            for key, values in _list_rows(pages, number):
                table, row = _recognize(key, values)
                if table:
                    found.setdefault(table, {})[key] = row
    return {table: [rows[key] for key in sorted(rows)] for table, rows in found.items()}


def _read_changes(changes: bytes) -> dict[int, bytes]:
    """Return the pages of the whole changes in a WAL file."""
    salts = changes[16:24]
    newer: dict[int, bytes] = {}
    waiting: dict[int, bytes] = {}
    for start in range(_WAL_HEAD, len(changes) - PAGE - _FRAME_HEAD + 1, PAGE + _FRAME_HEAD):
        head = changes[start : start + _FRAME_HEAD]
        if head[8:16] != salts:
            break
        page = changes[start + _FRAME_HEAD : start + _FRAME_HEAD + PAGE]
        waiting[int.from_bytes(head[:4], "big")] = page
        if any(head[4:8]):  # the last page of a change
            newer |= waiting
            waiting = {}
    return newer


def _list_rows(pages: _Pages, number: int) -> Iterator[tuple[int, list[Any]]]:
    """Give key and values of the rows of a page, those that are whole."""
    page = pages.read(number)
    head = 100 if number == 1 else 0
    if page[head : head + 1] != bytes([_LEAF]):
        return
    for index in range(int.from_bytes(page[head + 3 : head + 5], "big")):
        place = head + 8 + 2 * index
        try:
            yield _read_row(pages, page, int.from_bytes(page[place : place + 2], "big"))
        except (IndexError, ValueError):
            continue


def _read_row(pages: _Pages, page: bytes, place: int) -> tuple[int, list[Any]]:
    size, place = _read_varint(page, place)
    key, place = _read_varint(page, place)
    if not 0 < size <= MAX_SIZE:
        raise ValueError(size)
    local = size
    if size > PAGE - 35:
        least = (PAGE - 12) * 32 // 255 - 23
        local = least + (size - least) % (PAGE - 4)
        local = local if local <= PAGE - 35 else least
    pieces = [page[place : place + local]]
    beyond = int.from_bytes(page[place + local : place + local + 4], "big") if local < size else 0
    left = size - local
    while left > 0:
        following = pages.read(beyond) if beyond else b""
        if not following:
            raise ValueError(beyond)
        pieces.append(following[4 : 4 + min(left, PAGE - 4)])
        left -= PAGE - 4
        beyond = int.from_bytes(following[:4], "big")
    body = b"".join(pieces)
    if len(body) != size:
        raise ValueError(size)
    return key, _read_values(body)


def _read_values(body: bytes) -> list[Any]:
    end, place = _read_varint(body, 0)
    kinds = []
    while place < end:
        kind, place = _read_varint(body, place)
        kinds.append(kind)
    values: list[Any] = []
    for kind in kinds:
        length = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)[kind] if kind < 10 else (kind - 12) // 2
        piece = body[place : place + length]
        place += length
        if kind in {8, 9}:
            values.append(kind - 8)
        elif kind < 7:
            values.append(int.from_bytes(piece, "big", signed=True) if kind else None)
        elif kind == 7:
            values.append(0.0)  # a time, which nobody asks for here
        else:
            values.append(piece.decode() if kind % 2 else piece)
    if place != len(body):
        raise ValueError(place)
    return values


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for _ in range(8):
        value = value << 7 | data[place] & 0x7F
        place += 1
        if data[place - 1] < 0x80:
            return value, place
    raise ValueError(value)


def _recognize(key: int, values: list[Any]) -> tuple[str, Row]:
    """Return the table that a row is of, by what it holds, and the row; "" for none."""
    match values:
        case [None, int(last), bytes(data)]:
            try:
                _, parts = unpack_parts(data)
            except DamagedError:
                return "", ()
            return {3: "steps", 5: "samples"}.get(len(parts), ""), (key, last, data)
        case [None, int(), str(text)]:
            return "alarms", (key, key, text)
        case [None, str(text), float() | int(), None | float() | int()]:
            return "sessions", (key, 0.0, text)
        case [None, bytes(data)]:
            return "flows", (key, data)
    return "", ()
