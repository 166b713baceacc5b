"""Notes on targets, steps and calls of flows small enough for paper, with their bounds."""

import math

import pytest

from chainrule._utils.numbers import format_number
from chainrule.diagnosis.notes import list_notes
from chainrule.flow.inputs import InputFlow
from chainrule.flow.loss import LossFlow, LossPart, LossTerm
from chainrule.flow.optimizer import OptimizerFlow
from chainrule.flow.slips import SlipFlow
from made_flows import call, make_chain, make_flow, parameter, quantity


def part(kind="cross_entropy", **fields):
    numbers = {"value", "guessing", "constant", "floor", "reach", "off"}
    values = {
        name: quantity(each) if name in numbers else each
        for name, each in ({"outputs": (1,), "is_direct": True} | fields).items()
    }
    return LossPart(kind=kind, **values)


OTHER = part("custom", outputs=())
"""A part that no note is about: what comes after it counts all the same."""


def look(flow, name):
    found = [each for each in list_notes(flow) if each.name == name]
    return found[0] if found else None


def note(name, *parts, calls=None, weights=(), **fields):
    calls = [call("a", shape=(16, 4)), call("b", shape=(16, 4))] if calls is None else calls
    facts = LossFlow(parts=parts, outputs=(1,))
    return look(make_flow(calls, weights, **({"loss_facts": facts} | fields)), name)


def read(found):
    return None if found is None else float(found.value)


class TestOneNumber:
    @pytest.mark.parametrize(
        ("shape", "fields", "noted"),
        [
            ((5, 1), {}, 5),
            ((3, 1), {"width": 3}, 3),
            ((2, 1), {"width": 2}, None),
            ((5, 1, 1, 1), {}, 5),
            ((5, 2), {}, None),
            ((5, 1, 3, 3), {}, None),
            ((5,), {}, None),
            ((6, 1), {}, None),
            ((5, 1), {"kind": "nll"}, None),
            ((5, 1), {"is_direct": False}, None),
            ((5, 1), {"outputs": (0, 1)}, None),
        ],
    )
    def test_is_a_weight_with_one_column_for_classes(self, shape, fields, noted):
        weights = [parameter("b.weight", shape=shape)]
        found = note("one_number", OTHER, part(**({"width": 5} | fields)), weights=weights)
        assert read(found) == noted
        if found:
            assert found.modules == ("b",)
            assert str(shape) in found.evidence

    @pytest.mark.parametrize(("columns", "noted"), [(1, False), (4, True)])
    def test_is_no_choice_where_the_data_are_one_number(self, columns, noted):
        numbers = {"mean": 0.0, "std": 1.0, "min": -1.0, "max": 1.0, "non_finite": 0.0}
        numbers |= {"constant_columns": 0.0, "zero_columns": 0.0, "offset": 0.5}
        numbers |= {"spread_ratio": 1.0, "repeated": 0.0}
        entering = InputFlow(
            **{"reader": "b", "shape": (16, columns), "dtype": "float32"},
            **{"examples": 16, "columns": columns},
            **{name: quantity(number) for name, number in numbers.items()},
        )
        weights = [parameter("b.weight", shape=(5, 1))]
        found = note("one_number", part(width=5), weights=weights, inputs=(entering,))
        assert (found is not None) is noted

    def test_of_a_model_that_is_one_layer(self):
        found = note(
            "one_number",
            part(width=5, outputs=(0,)),
            calls=[call("", shape=(16, 5))],
            weights=[parameter("weight", shape=(5, 1))],
        )
        assert (found.value, found.modules) == (5, ())


