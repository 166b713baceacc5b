"""What rules read, and what follows from it, of flows small enough for paper."""

import math
from dataclasses import replace

import pytest

from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.evidence import asks_the_same, is_even, is_small, is_soon_undone
from chainrule.diagnosis.limits import Limits, check_limits, read_usable_range
from chainrule.diagnosis.overflow import count_non_finite, locate_overflow
from chainrule.diagnosis.reach import list_unreached, read_unreached
from chainrule.diagnosis.rule import (
    Reading,
    Verdict,
    describe_bound,
    describe_worst,
    find_worst,
    read_layers,
    read_whole,
)
from chainrule.diagnosis.rules import RULES, measure_metric
from chainrule.diagnosis.score import FEATURES, compute_score, score_model
from chainrule.diagnosis.score_constants import SCORES
from chainrule.diagnosis.viability.constants import Constants, Slope
from chainrule.errors import ChainruleError
from chainrule.flow.inputs import InputFlow
from chainrule.flow.loss import LossFlow, LossPart
from chainrule.flow.quantity import Quantity
from chainrule.flow.records import AttentionFlow
from chainrule.flow.time import TimeFlow
from chainrule.spec.network_spec import NetworkSpec
from made_flows import (
    call,
    gradient,
    make_chain,
    make_flow,
    parameter,
    quantity,
    residual,
    statistics,
)


def loose(norms, deltas=None, error=1.0, **fields):
    """Layers that are no chain, before an output with this error."""
    flow = make_chain(norms, gradients=deltas, chain=False)
    output = call("out", "Loss", "other", gradient=error, shape=(1, 4), layer=None)
    return make_flow((*flow.layers, output), flow.parameters, **fields)


def with_step(flow, step):
    facts = dict.fromkeys(("offset", "reaction", "zero_examples", "cut", "detached"))
    return replace(
        flow,
        loss_facts=LossFlow(parts=(), outputs=(), terms=(), step=quantity(step), **facts),
    )


def in_time(kind, *norms):
    """The steps of a recurrent module "a"."""
    return TimeFlow(
        **{"name": "a", "kind": kind, "call": 0, "of": "input", "length": len(norms)},
        **{"steps": tuple(range(len(norms))), "gradients": tuple(map(quantity, norms))},
    )


