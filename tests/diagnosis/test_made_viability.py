"""Features and odds of the viability model, and cures of origins, worked out by hand."""

import math
from dataclasses import replace

import pytest

from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.origins import CURES, find_cure, is_of_formula
from chainrule.diagnosis.viability.constants import CONSTANTS
from chainrule.diagnosis.viability.features import FEATURES, are_lost, measure_features
from chainrule.diagnosis.viability.model import (
    Contribution,
    Outlook,
    assess_viability,
    describe_cost,
    describe_probability,
    find_hopeless,
    is_fitted_kind,
    judge_features,
)
from chainrule.flow.loss import LossFlow, LossPart
from chainrule.flow.non_finite import NonFiniteElement, NonFiniteOrigin
from chainrule.flow.optimizer import OptimizerFlow
from chainrule.flow.quantity import Quantity
from chainrule.spec.network_spec import NetworkSpec
from made_flows import call, make_chain, make_flow, parameter, quantity, residual


def build(**fields):
    """Three dense layers with a spread, a variation, a δ and a gradient each."""
    rows = ((8.0, 1.0, 4.0, 20.0), (2.0, 0.5, 2.0, 0.2), (4.0, 0.5, 2.0, 2.0))
    calls, weights = [], []
    for at, (std, variation, delta, norm) in enumerate(rows, start=1):
        values = {"std": std, "variation": variation}
        calls += [
            call(f"w{at}", layer=at, gradient=delta, statistics=values, shape=(5, 32)),
            call(f"h{at}", "Tanh", layer=at, gradient=delta, statistics=values, shape=(5, 32)),
        ]
        weights.append(parameter(f"w{at}.weight", at, grad_norm=norm))
    return make_flow(calls, weights, **fields)


