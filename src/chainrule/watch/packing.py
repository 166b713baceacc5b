"""Numbers in few bytes: rounded where that is allowed, as differences, in planes of bytes.

A table [rows, columns] of floats becomes whole numbers: the bits of each float64 without the last
ones, so that zero, infinite and undefined stay what they are, and the relative error is at most
2^−(bits + 1). What varies slowly is then kept as differences, and zlib packs the bytes. Each piece
carries a checksum (zlib's Adler-32). Nothing is unpickled, and no size is believed before it is
checked.
"""

import json
import math
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

EXACT = 52
"""Bits of a float64 after the point: with all of them nothing is rounded."""

MAX_SIZE = 256 * 2**20
"""Most bytes that one packed piece may unfold to."""

_NOTHING_BITS = np.uint64(0x7FF8000000000001)
NOTHING = float(_NOTHING_BITS.view(np.float64))
"""Stands for `None` in a table of floats: an undefined number with a mark of its own."""

_HEAD = struct.Struct("<BBII")
_SIGN = np.uint64(0x7FFFFFFFFFFFFFFF)


class DamagedError(ValueError):
    """A packed piece does not hold what it must."""


def is_nothing(values: Floats) -> NDArray[np.bool_]:
    """Return where a table holds `NOTHING`."""
    return values.view(np.uint64) == _NOTHING_BITS


def make_table(rows: Sequence[Sequence[float | None]], columns: int) -> Floats:
    """Return a table [rows, columns] of numbers; `None` and what is missing is `NOTHING`."""
    table = np.full((len(rows), columns), NOTHING)
    for index, row in enumerate(rows):
        for column, value in enumerate(row):
            if value is not None:
                table[index, column] = np.nan if math.isnan(value) else value
    return table


def pack_floats(
    values: Floats, bits: int = EXACT, level: int = 6, *, signed: bool = False
) -> bytes:
    """Return a table [rows, columns] of floats, each rounded to some bits after the point.

    Args:
        values: The table; `NOTHING` is kept apart from other undefined numbers.
        bits: Bits after the point that are kept, 1 to 52: the relative error is at most
            2^−(bits + 1).
        level: How hard zlib tries, 1 to 9.
        signed: Whether many numbers are below zero, and rounded; then this needs less room.
    """
    return _pack(_encode(values, bits), bits, level, signed)


def pack_integers(values: Integers, level: int = 6) -> bytes:
    """Return a table [rows, columns] of whole numbers."""
    return _pack(values, 0, level)


def unpack_floats(data: bytes) -> tuple[Floats, int]:
    """Return the table that `pack_floats` packed, and how many bits it kept.

    Raises:
        DamagedError: If it is damaged.
    """
    codes, bits = _unpack(data)
    if not 1 <= bits <= EXACT:
        raise DamagedError("a table of floats has no precision")
    return _decode(codes, bits), bits


def unpack_integers(data: bytes) -> Integers:
    """Return the table that `pack_integers` packed.

    Raises:
        DamagedError: If it is damaged.
    """
    return _unpack(data)[0]


def pack_parts(head: dict[str, Any], parts: Sequence[bytes]) -> bytes:
    """Return a description and packed tables as one piece."""
    text = zlib.compress(json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode())
    pieces = [text, *parts]
    sizes = struct.pack(f"<B{len(pieces)}I", len(pieces), *map(len, pieces))
    return sizes + b"".join(pieces)


