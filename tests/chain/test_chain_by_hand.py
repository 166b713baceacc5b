"""Intervals, counts and clipping of scalar chains, worked out by hand."""

import math
from itertools import pairwise

import pytest

from chainrule.chain.depth import (
    _bisect,
    _count_stable,
    _find_intervals,
    _list_sizes,
    check_depth,
    count_stable_layers,
    find_best_biases,
    find_best_weights,
    find_stable_weights,
    measure_depth,
)
from chainrule.chain.recurrence import measure_recurrence, unroll
from chainrule.chain.scalar_chain import ScalarChain
from chainrule.errors import SpecError
from chainrule.spec.activations import get_activation

GRID = [-3.0, -2.0, -1.0, 1.0, 2.0, 3.0]


class TestIntervals:
    @pytest.mark.parametrize(
        ("held", "intervals"),
        [
            (lambda v: 0.5 <= v <= 2.5, [(0.5, 2.5)]),
            (lambda v: abs(v) >= 1.5, [(-3.0, -1.5), (1.5, 3.0)]),
            (lambda v: v <= -2.5, [(-3.0, -2.5)]),
            (lambda v: v >= 2.5, [(2.5, 3.0)]),
            (lambda v: True, [(-3.0, 3.0)]),
            (lambda v: False, []),
            (lambda v: v in (-2.0, 2.0), [(-2.0, -2.0), (2.0, 2.0)]),
        ],
    )
    def test_are_refined_between_the_points(self, held, intervals):
        found = _find_intervals(GRID, held)
        assert len(found) == len(intervals)
        for one, other in zip(found, intervals, strict=True):
            assert one == pytest.approx(other, abs=1e-9)

    def test_ends_hold_themselves(self):
        assert _bisect(1.0, 2.0, lambda v: v <= 1.75) == pytest.approx(1.75, abs=1e-9)
        assert _bisect(1.0, 2.0, lambda v: v <= 1.75) <= 1.75

    def test_sizes_go_from_a_hundredth_to_a_hundred_in_equal_steps(self):
        sizes = _list_sizes()
        assert len(sizes) == 400
        assert (sizes[0], sizes[-1]) == pytest.approx((0.01, 100.0))
        steps = [b / a for a, b in pairwise(sizes)]
        assert max(steps) == pytest.approx(min(steps)) == pytest.approx(1e4 ** (1 / 399))


class TestStable:
    @pytest.mark.parametrize(
        ("weight", "layers"), [(0.5, 3), (2.0, 3), (1.0, 50), (0.09, 0), (11.0, 0), (-0.5, 3)]
    )
    def test_layers_of_the_identity_are_counted_while_within_ten_times(self, weight, layers):
        # 0.5³ = 0.125 is within 0.1 and 10, 0.5⁴ is not.
        assert _count_stable(get_activation("identity"), weight, 1.0, 0.0, 50) == layers

    def test_counts_go_up_to_the_depth(self):
        counts = dict(count_stable_layers("identity", depth=7))
        assert max(counts.values()) == 7
        assert min(counts.values()) == 0
        both = [count_stable_layers("relu", depth=5, negative=each) for each in (False, True)]
        assert max(count for _, count in both[0]) == 5
        assert max(count for _, count in both[1]) == 0  # the first layer is off

    def test_weights_of_the_identity_are_those_of_the_best_case(self):
        found = find_stable_weights("identity", depth=4)
        low, high = 10 ** (-1 / 4), 10 ** (1 / 4)
        assert found.best == pytest.approx((low, high))
        (negative, positive) = found.intervals
        assert positive == pytest.approx((low, high), rel=1e-6)
        assert negative == pytest.approx((-high, -low), rel=1e-6)
        assert found.threshold == 1.0

    @pytest.mark.parametrize(("activation", "threshold"), [("sigmoid", 4.0), ("tanh", 1.0)])
    def test_best_weights_shrink_towards_the_threshold(self, activation, threshold):
        low, high = find_best_weights(activation, 2)
        assert (low, high) == pytest.approx((threshold / 10**0.5, threshold * 10**0.5))

    def test_products_grow_with_every_layer(self):
        curve = measure_depth(0.5, "identity", x=3.0, bias=1.0, depth=4)
        assert list(map(float, curve.products)) == [0.5, 0.25, 0.125, 0.0625]
        assert list(map(float, curve.best)) == [0.5, 0.25, 0.125, 0.0625]
        curve = measure_depth(-2.0, "sigmoid", x=0.0, depth=2)
        first = 0.5
        slope = 1 / (1 + math.exp(2 * first))
        second = -0.5 * -2.0 * slope * (1 - slope)
        assert list(map(float, curve.products)) == pytest.approx([-0.5, second])
        assert list(map(float, curve.best)) == [0.5, 0.25]

    def test_best_biases_put_every_layer_where_it_is_steepest(self):
        biases = find_best_biases(2.0, [3.0, -4.0, 0.5], "sigmoid")
        assert biases == pytest.approx((-6.0, 2.0, -0.25))
        chain = ScalarChain(2.0, [3.0, -4.0, 0.5], "sigmoid", biases)
        assert [float(layer.slope) for layer in chain.layers] == pytest.approx([0.25] * 3)

    @pytest.mark.parametrize("depth", [0, 1001, True, 2.0])
    def test_depths_out_of_range(self, depth):
        with pytest.raises(SpecError, match="steps"):
            check_depth("steps", depth)

    def test_depths_in_range(self):
        for depth in (1, 1000):
            check_depth("steps", depth)


