"""Maps of plain numbers: what they say can be counted on paper."""

import math
from types import SimpleNamespace

import pytest

from chainrule.spec.network_spec import NetworkSpec
from chainrule.sweeps.axes import LINE_POINTS, Axis, trace_critical_line
from chainrule.sweeps.cells import Training
from chainrule.sweeps.phases import CRITICAL, PhaseCell, PhaseMap
from chainrule.sweeps.records import Trained


def end(trained, **parts):
    values = {"optimizer": "sgd", "steps": 7, "loss": 1.0, "accuracy": 0.5, "diverged": False}
    return Trained(**{**values, "trained": trained, **parts})


def cell(ratio=1.0, depth=10, **parts):
    return PhaseCell(spec=NetworkSpec(depth=depth), measured_ratio=ratio, **parts)


def draw(*rows, **parts):
    x = Axis(name="width", values=(4, 8, 16)[: len(rows[0])])
    y = Axis(name="depth", values=(2, 10)[: len(rows)])
    return PhaseMap(x=x, y=y, rows=rows, **{"seeds": 3, **parts})


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("depth", 12, "12"),
        ("bias_std", 0.123456789, "0.123457"),
        ("clip_norm", None, "none"),
        ("activation", "leaky_relu", "Leaky ReLU"),
        ("init", "he", "He"),
        ("init", "pytorch", "PyTorch default"),
    ],
)
def test_values_of_an_axis_are_written_shortly(name, value, text):
    axis = Axis(name=name, values=(value,))
    assert axis.write(value) == text
    assert axis.describe(value) == f"{axis.label} {text}"


@pytest.mark.parametrize("count", [1, 2, 23, 24, 25, 26, 46, 47, 48, 70, 200])
def test_a_critical_line_has_both_ends_and_no_more_points_than_it_needs(count, monkeypatch):
    asked = []

    def find(activation, bias):
        asked.append(bias)
        return SimpleNamespace(weight_std=1.0 + bias)

    monkeypatch.setattr("chainrule.sweeps.axes.critical_line", find)
    values = tuple(at / 100 for at in range(count))
    x, y = Axis(name="weight_scale", values=(1.0, 2.0)), Axis(name="bias_std", values=values)
    line = trace_critical_line(x, y, NetworkSpec(activation="tanh"))
    assert [up for _, up in line] == asked
    assert [across for across, _ in line] == pytest.approx([1.0 + up for up in asked])
    assert (asked[0], asked[-1]) == (values[0], values[-1])
    assert len(asked) <= LINE_POINTS
    assert count > LINE_POINTS or asked == list(values)
    assert count <= LINE_POINTS or len(asked) > LINE_POINTS // 2


@pytest.mark.parametrize(
    ("chi", "phase"),
    [
        (1.0 - 2 * CRITICAL, "ordered"),
        (1.0 - CRITICAL / 2, "critical"),
        (1.0 + CRITICAL / 2, "critical"),
        (1.0 + 2 * CRITICAL, "chaotic"),
        (math.inf, "chaotic"),
        (math.nan, None),
    ],
)
def test_phases_meet_where_chi_is_one(chi, phase):
    assert cell(chi=chi).phase == phase


@pytest.mark.parametrize(
    ("scale", "words"), [(0.29, "up to 1 layer train"), (1.96, "up to 11 layers train")]
)
def test_the_depth_that_trains_is_rounded_down(scale, words):
    assert words in cell(chi=0.5, depth_scale=scale).sentence
    assert cell(chi=0.5, depth_scale=scale, depth=12).expects_training is False


def test_text_has_a_sign_and_a_dot_for_each_cell_and_the_last_row_on_top():
    top = cell(0.051), cell(19.9, trained=end(True)), cell(math.nan)
    bottom = cell(0.049), cell(20.1, trained=end(False)), cell(None)
    *lines, foot = draw(bottom, top).draw_text().splitlines()
    assert [line.rpartition("│")[2] for line in lines[1:]] == ["· ·●? ", "- +○? "]
    assert [line.partition(" │")[0].strip() for line in lines[1:]] == ["10", "2"]
    assert foot.split()[:2] == ["4", "16"]


def test_summary_counts_what_agrees_and_what_is_missing():
    ordered, chaotic = {"chi": 0.5, "depth_scale": 1.0}, {"chi": 2.0, "depth_scale": 3.0}
    rows = (
        (
            cell(**ordered, layers_outside=(), trained=end(True)),  # beyond 6 · 1 layers
            cell(**chaotic, layers_outside=(1, 2), trained=end(False)),
            cell(**chaotic, layers_outside=(), trained=end(True)),
        ),
        (cell(**ordered, trained=end(False)), cell(trained=end(True)), cell(None, error="No.")),
    )
    found = draw(*rows, training=Training(optimizer="sgd", steps=7))
    assert (found.measured.same, found.measured.compared) == (2, 3)
    assert (found.trained.same, found.trained.compared) == (2, 4)
    for fact in (
        "6 networks",
        "median of 3 seeds",
        "in 2 of 3 cells",
        "Of 2 cells theory gives no band",
        "Of 1 cells theory says no phase",
        "1 cells could not be measured",
        "2 of 4 cells end as theory says (1 learned beyond 6 depth scales, "
        "1 did not learn within them)",
    ):
        assert fact in found.summary
    assert "measured 5 of 6" in repr(found)
    assert "Training" not in draw(*rows).summary
    alone = draw((cell(layers_outside=(), chi=1.0),), seeds=1).summary
    assert "median of 1 seed." in alone
    assert not any(word in alone for word in ("no band", "no phase", "could not"))


def test_rows_go_along_x_first():
    rows = (cell(1.0), cell(2.0), cell(3.0)), (cell(4.0), cell(math.inf), cell(6.0))
    found = draw(*rows)
    records = [(row["x"], row["y"], row["measured_ratio"]) for row in found.to_records()]
    assert records == [
        *((4, 2, 1.0), (8, 2, 2.0), (16, 2, 3.0)),
        *((4, 10, 4.0), (8, 10, math.inf), (16, 10, 6.0)),
    ]
    assert [found.at(x, y).measured_ratio for x, y, _ in records] == [row[2] for row in records]
    document = found.to_dict()
    assert document["cells"][4]["measured_ratio"] == "Infinity"
    assert document["training"] is None
    plan = Training(optimizer="adam", steps=7, learning_rate=0.5)
    expected = {"optimizer": "adam", "steps": 7, "rate": 0.5}
    assert draw(*rows, training=plan).to_dict()["training"] == expected
