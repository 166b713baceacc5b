"""What rules on inputs, optimizers, copies, half precision and time read, worked out on paper."""

import math
from dataclasses import replace

import pytest

from chainrule._utils.numbers import format_number
from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.input_rules import count_possible
from chainrule.diagnosis.optimizer_rules import list_partly_unheld, list_unheld
from chainrule.diagnosis.precision_rules import choose_loss_scale
from chainrule.diagnosis.rules import RULES, measure_metric
from chainrule.diagnosis.symmetry_rules import count_copies, list_symmetric
from chainrule.diagnosis.time_rules import (
    describe_lost,
    find_faded,
    find_variation_in_time,
    is_untold,
    list_lost,
    list_recurrent,
    list_telling,
    measure_gates,
    measure_heard,
    measure_lost,
)
from chainrule.diagnosis.zero_rules import list_zero_products
from chainrule.flow.inputs import InputFlow
from chainrule.flow.loss import LossFlow, LossPart
from chainrule.flow.optimizer import OptimizerFlow
from chainrule.flow.precision import PrecisionFlow, PrecisionProbe, PrecisionTrial
from chainrule.flow.quantity import Quantity
from chainrule.flow.symmetry import SymmetryFlow
from chainrule.flow.time import TimeFlow
from made_flows import call, make_chain, make_flow, parameter, quantity


def entering(reader="a", **fields):
    values = {
        **{"shape": (16, 4), "dtype": "float32", "examples": 16, "columns": 4, "mean": 0.0},
        **{"std": 1.0, "min": -2.0, "max": 2.0, "non_finite": 0.0, "constant_columns": 0.0},
        **{"zero_columns": 0.0, "offset": 0.5, "spread_ratio": 2.0, "repeated": 0.0},
    } | fields
    plain = ("shape", "dtype", "examples", "columns")
    return InputFlow(
        reader=reader,
        **{key: each if key in plain else quantity(each) for key, each in values.items()},
    )


def read(rule, *inputs, calls=None):
    calls = [call("a", layer=1), call("b", layer=2)] if calls is None else calls
    weights = [parameter("a.weight", 1), parameter("b.weight", 2)]
    return measure_metric(make_flow(calls, weights, inputs=inputs), rule)


