"""Rules on losses and calls, of flows small enough for paper."""

import math
from dataclasses import replace

import pytest

from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.evidence import name_outputs
from chainrule.diagnosis.loss_rules import (
    has_same_numbers,
    is_applied_twice,
    is_out_of_reach,
    is_single,
)
from chainrule.diagnosis.rules import RULES, measure_metric
from chainrule.diagnosis.score import _measure_distance
from chainrule.diagnosis.slip_rules import count_examples, list_slips, word_off, word_place
from chainrule.flow.inputs import InputFlow
from chainrule.flow.loss import (
    AlignmentFlow,
    BroadcastFlow,
    LossFlow,
    LossPart,
    LossTerm,
    TermGradient,
)
from chainrule.flow.optimizer import OptimizerFlow
from chainrule.flow.slips import SlipFlow
from made_flows import call, make_chain, make_flow, parameter, quantity

CALLS = [call("a", shape=(16, 4)), call("b", shape=(16, 4))]
LOGITS = "binary_cross_entropy_with_logits"


def part(kind="mse", **fields):
    numbers = {"value", "guessing", "constant", "floor", "reach", "off"}
    values = {
        name: quantity(each) if name in numbers else each
        for name, each in ({"outputs": (1,), "is_direct": True} | fields).items()
    }
    return LossPart(kind=kind, **values)


def build(*parts, loss=1.0, optimizer=None, **fields):
    facts = LossFlow(parts=parts, **({"outputs": (1,)} | fields))
    return make_flow(
        CALLS, [parameter("b.weight")], loss=loss, loss_facts=facts, optimizer=optimizer
    )


def find(rule, flow):
    found = [each for each in diagnose(flow).findings if each.rule == rule]
    return found[0] if found else None


def optimize(**fields):
    return OptimizerFlow(name="SGD", steps="gradient", rates=(0.1,), **fields)


class TestSign:
    @pytest.mark.parametrize(
        ("constant", "maximizes", "metric"),
        [(0.5, False, 3.0), (-0.5, False, -3.0), (0.5, True, -3.0), (-0.5, True, 3.0)],
    )
    @pytest.mark.parametrize("value", [3.0, -3.0])
    def test_of_the_constant_and_of_the_optimizer(self, constant, maximizes, metric, value):
        flow = build(
            part(value=value, constant=constant),
            part("penalty", outputs=()),
            optimizer=optimize(maximizes=maximizes),
        )
        assert measure_metric(flow, "wrong_sign") == metric
        found = find("wrong_sign", flow)
        assert (found is not None) is (metric < 0)
        if found:
            assert found.modules == ("b",)
            assert ("maximize=True" in found.evidence) is maximizes
            assert ("maximize=True" in diagnose(flow).action) is maximizes

    @pytest.mark.parametrize(
        "parts",
        [
            (),
            (part("custom", value=1.0, constant=-1.0),),
            (part(value=1.0, constant=-1.0, is_direct=False),),
            (part(value=1.0, constant=0.0),),
            (part(constant=-1.0),),
            (part(value=1.0, constant=-1.0), part("l1", value=1.0, constant=-1.0)),
        ],
    )
    def test_is_not_known_of_other_losses(self, parts):
        assert measure_metric(build(*parts), "wrong_sign") is None


class TestFlat:
    @pytest.mark.parametrize(
        ("loss", "lowest"), [(0.5, True), (0.5 + 1e-6, False), (0.5 + 1e-7, True)]
    )
    def test_says_whether_the_loss_is_at_its_floor(self, loss, lowest):
        """Up to rounding, 2⁻²³ of what guessing costs: 2."""
        flow = build(
            part(guessing=2.0, floor=0.5), loss=loss, reaction=quantity(0.0), offset=quantity(0.0)
        )
        found = find("flat_loss", flow)
        assert ("its lowest possible value" in found.evidence) is lowest
        assert "'b'" in found.evidence

    def test_without_a_reaction_the_step_counts(self):
        assert measure_metric(build(reaction=quantity(0.5), step=quantity(0.0)), "flat_loss") == 0.5
        assert measure_metric(build(step=quantity(0.25)), "flat_loss") == 0.25