class TestRecurrence:
    def test_gradient_sums_over_all_uses_of_the_weight(self):
        # h₁ = 2·3 = 6, h₂ = 12, h₃ = 24 = w³·x: ∂p/∂w = 3·w²·x.
        found = measure_recurrence(2.0, 3, x=3.0, activation="identity")
        assert found.gradient == 36.0
        assert [float(each.power) for each in found.steps] == [1.0, 2.0, 4.0, 8.0]
        assert [float(each.product) for each in found.steps] == [1.0, 2.0, 4.0, 8.0]
        assert [float(each.slopes) for each in found.steps] == [1.0] * 4
        assert [each.back for each in found.steps] == [0, 1, 2, 3]
        assert (found.clip_factor, found.clipped_gradient) == (1.0, 36.0)

    @pytest.mark.parametrize(
        ("clip", "factor"), [(9.0, 0.25), (36.0, 1.0), (37.0, 1.0), (35.0, 35 / 36)]
    )
    def test_clipping_brings_the_gradient_to_the_limit(self, clip, factor):
        found = measure_recurrence(2.0, 3, x=3.0, activation="identity", clip=clip)
        assert float(found.clip_factor) == pytest.approx(factor)
        assert float(found.clipped_gradient) == pytest.approx(min(36.0, clip))
        assert float(found.steps[-1].clipped) == pytest.approx(8.0 * factor)
        below = measure_recurrence(2.0, 3, x=-3.0, activation="identity", clip=clip)
        assert float(below.clipped_gradient) == pytest.approx(-min(36.0, clip))

    def test_slopes_are_the_last_steps_first(self):
        found = measure_recurrence(0.7, 3, x=0.4, activation="tanh", bias=0.2)
        h, slopes = 0.4, []
        for _ in range(3):
            h = math.tanh(0.7 * h + 0.2)
            slopes.append(1 - h * h)
        assert float(found.steps[1].slopes) == pytest.approx(slopes[2])
        assert float(found.steps[2].slopes) == pytest.approx(slopes[2] * slopes[1])
        assert float(found.chain.output) == pytest.approx(h)

    def test_unrolled_without_a_bias_has_none(self):
        assert unroll(0.5, 3).biases is None
        assert unroll(0.5, 3, bias=0.25).biases == (0.25,) * 3
        assert unroll(0.5, 3, x=7.0).x == 7.0


class TestChain:
    CHAIN = ScalarChain(3.0, [2.0, -0.5], "identity", [1.0, 4.0])

    def test_values_and_gradients_by_hand(self):
        # z₁ = 7, z₂ = 0.5; p = 0.5.
        assert dict(self.CHAIN.values) == {
            **{"x": 3.0, "z1": 7.0, "h1": 7.0, "z2": 0.5, "h2": 0.5, "p": 0.5}
        }
        gradients = {name: float(self.CHAIN.gradient(name)) for name in self.CHAIN.variables}
        assert gradients == {"x": -1.0, "w1": -1.5, "w2": 7.0, "b1": -0.5, "b2": 1.0}

    @pytest.mark.parametrize("name", ["w0", "w3", "b3", "h1", "W1", "w01", "", "w1 "])
    def test_unknown_variables_are_refused(self, name):
        with pytest.raises(SpecError, match="wrt"):
            self.CHAIN.gradient(name)

    def test_running_products_go_from_the_output_back(self):
        found = list(map(float, self.CHAIN.running_products("w1")))
        assert found[-1] == -1.5
        assert found[0] == 1.0

    def test_of_up_to_a_thousand_layers(self):
        assert ScalarChain(1.0, [1.0] * 1000, "identity").depth == 1000
        with pytest.raises(SpecError, match="1001"):
            ScalarChain(1.0, [1.0] * 1001, "identity")

    def test_shown_by_a_bias_has_biases_of_zero(self):
        plain = ScalarChain(3.0, [2.0, -0.5], "identity")
        assert plain.show("w1") is plain
        assert plain.show("b1").biases == (0.0, 0.0)
        assert self.CHAIN.show("b1") is self.CHAIN