class TestInputs:
    def test_size_is_the_root_mean_square(self):
        assert read("large_inputs", entering(mean=3.0, std=4.0)) == 5.0
        assert read("large_inputs", entering(), entering("b", mean=-6.0, std=8.0)) == 10.0

    @pytest.mark.parametrize(
        ("low", "high", "largest"), [(-3.0, 2.0, 3.0), (-1.0, 2.0, 2.0), (0.0, 0.0, None)]
    )
    def test_largest_is_by_amount_and_zeros_have_none(self, low, high, largest):
        assert read("small_inputs", entering(min=low, max=high)) == largest

    @pytest.mark.parametrize(("examples", "counts"), [(8, True), (7, False)])
    def test_columns_are_judged_from_eight_examples_on(self, examples, counts):
        each = entering(examples=examples, offset=7.0, spread_ratio=9.0)
        assert read("offset_inputs", each) == (7.0 if counts else None)
        assert read("uneven_inputs", each) == (9.0 if counts else None)

    @pytest.mark.parametrize(
        ("kinds", "counts"),
        [
            (("LayerNorm", "Linear", "Linear"), False),
            (("Linear", "LayerNorm", "Linear"), False),
            (("ReLU", "LayerNorm", "Linear"), False),
            (("ReLU", "Linear", "LayerNorm"), False),
            (("Linear", "ReLU", "LayerNorm"), True),
            (("Linear", "Linear", "LayerNorm"), True),
            (("ReLU", "ReLU", "ReLU"), True),
            (("ReLU", "ReLU", "Linear"), True),
        ],
    )
    def test_that_a_normalization_follows_at_once_do_not_count(self, kinds, counts):
        calls = [call(name, kind) for name, kind in zip("abc", kinds, strict=True)]
        flow = make_flow(calls, inputs=(entering(mean=3.0, std=4.0),))
        assert measure_metric(flow, "large_inputs") == (5.0 if counts else None)

    def test_what_lies_before_the_reader_normalizes_nothing(self):
        calls = [call("n", "LayerNorm"), call("a"), call("b")]
        assert read("large_inputs", entering(mean=3.0, std=4.0), calls=calls) == 5.0
        assert read("large_inputs", entering("gone", mean=3.0, std=4.0), calls=calls) == 5.0

    @pytest.mark.parametrize(
        ("share", "words"), [(0.25, "25 % of the entries"), (0.004, "less than 1 % of the entries")]
    )
    def test_that_are_not_finite_count_even_before_a_normalization(self, share, words):
        flow = make_flow([call("a", "LayerNorm")], inputs=(entering(non_finite=share),))
        assert measure_metric(flow, "non_finite_inputs") == share
        (found,) = [each for each in diagnose(flow).findings if each.rule == "non_finite_inputs"]
        assert found.evidence.startswith(f"{words} of the input of 'a'")

    def test_of_a_module_and_of_what_is_in_it_count_both_if_their_sizes_differ(self):
        outer = entering("net", mean=6.0, std=8.0)
        inner = entering("net.fc", mean=3.0, std=4.0)
        assert read("large_inputs", outer, inner) == 5.0  # the module has scaled them
        other = entering("net.fc", mean=3.0, std=4.0, shape=(16, 3))
        assert read("large_inputs", outer, other) == 10.0
        near = entering("network", mean=3.0, std=4.0)
        assert read("large_inputs", outer, near) == 10.0

    @pytest.mark.parametrize(
        ("fields", "share"),
        [
            ({}, 0.5),
            ({"non_finite": 0.5}, 0.0),
            ({"examples": 7}, 0.0),
            ({"max": 1.5}, 0.0),
            ({"reader": "c"}, 0.0),  # a state to start from: "c" runs twice
        ],
    )
    def test_constant_ones_are_a_share_of_all(self, fields, share):
        calls = [call(name, layer=at) for at, name in enumerate("abc", start=1)]
        calls += [call("c", layer=3, call=1)]
        one = entering(**({"min": 1.0, "max": 1.0, "mean": 1.0, "std": 0.0} | fields))
        assert read("constant_inputs", one, entering("b"), calls=calls) == share

    @pytest.mark.parametrize(
        ("fields", "count"),
        [
            ({"mean": 0.25}, 4.0),  # one of four
            ({"mean": 0.5}, 6.0),
            ({"mean": 0.4}, 16.0),
            ({"mean": 0.5, "columns": 3}, 8.0),
            ({"mean": 0.5, "shape": (16, 4, 8, 8)}, math.inf),
            ({"mean": 0.5, "std": 0.3}, math.inf),  # more than two values
            ({"mean": 0.5, "columns": 1001}, math.inf),
        ],
    )
    def test_examples_of_two_values_are_counted(self, fields, count):
        given = {"min": 0.0, "max": 1.0, **fields}
        given = {"std": math.sqrt(given["mean"] * (1 - given["mean"])), **given}
        assert count_possible(entering(**given)) == count

    @pytest.mark.parametrize(
        ("low", "high", "offset"), [(0.0, 1.0, None), (-2.0, 1.0, 7.0), (0.0, 3.0, 7.0)]
    )
    def test_masks_beside_an_embedding_have_no_offset(self, low, high, offset):
        each = entering(min=low, max=high, offset=7.0)
        assert read("offset_inputs", each) == 7.0
        assert read("offset_inputs", replace(each, is_part=True)) == offset

    @pytest.mark.parametrize(
        ("examples", "kind", "typical"),
        [(8, "ReLU", 0.05), (7, "ReLU", None), (8, "LayerNorm", "none"), (8, "BatchNorm1d", 0.05)],
    )
    def test_typical_examples_count_unless_each_has_a_scale_of_its_own(
        self, examples, kind, typical
    ):
        role = "normalization" if kind.endswith("1d") else None
        calls = [call("a", layer=1), call("n", kind, role, layer=1), call("b", layer=2)]
        flow = make_flow(
            calls, inputs=(replace(entering(examples=examples), typical=quantity(0.05)),)
        )
        found = [each.value for each in RULES["outlying_examples"].read(flow)]
        assert found == ([] if typical == "none" else [typical])

    def test_speak_of_the_layer_that_reads_them(self):
        flow = make_flow(
            [call("a", layer=1), call("b", layer=2)],
            [parameter("a.weight", 1), parameter("b.weight", 2)],
            inputs=(entering("b"),),
        )
        for name in ("large_inputs", "non_finite_inputs"):
            (reading,) = RULES[name].read(flow)
            assert (reading.layers, reading.modules) == ((2,), ("b",))

    @pytest.mark.parametrize(
        ("rule", "bound"),
        [
            ("large_inputs", 30.0),
            ("small_inputs", 0.01),
            ("offset_inputs", 10.0),
            ("uneven_inputs", 1000.0),
            ("non_finite_inputs", 0.0),
        ],
    )
    def test_bounds(self, rule, bound):
        assert RULES[rule].threshold == bound


