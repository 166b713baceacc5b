"""What a measurement knows in addition to its layers, as sections: of any flow and of made ones."""

import json
import math
import re

import pytest
from hypothesis import given, settings

from chainrule import diagnose
from chainrule.app.routes.model_page import describe_model
from chainrule.diagnosis.time_rules import LOST
from chainrule.display.facts import list_sections
from chainrule.display.sentences import explain
from chainrule.figures import build_time_figure
from chainrule.flow.loss import LossFlow, LossPart, LossTerm, TermGradient
from chainrule.flow.optimizer import OptimizerFlow
from chainrule.flow.precision import PrecisionFlow
from chainrule.flow.quantity import Quantity
from chainrule.flow.time import TimeFlow
from chainrule.flow.trial import OptimizerTrial, RateTrial, Trial, TrialOutcome
from chainrule.remedies.advice import advise
from made_flows import call, make_flow, parameter, quantity
from strategies import flows


@settings(max_examples=15)
@given(flows)
def test_every_flow_that_can_be_loaded_can_be_shown(flow):
    diagnosis = diagnose(flow)
    for section in list_sections(flow, diagnosis):
        assert section.title
        assert section.sentences or section.tables
        for sentence in section.sentences:
            assert re.search(r"[.?]$", sentence)
        for table in section.tables:
            assert all(len(row) == len(table.head) for row in table.rows)
            assert all(type(cell) is str for row in table.rows for cell in row)
    json.dumps(describe_model(flow), allow_nan=False)


def test_a_step_that_is_lost_has_another_colour_and_zero_lies_on_the_edge():
    norms = tuple(Quantity([norm]) for norm in (0.0, 1e-9, 1e-3, 1.0))
    time = TimeFlow(
        name="a", kind="GRU", call=0, of="input", length=9, steps=(0, 2, 5, 8), gradients=norms
    )
    figure = build_time_figure(time, lost=LOST)
    (line,) = figure["data"]
    assert line["x"] == [1, 3, 6, 9]
    assert figure["layout"]["xaxis"]["range"] == [0.5, 9.5]  # also the steps without a mark
    assert line["y"] == [1e-12, 1e-9, 1e-3, 1.0]
    colors, symbols = line["marker"]["color"], line["marker"]["symbol"]
    assert colors[0] == colors[1] != colors[2] == colors[3]
    assert symbols[1] != symbols[2]
    low, high = figure["layout"]["yaxis"]["range"]
    assert low <= -12 < 0 < high


def describe(name, **fields):
    """Return one section of a flow of a single weight."""
    flow = make_flow([], [parameter("a")], **fields)
    (section,) = [each for each in list_sections(flow, diagnose(flow)) if each.name == name]
    return section


class TestTrial:
    @staticmethod
    def build(*, fresh):
        values = {"steps": 40, "before": 2.0, "after": 1.0}
        trained = RateTrial(rate=0.01, learned=0.5, outcome=TrialOutcome.TRAINED, **values)
        flat = RateTrial(
            rate=0.1,
            learned=0.0,
            outcome=TrialOutcome.FLAT,
            stopped=True,
            **(values | {"steps": 9}),
        )
        lost = RateTrial(
            rate=1.0, learned=0.0, outcome=TrialOutcome.DIVERGED, failed_at=7, **values
        )
        optimizers = (
            OptimizerTrial(name="SGD", rates=(trained, flat)),
            OptimizerTrial(name="Adam", rates=(trained, lost)),
            OptimizerTrial(name="LBFGS", rates=(), skipped="no room"),
        )
        return Trial(optimizers=optimizers, passes=80.0, limit=300, fresh=fresh, kept=3)

    @pytest.mark.parametrize(("fresh", "word"), [(True, "trained"), (False, "learned by heart")])
    def test_on_one_repeated_batch_adam_learns_by_heart(self, fresh, word):
        best, _, _ = describe("trial", trial=self.build(fresh=fresh)).tables
        words = [row[2] for row in best.rows]
        assert [each.partition(" ")[2] for each in words[:2]] == ["trained", word]
        assert words[2] == "not tried: no room"
        assert best.rows[0][1] == "2 → 1"
        assert best.rows[0][3:] == ("0.01", "40")

    def test_every_rate_says_what_became_of_it(self):
        _, rates, meanings = describe("trial", trial=self.build(fresh=True)).tables
        assert [(row[0], row[3], row[4]) for row in rates.rows] == [
            ("SGD", "0.01", "40"),
            ("SGD", "0.1", "9"),
            ("Adam", "0.01", "40"),
            ("Adam", "1", "40"),
        ]
        words = [row[2].partition(" ")[2] for row in rates.rows]
        assert words == ["trained", "flat, left for better rates", "trained", "diverged at step 7"]
        assert [row[0].partition(" ")[2] for row in meanings.rows] == [
            "trained",
            "flat",
            "diverged",
        ]