class TestMetrics:
    def test_gradients_are_relative_to_the_error_at_the_output(self):
        flow = loose([8.0, 2.0, 4.0], error=4.0)
        assert measure_metric(flow, "exploding_gradient") == 2.0
        assert measure_metric(flow, "vanishing_gradient") == 0.5

    def test_clipped_gradients_are_multiplied_by_the_factor(self):
        spec = NetworkSpec(depth=2, width=4, clip_norm=1.0)
        flow = loose([3.0, 4.0], spec=spec)
        clipped = measure_metric(flow, "exploding_gradient", clipped=True)
        assert clipped == pytest.approx(4.0 / 5.0, rel=1e-6)
        assert measure_metric(flow, "exploding_gradient") == 4.0
        ratio = measure_metric(flow, "exploding_backward", clipped=True)
        assert ratio == measure_metric(flow, "exploding_backward") == 1.0

    def test_of_an_undefined_value_is_undefined(self):
        assert math.isnan(measure_metric(loose([3.0, math.nan]), "exploding_gradient"))

    def test_of_nothing_is_none(self):
        assert measure_metric(make_flow(), "exploding_gradient") is None

    @pytest.mark.parametrize(
        ("loss", "cut", "share"), [(5.0, 4.0, 0.8), (1.0, 4.0, 4.0 / 7.0), (5.0, 0.0, None)]
    )
    def test_what_is_cut_is_relative_to_itself_and_the_rest(self, loss, cut, share):
        flow = make_flow(loss=loss, loss_facts=LossFlow(parts=(), cut=quantity(cut)))
        assert measure_metric(flow, "detached_term") == share

    def test_backward_is_first_over_last_delta(self):
        flow = make_chain([1.0, 1.0, 1.0], gradients=[6.0, 9.0, 2.0])
        assert measure_metric(flow, "exploding_backward") == 3.0
        assert measure_metric(flow, "vanishing_backward") == 3.0
        assert measure_metric(make_chain([1.0]), "exploding_backward") is None

    @pytest.mark.parametrize(
        ("rule", "norm", "applies"),
        [
            ("vanishing_backward", 0.0019, True),
            ("vanishing_backward", 0.0031, False),
            ("exploding_backward", 151.0, True),
            ("exploding_backward", 149.0, False),
        ],
    )
    def test_ratios_count_if_a_gradient_is_small_or_comes_near_to_large(self, rule, norm, applies):
        flow = loose([1.0, norm])
        assert RULES[rule].applies(flow) is applies

    @pytest.mark.parametrize("missing", [0, 1, 2])
    def test_backward_needs_a_delta_at_both_ends(self, missing):
        flow = make_chain([1.0] * 3, gradients=[6.0, 9.0, 2.0])
        layers = list(flow.layers)
        layers[2 * missing] = replace(layers[2 * missing], gradient=None)
        value = measure_metric(make_flow(layers, flow.parameters), "exploding_backward")
        assert value == (3.0 if missing == 1 else None)

    def test_backward_ends_before_a_head_that_is_small_on_purpose(self):
        flow = make_chain([1.0] * 3, gradients=[6.0, 3.0, 1.0])
        small = replace(flow.parameters[2], norm=Quantity([0.01]))
        flow = make_flow(flow.layers, (*flow.parameters[:2], small), chain=True)
        assert measure_metric(flow, "exploding_backward") == 2.0
        assert measure_metric(flow, "vanishing_backward") == 2.0

    def test_chain_leaves_out_recurrent_layers_and_what_gates_take(self):
        calls = [
            call("a", layer=1),
            call("b", "LSTM", "weight", layer=2, gain=0.1),
            call("c", layer=3),
            call("out", "Loss", "other", gradient=1.0, shape=(1, 4)),
        ]
        time = TimeFlow(
            name="b",
            kind="LSTM",
            call=0,
            of="input",
            length=1,
            steps=(0,),
            gradients=(Quantity([1.0]),),
        )
        for first, value in ((1e-3, 1.0), (2.9e-4, 2.9e-4), (4e-3, 4e-3)):
            weights = [
                parameter("a.weight", 1, grad_norm=first),
                parameter("b.weight", 2, grad_norm=1e-9),
                parameter("c.weight", 3, grad_norm=1.0),
            ]
            flow = make_flow(calls, weights, times=(time,))
            assert measure_metric(flow, "vanishing_gradient") == value

    def test_not_finite_numbers_are_read_with_their_places(self):
        flow = make_flow([], [parameter("a", 4, non_finite=3.0), parameter("b")])
        (reading,) = RULES["non_finite"].read(flow)
        assert (reading.value, reading.layers, reading.modules) == (3.0, (4,), ("a",))

    def test_fading_is_the_last_spread_over_the_first(self):
        calls = [
            call("a", layer=1, statistics={"std": 0.8}),
            call("b", layer=2, statistics={"std": 0.1}),
            call("c", layer=3, statistics={"std": 0.2}),
        ]
        weights = [parameter(f"{n}.weight", at) for at, n in enumerate("abc", start=1)]
        assert measure_metric(make_flow(calls, weights), "fading_signal") == pytest.approx(0.25)
        zero = [replace(weights[2], norm=Quantity([0.0])), *weights[:2]]
        wide = [replace(calls[0], statistics=statistics(std=8.0)), *calls[1:]]  # counts as 1
        assert measure_metric(make_flow(wide, weights), "fading_signal") == pytest.approx(0.2)
        assert measure_metric(make_flow(calls, zero), "fading_signal") == pytest.approx(
            0.125
        )  # without a head
        single = [*calls[:2], replace(calls[2], shape=(1, 1))]
        assert measure_metric(make_flow(single, weights), "fading_signal") is None
        still = [replace(calls[0], statistics=statistics(std=0.0)), *calls[1:]]
        assert measure_metric(make_flow(still, weights), "fading_signal") is None

    def test_fading_asks_whether_any_call_of_the_last_layer_has_a_spread(self):
        calls = [
            call("a", layer=1, statistics={"std": 0.8}),
            call("b", layer=2, statistics={"std": 0.2}),
            call("b", layer=2, call=1, shape=(1, 1)),
        ]
        weights = [parameter("a.weight", 1), parameter("b.weight", 2)]
        assert measure_metric(make_flow(calls, weights), "fading_signal") == pytest.approx(0.25)

    def test_dead_units_count_without_a_path_around_them(self):
        dead = {"dead_units": 3.0}
        calls = [
            call("a", layer=1),
            call("b", "ReLU", layer=1, statistics=dead),
            call("c", layer=2),
            call("d", "ReLU", layer=2, statistics=dead | {"dead_units": 1.0}),
        ]
        weights = [parameter("a.weight", 1), parameter("c.weight", 2)]
        assert measure_metric(make_flow(calls, weights), "dead_units") == 0.75
        flow = make_flow(calls, weights, residuals=(residual(parameters=(0,)),))
        assert measure_metric(flow, "dead_units") == 0.25

    @pytest.mark.parametrize(
        ("before", "after", "value"),
        [(0.001, 0.5, 0.5), (0.5, 0.001, 0.5), (0.002, None, 0.002), (None, None, None)],
    )
    def test_answers_differ_as_they_do_before_the_last_activation_or_after(
        self, before, after, value
    ):
        calls = [
            call("a", layer=1, statistics={"variation": before}),
            call("b", "Sigmoid", layer=1, statistics={"variation": after}),
        ]
        flow = make_flow(calls, [parameter("a.weight", 1)])
        assert measure_metric(flow, "same_answer") == value

    def test_answers_of_a_specification_differ_as_they_do_behind_its_activation(self):
        calls = [
            call("a", layer=1, statistics={"variation": 0.5}),
            call("b", "Sigmoid", layer=1, statistics={"variation": 0.001}),
        ]
        flow = make_flow(calls, [parameter("a.weight", 1)], spec=NetworkSpec(depth=1, width=4))
        assert measure_metric(flow, "same_answer") == 0.001

    @pytest.mark.parametrize("gates", [0.5, 0.0005])
    def test_answers_differ_as_the_last_layer_or_the_gates_before_it(self, gates):
        calls = [
            call("a", "LSTM", "weight", layer=1, statistics={"variation": gates}),
            call("b", layer=2, statistics={"variation": 0.001}),
        ]
        weights = [parameter("a.weight", 1), parameter("b.weight", 2)]
        flow = make_flow(calls, weights, times=(in_time("LSTM", 1.0),))
        assert measure_metric(flow, "same_answer") == max(gates, 0.001)

    def test_saturation_is_that_of_activations_flat_on_both_sides(self):
        calls = [
            call("a", layer=1),
            call("b", "Sigmoid", layer=1, statistics={"saturation": 0.25}),
            call("c", layer=2),
            call("d", "ReLU", layer=2, statistics={"saturation": 1.0}),
        ]
        flow = make_flow(calls, [parameter("a.weight", 1), parameter("c.weight", 2)])
        assert measure_metric(flow, "saturated") == 0.25

    @pytest.mark.parametrize(
        ("spreads", "value"),
        [((0.5, 0.01), 0.01), ((0.01, 0.5), 0.5), ((0.5, 0.01, 0.5), 0.5)],
    )
    def test_a_later_normalization_makes_up_for_one_that_is_starved(self, spreads, value):
        calls = [
            call(name, "LayerNorm", statistics={"std": spread})
            for name, spread in zip("abc", spreads, strict=False)
        ]
        assert measure_metric(make_flow(calls), "starved_normalization") == value

    def test_a_normalization_on_a_branch_does_not_count(self):
        calls = [
            call("block.norm", "LayerNorm", statistics={"std": 0.01}),
            call("norm", "LayerNorm", statistics={"std": 0.02}),
        ]
        weights = [parameter(f"{each.name}.weight", None, shape=(4,)) for each in calls]
        flow = make_flow(calls, weights, residuals=(residual(parameters=(0,)),))
        assert measure_metric(flow, "starved_normalization") == 0.02

    @pytest.mark.parametrize(
        ("variation", "weakest", "stream", "evident"),
        [
            (0.9e-4, 1.0, None, True),
            (1.1e-4, 1.0, None, False),
            (1.1e-4, 0.029, None, True),
            (1.1e-4, 0.031, None, False),
            (1.1e-4, 1.0, 0.29, True),
            (1.1e-4, 1.0, 0.31, False),
        ],
    )
    def test_nearly_equal_answers_are_evident_with_a_small_gradient(
        self, variation, weakest, stream, evident
    ):
        calls = [
            call("a", layer=1, statistics={"variation": variation}),
            call("out", "Loss", "other", gradient=1.0, shape=(1, 4)),
        ]
        residuals = ()
        if stream is not None:
            residuals = (residual(gradient=stream), residual())
        weight = parameter("a.weight", 1, grad_norm=weakest, norm=100.0)
        flow = make_flow(calls, [weight], residuals=residuals)
        assert RULES["same_answer"].applies(flow) is evident

    @pytest.mark.parametrize(("first", "evident"), [(0.029, True), (0.031, False)])
    def test_nearly_equal_answers_are_evident_where_a_step_without_gates_fades(
        self, first, evident
    ):
        calls = [
            call("a", "RNN", "weight", layer=1, statistics={"variation": 1.1e-4}),
            call("out", "Loss", "other", gradient=1.0, shape=(1, 4)),
        ]
        weight = parameter("a.weight", 1, norm=100.0)
        flow = make_flow(calls, [weight], times=(in_time("RNN", first, 1.0),))
        assert RULES["same_answer"].applies(flow) is evident

    @pytest.mark.parametrize(("variation", "evident"), [(0.9e-4, True), (5e-3, False)])
    def test_small_values_are_evident_where_equal_answers_are(self, variation, evident):
        calls = [
            call("a", layer=1, statistics={"variation": variation}),
            call("out", "Loss", "other", gradient=1.0, shape=(1, 4)),
        ]
        flow = make_flow(calls, [parameter("a.weight", 1, norm=100.0)])
        assert RULES["fading_signal"].applies(flow) is evident

    @staticmethod
    def build_closed(norms=(0.0, 1.0), repeated=(), **fields):
        """Layers that answer all examples alike, with these gradients; inputs of ten examples."""
        layers = [
            call(f"w{at}", layer=at, statistics={"variation": 0.0})
            for at, _ in enumerate(norms, start=1)
        ]
        weights = [
            parameter(f"w{at}.weight", at, grad_norm=norm) for at, norm in enumerate(norms, start=1)
        ]
        numbers = {
            **{"mean": 0.0, "std": 1.0, "min": -1.0, "max": 1.0, "non_finite": 0.0, "offset": 0.0},
            **{"constant_columns": 0.0, "zero_columns": 0.0, "spread_ratio": 1.0},
        }
        inputs = tuple(
            InputFlow(
                **{"reader": "w1", "shape": (10, 4), "dtype": "float32"},
                **{"examples": 10, "columns": 4, "repeated": quantity(share)},
                **{name: quantity(value) for name, value in numbers.items()},
            )
            for share in repeated
        )
        return make_flow(layers, weights, inputs=inputs, **fields)

    @pytest.mark.parametrize(
        ("fields", "closed"),
        [
            ({}, True),
            ({"norms": (0.0, 0.0)}, True),
            ({"norms": (0.0,)}, False),  # a single layer of zeros learns
            ({"norms": (1.0, 0.0)}, False),  # the first lets the input in
            ({"norms": (1e-30, 1.0)}, False),
            ({"repeated": (0.0,)}, True),
            ({"repeated": (0.8,)}, True),  # two different examples are enough
            ({"repeated": (0.9,)}, False),  # ten times the same example: nothing else can come out
            ({"repeated": (0.9, 0.9)}, False),
            ({"repeated": (0.9, 0.0)}, True),
            ({"residuals": (residual(),)}, False),
        ],
    )
    def test_closed_is_what_lets_no_input_in(self, fields, closed):
        assert RULES["nothing_passed_on"].finds(self.build_closed(**fields)) is closed

    def test_closed_is_what_passes_nothing_on_in_any_layer(self):
        calls = [
            call("a", layer=1, statistics={"variation": 0.0}),
            call("b", layer=2, statistics={"variation": 0.5}),
        ]
        weights = [parameter("a.weight", 1, grad_norm=0.0), parameter("b.weight", 2)]
        assert measure_metric(make_flow(calls, weights), "nothing_passed_on") == 0.5

    def test_closed_is_a_stream_only_where_positions_meet_in_attention(self):
        attention = AttentionFlow(
            **{"name": "", "call": 0, "heads": 1, "queries": 5, "keys": 5},
            **{each: quantity(1.0) for each in ("entropy", "one_hot", "uniform")},
        )
        for residuals in ((), (residual(),)):
            flow = self.build_closed(attentions=(attention,), residuals=residuals)
            assert RULES["nothing_passed_on"].finds(flow)

    @pytest.mark.parametrize(("step", "closed"), [(0.0, False), (1.0, True)])
    def test_closed_says_nothing_where_the_loss_is_flat(self, step, closed):
        flow = with_step(self.build_closed(), step)
        assert RULES["nothing_passed_on"].finds(flow) is closed

    def test_growth_and_fading_of_a_stream(self):
        stream = (residual(before=1.0, gradient=0.5), residual(after=20.0, gradient=2.0))
        flow = make_flow(residuals=stream)
        assert measure_metric(flow, "growing_stream") == 20.0
        assert measure_metric(flow, "fading_stream") == 0.25

    def test_nothing_to_train_counts_the_parameters_that_have_a_gradient(self):
        flow = make_flow([], [parameter("a"), parameter("b", status="frozen"), parameter("c")])
        assert measure_metric(flow, "nothing_to_train") == 2.0

    @pytest.mark.parametrize(
        ("streams", "bypass", "applies"),
        [(True, False, True), (False, True, True), (False, False, False)],
    )
    def test_typical_gradient_counts_where_a_path_leads_around(self, streams, bypass, applies):
        residuals = (residual(),) if streams else ()
        norms = [1.0, 1e-9] if bypass else [1.0, 1.0]
        flow = loose(norms, [10.0, 1.0], residuals=residuals)
        assert bool(RULES["vanishing_typical"].applies(flow)) is applies