class TestFeatures:
    def test_are_powers_of_ten_of_ratios(self):
        found = measure_features(build())
        assert found["smallest_gradient"] == pytest.approx(math.log10(0.2 / 2.0))
        assert found["largest_gradient"] == pytest.approx(math.log10(20.0 / 2.0))
        assert found["variation"] == pytest.approx(math.log10(0.5))
        # (δ₁ ÷ δ₃) ÷ (spread₃ ÷ spread₁), where a spread is that between examples
        spreads = (8.0 * 1.0, 4.0 * 0.5)
        expected = math.log10((4.0 / 2.0) / (spreads[1] / spreads[0]))
        assert found["sensitivity"] == pytest.approx(expected)
        assert found["forward"] == pytest.approx(math.log10(spreads[1] / spreads[0]))
        whole = 2.0 * 4.0 * 0.5
        parts = (4.0 * 8.0 * 1.0, 2.0 * 2.0 * 0.5, whole)
        depth = sum(min(1.0, part / whole) ** 2 for part in parts)
        assert found["effective_depth"] == pytest.approx(math.log10(depth))
        assert found["saturation"] is found["dead_units"] is None

    def test_are_kept_within_their_range(self):
        flow = build()
        tiny = replace(flow.parameters[1], grad_norm=Quantity([1e-30]))
        huge = replace(flow.parameters[0], grad_norm=Quantity([1e30]))
        found = measure_features(make_flow(flow.layers, (huge, tiny, flow.parameters[2])))
        assert (found["smallest_gradient"], found["largest_gradient"]) == (-12.0, 12.0)
        feature = FEATURES["smallest_gradient"]
        assert feature.format(-12.0).endswith("or less")
        assert feature.format(12.0).endswith("or more")
        assert feature.format(-1.0) == "0.1"
        assert FEATURES["dead_units"].format(0.25) == "25 %"

    def test_of_flat_activations_are_the_worst_layers(self):
        flow = build()
        layers = list(flow.layers)
        for at, share in ((1, 0.25), (3, 0.75), (5, math.nan)):
            statistics = replace(
                layers[at].statistics, saturation=Quantity([share]), dead_units=Quantity([1.0])
            )
            layers[at] = replace(layers[at], statistics=statistics)
        found = measure_features(make_flow(layers, flow.parameters))
        assert (found["saturation"], found["dead_units"]) == (0.75, 0.25)

    def test_of_equal_answers_count_every_layer(self):
        flow = build()
        layers = list(flow.layers)
        statistics = replace(layers[-1].statistics, variation=Quantity([1e-6]))
        layers[-1] = replace(layers[-1], statistics=statistics)
        found = measure_features(make_flow(layers, flow.parameters))
        assert found["effective_depth"] == pytest.approx(math.log10(3))

    @pytest.mark.parametrize("missing", ["gradient", "variation"])
    def test_of_depth_leave_out_a_layer_without_a_gradient_or_a_spread(self, missing):
        flow = build()
        layers = list(flow.layers)
        for at in (0, 1):  # the first layer counts 1 where all is known
            lost = {"gradient": None} if missing == "gradient" else {}
            if missing == "variation":
                lost = {"statistics": replace(layers[at].statistics, variation=None)}
            layers[at] = replace(layers[at], **lost)
        found = measure_features(make_flow(layers, flow.parameters))
        share = (2.0 * 2.0 * 0.5) / (2.0 * 4.0 * 0.5)
        assert found["effective_depth"] == pytest.approx(math.log10(share**2 + 1.0))

    def test_of_depth_need_the_spread_of_the_output(self):
        flow = build()
        layers = list(flow.layers)
        layers[-1] = replace(layers[-1], statistics=replace(layers[-1].statistics, variation=None))
        assert measure_features(make_flow(layers, flow.parameters))["effective_depth"] is None

    def test_spreads_are_those_of_all_of_a_value_and_never_quite_nothing(self):
        """√(mean² + std²) times the variation, of which a millionth counts at least."""
        flow = build()
        layers = list(flow.layers)
        for at, mean, variation in ((0, 6.0, 1.0), (1, 6.0, 1.0), (4, 0.0, 0.0), (5, 0.0, 0.0)):
            changed = {"mean": Quantity([mean]), "variation": Quantity([variation])}
            layers[at] = replace(layers[at], statistics=replace(layers[at].statistics, **changed))
        found = measure_features(make_flow(layers, flow.parameters))
        assert found["forward"] == pytest.approx(math.log10(4.0 * 1e-6 / 10.0))

    def test_forward_compares_what_layers_put_out_behind_their_activations(self):
        flow = build()
        layers = list(flow.layers)
        layers[1] = replace(
            layers[1], statistics=replace(layers[1].statistics, std=Quantity([0.5]))
        )
        found = measure_features(make_flow(layers, flow.parameters))
        assert found["forward"] == pytest.approx(math.log10(4.0 * 0.5 / 0.5))

    @pytest.mark.parametrize(("variation", "depth"), [(0.9e-5, 3.0), (1.1e-5, None)])
    def test_of_nearly_equal_answers_count_every_layer_up_to_rounding(self, variation, depth):
        flow = build()
        layers = list(flow.layers)
        changed = replace(layers[-1].statistics, variation=Quantity([variation]))
        layers[-1] = replace(layers[-1], statistics=changed)
        whole = 2.0 * 4.0 * variation
        parts = (4.0 * 8.0 * 1.0, 2.0 * 2.0 * 0.5, 2.0 * 4.0 * 0.5)
        expected = depth or sum(min(1.0, part / whole) ** 2 for part in parts)
        found = measure_features(make_flow(layers, flow.parameters))
        assert found["effective_depth"] == pytest.approx(math.log10(expected))

    @pytest.mark.parametrize(("norm", "smallest"), [(2.0, -12.0), (0.0, 0.0)])
    def test_a_gradient_of_zero_counts_unless_weights_are_zero_on_purpose(self, norm, smallest):
        flow = build()
        still = replace(flow.parameters[1], grad_norm=Quantity([0.0]))
        last = replace(flow.parameters[2], norm=Quantity([norm]))
        flow = make_flow(flow.layers, (flow.parameters[0], still, last))
        assert measure_features(flow)["smallest_gradient"] == pytest.approx(smallest)

    def test_what_is_lost_in_rounding_is_told(self):
        feature = FEATURES["forward"]
        assert feature.format(-1.0) == "0.1"
        assert feature.format(-1.0, rounded=True) == "0.1 or less"
        lost = {value: are_lost({"variation": value}) for value in (-6.0, -5.9, None)}
        assert lost == {-6.0: True, -5.9: False, None: False}