class TestOneSided:
    @pytest.mark.parametrize(("off", "noted"), [(0.05, None), (0.06, 0.06), (1.0, 1.0)])
    def test_share_of_right_classes_at_the_end_of_a_rectifier(self, off, noted):
        found = note("one_sided_logits", OTHER, part(rectifier="relu", off=off))
        assert read(found) == noted
        assert note("one_sided_logits", part(off=off)) is None

    @pytest.mark.parametrize(
        ("reach", "constant", "noted", "says"),
        [
            (0.1, None, None, False),
            (0.11, None, 0.055, False),
            (1.0, 0.9, 0.5, True),
            (1.0, 1.0, 0.5, False),
            (1.0, None, 0.5, False),
            (None, 0.5, None, False),
        ],
    )
    def test_cost_of_the_best_odds_above_one_half(self, reach, constant, noted, says):
        """Relative to guessing, 2; one answer of any sign is mentioned where it costs less."""
        kind = "binary_cross_entropy_with_logits"
        facts = {"guessing": 2.0, "constant": constant, "reach": reach, "rectifier": "relu"}
        found = note("one_sided_logits", OTHER, part(kind, **facts))
        assert read(found) == (None if noted is None else pytest.approx(noted))
        if found:
            end = found.evidence.rpartition("costs 2")[2]
            assert (f"{constant or 0:g}" in end) is says
            assert found.modules == ("b",)


class TestAlikeTargets:
    @pytest.mark.parametrize(
        ("constant", "name", "value"),
        [
            (0.0, "same_targets", 1.0),
            (1e-7, "same_targets", 1.0),
            (0.01, "rare_targets", 0.01),
            (0.19, "rare_targets", 0.19),
            (0.2, None, None),
        ],
    )
    @pytest.mark.parametrize(
        ("kind", "width", "classes"),
        [
            ("cross_entropy", 4, 4),
            ("cross_entropy", 2, 2),
            ("binary_cross_entropy_with_logits", None, 2),
            ("binary_cross_entropy", None, 2),
        ],
    )
    def test_by_the_entropy_of_the_classes(self, constant, name, value, kind, width, classes):
        """Of a loss that is three times as large, so are both of its costs."""
        costs = {"constant": 3 * constant, "guessing": 3 * math.log(classes), "floor": 0.0}
        for each in ("same_targets", "rare_targets"):
            found = note(each, OTHER, part(kind, width=width, **costs))
            assert read(found) == (pytest.approx(value) if each == name else None)
            assert found is None or found.modules == ("b",)

    @pytest.mark.parametrize(
        "fields",
        [
            {"floor": 0.1},
            {"floor": None},
            {"constant": None},
            {"guessing": None},
            {"width": None},
            {"width": 1},
            {"kind": "nll"},
            {"outputs": ()},
        ],
    )
    def test_of_other_losses_nothing_is_said(self, fields):
        costs = {"constant": 0.0, "guessing": 1.0, "floor": 0.0, "width": 4}
        assert note("same_targets", part(**costs)) is not None
        assert note("same_targets", part(**(costs | fields))) is None

    @pytest.mark.parametrize(("examples", "noted"), [(7, False), (8, True)])
    def test_of_few_examples_nothing_is_said(self, examples, noted):
        calls = [call("a", shape=(64, 4)), call("b", shape=(examples, 4))]
        classes = part(constant=0.0, guessing=1.0, floor=0.0, width=4)
        numbers = part("mse", value=1.0, guessing=0.0)
        for each in (classes, numbers):
            assert (note("same_targets", each, calls=calls) is not None) is noted

    def test_numbers_are_alike_where_a_constant_answers_all(self):
        assert read(note("same_targets", part("mse", value=1.0, guessing=0.0))) == 1.0
        assert note("same_targets", part("mse", value=1.0, guessing=1e-3)) is None
        penalty = part("penalty", outputs=())
        assert note("same_targets", penalty, part("l1", value=1.0, guessing=0.0)) is not None
        assert note("same_targets", OTHER, part("l1", value=1.0, guessing=0.0)) is None
        assert note("same_targets", part("l1", value=1.0, guessing=0.0), OTHER) is None