class TestRule:
    RULE = RULES["dead_units"]

    @pytest.mark.parametrize(
        ("name", "value", "beyond"),
        [
            ("dead_units", 0.7, False),
            ("dead_units", 0.71, True),
            ("dead_units", math.nan, False),
            ("same_answer", 0.01, False),
            ("same_answer", 0.009, True),
        ],
    )
    def test_is_beyond_on_the_wrong_side_alone(self, name, value, beyond):
        assert RULES[name].is_beyond(value) is beyond

    def test_worst_is_the_first_of_the_furthest(self):
        readings = [
            Reading(value=value, where=where)
            for value, where in ((1.0, "a"), (None, "b"), (3.0, "c"), (3.0, "d"), (1.0, "e"))
        ]
        assert find_worst(self.RULE, readings)[0].where == "c"
        assert find_worst(RULES["same_answer"], readings)[0].where == "a"

    def test_readings_name_their_layers_and_modules(self):
        flow = make_chain([4.0, 6.0])
        (whole,) = read_whole(flow, 3.0)
        assert (whole.value, whole.layers, whole.modules) == (3.0, (1, 2), ("0", "2"))
        readings = read_layers(flow.weight_layers, lambda layer: layer.weight_gradient_norm)
        found = [(each.value, each.layers, each.modules, each.where) for each in readings]
        assert found == [(4.0, (1,), ("0",), "layer 1"), (6.0, (2,), ("2",), "layer 2")]
        text = describe_worst(RULES["exploding_gradient"], flow, readings, readings)
        assert "is 6 at layer 2" in text
        assert "at" not in describe_worst(self.RULE, flow, [whole], [whole]).split(" is ")[1]

    def test_bound_names_its_side_and_how_many_are_beyond(self):
        many = [Reading(value=0.9), Reading(value=0.8), Reading(value=0.1)]
        text = describe_bound(self.RULE, many, many[:2])
        assert "2 of 3 layers are above" in text
        assert "70 %" in text
        assert "1 of 3 layers is" in describe_bound(self.RULE, many, many[:1])
        assert " of " not in describe_bound(self.RULE, many[:1], many[:1]).partition("of 70")[0]
        assert "below" in describe_bound(RULES["same_answer"], many[:1], many[:1])
        places = describe_bound(RULES["starved_normalization"], many, many[2:])
        assert "1 of 3 is below" in places  # not every rule speaks of layers

    @pytest.mark.parametrize(
        ("name", "value", "text"),
        [
            ("dead_units", 0.756, "76 %"),
            ("dead_units", math.nan, "undefined"),
            ("growing_stream", 0.756, "0.756"),
            ("same_answer", 0.0, "0"),
        ],
    )
    def test_values_are_shown_on_its_scale(self, name, value, text):
        assert RULES[name].format(value) == text