class TestOdds:
    def test_add_up_from_the_base(self):
        values = dict.fromkeys(FEATURES) | {"dead_units": 0.6, "variation": -1.5}
        found = judge_features(values, "sgd")
        slopes = CONSTANTS["sgd"].slopes
        expected = {
            name: -sum(
                s.weight * max(0.0, value - s.knot if s.beyond == ">" else s.knot - value)
                for s in slopes
                if s.feature == name
            )
            for name, value in (("dead_units", 0.6), ("variation", -1.5))
        }
        shares = {each.feature: each.log_odds for each in found.contributions}
        assert {name: shares[name] for name in expected} == pytest.approx(expected)
        assert sum(shares.values()) == pytest.approx(sum(expected.values()))
        assert found.log_odds == pytest.approx(found.base + sum(expected.values()))
        assert found.probability == pytest.approx(1 / (1 + math.exp(-found.log_odds)))
        assert found.contributions[0].log_odds == min(shares.values())
        assert "not measured" in {e.feature: e.words for e in found.contributions}["forward"]

    @pytest.mark.parametrize(("value", "end"), [(-5.0, "low"), (4.0, "high"), (0.0, None)])
    def test_are_explained_by_the_side_that_costs(self, value, end):
        found = judge_features(dict.fromkeys(FEATURES) | {"forward": value}, "sgd")
        (words,) = (each.words for each in found.contributions if each.feature == "forward")
        for side in ("low", "high"):
            assert (getattr(FEATURES["forward"], side) in words) is (side == end)

    @pytest.mark.parametrize(
        ("log_odds", "word"),
        [
            (0.85, Outlook.VIABLE),
            (0.84, Outlook.AT_RISK),
            (-0.84, Outlook.AT_RISK),
            (-0.85, Outlook.NOT_VIABLE),
        ],
    )
    def test_are_named_at_seven_and_three_tenths(self, log_odds, word):
        base = CONSTANTS["sgd"].base
        moved = Contribution(feature="x", value=None, log_odds=log_odds - base, words="")
        assert judge_features({}, "sgd", [moved]).word is word

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (0.009, "less than 1 %"),
            (0.01, "1 %"),
            (0.27, "27 %"),
            (0.99, "99 %"),
            (0.991, "more than 99 %"),
        ],
    )
    def test_are_shown_in_percent(self, value, text):
        assert describe_probability(value) == text

    def test_without_a_cost_are_those_of_the_other_odds(self):
        even = math.log(0.5 / 0.5)
        assert "be 50 % instead of 12 %" in describe_cost(even - 2.0, -2.0)
        assert "still be less than 1 %" in describe_cost(-20.0, -2.0)


def test_a_finding_that_no_feature_reads_costs_nothing():
    optimizer = OptimizerFlow(name="SGD", steps="gradient", rates=(None, None, None))
    flow = build(spec=NetworkSpec(depth=3, width=32), optimizer=optimizer)
    (found,) = [each for each in diagnose(flow).findings if each.rule == "not_held"]
    assert found.total is not None
    assert (found.log_odds, found.consequence) == (0.0, found.reason)


class TestKinds:
    SPEC = NetworkSpec(depth=3, width=32)

    def test_dense_networks_of_a_specification_are_covered(self):
        assert is_fitted_kind(build())
        assert assess_viability(build(spec=self.SPEC)).covered
        found = assess_viability(build())
        assert not found.covered
        assert (found.sgd.word, found.sgd.probability) == (Outlook.UNKNOWN, None)

    @pytest.mark.parametrize(
        ("width", "fitted"), [(15, False), (16, True), (256, True), (257, False)]
    )
    def test_hidden_widths_are_those_that_were_fitted(self, width, fitted):
        flow = build()
        for at, other in ((2, fitted), (4, True)):  # the last layer may have any width
            layers = list(flow.layers)
            layers[at] = replace(layers[at], shape=(5, width))
            assert is_fitted_kind(make_flow(layers, flow.parameters)) is other

    @pytest.mark.parametrize(
        ("at", "fields"),
        [(0, {"kind": "Conv1d"}), (2, {"call": 1}), (1, {"kind": "Mish"})],
    )
    def test_other_modules_are_another_kind(self, at, fields):
        flow = build()
        layers = list(flow.layers)
        layers[at] = replace(layers[at], **fields)
        assert not is_fitted_kind(make_flow(layers, flow.parameters))

    def test_a_single_weight_of_zeros_is_another_kind(self):
        flow = build()
        zero = replace(flow.parameters[1], norm=Quantity([0.0]))
        weights = (flow.parameters[0], zero, flow.parameters[2])
        assert not is_fitted_kind(make_flow(flow.layers, weights))

    @pytest.mark.parametrize(
        ("parts", "fitted"),
        [
            ((("mse", True),), True),
            ((("mse", True), ("custom", False)), True),
            ((("custom", False), ("penalty", False)), False),
            ((("mse", False),), False),  # a critic stands in between
            ((("penalty", True),), False),
            ((), True),
        ],
    )
    def test_a_loss_that_compares_no_answers_is_another_kind(self, parts, fitted):
        found = tuple(LossPart(kind=kind, is_direct=direct) for kind, direct in parts)
        assert is_fitted_kind(build(loss_facts=LossFlow(parts=found))) is fitted

    def test_one_example_alone_shows_no_variation(self):
        flow = build()
        layers = [
            replace(each, statistics=replace(each.statistics, variation=None))
            if each.layer == 3
            else each
            for each in flow.layers
        ]
        assert not is_fitted_kind(make_flow(layers, flow.parameters))
        assert not is_fitted_kind(make_flow())