class TestExcess:
    def test_is_the_value_over_that_of_guessing(self):
        flow = build(
            part(value=3.0, guessing=2.0), part("l1", value=505.0, guessing=2.5, outputs=(0,))
        )
        found = find("large_loss", flow)
        assert (found.value, found.modules) == (202.0, ("a",))
        for words in ("L1 is 505", "give 2.5", "202 times", "'a'"):
            assert words in found.evidence

    @pytest.mark.parametrize(
        "fields", [{"guessing": 0.0}, {"guessing": None}, {"value": None}, {"is_direct": False}]
    )
    def test_is_none_without_a_measure(self, fields):
        flow = build(part(**({"value": 500.0, "guessing": 1.0} | fields)))
        assert measure_metric(flow, "large_loss") is None

    @pytest.mark.parametrize(
        ("kind", "ratio", "same"),
        [
            ("mse", 0.0, True),
            ("mse", 1e-17, False),
            ("l1", 0.0, True),
            ("huber", 0.0, True),
            ("cross_entropy", 0.0, False),
        ],
    )
    def test_targets_that_cost_nothing_to_guess_are_the_same(self, kind, ratio, same):
        assert has_same_numbers(part(kind, value=-2.0, guessing=2.0 * ratio)) is same
        assert not has_same_numbers(part(kind, value=2.0, guessing=2.0 * ratio, is_direct=False))


class TestReach:
    def test_counts_where_nothing_else_is_wrong(self):
        """The best outputs cost three quarters of what guessing does."""
        ordinary = {"value": 3.0, "guessing": 2.0, "reach": 1.5}
        assert find("out_of_reach", build(part(**ordinary))).value == 0.75
        turned = build(part(**ordinary, constant=-0.5))
        assert find("wrong_sign", turned) is not None
        assert find("out_of_reach", turned) is None

    @pytest.mark.parametrize(
        "fields", [{"kind": "cross_entropy"}, {"kind": LOGITS, "rectifier": "relu"}]
    )
    def test_of_logits_is_another_matter(self, fields):
        flow = build(part(**({"value": 3.0, "guessing": 2.0, "reach": 1.5} | fields)))
        assert measure_metric(flow, "out_of_reach") is None


@pytest.mark.parametrize(("head", "step"), [(2.0, 0.0), (0.05, None)])
def test_a_step_says_nothing_of_a_last_layer_that_starts_small(head, step):
    flow = make_chain([1.0, 1.0], loss_facts=LossFlow(parts=(), step=quantity(0.0)))
    weights = (flow.parameters[0], replace(flow.parameters[1], norm=quantity(head)))
    flow = make_flow(flow.layers, weights, loss_facts=flow.loss_facts)
    assert measure_metric(flow, "no_step") == step


class TestActivations:
    @pytest.mark.parametrize(
        ("fields", "value"),
        [
            ({"activation": "softmax", "width": 30}, 30.0),
            ({"activation": "softmax", "width": 1}, math.inf),
            ({"activation": "sigmoid", "width": 30}, 1.0),
            ({"activation": "log_softmax", "width": 30}, 1.0),
            ({"width": 30}, 1.0),
        ],
    )
    def test_a_softmax_divides_the_gradient_by_the_classes(self, fields, value):
        flow = build(part("cross_entropy", **fields))
        assert measure_metric(flow, "unsuited_output") == value
        found = find("unsuited_output", flow)
        assert (found is not None) is (value > 20)
        if value == 30.0:
            assert f"{math.log1p(29 / math.e):.3g}" in found.evidence
        elif found:
            assert "single value" in found.evidence

    def test_of_which_losses(self):
        twice = {
            (kind, activation)
            for kind in ("cross_entropy", "nll", "binary_cross_entropy", LOGITS, "mse", "kl")
            for activation in ("softmax", "log_softmax", "sigmoid")
            if is_applied_twice(part(kind, activation=activation))
        }
        logits = {"cross_entropy", "nll", LOGITS}
        assert twice == {(kind, a) for kind in logits for a in ("softmax", "sigmoid")}
        assert is_single(part(activation="softmax", width=1))
        assert not is_single(part(activation="sigmoid", width=1))
        assert not is_single(part(activation="softmax", width=2))

    @pytest.mark.parametrize(
        ("fields", "out"),
        [
            ({}, True),
            ({"value": 1.39}, False),
            ({"activation": "softmax"}, True),
            ({"activation": None}, False),
            ({"kind": "cross_entropy"}, False),
            ({"constant": 0.0}, False),
            ({"constant": None}, False),
            ({"value": None}, False),
        ],
    )
    def test_sigmoid_as_logits_is_out_of_reach_above_the_constant(self, fields, out):
        ordinary = {"kind": LOGITS, "activation": "sigmoid", "value": 1.41, "constant": 1.0}
        assert is_out_of_reach(part(**(ordinary | fields))) is out