class TestEvidence:
    """When a value counts: what may make up for it."""

    @pytest.mark.parametrize(
        ("fields", "undone"),
        [
            ({}, True),
            ({"norm": 0.7}, False),  # 100 · 0.49 is less than the loss
            ({"norm": 708.0}, False),  # 1e-4 · 708² is more
            ({"norm": 706.0}, True),
            ({"scale": 3.0, "norm": 2.2}, True),  # of a loss that is three times as large
            ({"scale": 3.0, "norm": 2.0}, False),
            ({"error": 9.9}, True),
            ({"error": 10.1}, False),
            ({"size": 1e6, "norm": 1.0}, False),  # a step does not move such a layer
            ({"kind": "mse"}, False),
            ({"guessing": None}, False),
        ],
    )
    def test_a_large_start_is_undone_by_what_a_few_steps_take_off(self, fields, undone):
        """A cross-entropy of 50 over four classes: in units of the loss, 50 · scale² to go."""
        given = {"scale": 1.0, "norm": 1.0, "error": 1.0, "size": 2.0, "kind": "cross_entropy"}
        given |= {"guessing": 1.0} | fields
        guessing = given["guessing"] and math.log(4) * given["scale"]
        part = LossPart(
            **{"kind": given["kind"], "value": quantity(50.0), "guessing": quantity(guessing)},
            **{"width": 4, "is_direct": True},
        )
        calls = [
            call("a", layer=1),
            call("out", "Loss", "other", gradient=given["error"], shape=(1, 4)),
        ]
        weight = parameter("a.weight", 1, norm=given["size"], grad_norm=given["norm"])
        flow = make_flow(
            calls, [weight], loss=50.0 * given["scale"], loss_facts=LossFlow(parts=(part,))
        )
        assert is_soon_undone(flow) is undone

    @pytest.mark.parametrize(
        ("share", "kinds", "same"),
        [
            (0.95, ["custom"], True),
            (0.89, ["custom"], False),
            (1.0, ["custom"], False),  # a sum of the answers, without targets
            (0.95, ["custom", "mse"], False),
            (0.95, ["mse"], False),
        ],
    )
    def test_forces_of_one_size_have_no_targets(self, share, kinds, same):
        """Sixteen entries of size 1 have a norm of 4."""
        answers = call("a", shape=(4, 4), gradient=gradient(4 * share, max_abs=1.0))
        facts = LossFlow(parts=tuple(LossPart(kind=kind) for kind in kinds), outputs=(0,))
        assert asks_the_same(make_flow([answers], loss_facts=facts)) is same

    @pytest.mark.parametrize(
        ("rows", "normalized", "even"),
        [
            ((4, 4, 4), False, True),
            ((4, 4, 9), False, True),  # the last may have another width
            ((4, 9, 4), False, False),
            ((4, 4, 4), True, False),
            ((4, 4), False, False),
        ],
    )
    def test_a_chain_is_even_where_its_layers_are_alike(self, rows, normalized, even):
        calls = [call(f"w{at}", layer=at) for at, _ in enumerate(rows, start=1)]
        calls += [call("n", "LayerNorm")] * normalized
        weights = [
            parameter(f"w{at}.weight", at, shape=(count, 4)) for at, count in enumerate(rows, 1)
        ]
        assert is_even(make_flow(calls, weights)) is even

    @pytest.mark.parametrize(
        ("size", "norm", "small"),
        [
            (100.0, 2.0, True),  # without what the inputs add, 0.001: less than 0.003
            (29.0, 2.0, False),  # such inputs are not large
            (100.0, 0.1, False),  # beside a layer so small it is enough
        ],
    )
    def test_large_inputs_make_a_gradient_no_larger(self, size, norm, small):
        numbers = {"mean": 0.0, "std": size, "min": -size, "max": size, "non_finite": 0.0}
        numbers |= {"constant_columns": 0.0, "zero_columns": 0.0, "offset": 0.0}
        numbers |= {"spread_ratio": 1.0, "repeated": 0.0}
        entering = InputFlow(
            **{"reader": "0", "shape": (10, 4), "dtype": "float32", "examples": 10, "columns": 4},
            **{name: quantity(value) for name, value in numbers.items()},
        )
        flow = loose([0.1, 1.0])
        first = replace(flow.parameters[0], norm=Quantity([norm]))
        flow = make_flow(flow.layers, (first, flow.parameters[1]), inputs=(entering,))
        assert is_small(flow) is small


