"""Erratum, depth and recurrence: what the one product explains."""

import itertools
import math

import pytest
import torch

from chainrule.chain import (
    count_stable_layers,
    explain_erratum,
    find_best_biases,
    find_stable_weights,
    measure_depth,
    measure_recurrence,
    unroll,
)
from chainrule.chain.depth import SEARCHED
from chainrule.chain.notation import render_latex, render_text
from chainrule.chain.scalar_chain import ScalarChain
from chainrule.chain.terms import iterate_marks
from chainrule.errors import SpecError
from chainrule.spec.activations import ACTIVATIONS, get_activation

NAMES = list(ACTIVATIONS)


class TestErratum:
    def test_slopes_and_gradient_in_both_forms(self):
        chain = ScalarChain(1.0, [0.5, -2.0], "sigmoid")
        erratum = explain_erratum(chain)
        z1, h1, z2, h2 = (chain.values[name] for name in ("z1", "h1", "z2", "h2"))
        assert [each.layer for each in erratum.layers] == [2, 1]
        second, first = erratum.layers
        assert float(first.right) == pytest.approx(h1 * (1 - h1), rel=1e-14)
        assert float(first.wrong) == pytest.approx(z1 * (1 - z1), rel=1e-14)
        assert second.off == pytest.approx(z2 * (1 - z2) / (h2 * (1 - h2)), rel=1e-13)
        assert erratum.right == chain.gradient("w1")
        expected = z2 * (1 - z2) * -2.0 * z1 * (1 - z1) * 1.0
        assert float(erratum.wrong) == pytest.approx(expected, rel=1e-13)
        assert erratum.off == pytest.approx(expected / float(erratum.right), rel=1e-13)

    def test_sentence(self):
        erratum = explain_erratum(ScalarChain(1.0, [0.5, -2.0]))
        facts = ["z₁ = 0.5", "h₁(1 − h₁) ≈ 0.235", "z₁(1 − z₁) gives 0.25", "1.06 times too large"]
        facts += ["∂p/∂w₁ would be 1.4 instead of −0.0816", "17.1 times too large", "wrong sign"]
        assert [fact for fact in facts if fact not in erratum.sentence] == []

    @pytest.mark.parametrize(
        ("weight", "words"),
        [
            (0.1, "2.77 times too small."),
            (1.0, "gives 0, as if nothing passed."),
            (-1.0, "10.2 times too large and the wrong sign."),
        ],
    )
    def test_how_far_off(self, weight, words):
        (layer,) = explain_erratum(ScalarChain(1.0, [weight])).layers
        assert layer.sentence.endswith(words)

    def test_nothing_over_nothing_is_undefined(self):
        erratum = explain_erratum(ScalarChain(0.0, [0.5, 1.0]))  # ∂p/∂w₁ is x = 0 times the rest
        assert (float(erratum.right), float(erratum.wrong)) == (0.0, 0.0)
        assert math.isnan(erratum.off)
        assert [each.off for each in erratum.layers if each.layer == 1] == [0.0]  # z = 0: 0 ÷ 0.25

    def test_only_sigmoids_have_it(self):
        assert explain_erratum(ScalarChain(1.0, [0.5], "tanh")) is None
        mixed = ScalarChain(1.0, [0.5, 1.0], ["tanh", "sigmoid"])
        assert [each.layer for each in explain_erratum(mixed).layers] == [2]
        assert explain_erratum(ScalarChain(1.0, [0.5, 1.0], ["sigmoid", "tanh"]), "w2") is None


