"""Charts of plain figures: where things are drawn, worked out by hand."""

import base64
import struct
import zlib

from chainrule.report.raster import draw_cells

COLORS = [[0, "rgba(0, 0, 0, 0)"], [0.5, "rgba(100, 0, 0, 0.4)"], [1, "#00ff80"]]


def read_cells(address):
    """Return the pixels of a PNG whose lines have no filter, from top to bottom."""
    data = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert data[at + 8 + length :][:4] == struct.pack(">I", zlib.crc32(kind + content))
        chunks[kind] = content
        at += 12 + length
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    lines = zlib.decompress(chunks[b"IDAT"])
    assert len(lines) == height * (1 + 4 * width)
    pixels = [
        lines[start + 1 : start + 1 + 4 * width] for start in range(0, len(lines), 1 + 4 * width)
    ]
    return [[tuple(line[4 * x : 4 * x + 4]) for x in range(width)] for line in pixels]


class TestCells:
    def test_first_row_is_at_the_bottom(self):
        red, green, none = (100, 0, 0, 102), (0, 255, 128, 255), (0, 0, 0, 0)
        rows = [[0.0, 2.0, 4.0], [None, 4.0, 2.0]]
        assert read_cells(draw_cells(rows, COLORS)) == [[none, green, red], [none, red, green]]

    def test_colours_are_mixed_between_the_stops(self):
        (line,) = read_cells(draw_cells([[1.0, 2.0, 3.0, 4.0]], COLORS))
        assert line == [(50, 0, 0, 51), (100, 0, 0, 102), (50, 128, 64, 178), (0, 255, 128, 255)]

    def test_of_zeros_only_have_the_first_colour(self):
        assert read_cells(draw_cells([[0.0, None]], COLORS)) == [[(0, 0, 0, 0)] * 2]
