"""Charts of training runs, worked out by hand."""

import math

import numpy as np
import pytest

from chainrule.display.run_charts import (
    BROKEN,
    GROUPS,
    build_charts,
    build_loss,
    build_rate,
    describe_change,
)
from chainrule.watch.overviews import LossCurve, RateChange, RateCurve
from chainrule.watch.reading import RunReader
from chainrule.watch.store import RunWriter
from made_runs import make_alarm, make_facts, make_sample, make_step

NAN = math.nan


def draw_loss(high, alarm=None, low=None, together=1):
    """The chart of losses, so many steps in each point."""
    first = np.arange(len(high)) * together + 1
    return build_loss(
        LossCurve(
            first=first,
            last=first + together - 1,
            low=np.array(high if low is None else low, float),
            high=np.array(high, float),
            non_finite=np.zeros(len(high), int),
        ),
        alarm,
    )


def draw_rates(*groups, changes=()):
    steps = np.arange(len(groups[0])) + 1
    rates = np.array(groups, float)
    return build_rate(RateCurve(first=steps, last=steps, rates=rates, changes=changes))


class TestLoss:
    @pytest.mark.parametrize(
        ("losses", "alarm", "ticks", "cut"),
        [
            # Three times what the run began with.
            ([0.9] * 15 + [100.0] + [0.9] * 4, None, (0.0, 1.0, 2.0, 3.0), True),
            # Twice what is usual, where that is more.
            ([0.1] * 3 + [1.9] * 17 + [100.0], None, (0.0, 2.0, 4.0), True),
            # 1.2 times the highest before the alarm; what comes at the alarm does not count.
            ([0.9] * 7 + [5.1] + [0.9] * 2 + [100.0] * 10, 11, (0.0, 2.5, 5.0, 7.5), True),
            ([0.9] * 7 + [5.1] + [0.9] * 2 + [100.0] * 10, 8, (0.0, 1.0, 2.0, 3.0), True),
            ([0.9, 0.7, 0.8], None, (0.0, 0.5, 1.0), False),
            ([-3.3, -1.2, -2.0], None, (-4.0, -3.0, -2.0, -1.0), False),
            ([0.0, 0.0], None, (0.0, 1.0), False),
            ([NAN, NAN], None, (0.0, 1.0), False),
        ],
    )
    def test_axis_holds_what_is_usual(self, losses, alarm, ticks, cut):
        chart = draw_loss(losses, alarm)
        assert chart.ticks == ticks
        assert ("cut off" in chart.note) is cut

    def test_what_is_cut_off_is_above_the_last_tick(self):
        assert "above 3 is cut" in draw_loss([0.9] * 15 + [100.0]).note

    def test_median_is_that_of_the_middles_of_the_points_around(self):
        chart = draw_loss([1.0, 9.0, 1.0, NAN, NAN, NAN], low=[1.0, 5.0, 1.0, NAN, NAN, NAN])
        assert chart.median.tolist() == pytest.approx([4.0, 1.0, 4.0, 1.0, NAN, NAN], nan_ok=True)

    def test_says_how_many_steps_a_point_holds(self):
        assert draw_loss([1.0, 2.0]).note.startswith("each step")
        assert "1,000 steps each" in draw_loss([1.0, 2.0], together=1000).note

    def test_of_no_losses_is_none(self):
        assert draw_loss([]) is None