class TestFadingStream:
    @staticmethod
    def find(*residuals):
        found = diagnose(make_flow([], [parameter("a", shape=(4,))], residuals=residuals))
        assert found.findings[0].rule == "fading_stream"
        return found

    def test_says_what_each_step_multiplies_it_by(self):
        stream = [residual(gradient=norm) for norm in (1e-4, 0.5, 1.0)]
        assert "its 3 sums multiplies it by 0.01" in self.find(*stream).findings[0].evidence
        assert "each step" not in self.find(stream[0], stream[2]).findings[0].evidence

    def test_advice_is_for_the_stream_that_fades(self):
        faded = [residual(gradient=norm) for norm in (1e-4, 1.0)]
        other = [residual(stream=1, normalization="after") for _ in range(2)]
        assert "a scale below 1" in self.find(*faded, *other).action
        post = [replace(each, normalization="after") for each in faded]
        assert "normalization before each branch" in self.find(*post, *other).action


class TestUnreached:
    @staticmethod
    def build(*statuses, calls=(), names="abcdef"):
        weights = [
            parameter(f"{name}.weight", at, status=status)
            for at, (name, status) in enumerate(zip(names, statuses, strict=False), start=1)
        ]
        return make_flow([call(name) for name in calls], weights)

    def test_are_weights_with_their_layers(self):
        flow = self.build("unreached", "measured", "frozen", "unreached", calls="abcd")
        bias = parameter("a.bias", 1, shape=(4,), status="unreached")
        free = parameter("z.weight", None, status="unreached")
        flow = make_flow(flow.layers, (*flow.parameters, bias, free))
        found = read_unreached(flow)
        assert list_unreached(flow) == ["a.weight", "d.weight", "z.weight"]
        assert found.names == ("a.weight", "d.weight", "z.weight")
        assert (found.layers, found.called, found.total) == ((1, 4), 2, 5)

    @pytest.mark.parametrize(
        ("statuses", "calls", "cut", "why"),
        [
            ("um", "ab", True, "what comes first feeds the rest"),
            ("mu", "ab", False, "a head for another task"),
            ("muu", "abc", True, "most of what ran"),
            ("mmuu", "abcd", False, "half of what ran"),
            ("muu", "a", True, "most of all never ran"),
            ("mmuu", "ab", False, "half of all never ran"),
            ("ummmu", "abcde", True, "some of it feeds the rest"),
            ("mum", "abc", False, "a part in the middle is left out"),
            ("muuff", "a", True, "most of all but the frozen never ran"),
            ("mm", "ab", False, "all are reached"),
            ("uu", "ab", True, "none is reached"),
        ],
    )
    def test_cut_the_network_or_are_parts_left_unused(self, statuses, calls, cut, why):
        words = {"u": "unreached", "m": "measured", "f": "frozen"}
        flow = self.build(*(words[each] for each in statuses), calls=calls)
        assert read_unreached(flow).cut is cut, why

    def test_are_read_with_their_layers_and_names(self):
        flow = self.build("unreached", "measured", "unreached")
        (reading,) = RULES["unreached"].read(flow)
        assert (reading.value, reading.layers) == (2, (1, 3))
        assert reading.modules == ("a.weight", "c.weight")

    def test_experts_that_no_token_chose_do_not_count(self):
        names = ("experts.0", "experts.1", "experts.2")
        statuses = ("measured", "unreached", "unreached")
        assert not read_unreached(self.build(*statuses, calls=names[:1], names=names)).cut

    def test_run_under_any_of_their_names_where_it_first_ran(self):
        weights = [
            parameter("head.weight", 1, status="unreached", aliases=("embed.weight",)),
            parameter("b.weight", 2),
        ]
        calls = [call("embed"), call("b"), call("embed", call=1), call("head")]
        assert read_unreached(make_flow(calls, weights)).cut
        assert not read_unreached(make_flow(calls[1:], weights)).cut