def unpack_parts(data: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """Return the description and the tables of `pack_parts`.

    Raises:
        DamagedError: If the piece is damaged.
    """
    try:
        count = data[0]
        sizes = struct.unpack_from(f"<{count}I", data, 1)
        place, pieces = 1 + 4 * count, []
        for size in sizes:
            pieces.append(data[place : place + size])
            place += size
        if place != len(data) or not pieces:
            raise DamagedError("it has another length than it says")
        head = json.loads(unfold(pieces[0]))
    except (IndexError, struct.error, ValueError, RecursionError) as error:
        raise DamagedError(str(error)) from None
    if not isinstance(head, dict):
        raise DamagedError("its description is no object")
    return head, pieces[1:]


def unfold(data: bytes) -> bytes:
    """Return what zlib packed, at most `MAX_SIZE` bytes of it.

    Raises:
        DamagedError: If it is damaged, not whole, or larger.
    """
    worker = zlib.decompressobj()
    try:
        text = worker.decompress(data, MAX_SIZE)
    except (zlib.error, MemoryError) as error:
        raise DamagedError(str(error)) from None
    if not worker.eof or worker.unconsumed_tail or worker.unused_data:
        raise DamagedError("it is cut off, or larger than it may be")
    return text


def _encode(values: Floats, bits: int) -> Integers:
    """Return floats as whole numbers that grow with them; three of them are no finite number."""
    raw = np.ascontiguousarray(values).view(np.uint64)
    size = raw & _SIGN
    drop = EXACT - bits
    half = np.uint64((1 << drop) >> 1)
    codes = ((size + half) >> np.uint64(drop)).astype(np.int64)
    infinite = 0x7FF << bits
    finite = np.isfinite(values)
    np.minimum(codes, infinite - 1, out=codes, where=finite)  # what is finite is never rounded away
    np.maximum(codes, 1, out=codes, where=finite & (size > 0))  # nor to zero
    undefined = np.isnan(values)
    codes[undefined] = infinite + 1
    codes[undefined & (raw == _NOTHING_BITS)] = infinite + 2
    return np.where((raw >> np.uint64(63) > 0) & ~undefined, -codes, codes)


def _decode(codes: Integers, bits: int) -> Floats:
    infinite = 0x7FF << bits
    drop = np.uint64(EXACT - bits)
    if codes.size == 0 or (codes.min() >= 0 and codes.max() < infinite):  # nothing special
        return (codes.astype(np.uint64) << drop).view(np.float64)
    size = np.abs(codes)
    values = (np.minimum(size, infinite).astype(np.uint64) << drop).view(np.float64)
    np.negative(values, out=values, where=codes < 0)
    values[size == infinite + 1] = np.nan
    values.view(np.uint64)[size > infinite + 1] = _NOTHING_BITS
    return values


def _pack(codes: Integers, bits: int, level: int, signed: bool = False) -> bytes:
    """Pack whole numbers: as differences in time, or to the middle of each column, if smaller."""
    rows, columns = codes.shape
    if signed:  # the sign last, so that −0.1 is near to 0.1
        codes = (np.abs(codes) << 1) | (codes < 0)
    kind, base, rest, common = _predict(codes, 0 < bits < EXACT)
    head = _HEAD.pack(bits, kind | signed << 1, rows, columns)
    worker = zlib.compressobj(level, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    pieces = (head, _to_planes(base), _to_planes(rest.T), _to_planes(common))
    return b"".join([*map(worker.compress, pieces), worker.flush()])


def _predict(codes: Integers, rounded: bool) -> tuple[int, Integers, Integers, Integers]:
    """Return what is foreseen of numbers and what is left.

    Returns:
        How: 0, each is like the one before; 1, all are like the middle of their column. The first
        row or the middle [columns], what is left [rows, columns], and what is left of whole rows
        [rows].
    """
    kind, base = 0, codes[0] if len(codes) else codes.reshape(-1)
    rest = np.diff(codes, axis=0)  # what does not fit wraps, and wraps back
    if rounded and len(codes) > 8:
        middle = np.median(codes[::4], axis=0).astype(np.int64)
        if _guess_size(codes - middle) < _guess_size(rest):
            kind, base, rest = 1, middle, codes - middle
    common = np.zeros(len(rest), np.int64)
    if rounded and codes.shape[1] >= 8 and len(rest):  # often all gradients grow at one step
        common = np.median(rest, axis=1).astype(np.int64)
        rest = rest - common[:, None]
    return kind, base, rest, common


def _guess_size(values: Integers) -> float:
    """Return about how much room numbers take: the mean of their logarithms, of a part of them."""
    return float(np.log1p(np.abs(values[:, ::4]).astype(np.float32)).mean()) if values.size else 0.0


def _unpack(data: bytes) -> tuple[Integers, int]:
    body = unfold(data)
    try:
        bits, flags, rows, columns = _HEAD.unpack_from(body)
    except struct.error as error:
        raise DamagedError(str(error)) from None
    kind, length = flags & 1, rows - 1 + (flags & 1)
    if flags > 3 or bits > EXACT or rows < 1 or rows * max(columns, 1) * 8 > MAX_SIZE:
        raise DamagedError("a table has an impossible size")
    base, place = _from_planes(body, _HEAD.size, columns)
    rest, place = _from_planes(body, place, length * columns)
    common, place = _from_planes(body, place, length)
    if place != len(body):
        raise DamagedError("a table has another size than it says")
    rest = rest.reshape(columns, length)
    codes = np.empty((rows, columns), np.int64)
    if common.any():
        rest = rest + common
    if kind == 1:
        np.add(rest.T, base, out=codes)
    else:
        codes[0] = base
        np.cumsum(rest.T, axis=0, out=codes[1:])
        codes[1:] += base
    if flags & 2:
        codes = np.where(codes & 1, -(codes >> 1), codes >> 1)
    return codes, bits


def _to_planes(values: Integers) -> bytes:
    """Return whole numbers as bytes: all lowest ones, then all second ones, as many as needed."""
    flat = np.ascontiguousarray(values).reshape(-1)
    folded = ((flat << 1) ^ (flat >> 63)).view(np.uint64)  # −1 is 1, 1 is 2, −2 is 3, …
    width = (int(folded.max(initial=0)).bit_length() + 7) // 8
    planes = folded.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :width].T
    return bytes([width]) + planes.tobytes()


def _from_planes(body: bytes, place: int, count: int) -> tuple[Integers, int]:
    width = body[place] if place < len(body) else 9
    end = place + 1 + width * count
    if width > 8 or end > len(body):
        raise DamagedError("a table has fewer numbers than it says")
    if width * count == 0:
        return np.zeros(count, np.int64), end
    planes = np.frombuffer(body, np.uint8, width * count, place + 1).reshape(width, count)
    folded = planes[0].astype(np.uint64)
    for power in range(1, width):
        folded |= planes[power].astype(np.uint64) << np.uint64(8 * power)
    signs = (folded & np.uint64(1)).view(np.int64)
    folded >>= np.uint64(1)
    return folded.view(np.int64) ^ -signs, end
