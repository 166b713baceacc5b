"""The page of a sweep: which cell stands where, and what it says."""

import math
import re

import pytest

from chainrule.errors import SweepError
from chainrule.report.sweep_report import METRICS, build_sweep_report
from chainrule.sweeps import CellResult, Foreseen, Measured, Outcome, Sweep

VERDICTS = ("healthy", "vanishing", "exploding", "saturated")


def make(number, *, failed=False, **settings):
    measured = Measured(
        verdict=VERDICTS[number % 4],
        rules=(),
        loss=1.0 + number,
        gradient_norm=(0.0, math.inf, 2.0, 1e-9)[number % 4],
        gradient_ratio=10.0 ** (number - 3),
        delta_ratio=None,
        weight_gradient_norms=(),
        delta_norms=(),
        sgd=0.25,
        adam=None,
    )
    said = Foreseen(
        weight_gradient_bands=(), layers_outside=None, chi=0.5, depth_scale=None, missing=()
    )
    outcome = Outcome(error="<No>.") if failed else Outcome(measured=measured, foreseen=said)
    return CellResult(address=str(number), settings=settings, seed=0, seeds=1, outcome=outcome)


GRID = Sweep(
    tuple(
        make(4 * i + 2 * j + k, depth=depth, init=init, bias_std=bias)
        for i, depth in enumerate((2, 5))
        for j, init in enumerate(("he", "xavier"))
        for k, bias in enumerate((None, 0.1))
    )
)


def read_cells(page):
    """Return what each rectangle says: its lines as a list, in the order of the page."""
    return [tip.split("\n") for tip in re.findall(r'data-tip="([^"]*)"', page)]


@pytest.mark.parametrize("color", METRICS)
def test_every_cell_is_on_the_page_once_and_says_its_values(color):
    cells = read_cells(build_sweep_report(GRID, color=color))
    assert len(cells) == len(GRID)
    for result in GRID:
        depth, init = result.settings["depth"], result.settings["init"]
        verdict = result.outcome.measured.verdict
        assert any(
            each[0] == f"depth {depth}, init {init}" and f"diagnosis: {verdict}" in each
            for each in cells
        )


def test_the_rest_of_the_axes_are_maps_of_their_own():
    page = build_sweep_report(GRID, columns="bias_std", rows="init")
    assert re.findall(r"<h2>(.*?)</h2>", page) == ["depth 2", "depth 5"]
    assert read_cells(page)[0][0] == "bias std None, init he"
    assert "<h2>" not in build_sweep_report(Sweep(GRID.results[::4]))  # one axis, one map


def test_a_failure_is_marked_and_its_words_are_text():
    page = build_sweep_report(Sweep((make(0, depth=2), make(1, depth=3, failed=True))))
    assert "1 failed" in page
    assert "×" in page
    assert "&lt;No&gt;." in page
    assert "<No>" not in page


def test_an_argument_called_as_a_value_is_shown_in_addition_to_it():
    page = build_sweep_report(Sweep((make(0, loss="mse"), make(1, loss="huber"))), color="loss")
    assert [cell[0] for cell in read_cells(page)] == ["loss mse", "loss huber"]
    heads = re.findall(r'<th scope="col">([^<]*)</th>', page)
    rows = [re.findall(r"<td>([^<]*)</td>", row) for row in re.findall(r"<tr>(<td>.*?)</tr>", page)]
    table = [dict(zip(heads, row, strict=True)) for row in rows]
    assert [row["setting loss"] for row in table] == ["mse", "huber"]
    assert [float(row["loss"]) for row in table] == [1.0, 2.0]


def test_settings_that_differ_in_a_late_digit_are_told_apart():
    page = build_sweep_report(Sweep((make(0, weight_std=0.0251), make(1, weight_std=0.0252))))
    assert [cell[0] for cell in read_cells(page)] == ["weight std 0.0251", "weight std 0.0252"]
    assert re.findall(r">(0\.0\d*)</text>", page) == ["0.0251", "0.0252"]


def test_one_cell_is_a_page_too():
    assert "healthy" in build_sweep_report(Sweep((make(0, depth=2),)))


@pytest.mark.parametrize(
    ("settings", "fact"),
    [
        ({"color": "verdct"}, "verdict"),
        ({"columns": "width"}, "width"),
        ({"columns": "depth", "rows": "depth"}, "depth"),
    ],
)
def test_what_cannot_be_shown_says_why(settings, fact):
    with pytest.raises(SweepError, match=fact):
        build_sweep_report(GRID, **settings)
    with pytest.raises(SweepError, match="at least one"):
        build_sweep_report(Sweep(()))