BAD = {"statistics": {"non_finite": 1.0}}


class TestOverflow:
    def test_counts_by_place_where_it_may_come_from_first(self):
        calls = [
            call("a", layer=1, statistics={"non_finite": 2.0}, gradient=gradient(non_finite=3.0)),
            call("b", layer=2, gradient=gradient(non_finite=4.0)),
            call("c", statistics=None, gradient=None),
        ]
        weights = [
            parameter("a.weight", 1, grad_non_finite=5.0),
            parameter("b.weight", 3, non_finite=6.0),
            parameter("d.weight", 4, status="frozen"),
        ]
        total, places, layers = count_non_finite(make_flow(calls, weights))
        assert total == 20.0
        assert list(places.items()) == [
            ("b.weight", 6.0),
            ("a", 5.0),
            ("b", 4.0),
            ("a.weight", 5.0),
        ]
        assert layers == {1, 2, 3}
        assert count_non_finite(make_flow(calls, weights, loss=math.nan))[0] == 21.0

    @pytest.mark.parametrize(
        ("calls", "weights", "words"),
        [
            ([call("a", **BAD)], [parameter("p", non_finite=1.0)], ["parameter 'p'"]),
            ([call("a", **BAD), call("b")], [], ["from 'a' on"]),
            ([call("a"), call("b", **BAD), call("c", **BAD)], [], ["up to 'a'", "from 'b' on"]),
            ([call("a"), call("a", **BAD)], [], ["within 'a'"]),
            (
                [call("a", gradient=gradient(non_finite=1.0))],
                [],
                ["already at the output of 'a'", "in the loss"],
            ),
            (
                [call("a"), call("b", gradient=gradient(non_finite=1.0))],
                [],
                ["already at the output of 'b'", "in the loss"],
            ),
            (
                [
                    call("a", gradient=gradient(non_finite=1.0)),
                    call("b", gradient=gradient(non_finite=1.0)),
                    call("c"),
                ],
                [],
                ["way back", "from 'b' on"],
            ),
            (
                [call("a")],
                [parameter("p", grad_non_finite=1.0), parameter("q", grad_non_finite=1.0)],
                ["from 'q' on"],
            ),
            (
                [call("a", gradient=gradient(non_finite=1.0)), call("b")],
                [parameter("p", grad_non_finite=1.0)],
                ["from 'a' on"],
            ),
        ],
    )
    def test_is_located_where_it_begins(self, calls, weights, words):
        text = locate_overflow(make_flow(calls, weights))
        for word in words:
            assert word in text

    @pytest.mark.parametrize("chain", [True, False])
    def test_behind_a_chain_is_in_the_loss_alone(self, chain):
        last = call("a", gradient=gradient(non_finite=1.0))
        text = locate_overflow(make_flow([last], chain=chain))
        assert text.endswith("so in the loss") is chain

    def test_of_nothing_is_nothing(self):
        assert locate_overflow(make_chain([1.0])) == ""

    def test_of_a_specification_names_the_layer(self):
        spec = NetworkSpec(depth=2, width=4)
        flow = make_flow([call("a", layer=2, **BAD)], spec=spec)
        assert "layer 2" in locate_overflow(flow)


