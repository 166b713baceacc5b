"""A heatmap as a small PNG: one pixel per cell, enlarged by whoever shows it."""

import base64
import re
import struct
import zlib
from collections.abc import Sequence
from itertools import pairwise

Rgba = tuple[int, int, int, int]


def draw_cells(
    rows: Sequence[Sequence[float | None]],
    colorscale: Sequence[Sequence[object]],
    largest: float | None = None,
) -> str:
    """Return a data address of the picture; cells that are `None` stay transparent.

    Args:
        rows: Values from 0 to the largest one, which gets the scale's last colour; first row at
            the bottom.
        colorscale: Plotly's: pairs of a place in [0, 1] and a colour.
        largest: The value that gets the last colour instead.
    """
    stops = [(float(str(place)), _parse(str(color))) for place, color in colorscale]
    if largest is None:
        largest = max((v for row in rows for v in row if v is not None), default=0.0) or 1.0
    lines = []
    for row in reversed(rows):
        pixels = bytearray(b"\0")  # no filter
        for value in row:
            pixels += bytes((0, 0, 0, 0) if value is None else _mix(stops, value / largest))
        lines.append(bytes(pixels))
    width, height = len(rows[0]) if rows else 0, len(rows)
    data = (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
        + _chunk(b"IDAT", zlib.compress(b"".join(lines), 9))
        + _chunk(b"IEND", b"")
    )
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _mix(stops: Sequence[tuple[float, Rgba]], share: float) -> Rgba:
    for (low, below), (high, above) in pairwise(stops):
        if share <= high:
            part = (share - low) / (high - low)
            red, green, blue, alpha = (
                round(a + part * (b - a)) for a, b in zip(below, above, strict=True)
            )
            return red, green, blue, alpha
    return stops[-1][1]


def _parse(color: str) -> Rgba:
    if color.startswith("#"):
        red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
        return red, green, blue, 255
    parts = [float(part) for part in re.findall(r"[\d.]+", color)]
    return int(parts[0]), int(parts[1]), int(parts[2]), round(255 * parts[3])