class TestHopeless:
    @staticmethod
    def ask(flow):
        return [each.feature for each in find_hopeless(flow)]

    def test_is_what_no_step_can_help(self):
        assert self.ask(make_chain([1.0, 1.0])) == []
        assert self.ask(make_chain([1.0, 1.0], loss=math.nan)) == ["non_finite"]
        assert self.ask(make_chain([1.0, math.inf])) == ["non_finite"]
        assert self.ask(make_chain([0.0, 0.0])) == ["no_gradient"]
        assert self.ask(make_chain([0.0, 1e-30])) == []
        flat = LossFlow(parts=(), reaction=quantity(0.0), step=quantity(0.0))
        assert self.ask(make_chain([1.0, 1.0], loss_facts=flat)) == ["no_gradient"]
        found = assess_viability(make_chain([0.0, 0.0]))
        assert found.sgd.word is found.adam.word is Outlook.NOT_VIABLE
        assert found.sgd.contributions[0].log_odds == -12.0


class TestCures:
    @staticmethod
    def origin(op="division", inputs=(0.5,), **fields):
        element = NonFiniteElement(
            index=(0,),
            value=Quantity([math.nan]),
            inputs=tuple(map(quantity, inputs)),
            gradient=None,
        )
        values = {
            **{"source": "operation", "op": op, "function": "F", "direction": "forward"},
            **{"module": None, "dtype": "float32", "overflow": False, "shape": (1,)},
            **{"count": Quantity([1.0]), "elements": (element,), "file": "", "line": None},
            **{"code": "", "loss": Quantity([1.0]), "parameters": ()},
            **{"parameter_count": Quantity([0.0])},
        } | fields
        return NonFiniteOrigin(**values)

    def test_are_by_operation_or_by_where_it_came_from(self):
        assert find_cure(self.origin("division")) is CURES["division"]
        assert find_cure(self.origin("division, in a loop")) is CURES["division"]
        assert find_cure(self.origin("own")) is None
        titles = {
            source: find_cure(self.origin(source=source)).title
            for source in ("input", "parameter", "buffer", "constant")
        }
        assert len(set(titles.values())) == 4
        assert "data" in titles["input"]

    def test_of_an_overflow_in_half_precision_are_by_direction(self):
        forward = find_cure(self.origin(overflow=True))
        backward = find_cure(self.origin(overflow=True, direction="backward"))
        assert "bfloat16" in forward.title
        assert "Scale the loss" in backward.title
        assert not is_of_formula(self.origin(overflow=True))
        assert not is_of_formula(self.origin(overflow=True, direction="backward"))

    @pytest.mark.parametrize(
        ("inputs", "weights"),
        [((1e30, 1e30), True), ((0.5, 1.0), False), ((0.0, math.inf), False), ((1e30,), True)],
    )
    def test_of_a_product_are_smaller_weights_if_finite_numbers_grew(self, inputs, weights):
        origin = self.origin("multiplication", inputs)
        assert ("weights" in find_cure(origin).title) is weights
        assert is_of_formula(origin) is not weights
        assert find_cure(self.origin("division", inputs)) is CURES["division"]


def test_residual_networks_are_measured_by_what_reaches_their_layers():
    flow = build(residuals=(residual(parameters=(1,)),))
    assert measure_features(flow)["smallest_gradient"] == pytest.approx(-1.0)