class TestScore:
    def test_costs_add_up_beyond_their_knots(self):
        constants = Constants(
            base=5.0,
            slopes=(Slope("x", ">", 1.0, 2.0), Slope("x", "<", -1.0, 3.0), Slope("y", ">", 0, 7.0)),
        )
        for x, odds in ((0.0, 5.0), (1.0, 5.0), (1.5, 4.0), (-2.0, 2.0), (None, 5.0)):
            assert compute_score(constants, {"x": x}) == odds
        assert compute_score(constants, {"x": 2.0, "y": 0.5}) == -0.5

    def test_probability_is_the_logistic_of_the_odds_and_never_certain(self):
        flow = make_chain([1.0, 1.0])
        values = {name: read(flow) for name, read in FEATURES.items()}
        for optimizer in ("sgd", "adam"):
            odds = compute_score(SCORES[optimizer], values)
            assert score_model(flow, optimizer) == pytest.approx(1 / (1 + math.exp(-odds)))
        hopeless = with_step(make_chain([1e-30, 1e-30]), 0.0)
        assert score_model(hopeless, "adam") == pytest.approx(0.001)

    @pytest.mark.parametrize(
        ("step", "feature"),
        [(0.01, -2.0), (1e-9, -6.0), (1e9, 6.0), (0.0, -6.0), (math.nan, 6.0), (math.inf, 6.0)],
    )
    def test_step_is_in_powers_of_ten_up_to_six(self, step, feature):
        assert FEATURES["step"](with_step(make_flow(), step)) == pytest.approx(feature)
        assert FEATURES["step"](make_flow()) is None

    def test_rate_moves_the_median_parameter_by_a_hundredth(self):
        weights = [
            parameter("a", norm=1.0, grad_norm=1.0),  # 0.01
            parameter("b", norm=10.0, grad_norm=1.0),  # 0.1
            parameter("c", norm=1000.0, grad_norm=1.0),  # 10
            parameter("d", norm=1.0, grad_norm=0.0),
            parameter("e", norm=0.0, grad_norm=1.0),
            parameter("f", norm=1.0, status="frozen"),
            parameter("g", norm=math.inf, grad_norm=1.0),
        ]
        assert FEATURES["rate"](make_flow([], weights)) == pytest.approx(-1.0)
        assert FEATURES["rate"](make_flow([], weights[3:])) is None

    @pytest.mark.parametrize(
        ("norm", "distance"),
        [(3e-3, 0.0), (3e-5, 2.0), (3e-4, 1.0), (3e-30, 6.0), (math.nan, 6.0)],
    )
    def test_distance_is_in_powers_of_ten_beyond_the_bound(self, norm, distance):
        assert FEATURES["worst"](loose([1.0, norm, 1.0, 1.0])) == pytest.approx(distance)

    @pytest.mark.parametrize(("dead", "distance"), [(0.9, 0.586), (0.7, 0.0)])
    def test_distance_of_a_share_is_in_odds(self, dead, distance):
        calls = [
            call("a", layer=1),
            call("b", "ReLU", layer=1, statistics={"dead_units": 100 * dead, "units": 100}),
            call("out", "Loss", "other", shape=(1, 4)),
        ]
        flow = make_flow(calls, [parameter("a.weight", 1)])
        assert FEATURES["worst"](flow) == pytest.approx(distance, abs=1e-3)