class TestOptimizer:
    @staticmethod
    def build(rates, weights=None, **fields):
        values = {"name": "SGD", "steps": "gradient", "momentum": 0.0, "foreign": quantity(0.0)}
        weights = weights or [
            parameter("a", norm=3.0, grad_norm=1.0),
            parameter("b", norm=4.0, grad_norm=2.0),
            parameter("c", shape=(4,), norm=9.0, grad_norm=9.0),
            parameter("d", status="frozen"),
        ]
        optimizer = OptimizerFlow(rates=tuple(rates), **(values | fields))
        return make_flow([], weights, optimizer=optimizer)

    @pytest.mark.parametrize(
        ("rates", "usual", "value"),
        [
            ([100.0], 1.0, None),
            ([1e-4], 1.0, 1e4),
            ([1e4], 1.0, 1e4),
            ([1e-4, 1e5], 1.0, 1e5),  # the one that is farther away
            ([1e3, 1e-5, None, 0.0], 1.0, 1e5),
            ([None, 0.0], 1.0, None),
            ([1e-4], None, None),
            ([1e-4], 0.0, None),
            ([5e-324], 1e3, math.inf),  # their ratio is no number any more
        ],
    )
    def test_rates_far_from_the_optimizers_own(self, rates, usual, value):
        weights = [parameter(f"{at}.weight") for at in range(len(rates))]
        flow = self.build(rates, weights, steps="other", name="Adadelta", default_rate=usual)
        found = [each for each in diagnose(flow).notes if each.name == "foreign_rate"]
        assert [each.value for each in found] == ([] if value is None else [pytest.approx(value)])

    def test_step_of_gradients_is_rate_times_gradient_over_the_weights(self):
        flow = self.build([3.0, 2.0, 1.0, 1.0])  # steps of 3 and 4, weights of 3 and 4
        assert measure_metric(flow, "large_step") == pytest.approx(1.0)
        assert measure_metric(flow, "small_step") == pytest.approx(1.0)

    @pytest.mark.parametrize(("momentum", "times"), [(0.5, 2.0), (0.9, 10.0), (1.0, 1000.0)])
    def test_momentum_adds_up_to_a_longer_step(self, momentum, times):
        flow = self.build([3.0, 2.0, 1.0, 1.0], momentum=momentum)
        assert measure_metric(flow, "large_step") == pytest.approx(times)

    def test_rescaled_step_is_the_rate_in_every_entry(self):
        flow = self.build([0.3, 0.4, 1.0, 1.0], steps="rescaled", momentum=0.9)
        assert measure_metric(flow, "large_step") == pytest.approx(0.5 * 4 / 5)

    def test_rescaled_step_without_a_gradient_is_none(self):
        weights = [
            parameter("a", norm=3.0, grad_norm=0.0),
            parameter("b", norm=4.0, grad_norm=2.0),
        ]
        flow = self.build([0.3, 0.5], weights, steps="rescaled")
        assert measure_metric(flow, "large_step") == pytest.approx(0.5 * 4 / 5)

    def test_step_leaves_out_what_is_not_held(self):
        flow = self.build([None, 2.0, 1.0, 1.0])
        assert measure_metric(flow, "large_step") == pytest.approx(1.0)
        (reading,) = RULES["large_step"].read(flow)
        assert reading.modules == ("b",)

    @pytest.mark.parametrize(
        ("rates", "fields"),
        [
            ([3.0, 2.0, 1.0, 1.0], {"steps": "other"}),
            ([None] * 4, {}),
            ([math.inf, 2.0, 1.0, 1.0], {}),
        ],
    )
    def test_step_that_is_not_known_is_none(self, rates, fields):
        if math.inf in rates:
            weights = [parameter("a", grad_norm=math.inf)]
            flow = self.build([1.0], weights)
        else:
            flow = self.build(rates, **fields)
        assert measure_metric(flow, "large_step") is None
        zero = self.build([1.0], [parameter("a", norm=0.0)])
        assert measure_metric(zero, "large_step") is None

    @pytest.mark.parametrize(
        ("fields", "follow"),
        [
            ({}, 5**0.5),  # gradients of 1 and 2
            ({"is_decoupled": True}, 5**0.5),
            ({"steps": "rescaled", "is_decoupled": True}, 32**0.5),  # 1 in each of 16 + 16 entries
            ({"steps": "rescaled"}, 5**0.5),  # what is rescaled is the gradient with the decay
        ],
    )
    def test_decay_pulls_beside_the_gradient_or_beside_a_step_of_the_rate(self, fields, follow):
        """A decay of 0.5 pulls weights of 3 and 4 by 2.5 together."""
        flow = self.build([0.1] * 4, decays=(0.5,) * 4, **fields)
        assert measure_metric(flow, "strong_decay") == pytest.approx(2.5 / follow)

    @pytest.mark.parametrize(
        ("rates", "decays", "value"),
        [
            ([0.1, 0.3, 1.0, 1.0], (0.5,) * 4, math.hypot(0.15, 0.6) / math.hypot(0.1, 0.6)),
            ([0.1, 0.1, 1.0, 1.0], (0.5, 0.0, 9.0, 9.0), 1.5),  # a alone: neither vectors nor
            ([0.1, None, 1.0, 1.0], (0.5, None, 9.0, 9.0), 1.5),  # what is not held or not moved
            ([0.1, 0.0, 1.0, 1.0], (0.5, 7.0, 9.0, 9.0), 1.5),
            ([0.1, 0.1, 1.0, 1.0], (0.0, 0.0, 9.0, 9.0), None),
            ([0.1, 0.1, 1.0, 1.0], (), None),  # as in older files
        ],
    )
    def test_decay_counts_where_there_is_some_and_at_the_rates(self, rates, decays, value):
        flow = self.build(rates, decays=decays)
        wanted = None if value is None else pytest.approx(value)
        assert measure_metric(flow, "strong_decay") == wanted
        unknown = self.build(rates, decays=decays, steps="other")
        assert measure_metric(unknown, "strong_decay") is None

    @pytest.mark.parametrize(
        ("loss", "guessing", "counts"),
        [
            (1.0, 2.0, True),
            (0.99, 2.0, False),
            (5.0, 2.0, True),
            (1.0, 0.0, False),
            (1, None, False),
        ],
    )
    def test_decay_counts_where_much_is_left_to_learn(self, loss, guessing, counts):
        """From half of the loss of guessing on; where guessing costs nothing, nothing is."""
        error = LossPart(kind="mse", value=quantity(loss), guessing=quantity(guessing))
        facts = LossFlow(parts=(error,), offset=quantity(0.0))
        flow = replace(self.build([0.1] * 4), loss=quantity(loss), loss_facts=facts)
        assert RULES["strong_decay"].applies(flow) is counts

    @pytest.mark.parametrize(("norms", "said"), [((4e-9, 2e-9), True), ((8e-8, 2e-9), False)])
    def test_a_small_step_is_due_to_epsilon_where_all_gradients_are_below_it(self, norms, said):
        weights = [parameter(name, grad_norm=norm) for name, norm in zip("ab", norms, strict=True)]
        flow = self.build([1e-9] * 2, weights, steps="rescaled", epsilon=1e-8)
        (found,) = [each for each in diagnose(flow).findings if each.rule == "small_step"]
        assert ("ε" in found.evidence) is said
        assert ("1.0·10⁻⁹ at most" in found.evidence) is said  # 4·10⁻⁹ in 16 entries

    def test_rescaled_step_is_shorter_where_epsilon_is_as_large_as_the_gradient(self):
        weights = [parameter("a", norm=3.0, grad_norm=4.0)]  # entries of 1
        flow = self.build([0.3], weights, steps="rescaled", epsilon=1.0)
        assert measure_metric(flow, "large_step") == pytest.approx(0.3 * 4 / 2 / 3)

    def test_rates_are_shown_from_the_smallest_to_the_largest(self):
        (found,) = diagnose(self.build([3.0, 50.0, 0.1, 1.0])).findings
        assert found.rule == "large_step"
        assert "at a learning rate of 0.1 to 50, " in found.evidence

    def test_of_a_schedule_the_largest_rate_counts(self):
        flow = self.build([0.0] * 4, planned=(3.0, 2.0, 1.0, 1.0))
        assert measure_metric(flow, "large_step") == 0.0
        assert measure_metric(flow, "small_step") == pytest.approx(1.0)
        notes = {each.name: each for each in diagnose(flow).notes}
        assert "3 is what its schedule" in notes["rate_of_zero"].evidence
        tiny = self.build([0.0] * 4, planned=(1e-9,) * 4)
        (found,) = [each for each in diagnose(tiny).findings if each.rule == "small_step"]
        assert "at a learning rate of 1.0·10⁻⁹, " in found.evidence

    @pytest.mark.parametrize(
        ("rates", "fields", "step"),
        [
            ([0.0] * 4, {}, 0.0),
            ([0.0, 1.0, 0.0, 0.0], {}, None),
            ([0.0] * 4, {"default_rate": None}, None),
            ([0.0] * 4, {"name": "Rprop"}, None),  # it finds the size of its steps itself
            ([None] * 4, {}, None),
        ],
    )
    def test_steps_of_any_optimizer_are_0_where_all_rates_are(self, rates, fields, step):
        ordinary = {"steps": "other", "name": "Adadelta", "default_rate": 1.0}
        flow = self.build(rates, **(ordinary | fields))
        assert measure_metric(flow, "small_step") == step

    @pytest.mark.parametrize(
        ("rates", "still", "of"), [([0.0, 2.0, None, 0.0], ("a",), "1 of 2"), ([0.0] * 4, None, "")]
    )
    def test_some_trained_parameters_may_have_a_rate_of_0(self, rates, still, of):
        notes = {each.name: each for each in diagnose(self.build(rates)).notes}
        assert "rate_of_zero" not in notes
        assert ("still_group" in notes) is (still is not None)
        if still:
            assert notes["still_group"].modules == still
            assert f"holds {of} trained" in notes["still_group"].evidence

    def test_entries_that_rounding_keeps_count_by_their_number(self):
        flow = self.build([0.1] * 4, rounded=(0.9, None, 0.1, None))  # of 16, and of 4
        (found,) = [each for each in diagnose(flow).notes if each.name == "rounded_steps"]
        assert (found.value, found.modules) == (pytest.approx(14.8 / 20), ("a",))
        assert "74 % of the entries" in found.evidence
        assert "90 % at 'a'" in found.evidence

    def test_decay_is_shown_at_its_largest(self):
        error = LossPart(kind="mse", value=quantity(1.0), guessing=quantity(1.0))
        facts = LossFlow(parts=(error,), offset=quantity(0.0))
        flow = replace(self.build([0.1] * 4, decays=(9.0, 0.5, 0.0, 0.0)), loss_facts=facts)
        (found,) = [each for each in diagnose(flow).findings if each.rule == "strong_decay"]
        assert "with a weight decay of 9, " in found.evidence

    @pytest.mark.parametrize(("rate", "word"), [(1e-4, "less"), (1e4, "more")])
    def test_a_foreign_rate_is_more_or_less_than_its_own(self, rate, word):
        flow = self.build([rate] * 4, steps="other", name="Adadelta", default_rate=1.0)
        (found,) = [each for each in diagnose(flow).notes if each.name == "foreign_rate"]
        assert found.evidence.endswith(f" times {word}")

    def test_evidence_counts_what_is_not_held(self):
        flow = self.build([None, 2.0, None, None])
        (found,) = [each for each in diagnose(flow).notes if each.name == "partly_held"]
        assert (found.value, found.modules) == (2.0, ("a", "c"))
        assert "does not hold 2 of" in found.evidence

    def test_share_that_is_not_held_is_of_trained_parameters(self):
        flow = self.build([None, 2.0, None, None])
        assert measure_metric(flow, "not_held") == pytest.approx(2 / 3)
        assert list_unheld(flow) == ["a", "c"]
        assert list(list_partly_unheld(flow)) == ["a", "c"]
        assert list(list_partly_unheld(self.build([None] * 4))) == []
        assert list(list_partly_unheld(self.build([1.0] * 4))) == []
        assert measure_metric(make_flow([], [parameter("a")]), "not_held") is None

    @pytest.mark.parametrize(
        ("norm", "factor"), [(4e-12, 10**9), (3.6e-12, 10**10), (4e-14, 10**11)]
    )
    def test_entries_below_epsilon_are_lifted_to_a_thousandth(self, norm, factor):
        flow = make_flow([], [parameter("a", shape=(4, 4), grad_norm=norm)])
        assert measure_metric(flow, "below_epsilon") == pytest.approx(norm / 4)
        assert 1e-3 <= norm / 4 * factor * (1 + 1e-12) < 1e-2
        assert f"by {format_number(factor)}," in RULES["below_epsilon"].action(flow)

    def test_evidence_says_how_much_shorter_adams_steps_are(self):
        error = LossPart(kind="mse", value=quantity(1.0), guessing=quantity(1.0))
        facts = LossFlow(parts=(error,), offset=quantity(0.0))
        flow = make_flow([], [parameter("a", grad_norm=4e-12)], loss_facts=facts)
        (found,) = [each for each in diagnose(flow).findings if each.rule == "below_epsilon"]
        assert f"are {format_number(1e4)} times shorter" in found.evidence

    def test_bounds(self):
        bounds = {"not_held": 0.999, "large_step": 1.0, "small_step": 1e-6, "overshoots": 6.0}
        assert {name: RULES[name].threshold for name in bounds} == bounds