class TestRates:
    def test_that_never_change_are_not_drawn(self):
        assert draw_rates([0.1, 0.1], [0.2, NAN]) is None
        assert draw_rates([NAN, NAN]) is None
        assert draw_rates([0.1, 0.1], changes=(RateChange(step=2, before=1, after=2),)) is not None

    def test_begin_at_zero(self):
        chart = draw_rates([0.1, 0.2, 0.4], [0.4, NAN, 0.0])
        assert chart.heights.tolist() == [
            pytest.approx([0.25, 0.5, 1.0]),
            pytest.approx([1.0, NAN, 0.0], nan_ok=True),
        ]
        assert chart.ticks == ((0.0, 0.0), (1.0, 0.4))
        assert chart.note == ""

    def test_far_apart_are_on_a_logarithmic_axis(self):
        chart = draw_rates([1.0, 0.01, 1e-4, 1e-4, 1e-4, 0.0])
        assert chart.heights[0].tolist() == pytest.approx([1.0, 0.5, 0.0, 0.0, 0.0, 0.0])
        assert chart.ticks == ((0.0, 1e-4), (1.0, 1.0))
        assert chart.note == "logarithmic"

    def test_a_warm_up_from_nearly_nothing_changes_no_axis(self):
        assert draw_rates([1e-6, *[0.1] * 9]).note == ""
        assert draw_rates([*[1e-6] * 3, *[0.1] * 7]).note == "logarithmic"

    def test_of_many_groups_are_the_first(self):
        groups = [[0.1, 0.2 + number] for number in range(GROUPS + 2)]
        chart = draw_rates(*groups)
        assert chart.rates.tolist() == groups[:GROUPS]
        assert f"first {GROUPS} of {GROUPS + 2} groups" in chart.note
        assert "groups" not in draw_rates(*groups[:GROUPS]).note

    def test_changes_name_their_group(self):
        assert "0.1 → 0.01" in describe_change(RateChange(step=3, before=0.1, after=0.01))
        change = RateChange(step=3, before=0.1, after=0.01, group=0)
        assert "group 1" in describe_change(change)


def near(numbers):
    """Numbers as a run file keeps them: to a thousandth."""
    return pytest.approx(np.array(numbers), rel=2e-3)


@pytest.fixture
def draw(tmp_path):
    """Draws a run of ten steps whose two layers have gradients of norm 5 and 0.05."""

    def build(*, alarm=None, factor=1.0, bad=None, **sample):
        with RunWriter.open(tmp_path / "a.db", make_facts()) as writer:
            for step in range(1, 11):
                norms = np.array([3.0, 4.0, 0.03, 0.04]) * (factor if step > 5 else 1.0)
                if step == bad:
                    norms[2] = math.inf
                writer.write(make_step(step, grad_norms=norms))
            writer.write(make_sample(10, **sample))
            if alarm:
                writer.write(make_alarm(9))
                writer.write(make_alarm(alarm))
        charts = build_charts(RunReader(tmp_path / "a.db"))
        return charts, {each.name: each for each in charts.maps}

    return build


class TestMaps:
    def test_shades_are_half_the_powers_of_ten_from_the_usual_gradient(self, draw):
        charts, maps = draw()
        drawn = maps["gradient"]
        assert charts.span == (1, 10)
        assert drawn.rows == ("0 (Linear)", "1 (Linear)")
        assert drawn.values == near([[5.0] * 10, [0.05] * 10])
        assert drawn.shades == near([[0.5] * 10, [-0.5] * 10])
        assert [text for shade, text in drawn.legend if shade == 0.0] == ["usual: 0.5"]
        assert BROKEN not in dict(drawn.legend)

    def test_usual_is_what_was_before_the_first_alarm(self, draw):
        drawn = draw(alarm=6, factor=1e8)[1]["gradient"]
        assert "usual: 0.5" in dict(drawn.legend).values()
        assert drawn.shades[:, 4] == near([0.5, -0.5])
        assert drawn.shades[:, 5] == near([3.0, 3.0])  # 4.5 and 3.5 are off the scale

    def test_without_an_alarm_all_steps_count(self, draw):
        drawn = draw(factor=1e4)[1]["gradient"]
        assert "usual: 50" in dict(drawn.legend).values()

    def test_what_is_not_finite_is_broken(self, draw):
        drawn = draw(bad=4)[1]["gradient"]
        assert np.flatnonzero(drawn.shades[1] == BROKEN).tolist() == [3]
        assert not (drawn.shades[0] == BROKEN).any()
        assert BROKEN in dict(drawn.legend)

    def test_updates_are_compared_with_a_thousandth(self, draw):
        drawn = draw(update_norms=np.array([0.0002, 0.0002, 2.0, 2.0]))[1]["update"]
        assert drawn.values == near([[1e-4], [1.0]])
        assert drawn.shades == near([[-1.0], [3.0]])
        assert (drawn.first.tolist(), drawn.last.tolist()) == ([10], [10])

    def test_shares_have_rows_of_modules_that_have_them(self, draw):
        maps = draw()[1]
        assert set(maps) == {"gradient", "update", "dead"}
        assert maps["dead"].rows == ("0.act", "1.act")
        assert maps["dead"].shades == near([[0.75], [0.75]])