class TestLoss:
    @staticmethod
    def gradient(norm, cosine):
        return TermGradient(parameter=0, norm=quantity(norm), cosine=quantity(cosine))

    def test_terms_pull_against_the_whole_where_the_cosine_is_below_zero(self):
        pulls = [(3.0, 0.5), (4.0, -0.5), (0.0, math.nan), (0.0, 0.0)]
        terms = (
            LossTerm(
                name="fit",
                value=quantity(2.0),
                gradients=tuple(self.gradient(*each) for each in pulls),
                guessing=quantity(3.0),
            ),
            LossTerm(name="cut", value=quantity(0.5), gradients=()),
            LossTerm(name="far", value=quantity(0.25), gradients=None),
        )
        facts = LossFlow(parts=(), terms=terms)
        _, table = describe("loss", loss_facts=facts).tables
        assert table.rows == (
            ("fit", "2", "3", "5", "1 of 4"),
            ("cut", "0.5", "–", "reaches no parameter", "–"),
            ("far", "0.25", "–", "–", "–"),
        )

    def test_what_is_cut_off_is_told_from_what_is_detached(self):
        facts = LossFlow(parts=(), cut=quantity(0.25), detached=quantity(4.0))
        values = dict(describe("loss", loss_facts=facts).tables[0].rows)
        assert values["part of the loss that is without a derivative"] == "0.25"
        assert values["part of the loss that is detached"] == "4"

    @pytest.mark.parametrize(
        ("loss", "words"),
        [(1.9, "about"), (2.4, "1.2 times"), (1.0, "0.5 times"), (20.0, "10 times")],
    )
    def test_is_compared_with_guessing(self, loss, words):
        part = LossPart(kind="mse", value=quantity(loss), guessing=quantity(2.0))
        facts = LossFlow(parts=(part,), offset=quantity(0.0))
        section = describe("loss", loss=loss, loss_facts=facts)
        (sentence,) = section.sentences
        assert words in sentence
        rows = dict(section.tables[0].rows)
        assert rows["a guess that knows nothing gives"] == "2"
        assert rows["lowest possible value"] == "–"

    @pytest.mark.parametrize(
        ("fall", "words"),
        [(0.25, "25 %"), (1.0, "100 %"), (0.01, "1 %"), (2.0, "2 times"), (1e-3, "0.001 times")],
    )
    def test_falls_by_a_part_of_itself_or_by_times_itself(self, fall, words):
        facts = LossFlow(parts=(), step=quantity(fall))
        rows = describe("loss", loss_facts=facts).tables[0].rows
        (shown,) = [value for name, value in rows if "every weight moves" in name]
        assert shown.startswith(words)


def test_gradients_of_half_precision_are_counted_by_what_is_zero_everywhere():
    shares = [0.0, 0.5, 1.0, 1.0]
    precisions = tuple(
        PrecisionFlow(
            name=f"{at}.weight",
            of="weight",
            dtype="float16",
            layer=None,
            zero_share=quantity(share),
            subnormal_share=quantity(0.25),
            size=quantity(1e-3),
            largest=quantity(2e-3),
        )
        for at, share in enumerate(shares)
    )
    section = describe("precisions", precisions=precisions)
    assert all(part in section.sentences[0] for part in ("4 gradients", "float16", "2 of them"))
    assert section.tables[0].rows[1] == (
        *("1.weight", "weight", "float16", "50 %", "25 %"),
        *("0.001", "0.002"),
    )


def test_an_optimizer_holds_parameters_at_rates():
    optimizer = OptimizerFlow(
        name="SGD", steps="gradient", rates=(0.3, 0.1, None, 0.2), momentum=0.9, foreign=2
    )
    weights = [parameter(name) for name in "abcd"]
    flow = make_flow([], weights, optimizer=optimizer)
    (section,) = list_sections(flow, diagnose(flow))
    assert section.title.endswith("SGD")
    assert section.tables[0].rows == (
        ("parameters that it holds", "3 of 4"),
        ("learning rate", "0.1 to 0.3"),
        ("momentum", "0.9"),
        ("parameters that are not the model's", "2"),
    )


def test_times_name_the_call_and_both_ends():
    norms = tuple(map(quantity, (1e-9, 0.5, 1.0)))
    time = TimeFlow(
        name="a", kind="GRU", call=1, of="input", length=200, steps=(0, 100, 199), gradients=norms
    )
    (table,) = describe("times", times=(time,)).tables
    assert table.rows == (("a (call 2)", "input", "200", "1.0·10⁻⁹", "1", "1 of 3 looked at"),)


class TestCutsAlongTime:
    """Where a path is cut, or places are only positions, nothing is said to decay."""

    @staticmethod
    def build(least, of):
        times = TimeFlow(
            **{"name": "a", "kind": "loop", "call": 0, "of": of, "length": 6},
            steps=tuple(range(6)),
            gradients=(*[quantity(least)] * 5, quantity(1.0)),
            chances=(quantity(1e-9), *[quantity(0.5)] * 5),
        )
        return make_flow([call("a")], [parameter("a.weight")], times=(times,))

    @pytest.mark.parametrize(
        ("least", "of", "fades"),
        [(1e-9, "output", True), (0.0, "output", False), (0.0, "position", False)],
    )
    def test_only_a_decay_is_called_one(self, least, of, fades):
        flow = self.build(least, of)
        diagnosis = diagnose(flow)
        assert diagnosis.findings[0].rule == "unheard_steps"
        said = explain(flow, diagnosis)
        assert ("by a factor below 1" in said.why) is fades
        titles = [each.title for each in advise(flow, diagnosis)]
        assert ("Shorter paths through time" in titles) is fades

    @pytest.mark.parametrize(("of", "unit"), [("output", "step"), ("position", "position")])
    def test_places_are_called_what_they_are(self, of, unit):
        flow = self.build(1e-9, of)
        (section,) = [each for each in list_sections(flow, diagnose(flow)) if each.name == "times"]
        assert f"A {unit} that gets less" in section.sentences[0]
        assert f"{unit}s lost" in section.tables[0].head
        layout = build_time_figure(flow.times[0], lost=LOST)["layout"]
        assert unit in layout["xaxis"]["title"]["text"]