class TestUnnamedTerms:
    @pytest.mark.parametrize(
        ("loss", "value"), [(1.25, None), (1.5, 1.25), (-1.0, 1.25), (0.75, None), (-0.75, None)]
    )
    def test_what_is_added_to_an_error_beside_its_guessing(self, loss, value):
        """The error is 0.25 where guessing costs 1: of a loss of 1.5, 1.25 is something else."""
        error = part("mse", value=0.25, guessing=1.0)
        assert read(note("unnamed_terms", error, OTHER, loss=loss)) == value
        assert note("unnamed_terms", error, loss=loss) is None

    def test_what_is_taken_off_has_its_sign(self):
        found = note("unnamed_terms", part("mse", value=0.25, guessing=1.0), OTHER, loss=-3.75)
        assert read(found) == pytest.approx(4.0)
        assert f"amounts to {format_number(-4.0)}" in found.evidence

    def test_several_errors_are_added_up_and_penalties_are_none(self):
        one, other = part("mse", value=0.25, guessing=1.0), part("l1", value=0.5, guessing=2.0)
        penalty = part("penalty", guessing=100.0)
        found = note("unnamed_terms", one, other, penalty, OTHER, loss=5.25)
        assert read(found) == pytest.approx(4.5 / 3.0)

    def test_terms_with_names_are_judged_by_these(self):
        parts = part("mse", value=0.25, guessing=1.0), OTHER
        term = LossTerm(name="kl", value=quantity(1.0), gradients=None)
        facts = LossFlow(parts=parts, terms=(term,))
        assert note("unnamed_terms", loss=9.0, loss_facts=facts) is None


class TestLinear:
    @pytest.mark.parametrize(
        ("kinds", "noted"),
        [
            (["Linear", "Linear"], 2),
            (["Conv2d", "Flatten", "Linear", "Linear"], 3),
            (["ConvTranspose1d", "BatchNorm1d", "Dropout", "Linear"], 2),
            (["Linear", "Linear", "Softmax"], 2),
            (["Linear", "Linear", "ReLU", "Flatten"], 2),
            (["Linear", "ReLU", "Linear"], None),
            (["Linear", "LayerNorm", "Linear"], None),
            (["Embedding", "Linear", "Linear"], None),
            (["Linear", "ReLU"], None),
            (["Softmax"], None),
        ],
    )
    def test_several_matrices_with_nothing_between(self, kinds, noted):
        calls = [
            call(str(at), kind, role="activation" if kind in ("ReLU", "Softmax") else "weight")
            for at, kind in enumerate(kinds)
        ]
        found = note("no_activations", calls=calls, chain=True)
        assert read(found) == noted
        assert note("no_activations", calls=calls, chain=False) is None

    def test_one_matrix_that_is_used_twice_is_one(self):
        calls = [call("a"), call("a", call=1)]
        assert note("no_activations", calls=calls, chain=True) is None

    def test_what_is_inside_of_modules_does_not_count(self):
        calls = [call("a"), call("a.act", "ReLU", parent=0), call("b")]
        assert note("no_activations", calls=calls, chain=True).modules == ("a", "b")


