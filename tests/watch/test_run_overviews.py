"""A long run in few numbers: each must follow from the steps themselves."""

import math

import numpy as np
import pytest

from chainrule.errors import RunFileError
from chainrule.watch.overviews import group_names
from chainrule.watch.reading import RunReader
from chainrule.watch.records import ABSENT
from chainrule.watch.store import RunWriter
from made_runs import make_facts, make_noisy_steps, make_sample, make_step


def write(path, records, tensors=4):
    with RunWriter.open(path, make_facts(tensors)) as writer:
        for record in records:
            writer.write(record)
    return RunReader(path)


@pytest.mark.parametrize("points", [1, 7, 100, 5000])
def test_each_point_of_the_curve_is_the_range_of_its_steps(tmp_path, points):
    steps = list(make_noisy_steps(700, 4))
    curve = write(tmp_path / "a.db", steps).loss_curve(points)
    assert len(curve.low) == min(points, 700)
    assert curve.first[0] == 1
    assert curve.last[-1] == 700
    assert np.array_equal(curve.first[1:], curve.last[:-1] + 1)
    for first, last, low, high in zip(curve.first, curve.last, curve.low, curve.high, strict=True):
        losses = [each.loss for each in steps[first - 1 : last]]
        assert (low, high) == (min(losses), max(losses))
    assert not curve.non_finite.any()


def test_losses_that_are_missing_or_not_finite_are_counted_apart(tmp_path):
    losses = [None, 3.0, math.nan, 1.0, math.inf, None, 2.0, math.nan]
    steps = [make_step(number, loss=loss) for number, loss in enumerate(losses, 1)]
    curve = write(tmp_path / "a.db", steps).loss_curve(3)
    assert curve.first.tolist() == [2, 4, 7]
    assert curve.low[:2].tolist() == [3.0, 1.0]
    assert curve.non_finite.tolist() == [1, 1, 1]
    assert len(write(tmp_path / "b.db", [make_step(1, loss=None)]).loss_curve().low) == 0
    only = write(tmp_path / "c.db", [make_step(1, loss=math.nan)]).loss_curve()
    assert math.isnan(only.low[0])


def test_rates_are_those_of_the_steps_and_sudden_changes_are_listed(tmp_path):
    warm = [0.01 * min(step, 10) for step in range(1, 31)]
    stairs = [*warm, *[0.1] * 20, *[0.01] * 20, *[0.01 * 0.99**step for step in range(30)], 0.2]
    steps = [make_step(at, rates=(rate, rate, 1.0)) for at, rate in enumerate(stairs, 1)]
    steps += [make_step(102 + at, rates=(0.2, 0.2, 2.0, 5.0)) for at in range(20)]
    curve = write(tmp_path / "a.db", steps).rate_curve(1000)
    assert curve.rates[0].tolist() == [*stairs, *[0.2] * 20]
    assert len(curve.rates) == 3  # the first two are always the same
    assert np.isnan(curve.rates[2][:101]).all()
    assert [(each.step, each.before, each.after, each.group) for each in curve.changes] == [
        (51, 0.1, 0.01, 0),
        (101, stairs[-2], 0.2, 0),
        (102, 1.0, 2.0, 2),
    ]
    assert not curve.is_constant
    few = write(tmp_path / "b.db", steps).rate_curve(7)
    assert few.rates.shape == (3, 7)
    assert (few.first[0], few.last[-1], few.changes) == (1, 121, curve.changes)
    for place, last in enumerate(few.last):
        assert few.rates[0, place] == steps[last - 1].rates[0]


def test_groups_that_come_later_with_one_rate_are_one(tmp_path):
    """As with layers that are unfrozen in mid-run, each a group of its own."""
    steps = [make_step(at, rates=(0.1,) if at < 4 else (0.1, 0.02, 0.02)) for at in range(1, 9)]
    steps += [make_step(9, rates=(0.1, 0.02, 0.02, 0.1))]
    rates = write(tmp_path / "a.db", steps).rate_curve().rates
    assert [row[~np.isnan(row)].tolist() for row in rates] == [[0.1] * 9, [0.02] * 6, [0.1]]


def test_one_rate_is_constant_and_none_is_empty(tmp_path):
    constant = write(tmp_path / "a.db", [make_step(at) for at in range(1, 9)]).rate_curve()
    assert constant.is_constant
    assert constant.changes == ()
    nothing = write(tmp_path / "b.db", [make_step(1, rates=())]).rate_curve()
    assert nothing.is_constant
    assert nothing.rates.size == 0
    zero = [make_step(at, rates=(0.0 if at < 5 else 0.1,)) for at in range(1, 9)]
    (change,) = write(tmp_path / "c.db", zero).rate_curve().changes
    assert (change.step, change.before, change.after, change.group) == (5, 0.0, 0.1, None)


