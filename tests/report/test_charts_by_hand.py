"""Charts of plain figures: where things are drawn, worked out by hand."""

import base64
import math
import re
import struct
import zlib
from xml.etree import ElementTree

import pytest

from chainrule._utils.html import render
from chainrule.report.charts import draw_figure
from chainrule.report.raster import draw_cells
from chainrule.report.scales import Scale, choose_range, list_ticks

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


WIDTH, HEIGHT = 251, 160
LEFT, RIGHT, TOP, BOTTOM = 37.2, 237.0, 14.0, 114.0
"""The plot of a figure with tick labels of one character: 100 pixels for values up to 100."""


def draw(*traces, **layout):
    """Return a chart with x from 0 to 10, and y from 0 to 100, unless the layout says more."""
    axes = {
        "xaxis": {"range": [0, 10], "tickvals": []},
        "yaxis": {"range": [0, 100], "tickvals": [0], "ticktext": ["0"]},
    }
    figure = {"data": list(traces), "layout": axes | layout}
    return ElementTree.fromstring(render(draw_figure(figure, width=WIDTH, height=HEIGHT, name="n")))


def line(xs, ys, **fields):
    look = {"type": "scatter", "mode": "lines", "line": {"color": "#123456"}, "name": "a"}
    return look | {"x": xs, "y": ys} | fields


def across(value):
    """Return the place of an x from 0 to 10, to a tenth of a pixel."""
    return pytest.approx(LEFT + value / 10 * (RIGHT - LEFT), abs=0.051)


def read(found, *names):
    return [float(found.get(name)) for name in names]


def list_points(path):
    """Return the pieces of a path with their points."""
    pieces = [piece for piece in path.split("M") if piece.strip()]
    return [[tuple(map(float, point.split())) for point in piece.split("L")] for piece in pieces]


def walk(path):
    """Yield the corners of a path of steps, each from the one before."""
    x = y = 0.0
    for letter, text in re.findall(r"([Mmlhv])([^A-Za-z]*)", path):
        numbers = list(map(float, text.split()))
        if letter == "M":
            x, y = numbers
        else:
            x += 0.0 if letter == "v" else numbers[0]
            y += 0.0 if letter == "h" else numbers[-1]
        yield x, y