class TestSteps:
    @staticmethod
    def build(rate, decay=0.0, **fields):
        """A weight of norm 2 with a gradient of 1: a step of plain SGD is rate ÷ 2 of it."""
        optimizer = OptimizerFlow(name="SGD", steps="gradient", rates=(rate,), decays=(decay,))
        return make_flow(
            [call("a", layer=1)], [parameter("a.weight", 1)], optimizer=optimizer, **fields
        )

    @pytest.mark.parametrize(
        ("rate", "noted"),
        [(2e-4, False), (1.9e-4, True), (2e-6, True), (1.9e-6, False), (0.0, False)],
    )
    def test_small_ones_are_those_above_a_finding(self, rate, noted):
        found = look(self.build(rate), "small_steps")
        assert read(found) == (pytest.approx(rate / 2) if noted else None)

    @pytest.mark.parametrize(
        ("decay", "loss", "value"),
        [(0.5, 1.0, None), (0.6, 1.0, 1.2), (1.6, 1.0, None), (1.6, 0.1, 3.2)],
    )
    def test_decay_that_pulls_as_strongly_as_the_loss(self, decay, loss, value):
        """Beyond 3 it is a finding, unless the model is trained: its loss is below guessing."""
        error = part("mse", value=loss, guessing=1.0, outputs=())
        facts = LossFlow(parts=(error,), offset=quantity(0.0))
        found = look(self.build(0.1, decay, loss=loss, loss_facts=facts), "some_decay")
        assert read(found) == (None if value is None else pytest.approx(value))

    @pytest.mark.parametrize(
        ("norm", "name"),
        [(199.0, None), (201.0, "low_rate"), (2.1e-4, None), (1.9e-4, "high_rate")],
    )
    def test_rates_that_no_one_would_try(self, norm, name):
        """At 0.02 ÷ norm the median weight, of norm 2, moves by 1 %."""
        flow = make_chain([norm, norm], gradients=[norm, norm])
        for each in ("low_rate", "high_rate"):
            found = look(flow, each)
            assert read(found) == (pytest.approx(0.02 / norm) if each == name else None)

    @pytest.mark.parametrize(("norm", "noted"), [(4.1e-9, False), (3.9e-9, True)])
    def test_gradients_below_what_adam_adds(self, norm, noted):
        """Sixteen entries of a gradient of norm 4 have a size of 1."""
        found = look(make_chain([norm, norm], gradients=[norm, norm]), "tiny_gradients")
        assert read(found) == (pytest.approx(norm / 4) if noted else None)

    def test_a_fault_explains_small_gradients(self):
        flow = make_chain([1e-9, 3e-9], gradients=[3e-4, 1.0])
        assert look(flow, "tiny_gradients") is None


@pytest.mark.parametrize(
    ("reach", "noted"), [(0.1, False), (0.12, True), (1.0, True), (1.1, False), (None, False)]
)
def test_targets_partly_out_of_reach_cost_less_than_a_finding(reach, noted):
    found = note("partly_out_of_reach", OTHER, part("mse", value=3.0, guessing=2.0, reach=reach))
    assert read(found) == (pytest.approx(reach / 2) if noted else None)


def test_dropout_is_noted_at_its_largest_share():
    shares = {"a": 0.85, "b": 0.95, "c": 0.9, "d": None}
    slips = tuple(
        SlipFlow(
            **{"kind": "dropout", "operation": "dropout", "module": name, "value": quantity(share)},
            **{"shape": (4,), "result": (4,)},
        )
        for name, share in shares.items()
    )
    found = look(make_flow([call("a")], slips=slips), "heavy_dropout")
    assert (found.value, found.modules) == (0.95, ("a", "b", "c"))
    assert look(make_flow([call("a")], slips=slips[3:]), "heavy_dropout") is None


class TestSameViews:
    @pytest.mark.parametrize(
        ("fields", "noted"),
        [
            ({}, True),
            ({"shape": (7, 4)}, False),
            ({"name": "b"}, False),
            ({"output": "1"}, False),
            ({"statistics": {"mean": 1e-9}}, False),
        ],
    )
    def test_are_two_calls_with_the_same_numbers(self, fields, noted):
        ordinary = {"name": "a", "shape": (8, 4)}
        calls = [
            call(**ordinary),
            call("other", shape=(8, 4), statistics={"std": 2.0}),
            call(**({**ordinary, "call": 1} | fields)),
        ]
        found = note("same_views", OTHER, part(outputs=(2, 1, 0)), calls=calls)
        assert (found is not None) is noted
        if found:
            assert found.modules == ("a",)

    @pytest.mark.parametrize(("shape", "noted"), [((8, 1), False), ((8, 2), True)])
    def test_are_none_of_scores_by_which_examples_are_ranked(self, shape, noted):
        calls = [call("a", shape=shape, call=at) for at in range(2)]
        assert (note("same_views", part(outputs=(0, 1)), calls=calls) is not None) is noted

    def test_are_none_where_all_examples_are_alike(self):
        calls = [call("a", shape=(8, 4), call=at, statistics={"variation": 0.0}) for at in range(2)]
        assert note("same_views", part(outputs=(0, 1)), calls=calls) is None