class TestCut:
    @staticmethod
    def term(name, value, reaches=True):
        pull = TermGradient(parameter=0, norm=quantity(1.0), cosine=quantity(1.0))
        return LossTerm(name=name, value=quantity(value), gradients=(pull,) if reaches else ())

    def test_is_the_share_of_terms_without_a_gradient(self):
        terms = (self.term("error", 1.0), self.term("kl", -2.0, False), self.term("l2", 1.0, False))
        found = find("detached_term", build(terms=terms))
        assert found.value == 0.5  # of |1| + |−2| + |1|, at the worst of them
        assert "'kl' and 'l2' reach no" in found.evidence
        one = find("detached_term", build(terms=terms[:2]))
        assert one.value == pytest.approx(2 / 3)
        assert "'kl' reaches no" in one.evidence
        assert measure_metric(build(terms=terms[:1]), "detached_term") == 0.0

    @pytest.mark.parametrize(
        ("loss", "cut", "share"),
        [(4.0, 1.0, 0.25), (-2.0, 1.0, 0.25), (1.0, -1.0, 1 / 3), (1.0, 0.0, None)],
    )
    def test_is_what_functions_without_a_derivative_keep(self, loss, cut, share):
        metric = measure_metric(build(loss=loss, cut=quantity(cut)), "detached_term")
        assert metric == (None if share is None else pytest.approx(share))


def test_sequences_that_are_too_short_are_a_share():
    alignment = AlignmentFlow(
        examples=50, short=quantity(49), example=3, steps=4, labels=4, repeats=1
    )
    found = find("short_sequences", build(alignment=alignment))
    assert (found.value, found.modules) == (0.98, ("b",))
    assert "49 of 50 sequences" in found.evidence
    assert alignment.sentence in found.evidence


def test_answers_that_meet_all_targets_are_counted():
    each = BroadcastFlow(
        **{"operation": "subtraction", "output": (16, 1), "target": (16,), "result": (16, 16)},
        **{"by_mistake": True, "file": "train.py", "line": 3, "code": "(p - y).mean()"},
    )
    found = find("broadcast_loss", build(broadcasts=(replace(each, by_mistake=False), each)))
    assert found.value == 16.0
    for words in ("(16, 1) and (16,)", "(16, 16)", "train.py:3: (p - y).mean()", "all 16"):
        assert words in found.evidence


def test_outputs_are_named_once_in_order():
    flow = make_flow([call("a"), call("b"), call("a", call=1)])
    assert name_outputs(flow, (2, 1, 0)) == ("a", "b")


class TestFlatFunctions:
    @pytest.mark.parametrize(
        ("operation", "in_evidence", "in_action"),
        [
            ("round", "round passes", "round(x) - x"),
            ("softmax", "softmax over a single value passes", "softmax go over the dimension"),
            ("log_softmax", "log_softmax over a single value", "softmax go over the dimension"),
            ("layer_norm", "layer_norm over a single value", "go over the features"),
        ],
    )
    @pytest.mark.parametrize("count", [1, 3])
    def test_are_named_with_their_place_and_a_way_out(
        self, operation, in_evidence, in_action, count
    ):
        places = [("net.a", False), ("net.b", False), ("", True)][:count]
        slips = tuple(
            SlipFlow(
                **{"kind": "flat", "operation": operation, "module": module, "is_in_loss": in_loss},
                **{
                    "shape": (9, 1),
                    "result": (9, 1),
                    "file": "net.py",
                    "line": 7,
                    "code": "y = f(x)",
                },
            )
            for module, in_loss in places
        )
        flow = make_flow(CALLS, slips=slips)
        found = find("flat_function", flow)
        assert (found.value, found.modules) == (count, ("net.a", "net.b")[:count])
        assert in_evidence in found.evidence
        assert "(9, 1)" in found.evidence
        assert "net.py:7" in found.evidence
        assert ("3 calls" in found.evidence) is (count == 3)
        action = RULES["flat_function"].action
        text = action(flow) if callable(action) else action
        assert in_action in text
        assert "net.py:7" in text