class TestDepth:
    @pytest.mark.parametrize("activation", NAMES)
    def test_products_are_gradients_of_growing_chains(self, activation):
        curve = measure_depth(-1.3, activation, x=0.8, bias=0.2, depth=12)
        for depth, product in enumerate(curve.products, 1):
            chain = ScalarChain(0.8, [-1.3] * depth, activation, [0.2] * depth)
            assert float(product) == pytest.approx(float(chain.gradient("x")), rel=1e-12, abs=0)
        assert all(
            abs(float(product)) <= float(best) * (1 + 1e-12)
            for product, best in zip(curve.products, curve.best, strict=True)
        )

    def test_sigmoid_needs_a_weight_of_four_even_in_the_best_case(self):
        assert find_stable_weights("sigmoid").threshold == 4.0
        below, at = (measure_depth(w, "sigmoid", depth=50).best[-1] for w in (3.9, 4.0))
        assert below.log10 < -0.5
        assert float(at) == 1.0

    @pytest.mark.parametrize("activation", NAMES)
    def test_the_best_case_is_reached_with_the_best_biases(self, activation):
        entry = get_activation(activation)
        weights = [1.5, -0.7, 2.0]
        biases = find_best_biases(0.3, weights, activation)
        gradient = ScalarChain(0.3, weights, activation, biases).gradient("x")
        reached = abs(entry.derivative(entry.derivative_argmax)) ** 3 * 1.5 * 0.7 * 2.0
        assert abs(float(gradient)) == pytest.approx(reached, rel=1e-9)

    @pytest.mark.parametrize("activation", NAMES)
    def test_intervals_are_where_the_product_stays(self, activation):
        found = find_stable_weights(activation, x=0.7, depth=20)

        def stays(weight):
            curve = measure_depth(weight, activation, x=0.7, depth=20)
            return all(abs(product.log10) <= 1 for product in curve.products)

        for low, high in found.intervals:
            assert stays(math.copysign(abs(low), low))
            assert stays(high)
            assert stays(0.5 * (low + high))
            assert not stays(low - 1e-6 * abs(low)) or abs(low) == pytest.approx(100)
            assert not stays(high + 1e-6 * abs(high)) or abs(high) == pytest.approx(100)
        inside = [
            weight
            for step in range(-300, 301)
            if (weight := step / 100)
            and any(low <= weight <= high for low, high in found.intervals)
        ]
        outside = [step / 100 for step in range(-300, 301) if step and step / 100 not in inside]
        assert all(stays(weight) for weight in inside)
        assert sum(stays(weight) for weight in outside) <= 2  # narrower than the grid

    def test_the_identity_stays_around_one(self):
        found = find_stable_weights("identity", depth=50)
        edge = 10 ** (1 / 50)
        expected = [(-edge, -1 / edge), (1 / edge, edge)]
        assert [pytest.approx(pair) for pair in expected] == list(found.intervals)
        assert found.best == pytest.approx((1 / edge, edge))

    def test_intervals_reach_to_the_end_of_the_search(self):
        """One sigmoid: w·σ′(0.03·w) is 0.1 near w = 0.4, below 10 everywhere, 4.5 at w = 100."""
        found = find_stable_weights("sigmoid", x=0.03, depth=1)
        assert [pytest.approx(pair, rel=1e-3) for pair in ((-100, -0.4), (0.4, 100))] == list(
            found.intervals
        )

    def test_one_layer_is_one(self):
        assert "up to 1 layer if" in find_stable_weights(depth=1).sentence

    def test_the_steps_named_are_those_searched(self):
        sizes = [size for size, _ in count_stable_layers(depth=1)]
        steps = {round(100 * (b / a - 1)) for a, b in itertools.pairwise(sizes)}
        assert [f"in steps of {step} %" in SEARCHED for step in steps] == [True]

    def test_sentences(self):
        none, some = find_stable_weights().sentence, find_stable_weights(x=0.2178).sentence
        for sentence in (none, some):
            facts = ("|w| = 4 ", "50 layers", "3.82 ≤ |w| ≤ 4.19", SEARCHED)
            assert [fact for fact in facts if fact not in sentence] == []
        assert "no w " in none
        assert "−6.77 ≤ w ≤ −5.47" in some

    @pytest.mark.parametrize("depth", [0, 1001, 10**6, 2.0, True])
    def test_a_depth_out_of_range(self, depth):
        facts = ("depth: ", "1 to 1000", repr(depth))
        for ask in (
            lambda: measure_depth(1.0, depth=depth),
            lambda: find_stable_weights(depth=depth),
        ):
            with pytest.raises(SpecError) as caught:
                ask()
            assert [fact for fact in facts if fact not in str(caught.value)] == []