def symmetry(layer=1, copies=0.0, idle=0.0, units=9, name="0.weight"):
    return SymmetryFlow(
        parameter=name, layer=layer, units=units, copies=quantity(copies), idle=quantity(idle)
    )


class TestSymmetry:
    def test_idle_units_count_if_the_whole_layer_receives_nothing(self):
        each = symmetry(layer=2, copies=2.0, idle=3.0)
        assert count_copies(make_chain([1.0, 0.0, 1.0]), each) == 5.0
        assert count_copies(make_chain([1.0, 1e-9, 1.0]), each) == 2.0
        assert count_copies(make_chain([1.0, 0.0, 1.0]), replace(each, layer=None)) == 2.0

    def test_idle_units_behind_dead_ones_or_before_zeros_do_not_count(self):
        each = symmetry(layer=2, copies=2.0, idle=3.0)
        flow = make_chain([1.0, 0.0, 1.0])
        for dead, counted in ((4.0, 2.0), (3.0, 5.0)):
            statistics = replace(flow.layers[1].statistics, dead_units=Quantity([dead]))
            layers = list(flow.layers)
            layers[1] = replace(layers[1], statistics=statistics)
            assert count_copies(make_flow(layers, flow.parameters, chain=True), each) == counted
        weights = list(flow.parameters)
        weights[2] = replace(weights[2], norm=Quantity([0.0]))
        assert count_copies(make_flow(flow.layers, weights, chain=True), each) == 2.0

    def test_share_is_of_the_units_that_could_be_copies(self):
        flow = make_chain([1.0, 1.0, 1.0])
        found = list_symmetric(replace(flow, symmetries=(symmetry(copies=2.0, units=9),)))
        assert [share for _, share in found] == [0.25]
        assert symmetry(copies=2.0, idle=1.0, units=12).share == 0.25

    @pytest.mark.parametrize(
        ("copies", "words"),
        [
            ((8.0,), ["all 9 units of '0.weight'"]),
            ((8.0, 8.0), ["all 9 units of '0.weight'", "2 layers"]),
        ],
    )
    def test_copies_are_named_by_their_weight_and_how_many_layers(self, copies, words):
        flow = make_chain([1.0, 1.0, 1.0])
        found = tuple(
            symmetry(layer=at + 1, copies=each, name=f"{2 * at}.weight")
            for at, each in enumerate(copies)
        )
        findings = {x.rule: x for x in diagnose(replace(flow, symmetries=found)).findings}
        evidence = findings["symmetric_units"].evidence
        assert all(word in evidence for word in words)
        assert ("layers" in evidence) is (len(copies) > 1)

    def test_idle_units_are_named_as_copies_where_they_count(self):
        flow = make_chain([0.0, 1.0, 1.0])
        each = symmetry(copies=1.0, idle=7.0)
        findings = {x.rule: x for x in diagnose(replace(flow, symmetries=(each,))).findings}
        assert "all 9 units of '0.weight'" in findings["symmetric_units"].evidence

    def test_units_of_the_last_layer_are_told_apart_by_the_loss(self):
        flow = make_chain([1.0, 1.0, 1.0])
        last = replace(flow, symmetries=(symmetry(layer=3, copies=8.0, name="4.weight"),))
        assert list_symmetric(last) == []