class TestSlips:
    @staticmethod
    def slip(kind, **fields):
        ordinary = {"operation": "softmax", "module": "a", "shape": (8, 5), "result": (8, 5)}
        return SlipFlow(kind=kind, **(ordinary | fields))

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({}, " (in 'a')"),
            ({"module": ""}, " (in '(model)')"),
            ({"module": "", "is_in_loss": True}, " (in the loss)"),
            ({"file": "b/net.py", "line": 7}, " (net.py:7, in 'a')"),
        ],
    )
    def test_are_placed_in_a_module_or_in_the_loss(self, fields, words):
        assert word_place(self.slip("flat", **fields)) == words

    def test_of_a_softmax_over_the_only_answer_are_a_finding_of_its_own(self):
        slips = (self.slip("flat"), self.slip("flat", operation="sign"))
        single = LossFlow(parts=(part(activation="softmax", width=1),))
        for facts, names in ((None, ["softmax", "sign"]), (single, ["sign"])):
            flow = make_flow(CALLS, slips=slips, loss_facts=facts)
            assert [each.operation for each in list_slips(flow, "flat")] == names

    @pytest.mark.parametrize(("dim", "count"), [(0.0, 8), (1.0, 5), (None, 8), (2.0, 8)])
    def test_over_examples_count_what_they_go_over(self, dim, count):
        assert count_examples(self.slip("over_examples", value=quantity(dim))) == count

    def test_examples_as_steps_say_which_are_which(self):
        slip = self.slip("examples_as_steps", operation="LSTM", shape=(8, 5, 3), result=(8, 5, 3))
        found = find("examples_as_steps", make_flow(CALLS, slips=(slip,)))
        assert "the loss has 8 answers" in found.evidence
        assert "along the 8 examples and takes their 5 steps" in found.evidence

    def test_the_last_function_at_its_end_is_the_nearest_to_the_loss(self):
        slips = (self.slip("off", operation="relu"), self.slip("off", operation="clamp"))
        assert "clamp sends nothing back" in word_off(make_flow(CALLS, slips=slips))


class TestDistance:
    """How far a metric is beyond its bound, in powers of ten: what the score is made of."""

    @staticmethod
    def enter(**fields):
        numbers = {"mean": 0.0, "std": 1.0, "min": -1.0, "max": 1.0, "non_finite": 0.0}
        numbers |= {"constant_columns": 0.0, "zero_columns": 0.0, "offset": 0.5}
        numbers |= {"spread_ratio": 2.0, "repeated": 0.0} | fields
        each = InputFlow(
            **{"reader": "a", "shape": (16, 4), "dtype": "float32", "examples": 16, "columns": 4},
            **{name: quantity(number) for name, number in numbers.items()},
        )
        return make_flow([call("a", layer=1), call("b", layer=2)], inputs=(each,))

    @pytest.mark.parametrize(
        ("rule", "fields", "distance"),
        [
            ("offset_inputs", {"offset": 100.0}, 1.0),
            ("offset_inputs", {"offset": 1.0}, -1.0),
            ("offset_inputs", {"offset": 1e12}, 6.0),
            ("offset_inputs", {"offset": 0.0}, -6.0),
            ("offset_inputs", {"offset": math.inf}, 6.0),
            ("offset_inputs", {"offset": math.nan}, 6.0),
            ("small_inputs", {"min": -1e-4, "max": 1e-5}, 2.0),
            ("small_inputs", {"min": -0.1, "max": 0.05}, -1.0),
            ("small_inputs", {"min": 0.0, "max": 0.0}, None),
            ("non_finite_inputs", {"non_finite": 0.1}, 1.0),
            ("non_finite_inputs", {}, -6.0),
        ],
    )
    def test_of_ratios_and_of_what_is_compared_with_zero(self, rule, fields, distance):
        found = _measure_distance(self.enter(**fields), rule)
        assert found == (None if distance is None else pytest.approx(distance))

    @pytest.mark.parametrize("short", [0, 90, 99, 100])
    def test_of_shares_is_in_odds(self, short):
        alignment = AlignmentFlow(
            examples=100, short=quantity(short), example=0, steps=1, labels=2, repeats=0
        )
        odds = [(share + 1e-6) / (1 - share + 1e-6) for share in (short / 100, 0.95)]
        expected = max(-6.0, min(6.0, math.log10(odds[0] / odds[1])))
        found = _measure_distance(build(alignment=alignment), "short_sequences")
        assert found == pytest.approx(expected)

    def test_of_a_rule_that_does_not_apply_is_none(self):
        flow = make_chain([1e-20, 1e-20], loss=0.0)
        assert not RULES["below_epsilon"].applies(flow)
        assert measure_metric(flow, "below_epsilon") is not None
        assert _measure_distance(flow, "below_epsilon") is None