def test_a_row_of_the_map_is_the_norm_of_its_parameters(tmp_path):
    steps = list(make_noisy_steps(600, 6))
    samples = [make_sample(step, 6) for step in range(10, 601, 10)]
    found = write(tmp_path / "a.db", [*steps, *samples], 6).norm_map(bins=7)
    assert found.layers == ("0", "1", "2")
    assert found.modules == ("0.act", "1.act", "2.act")
    norms = np.array([each.grad_norms for each in steps])
    layers = np.sqrt((norms**2).reshape(600, 3, 2).sum(axis=2))
    for place, (first, last) in enumerate(zip(found.first, found.last, strict=True)):
        true = np.exp(np.log(layers[first - 1 : last]).mean(axis=0))
        assert np.allclose(found.gradient[:, place], true, rtol=2**-6)
    assert np.allclose(found.update_ratio, 0.01)
    assert np.allclose(found.dead_units, 0.25)
    assert np.isnan(found.saturation).all()
    assert not found.non_finite.any()
    assert (found.first[0], found.last[-1]) == (1, 600)


def test_absent_zero_and_undefined_gradients_are_three_things(tmp_path):
    norms = [[ABSENT, ABSENT, 0.0, 0.0], [ABSENT, ABSENT, 0.0, math.nan], [ABSENT, ABSENT, 3, 4]]
    steps = [make_step(number, grad_norms=np.array(each)) for number, each in enumerate(norms, 1)]
    found = write(tmp_path / "a.db", steps).norm_map(bins=3)
    assert np.isnan(found.gradient[0]).all()
    assert found.gradient[1, 0] == 0
    assert math.isnan(found.gradient[1, 1])
    assert found.gradient[1, 2] == pytest.approx(5, rel=2**-7)
    assert found.non_finite.tolist() == [[0, 0, 0], [0, 1, 0]]


def test_a_gradient_that_is_huge_but_finite_is_not_counted_as_infinite(tmp_path):
    norms = [[1e35, 1e35], [math.inf, 1.0], [3.0, 4.0]]
    steps = [
        make_step(number, 2, grad_norms=np.array(each)) for number, each in enumerate(norms, 1)
    ]
    found = write(tmp_path / "a.db", steps, 2).norm_map(bins=3)
    assert found.non_finite.tolist() == [[0, 1, 0]]
    assert found.gradient[0, [0, 2]].tolist() == pytest.approx([2**0.5 * 1e35, 5.0], rel=2**-7)


def test_a_row_with_a_frozen_parameter_has_the_gradient_of_the_others(tmp_path):
    norms = [[ABSENT, 3.0, 4.0, ABSENT], [ABSENT, 0.0, 3.0, 4.0], [ABSENT, math.inf, ABSENT, 6.0]]
    steps = [make_step(number, grad_norms=np.array(each)) for number, each in enumerate(norms, 1)]
    found = write(tmp_path / "a.db", steps).norm_map(bins=3)
    assert found.gradient[0, :2].tolist() == pytest.approx([3.0, 0.0], rel=2**-7)
    assert found.gradient[1].tolist() == pytest.approx([4.0, 5.0, 6.0], rel=2**-7)
    assert found.non_finite.tolist() == [[0, 0, 1], [0, 0, 0]]


def test_a_bin_is_zero_only_if_all_its_steps_are(tmp_path):
    norms = [0.0, 2.0, 8.0, 0.0, 0.0, 0.0, 5.0, ABSENT, ABSENT]
    steps = [make_step(at, 1, grad_norms=np.array([each])) for at, each in enumerate(norms, 1)]
    found = write(tmp_path / "a.db", steps, 1).norm_map(bins=3)
    assert found.gradient[0].tolist() == pytest.approx([4.0, 0.0, 5.0], rel=2**-7)


def test_the_map_is_not_larger_than_asked_for(tmp_path):
    reader = write(tmp_path / "a.db", [make_step(1, 40), make_sample(1, 40), make_step(90, 40)], 40)
    found = reader.norm_map(layers=8, bins=10)
    assert found.gradient.shape == (8, 10)
    assert found.layers[0] == "0 … 2"
    assert found.layers[-1].endswith("… 19")
    assert len(found.modules) == 8
    empty = write(tmp_path / "b.db", []).norm_map()
    assert empty.gradient.shape == (2, 0)
    for wrong in (0, -1, 2.0, True):
        with pytest.raises(RunFileError, match="bins"):
            reader.norm_map(bins=wrong)
        with pytest.raises(RunFileError, match="points"):
            reader.loss_curve(wrong)


@pytest.mark.parametrize(
    ("names", "most", "expected"),
    [
        (["h.0.a", "h.0.b", "h.1.a", "e"], 4, ["h.0.a", "h.0.b", "h.1.a", "e"]),
        (["h.0.a", "h.0.b", "h.1.a", "e"], 3, ["h.0", "h.1", "e"]),
        (["h.0.a", "h.0.b", "h.1.a", "e"], 2, ["h", "e"]),
        (["0", "1", "2", "3"], 2, ["0 … 1", "2 … 3"]),
        ([], 5, []),
    ],
)
def test_names_are_grouped_by_what_they_share(names, most, expected):
    groups = group_names(names, most)
    assert [name for name, _ in groups] == expected
    assert sorted(index for _, members in groups for index in members) == list(range(len(names)))