def precision(name="a", of="output", dtype="float16", **fields):
    values = {"zero_share": 0.0, "subnormal_share": 0.0, "size": 1.0, "largest": 1.0} | fields
    layer = values.pop("layer", None)
    return PrecisionFlow(
        name=name,
        of=of,
        dtype=dtype,
        layer=layer,
        **{key: quantity(each) for key, each in values.items()},
    )


class TestPrecision:
    def test_resolution_is_that_of_the_entries_that_are_not_zero(self):
        assert precision(size=2.0**-22).resolution == 4.0
        assert precision(size=2.0**-22, zero_share=0.75).resolution == 8.0
        assert precision(size=0.0, zero_share=1.0).resolution == 0.0
        assert precision(dtype="float8_e5m2").resolution is None
        assert precision(dtype="bfloat16", size=2.0**-130).resolution == 8.0
        two = precision(size=[2.0**-22, 2.0**-20], zero_share=[0.0, 0.75])
        assert two.resolution.values == (4.0, 32.0)

    def test_worst_of_all_that_can_be_seen_counts(self):
        flow = make_flow(
            precisions=(
                precision(size=2.0**-20, largest=1.0),
                precision(size=2.0**-22, largest=1.0),
                precision(size=0.0, zero_share=1.0),
                precision(size=2.0**-30, largest=math.inf),
                precision(dtype="float8_e5m2"),
            )
        )
        assert measure_metric(flow, "underflow") == 4.0

    @pytest.mark.parametrize(
        ("size", "largest", "exponent"),
        [
            (2.0**-20, 2.0**-18, 6),  # up to the smallest number with all digits, 2^-14
            (1.1 * 2.0**-20, 2.0**-18, 6),
            (2.0**-24, 2.0**8, 6),  # the largest at most to a half of 65504
            (2.0**-24, 2.0**9, 5),
            (1.0, 1.0, 0),
            (2.0**-20, 65504.0, 0),
        ],
    )
    def test_loss_scale_lifts_the_smallest_and_leaves_room_for_the_largest(
        self, size, largest, exponent
    ):
        flow = make_flow(precisions=(precision(size=size, largest=largest),))
        assert choose_loss_scale(flow) == exponent

    def test_loss_scale_suits_all_gradients(self):
        small = precision(size=2.0**-22, largest=2.0**-20)
        large = precision(size=1.0, largest=2.0**10)
        assert choose_loss_scale(make_flow(precisions=(large, small))) == 4
        assert choose_loss_scale(make_flow(precisions=(small,))) == 8
        assert choose_loss_scale(make_flow()) is None

    def test_evidence_gives_the_size_of_the_entries_that_are_not_zero(self):
        each = (
            precision(size=2.0**-26, zero_share=0.75, largest=2.0**-25),  # √¼ of them are 2⁻²⁵
            precision("a", "weight", size=0.0, zero_share=1.0, largest=0.0),
            precision("b", "weight", size=1.0, zero_share=0.5, largest=1.0),
        )
        found = {x.rule: x for x in diagnose(make_flow([call("x")], precisions=each)).findings}
        assert f" {format_number(2.0**-25)}," in found["underflow"].evidence
        assert "1 of 2 weight gradients" in found["underflow"].evidence

    def test_speaks_of_the_layer_of_an_output_or_of_a_weight(self):
        calls = [call("x", layer=5), call("y", layer=None)]
        weights = [parameter("a.weight", 7), parameter("b.weight", None)]
        each = {
            precision("x", layer=0): (5,),
            precision("y", layer=1): (),
            precision("a.weight", "weight"): (7,),
            precision("b.weight", "weight"): (),
        }
        for one, layers in each.items():
            (reading,) = RULES["underflow"].read(make_flow(calls, weights, precisions=(one,)))
            assert reading.layers == layers

    def test_best_scale_is_the_smallest_that_keeps_what_can_be_kept(self):
        trials = tuple(
            PrecisionTrial(exponent=at, zero_share=share, non_finite=bad)
            for at, share, bad in ((0, 0.9, 0), (4, 0.0, 3), (8, 0.1009, 0), (12, 0.1, 0))
        )
        probe = PrecisionProbe(trials=trials, kept=0.1)
        assert (probe.best.exponent, probe.loss_scale) == (8, 256.0)
        assert PrecisionProbe(trials=trials, kept=0.0995).best.exponent == 12
        none = PrecisionProbe(trials=trials[1:2], kept=None)
        assert (none.best, none.loss_scale) == (None, None)

    def test_bound(self):
        assert RULES["underflow"].threshold == 1.5