class TestRecurrence:
    @pytest.mark.parametrize("activation", NAMES)
    @pytest.mark.parametrize("steps", [1, 2, 9])
    def test_the_gradient_through_time_is_that_of_autograd(self, activation, steps):
        weight = torch.tensor(-1.2, dtype=torch.float64, requires_grad=True)
        state = start = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
        phi = getattr(torch.nn, get_activation(activation).module)()
        for _ in range(steps):
            state = phi(weight * state + 0.1)
        by_weight, by_start = torch.autograd.grad(state, [weight, start])
        found = measure_recurrence(-1.2, steps, x=0.6, activation=activation, bias=0.1)
        assert float(found.gradient) == pytest.approx(by_weight.item(), rel=1e-12, abs=1e-300)
        assert float(found.steps[-1].product) == pytest.approx(by_start.item(), rel=1e-12, abs=0)

    def test_each_step_back_is_power_times_slopes(self):
        found = measure_recurrence(1.5, 30, activation="tanh")
        assert [step.back for step in found.steps] == list(range(31))
        for step in found.steps:
            assert float(step.power) == pytest.approx(1.5**step.back, rel=1e-13)
            product = float(step.power) * float(step.slopes)
            assert float(step.product) == pytest.approx(product, rel=1e-12)
            assert step.clipped == step.product

    def test_clipping_is_one_more_factor(self):
        found = measure_recurrence(1.5, 30, activation="identity", clip=1.0)
        assert float(found.clipped_gradient) == pytest.approx(1.0)
        factor = float(found.clip_factor)
        assert factor == pytest.approx(1.0 / float(found.gradient))
        for step in found.steps:
            assert float(step.clipped) == pytest.approx(factor * float(step.product), rel=1e-13)
        assert "one more factor" in found.clipping

    def test_clipping_keeps_the_sign_and_makes_nothing_larger(self):
        negative = measure_recurrence(-1.5, 3, activation="identity", x=-1.0, clip=0.5)
        assert float(negative.clipped_gradient) == -0.5
        small = measure_recurrence(0.5, 30, activation="tanh", clip=1.0)
        assert small.clipped_gradient == small.gradient
        assert "changes nothing" in small.clipping
        assert measure_recurrence(0.5, 3).clipping == "No clipping."

    def test_clipping_an_overflow(self):
        found = measure_recurrence(10.0, 1000, activation="identity", clip=2.0)
        assert float(found.gradient) == math.inf
        assert float(found.clipped_gradient) == pytest.approx(2.0)

    def test_lines(self):
        found = measure_recurrence(1.5, 2, activation="tanh")
        lines = found.write_lines()
        assert [render_text(line) for line in lines] == [
            "w² · tanh′(z₂) · tanh′(z₁)",
            "2.25 · 0.0421",
            "0.0947",
        ]
        assert render_latex(lines[0]) == r"w^{2} \cdot \tanh'(z_2) \cdot \tanh'(z_1)"
        ids = {factor.id for factor in found.chain.factors("x")}
        for line in lines:
            assert {name for mark in iterate_marks(line) for name in mark.factors} == ids

    def test_many_steps_fold(self):
        first = measure_recurrence(1.5, 30).write_lines()[0]
        assert "⋯ 24 factors ⋯" in render_text(first)
        assert render_text(first).startswith("w³⁰ · tanh′(z₃₀)")

    def test_unrolled_layers_share_their_weight(self):
        chain = unroll(0.5, 4, x=2.0, activation="relu")
        assert chain == ScalarChain(2.0, [0.5] * 4, "relu")
        assert unroll(0.5, 2, bias=1.0).biases == (1.0, 1.0)

    @pytest.mark.parametrize("clip", [0.0, -1.0, math.nan, math.inf])
    def test_an_impossible_clip(self, clip):
        with pytest.raises(SpecError) as caught:
            measure_recurrence(1.0, 3, clip=clip)
        facts = ("clip: ", "above 0", repr(clip))
        assert [fact for fact in facts if fact not in str(caught.value)] == []

    def test_no_steps(self):
        with pytest.raises(SpecError) as caught:
            unroll(1.0, 0)
        assert [fact in str(caught.value) for fact in ("steps: ", "1 to 1000", "got 0")] == [
            True
        ] * 3


@pytest.mark.parametrize(
    ("settings", "gone", "words"),
    [
        ({"weight": 1.3, "steps": 40, "activation": "identity", "clip": 1.0}, False, "multiplies"),
        ({"weight": 0.5, "steps": 40, "activation": "identity", "clip": 1e-14}, True, "multiplies"),
        (
            {"weight": 0.5, "steps": 40, "activation": "identity", "clip": 1.0},
            False,
            "changes nothing",
        ),
        # ∂p/∂x is 0.125, 0.0625 and −0.03125: gone below a tenth.
        ({"weight": 0.5, "steps": 3, "activation": "identity", "clip": 0.1}, False, "multiplies"),
        ({"weight": 0.5, "steps": 4, "activation": "identity", "clip": 0.1}, True, "multiplies"),
        ({"weight": -0.5, "steps": 5, "activation": "identity", "clip": 0.1}, True, "multiplies"),
        ({"weight": 0.0, "steps": 1, "activation": "identity", "clip": 0.1}, False, "multiplies"),
        ({"weight": 1.3, "steps": 40, "activation": "identity"}, False, "."),
    ],
)
def test_the_sentence_through_time_fits_the_case(settings, gone, words):
    recurrence = measure_recurrence(**settings)
    assert ("cannot bring back" in recurrence.sentence) == gone
    assert words in recurrence.sentence
    if gone:
        assert recurrence.steps[-1].product.log10 < -1


@pytest.mark.parametrize(
    ("weight", "signs"),
    [(1.2, ("=", "=")), (1.23, ("=", "≈")), (1.004, ("≈", "≈"))],
)
def test_a_product_is_equal_where_all_of_its_digits_are_shown(weight, signs):
    """The slope is 0.25: 1.2 · 0.25 = 0.3, 1.23 · 0.25 = 0.3075, 1.00 · 0.25 = 0.251."""
    recurrence = measure_recurrence(weight, 1, x=0.0, activation="sigmoid")
    assert recurrence.list_signs() == signs