class TestMarks:
    def test_a_line_has_gaps_where_there_is_no_value(self):
        root = draw(line([0, 1, 2, 3], [10.0, None, 30.0, 40.0]))
        (path,) = [e for e in root.iter("path") if e.get("stroke") == "#123456"]
        assert list_points(path.get("d")) == [
            [(across(0), 104.0)],
            [(across(2), 84.0), (across(3), 74.0)],
        ]

    def test_markers_are_where_both_values_are(self):
        dots = {"mode": "markers", "marker": {"color": "#123456", "size": 8}}
        root = draw(line([1, 2, None], [50.0, None, 20.0], **dots))
        (circle,) = root.iter("circle")
        assert read(circle, "cx", "cy", "r") == [across(1), 64.0, 4.0]

    def test_open_marks_are_hollow_and_what_lies_beneath_comes_first(self):
        over = line([1], [50.0], mode="markers", marker={"color": "#123456", "size": 8})
        hollow = {"color": "#654321", "size": 6, "symbol": "diamond-open"}
        beneath = line([1], [50.0], mode="markers", marker=hollow, zorder=-1)
        marks = [
            e for e in draw(over, beneath).iter() if "#" in (e.get("stroke") or e.get("fill") or "")
        ]
        found = [e for e in marks if {"#123456", "#654321"} & {e.get("stroke"), e.get("fill")}]
        assert [e.get("fill") for e in found] == ["none", "#123456"]

    def test_bars_stand_on_the_axis(self):
        bars = {"type": "bar", "width": 2, "marker": {"color": "#123456"}, "name": "b"}
        root = draw(bars | {"x": [3, 6], "y": [25.0, 75.0]})
        found = [e for e in root.iter("rect") if e.get("fill") == "#123456"]
        assert [read(e, "y", "height") for e in found] == [[89.0, 25.0], [39.0, 75.0]]
        assert read(found[0], "x") == [across(2)]
        assert read(found[1], "width") == [pytest.approx((RIGHT - LEFT) / 5, abs=0.051)]

    def test_cells_reach_half_a_step_beyond_their_places(self):
        cells = {
            **{"type": "heatmap", "x": [2, 3], "y": [20, 40, 60], "name": "c"},
            **{"z": [[1.0, 0.0]] * 3, "colorscale": COLORS},
        }
        (image,) = draw(cells).iter("image")
        assert read(image, "x", "y", "height") == [across(1.5), 44.0, 60.0]
        assert read(image, "width") == [pytest.approx((RIGHT - LEFT) / 5, abs=0.051)]

    def test_two_axes_share_the_height(self):
        axis = {"range": [0, 100], "tickvals": [0], "ticktext": ["0"]}
        root = draw(
            line([0, 10], [0.0, 100.0]),
            line([0, 10], [0.0, 100.0], yaxis="y2", line={"color": "#654321"}),
            yaxis=axis | {"domain": [0.0, 0.4]},
            yaxis2=axis | {"domain": [0.6, 1.0]},
        )
        paths = {e.get("stroke"): list_points(e.get("d")) for e in root.iter("path")}
        assert [y for _, y in paths["#123456"][0]] == [114.0, 74.0]
        assert [y for _, y in paths["#654321"][0]] == [54.0, 14.0]

    @pytest.mark.parametrize(
        ("note", "place"),
        [
            ({"x": 5, "y": 50}, (across(5), 68.0)),
            ({"x": 5, "y": 50, "yshift": 10}, (across(5), 58.0)),
            ({"x": 5, "y": 1, "yref": "paper"}, (across(5), 18.0)),
            ({"x": 5, "y": 0, "yref": "paper"}, (across(5), 118.0)),
            ({"x": 1, "y": 0, "xref": "paper"}, (RIGHT, 118.0)),
        ],
    )
    def test_notes_stand_at_values_or_at_shares_of_the_paper(self, note, place):
        root = draw(line([0], [0.0]), annotations=[note | {"text": "here"}])
        (text,) = [e for e in root.iter("text") if e.get("class") == "note"]
        assert tuple(read(text, "x", "y")) == place

    def test_areas_have_the_width_of_the_plot(self):
        area = {"type": "rect", "y0": 20, "y1": 60, "fillcolor": "#abcdef"}
        (found,) = [
            e for e in draw(line([0], [0.0]), shapes=[area]).iter() if e.get("fill") == "#abcdef"
        ]
        assert read(found, "x", "y", "height") == [LEFT, 54.0, 40.0]
        assert read(found, "width") == [pytest.approx(RIGHT - LEFT, abs=0.051)]

    @pytest.mark.parametrize(
        ("shape", "ends"),
        [
            ({"x0": 2, "y0": 10, "x1": 6, "y1": 30}, (across(2), 104.0, across(6), 84.0)),
            ({"xref": "paper", "y0": 50, "y1": 50}, (LEFT, 64.0, RIGHT, 64.0)),
            ({"xref": "paper", "y0": 0, "y1": 0}, (LEFT, 114.0, RIGHT, 114.0)),
            ({"xref": "paper", "y0": 100, "y1": 100}, (LEFT, 14.0, RIGHT, 14.0)),
            ({"xref": "paper", "y0": 102, "y1": 102}, None),
            ({"xref": "paper", "y0": -2, "y1": -2}, None),
        ],
    )
    def test_lines_are_drawn_where_they_are_on_the_plot(self, shape, ends):
        shape = {"type": "line", "line": {"color": "#abcdef", "dash": "dot"}} | shape
        root = draw(line([0], [0.0]), shapes=[shape])
        found = [e for e in root.iter("line") if e.get("stroke") == "#abcdef"]
        assert [tuple(read(e, "x1", "y1", "x2", "y2")) for e in found] == ([ends] if ends else [])
        assert all(e.get("stroke-width") == "1" and e.get("stroke-dasharray") for e in found)

    @pytest.mark.parametrize(
        ("symbol", "corners"),
        [
            ("square", {(-4, -4), (4, -4), (4, 4), (-4, 4)}),
            ("triangle-down", {(-4, -4), (4, -4), (0, 4)}),
            ("triangle-up", {(-4, 4), (4, 4), (0, -4)}),
            ("diamond", {(0, -4), (4, 0), (0, 4), (-4, 0)}),
            ("x", {(-4, -4), (4, 4), (4, -4), (-4, 4)}),
        ],
    )
    def test_symbols_stand_around_their_place(self, symbol, corners):
        marker = {"color": "#123456", "size": 8, "symbol": symbol}
        root = draw(line([5], [50.0], mode="markers", marker=marker))
        (path,) = [e for e in root.iter("path") if "#123456" in (e.get("fill"), e.get("stroke"))]
        assert {
            (round(x - (LEFT + RIGHT) / 2), round(y - 64)) for x, y in walk(path.get("d"))
        } == corners

    def test_legend_shows_a_mark_in_the_middle_of_its_line(self):
        marker = {"color": "#123456", "size": 20}
        look = {"mode": "lines+markers", "marker": marker}
        root = draw(line([5], [50.0], **look), line([5], [50.0], name="bare"), showlegend=True)
        places = [(*read(e, "cx", "cy"), float(e.get("r"))) for e in root.iter("circle")]
        assert (16.0 + 12.0, 12.0, 3.5) in places
        assert len(places) == 2  # in the plot and in the legend

    def test_legend_wraps_before_an_entry_that_does_not_fit(self):
        names = ["a" * 10, "b" * 10, "c" * 10]  # 34 + 72 + 14 pixels each
        root = draw(*(line([0], [0.0], name=name) for name in names), showlegend=True)
        places = {e.text: read(e, "x", "y") for e in root.iter("text") if e.text in names}
        assert [places[name] for name in names] == [[46.0, 16.0], [46.0, 36.0], [46.0, 56.0]]
        short = ["a", "b"]  # 55.2 pixels each
        root = draw(*(line([0], [0.0], name=name) for name in short), showlegend=True)
        places = {e.text: read(e, "x", "y") for e in root.iter("text") if e.text in short}
        assert places == {"a": [46.0, 16.0], "b": [101.2, 16.0]}