def time(*norms, name="a", kind="RNN", of="input", **fields):
    values = {"call": 0, "length": len(norms), "steps": tuple(range(len(norms)))} | fields
    gradients = tuple(map(quantity, norms))
    return TimeFlow(name=name, kind=kind, of=of, gradients=gradients, **values)


class TestTime:
    def test_shares_are_of_the_largest_member_by_member(self):
        shares = time([1.0, 6.0], [2.0, 3.0]).shares
        assert [each.values for each in shares] == [(0.5, 1.0), (1.0, 0.5)]

    @pytest.mark.parametrize(
        ("norms", "lost", "share"),
        [
            ((1e-7, 1.0, 1.0, 1.0), (0,), 0.25),
            ((1.0, 1e-7, 1.0), (1,), 1 / 3),
            ((1e-7, 1e-9, 1.0, 1e-7), (0, 1), 2 / 3),  # nothing is asked of what comes later
            ((1e-7, 1.0, 1e-7, 1e-7), (0,), 0.5),
            ((1e-6, 1.0), (), 0.0),
            ((0.9e-6, 1.0), (0,), 0.5),
            ((1.0, 0.0), (), 0.0),
        ],
    )
    def test_steps_are_lost_before_the_last_one_with_a_gradient(self, norms, lost, share):
        assert list_lost(time(*norms)) == lost
        assert measure_lost(time(*norms)) == pytest.approx(share)

    @pytest.mark.parametrize(
        ("chances", "telling", "heard"),
        [
            ((1e-9, 0.5, 0.5, 0.5), (0,), 1e-8),
            ((1e-9, 0.5, 1e-9, 0.5), (0, 2), 0.5),  # the one that is heard best counts
            ((0.9e-3 / 4, 0.5, 0.5, 1e-3 / 4), (0,), 1e-8),  # by accident at any of four steps
            ((0.5, 0.5, 0.5, 0.5), (), None),
            ((), None, None),
        ],
    )
    def test_heard_is_the_largest_share_of_the_steps_that_tell(self, chances, telling, heard):
        each = time(1e-8, 1e-6, 0.5, 1.0, chances=tuple(map(quantity, chances)))
        assert list_telling(each) == telling
        assert measure_heard(each) == heard

    @pytest.mark.parametrize(
        ("tells", "state", "fields", "untold"),
        [
            (False, 0.01, {}, True),
            (False, 0.009, {}, False),
            (True, 0.5, {}, False),
            (False, None, {}, None),
            (False, 0.5, {"of": "output"}, None),
            (False, 0.5, {"chances": ()}, None),
        ],
    )
    def test_untold_is_what_neither_a_step_nor_the_state_tells(self, tells, state, fields, untold):
        chances = (quantity(1e-9 if tells else 0.5), *[quantity(0.5)] * 16)
        ordinary = {"chances": chances, "state_chance": quantity(state)}
        each = time(0.05, *[1.0] * 16, **(ordinary | fields))
        assert is_untold(each) is untold
        flow = make_flow(times=(each,))
        assert measure_metric(flow, "untold_steps") == (17.0 if untold else None)
        assert "untold_steps" not in {found.name for found in diagnose(flow).notes}
        gated = make_flow(times=(replace(each, kind="GRU"),))
        assert measure_metric(gated, "untold_steps") is None
        names = {found.name: found.value for found in diagnose(gated).notes}
        assert names.get("untold_steps") == (17.0 if untold else None)

    @pytest.mark.parametrize("steps", ["gradient", "rescaled", "other", None])
    @pytest.mark.parametrize(("least", "held"), [(0.1, True), (0.099, False)])
    def test_steps_that_are_all_heard_are_left_to_adam(self, least, held, steps):
        chances = {"chances": (quantity(0.5),) * 17, "state_chance": quantity(0.01)}
        each = time(least, *[1.0] * 16, **chances)
        flow = make_flow([], [parameter("a")], times=(each,))
        if steps:
            fields = {"name": "a", "steps": steps, "momentum": 0.0, "foreign": quantity(0.0)}
            flow = replace(flow, optimizer=OptimizerFlow(rates=(0.01,), **fields))
        is_note = held and steps == "rescaled"
        assert measure_metric(flow, "untold_steps") == (None if is_note else 17.0)
        names = {found.name: found.value for found in diagnose(flow).notes}
        assert names.get("untold_steps") == (17.0 if is_note else None)

    @pytest.mark.parametrize(("state", "lost"), [(0.9e-3, None), (1.1e-3, 2 / 3), (None, 2 / 3)])
    def test_nothing_is_lost_where_the_loss_hears_what_tells(self, state, lost):
        chances = (quantity(0.5),) * 3
        each = time(0.0, 0.0, 1.0, kind="GRU", chances=chances, state_chance=quantity(state))
        assert measure_metric(make_flow(times=(each,)), "vanishing_time") == lost

    @pytest.mark.parametrize(("least", "name"), [(1e-9, "fading_time"), (0.0, "cut_time")])
    @pytest.mark.parametrize(("kind", "noted"), [("loop", True), ("GRU", False)])
    def test_of_a_loop_of_ones_own_much_that_is_lost_is_but_a_note(self, kind, noted, least, name):
        each = time(least, least, 1.0, kind=kind, of="output" if kind == "loop" else "input")
        flow = make_flow(times=(each,))
        notes = {found.name: found.value for found in diagnose(flow).notes}
        assert notes == ({name: pytest.approx(2 / 3)} if noted else {})
        assert measure_metric(flow, "vanishing_time") == (None if noted else 2 / 3)

    @pytest.mark.parametrize(("arriving", "growth"), [(0.18, 2.0), (0.2, None)])
    def test_growth_counts_from_a_thirtieth_of_what_arrives_at_the_output(self, arriving, growth):
        norms = (6.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 3.0)  # and 6 is above √1000 · 0.18
        flow = make_flow(
            [call("a", gradient=arriving)],
            times=(time(*norms),),
            loss_facts=LossFlow(parts=(), outputs=(0,)),
        )
        assert measure_metric(flow, "exploding_time") == growth

    @pytest.mark.parametrize(
        ("kinds", "words"),
        [
            (("LSTM", "GRU"), "forget gates that start open"),
            (("GRU", "LSTM"), "update gates that start near 1"),
            (("RNN", "GRU"), "a module with gates"),
        ],
    )
    @pytest.mark.parametrize("rule", ["vanishing_time", "unheard_steps"])
    def test_advice_is_for_the_module_that_loses_most(self, rule, kinds, words):
        worse, better = (
            time(
                *([norm] * lost),
                *([1.0] * (4 - lost)),
                name=name,
                kind=kind,
                chances=(quantity(1e-9), *[quantity(0.5)] * 3),
            )
            for name, kind, norm, lost in zip("ab", kinds, (1e-9, 1e-7), (3, 1), strict=True)
        )
        for times in ((worse, better), (better, worse)):
            assert words in RULES[rule].action(make_flow(times=times))

    @pytest.mark.parametrize(
        ("read", "padded"), [((0.0, 1.0), True), ((1.0, 1.0), False), ((1.0, 0.0), False)]
    )
    def test_padding_may_be_meant_where_only_the_last_step_is_read(self, read, padded):
        each = time(0.0, 1.0, kind="GRU", read=tuple(map(quantity, read)))
        assert ("padded" in RULES["vanishing_time"].action(make_flow(times=(each,)))) is padded

    def test_steps_that_tell_are_one_or_several(self):
        def ask(*telling):
            chances = tuple(quantity(1e-9 if at in telling else 0.5) for at in range(4))
            flow = make_flow(times=(time(1e-9, 1e-9, 1.0, 1.0, chances=chances),))
            found = [each for each in diagnose(flow).findings if each.rule == "unheard_steps"]
            return found[0].evidence

        assert ask(0).startswith("step 1 of 4 of 'a' tells something")
        assert "hardly hears it:" in ask(0)
        assert ask(0, 1).startswith("steps 1 to 2 of 4 of 'a' tell something")
        assert "hardly hears them:" in ask(0, 1)

    def test_without_any_gradient_nothing_is_known(self):
        assert measure_lost(time(0.0, 0.0)) is None
        assert list_lost(time(0.0, 0.0)) == ()

    def test_lost_steps_are_counted_from_one(self):
        each = time(1.0, 1e-9, 1e-9, 1.0, length=400, steps=(0, 100, 200, 399))
        assert "steps 101 to 201 of 400" in describe_lost(each)
        each = time(1.0, 1e-9, 1.0, length=9, steps=(0, 4, 8))
        assert "step 5 of 9 of 'a' receives" in describe_lost(each)

    def test_lost_steps_with_others_between_are_counted(self):
        each = time(1e-9, 1.0, 1.0, 1.0, 1e-9, 1.0)
        assert "2 steps between 1 and 5 of 6 of 'a' receive" in describe_lost(each)

    @pytest.mark.parametrize(
        ("norms", "growth"),
        [
            ((6, 1, 1, 1, 1, 1, 1, 3), 2.0),  # quarters of two steps
            ((1, 6, 9, 9, 9, 9, 3, 1), 2.0),
            ((6, 1, 9, 9, 9, 9, 3, 1, 0, 0, 0, 0), 2.0),  # nothing is asked of the last
            ((6, 1, 9, 9, 9, 9, 9, 9, 9, 3, 1), 2.0),
            ((6, 1, 1, 1, 1, 1, 3), None),  # too few
            ((6, 1, 1, math.nan, 1, 1, 1, 3), None),
        ],
    )
    def test_growth_is_the_first_quarter_over_the_last(self, norms, growth):
        flow = make_flow(times=(time(*map(float, norms)),))
        assert measure_metric(flow, "exploding_time") == growth

    def test_recurrent_layers_are_those_with_inputs_or_states_in_time(self):
        flow = make_flow(
            [call(n, layer=at) for at, n in enumerate("abc", start=1)],
            [parameter(f"{n}.weight", at) for at, n in enumerate("abc", start=1)],
            times=(time(1.0), time(1.0, name="b", of="state"), time(1.0, name="c", of="output")),
        )
        assert list_recurrent(flow) == {1, 2}
        assert [each.layers for each in RULES["exploding_time"].read(flow)] == [(1,), (2,), (3,)]
        assert [each.layers for each in RULES["vanishing_time"].read(flow)] == [(1,), (2,), (3,)]

    def test_gates_multiply_what_lies_before_them_by_at_most_one(self):
        calls = [
            call("a", "LSTM", "weight", layer=1, gain=0.5),
            call("b", "LSTM", "weight", layer=2, gain=0.25),
            call("c", "LSTM", "weight", layer=3, gain=9.0),
            call("c", "LSTM", "weight", layer=3, gain=0.0, call=1),
            call("c", "LSTM", "weight", layer=3, gain=None, call=2),
            call("d", layer=4, gain=0.1),
            call("e", "LSTMCell", "weight", layer=5, gain=0.5),
        ]
        times = (*(time(1.0, name=n) for n in "abc"), time(1.0, name="e", of="state"))
        flow = make_flow(calls, times=times)
        assert [measure_gates(flow, at) for at in (0, 1, 2, 3)] == [0.125, 0.25, 1.0, 1.0]

    def test_variation_in_time_is_of_modules_with_gates(self):
        calls = [
            call("a", "LSTM", "weight", statistics={"variation": 0.25}),
            call("a", "LSTM", "weight", statistics={"variation": 0.5}, call=1),
            call("b", "RNN", "weight", statistics={"variation": 0.75}),
            call("c", "LSTM", "weight", statistics={"variation": 0.8}),
            call("d", statistics={"variation": 0.9}),
            call("a", "LSTM", "weight", statistics=None, call=2),
        ]
        times = (
            time(1.0, kind="LSTM"),
            time(1.0, name="b"),
            time(1.0, name="c", kind="LSTM", of="output"),
        )
        assert find_variation_in_time(make_flow(calls, times=times)) == 0.5
        assert find_variation_in_time(make_flow(calls)) is None

    def test_faded_is_the_smallest_share_of_modules_without_gates(self):
        times = (
            time(1.0, 4.0, 2.0, 0.0),
            time(1e-9, 1.0, kind="LSTM"),
            time(1e-9, 1.0, of="state", kind="RNNCell"),
        )
        assert find_faded(make_flow(times=times)) == 0.25
        assert find_faded(make_flow(times=times[1:])) is None
        assert find_faded(make_flow(times=(time(0.0, 2.0),))) == 0.0
        assert find_faded(make_flow(times=(time(math.nan, 2.0), time(1.0, 2.0)))) in (0.5, 1.0)

    def test_bounds(self):
        bounds = {"exploding_time": 1000.0, "vanishing_time": 0.5}
        assert {name: RULES[name].threshold for name in bounds} == bounds


class TestZeroProducts:
    @pytest.mark.parametrize(("arriving", "named"), [(0.0, True), (1.0, False), (None, False)])
    def test_two_modules_in_a_row(self, arriving, named):
        """A module whose output the loss does not read (`None`) is no factor."""
        weights = [parameter(f"{name}.weight", norm=0.0, grad_norm=0.0) for name in "ab"]
        calls = [call("a", gradient=arriving, gain=None), call("b")]
        found = list_zero_products(make_flow(calls, weights))
        assert [each.factors for each in found] == ([("a.weight", "b.weight")] if named else [])
