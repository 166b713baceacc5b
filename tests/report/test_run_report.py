"""The report of a training run: where its curves and cells are, worked out by hand."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from chainrule.report.run_report import build_run_report
from chainrule.watch.reading import RunReader
from chainrule.watch.store import RunWriter
from made_runs import make_alarm, make_facts, make_sample, make_step
from test_charts_by_hand import read_cells

LOSSES = (4.0, 2.0, math.nan, 1.0)
RATES = (0.1, 0.1, 0.3, 0.3)


@pytest.fixture(scope="module")
def charts(tmp_path_factory):
    """The charts of a run of four steps with an alarm at the second, by their names."""
    path = tmp_path_factory.mktemp("runs") / "a.db"
    with RunWriter.open(path, make_facts()) as writer:
        for step, (loss, rate) in enumerate(zip(LOSSES, RATES, strict=True), start=1):
            norms = np.array([3.0, 4.0, 0.03, 0.04]) * (100.0 if step > 2 else 1.0)
            writer.write(make_step(step, loss=loss, rates=(rate,), grad_norms=norms))
        writer.write(make_sample(3))
        writer.write(make_alarm(2))
    text = build_run_report(RunReader(path))
    found = map(ElementTree.fromstring, re.findall(r"<svg.*?</svg>", text, re.S))
    return {each.get("aria-label").partition(":")[0]: each for each in found}


def read(element, *names):
    return tuple(float(element.get(name)) for name in names)


def list_points(polyline):
    return [tuple(map(float, pair.split(","))) for pair in polyline.get("points").split()]


class Axes:
    """Places on a chart, from its lines and the numbers beside them."""

    def __init__(self, chart):
        lines = [each for each in chart.iter("line") if each.get("class") == "grid"]
        self.left, self.right = read(lines[0], "x1", "x2")
        marks = [each for each in chart.iter("text") if each.get("text-anchor") == "end"]
        values = [float(each.text.replace(",", "")) for each in marks[: len(lines)]]
        (low, self.bottom), *_, (high, top) = zip(
            values, (read(each, "y1")[0] for each in lines), strict=True
        )
        self.low, self.unit = low, (top - self.bottom) / (high - low)

    def across(self, step):
        """The middle of a step of four."""
        return pytest.approx(self.left + (self.right - self.left) * (step - 0.5) / 4, abs=0.06)

    def up(self, value):
        return pytest.approx(self.bottom + self.unit * (value - self.low), abs=0.06)


def test_loss_is_a_median_with_gaps_and_dots_where_it_is_no_number(charts):
    chart = charts["Loss"]
    axes = Axes(chart)
    (line,) = chart.iter("polyline")
    medians = [3.0, 3.0, 1.5, 1.0]  # of each loss and its neighbours
    assert list_points(line) == [
        (axes.across(step), axes.up(value)) for step, value in enumerate(medians, start=1)
    ]
    pieces = [re.findall(r"[-\d.]+", path.get("d")) for path in chart.iter("path")]
    ranges = [list(zip(*[iter(map(float, each))] * 3, strict=True)) for each in pieces]
    assert ranges == [
        [(axes.across(step), axes.up(loss), axes.up(loss)) for step, loss in part]
        for part in ([(1, 4.0), (2, 2.0)], [(4, 1.0)])
    ]
    (dot,) = chart.iter("circle")
    assert read(dot, "cx") == (axes.across(3),)
    assert "1 steps are infinite or undefined" in chart.get("aria-label")


def test_alarms_and_steps_are_marked_in_every_chart(charts):
    axes = Axes(charts["Loss"])
    for chart in charts.values():
        (line,) = [each for each in chart.iter("line") if each.get("class") != "grid"]
        assert read(line, "x1", "x2") == (axes.across(2), axes.across(2))
        texts = {each.text: read(each, "x")[0] for each in chart.iter("text")}
        for step, text in ((1, "step 1"), (4, "4")):
            assert texts[text] == axes.across(step)


def test_learning_rate_is_a_stair(charts):
    chart = charts["Learning rate"]
    axes = Axes(chart)
    (line,) = chart.iter("polyline")
    assert list_points(line) == [
        (axes.across(step + half), axes.up(rate))
        for step, rate in enumerate(RATES, start=1)
        for half in (-0.5, 0.5)
    ]
    assert "step 3: learning rate" in chart.get("aria-label")


def test_cells_of_layer_one_are_at_the_bottom_and_change_in_the_middle(charts):
    (image,) = charts["Gradient of every layer"].iter("image")
    upper, lower = read_cells(image.get("href"))
    half = len(upper) // 2
    assert all(len(set(part)) == 1 for row in (upper, lower) for part in (row[:half], row[half:]))
    red, blue = (lambda pixel: pixel[0] * pixel[3]), (lambda pixel: pixel[2] * pixel[3])
    # Norms of 5 and 0.05 around the usual one, that before the alarm; then a hundred times as much.
    assert lower[-1] != lower[0] != upper[0]
    assert upper[-1] != upper[0]
    assert red(lower[-1]) > blue(lower[-1])
    (image,) = charts["How far every layer moves"].iter("image")
    for row in read_cells(image.get("href")):  # nothing is known before the sample
        assert {pixel[3] for pixel in row[:half]} == {0}
        assert 0 not in {pixel[3] for pixel in row[half:]}


@pytest.mark.parametrize(
    ("ending", "state"),
    [("", "ended"), ("ValueError at step 2", "stopped by ValueError at step 2")],
)
def test_the_head_says_what_stopped_the_run(ending, state, tmp_path):
    writer = RunWriter.open(tmp_path / "a.db", make_facts())
    writer.write(make_step(1))
    writer.close(ending)
    words = build_run_report(RunReader(tmp_path / "a.db")).partition("<h2>")[0]
    assert f" · {state} · " in words