class TestColumns:
    def test_meet_in_the_middle_between_two_places(self):
        tips = {"hovertemplate": "%{x}: %{y:.1f}<extra></extra>"}
        root = draw(line([2, 4, 8], [10.0, None, 30.0], **tips))
        columns = [e for e in root.iter("rect") if e.get("class") == "column"]
        assert [e.get("data-tip") for e in columns] == ["2: 10.0", "", "8: 30.0"]
        assert [read(e, "x")[0] for e in columns] == [LEFT, across(3), across(6)]
        ends = [x + width for x, width in (read(e, "x", "width") for e in columns)]
        assert ends == [
            pytest.approx(each, abs=0.2)
            for each in (LEFT + 0.3 * (RIGHT - LEFT), LEFT + 0.6 * (RIGHT - LEFT), RIGHT)
        ]

    def test_go_from_left_to_right_whichever_line_has_a_place(self):
        tips = {"hovertemplate": "%{y:.0f}"}
        lines = line([2, 8], [10.0, 30.0], **tips), line([4, 8], [20.0, 30.0], **tips)
        columns = [e for e in draw(*lines).iter("rect") if e.get("class") == "column"]
        assert [e.get("data-tip") for e in columns] == ["10", "20", "30"]  # 30 is said once
        assert [read(e, "x")[0] for e in columns] == [LEFT, across(3), across(6)]

    def test_leave_out_what_shows_nothing(self):
        tips = {"hovertemplate": "%{y:.0f}", "hoverinfo": "skip"}
        root = draw(line([2], [10.0], **tips), line([2], [20.0]))
        assert not [e for e in root.iter("rect") if e.get("class") == "column"]

    def test_of_cells_tell_of_the_fullest(self):
        cells = {
            **{"type": "heatmap", "x": [2], "y": [20, 40, 60], "name": "c"},
            **{
                "z": [[1.0], [5.0], [None]],
                "colorscale": COLORS,
                "customdata": [["p"], ["q"], ["r"]],
            },
            "hovertemplate": "%{y}<br><b>%{customdata}</b>",
        }
        (column,) = [e for e in draw(cells).iter("rect") if e.get("class") == "column"]
        assert column.get("data-tip").split() == ["40", "q"]


class TestScale:
    def test_places_powers_of_ten_at_equal_distances(self):
        scale = Scale(-1.0, 3.0, log=True, start=100.0, end=20.0)
        assert [scale.place(10.0**power) for power in range(-1, 4)] == [
            100.0,
            80.0,
            60.0,
            40.0,
            20.0,
        ]
        for value in (0.0, -1.0, math.nan, math.inf, None):
            assert scale.place(value) is None
        assert Scale(-1.0, 3.0, log=False, start=0.0, end=40.0).place(0.0) == 10.0

    @pytest.mark.parametrize(
        ("axis", "values", "low", "high"),
        [
            ({}, [1.0, 5.0, None, math.inf], 0.76, 5.24),
            ({"rangemode": "tozero"}, [1.0, 5.0], 0.0, 5.24),
            ({"type": "log"}, [1.0, 100.0, 0.0, -3.0], -0.12, 2.12),
            ({}, [4.0], 3.5, 4.5),
            ({}, [], -0.06, 1.06),
            ({"range": [2, 3]}, [9.0], 2.0, 3.0),
        ],
    )
    def test_range_holds_all_values_with_a_margin(self, axis, values, low, high):
        assert choose_range(axis, values) == pytest.approx((low, high))

    @pytest.mark.parametrize(
        ("axis", "ends", "places", "labels"),
        [
            ({"type": "log"}, (-7.5, 8.2), range(-6, 9, 2), {0: "1", 2: "10²", -6: "10⁻⁶"}),
            ({"type": "log"}, (-1.2, 1.2), (-1, 0, 1), {-1: "10⁻¹", 0: "1", 1: "10"}),
            ({"type": "log"}, (0.0, 1.0), (0, math.log10(2), math.log10(5), 1), {0: "1", 1: "10"}),
            ({}, (0.0, 10.0), (0, 2, 4, 6, 8, 10), {0: "0", 10: "10"}),
            ({}, (0.3, 1.1), (0.4, 0.6, 0.8, 1.0), {1.0: "1"}),
            ({"dtick": 5, "tick0": 1}, (0.0, 12.0), (1, 6, 11), {6: "6"}),
            ({"tickformat": ".0%"}, (0.0, 1.0), (0, 0.2, 0.4, 0.6, 0.8, 1.0), {1.0: "100 %"}),
        ],
    )
    def test_ticks_are_round_numbers_within_the_range(self, axis, ends, places, labels):
        ticks = list_ticks(axis, *ends)
        assert [place for place, _ in ticks] == pytest.approx(list(places))
        shown = {round(place, 9): label for place, label in ticks}
        assert {place: shown[place] for place in labels} == labels