class TestLimits:
    def test_of_ratio_compares_the_largest_with_the_smallest(self):
        flow = make_chain([4.0, 1.0, 2.0])
        diagnosis = diagnose(flow)
        assert check_limits(flow, diagnosis, Limits(max_ratio=4.0)) == ()
        (violation,) = check_limits(flow, diagnosis, Limits(max_ratio=3.9))
        assert violation.place.index("layer 1") < violation.place.index("layer 2")
        assert (violation.value, violation.bound) == ("4", "≤ 3.9")

    def test_of_size_take_the_place_of_the_rules_on_their_side(self):
        flow = loose([1.0, 1e-6, 1.0, 1.0])
        diagnosis = diagnose(flow)
        assert [v.bound for v in check_limits(flow, diagnosis)] == ["≥ 0.003"]
        assert check_limits(flow, diagnosis, Limits(min_gradient=1e-7)) == ()
        assert len(check_limits(flow, diagnosis, Limits(max_gradient=1e7))) == 1
        (violation,) = check_limits(flow, diagnosis, Limits(min_gradient=1e-5))
        assert (violation.value, violation.bound) == ("1.0·10⁻⁶", "≥ 1.0·10⁻⁵")
        (violation,) = check_limits(
            flow, diagnosis, Limits(max_gradient=0.5), allow=["vanishing_gradient"]
        )
        assert violation.bound == "≤ 0.5"

    @pytest.mark.parametrize(
        ("norms", "place"),
        [
            ([1e-9, 1.0, 1.0, 1.0], "'0'"),
            ([1e-7, 1e-9, 1.0, 1.0], "'2' and 1 more"),  # the smallest is named
            ([1e-7, 1e-9, 1.0, 1e-8], "'2' and 2 more"),
        ],
    )
    def test_of_findings_name_the_worst_layer_and_how_many_more(self, norms, place):
        flow = make_chain(norms)
        found = {each.bound: each for each in check_limits(flow, diagnose(flow))}
        assert found["≥ 0.003"].place == place

    def test_of_what_explodes_are_on_the_other_side(self):
        flow = loose([1.0, 1e7, 1.0, 1.0])
        diagnosis = diagnose(flow)
        assert [v.bound for v in check_limits(flow, diagnosis)] == ["≤ 1,500"]
        assert check_limits(flow, diagnosis, Limits(max_gradient=1e8)) == ()
        assert len(check_limits(flow, diagnosis, Limits(min_gradient=1e-3))) == 1

    def test_usable_range_holds_every_gradient_of_a_healthy_flow(self):
        flow = loose([1e-6, 1.0, 0.0, math.inf], error=2.0)
        low, high = 2 * 0.003, 2 * 1500.0
        assert read_usable_range(flow) == pytest.approx((low, high))
        assert read_usable_range(flow, Verdict.VANISHING) == pytest.approx((low, high))
        assert read_usable_range(flow, Verdict.HEALTHY) == pytest.approx((1e-6, high))
        large = loose([1.0, 1e9], error=2.0)
        assert read_usable_range(large, Verdict.HEALTHY) == pytest.approx((low, 1e9))

    @pytest.mark.parametrize("field", ["min_gradient", "max_gradient", "max_ratio"])
    def test_may_be_zero_but_not_below(self, field):
        Limits(**{field: 0.0})
        for wrong in (-1e-9, math.nan):
            with pytest.raises(ChainruleError, match=field):
                Limits(**{field: wrong})


def test_bounds_of_all_rules():
    bounds = {
        **{"flat_function": (">", 0.0), "zero_product": (">", 1.0), "broadcast_loss": (">", 1.0)},
        **{"examples_as_steps": (">", 0.0), "wrong_sign": ("<", 0.0), "flat_loss": ("<", 2.0**-23)},
        **{
            "short_sequences": (">", 0.95),
            "unsuited_output": (">", 20),
            "out_of_reach": (">", 0.5),
        },
        **{"symmetric_units": (">", 0.9), "large_loss": (">", 100.0), "no_step": ("<", 2.0**-23)},
        **{"large_tied_loss": (">", 20.0), "unheard_steps": ("<", 0.003), "diverges": ("<", 0.1)},
        **{"nothing_passed_on": ("<", 1e-6), "strong_decay": (">", 3.0), "unlikely": ("<", 0.3)},
        **{"constant_inputs": (">", 0.95), "probabilities_for_logarithms": (">", 0.0)},
        **{"untold_steps": (">", 16), "did_not_train": ("<", 0.1), "loses_numbers": ("<", 0.1)},
        **{"hardly_moved": ("<", 1e-3), "mixed_examples": (">", 0.0)},
        **{"frozen_alike": (">", 0.0), "targets_without_effect": (">", 0.0)},
    }
    bounds |= {
        **{"non_finite": (">", 0), "non_finite_inputs": (">", 0.0), "underflow": ("<", 1.5)},
        **{"lost_epsilon": (">", 0.0)},
        **{"unreached": (">", 0), "nothing_to_train": ("<", 1), "detached_term": (">", 0.01)},
        **{"idle_examples": (">", 0.95), "large_inputs": (">", 30.0), "small_inputs": ("<", 0.01)},
        **{"outlying_examples": ("<", 0.1), "offset_inputs": (">", 10.0)},
        **{"uneven_inputs": (">", 1e3), "dead_units": (">", 0.7), "saturated": (">", 0.9)},
        **{"exploding_gradient": (">", 1500.0), "exploding_backward": (">", 1e3)},
        **{"exploding_time": (">", 1e3), "growing_stream": (">", 100.0)},
        **{"fading_stream": ("<", 0.03), "vanishing_typical": ("<", 1e-4)},
        **{"vanishing_gradient": ("<", 0.003), "vanishing_backward": ("<", 0.01)},
        **{"vanishing_time": (">", 0.5), "starved_normalization": ("<", 0.1)},
        **{"same_answer": ("<", 0.01), "fading_signal": ("<", 0.01), "below_epsilon": ("<", 1e-10)},
        **{"not_held": (">", 0.999), "large_step": (">", 1.0), "small_step": ("<", 1e-6)},
        **{"overshoots": (">", 6.0), "averaged_away": ("<", 1e-5)},
    }
    assert {name: (rule.beyond, rule.threshold) for name, rule in RULES.items()} == {
        name: (beyond, pytest.approx(bound)) for name, (beyond, bound) in bounds.items()
    }
