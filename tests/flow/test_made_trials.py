"""What trials and losses say, of numbers written by hand."""

import json
import math

import pytest

from chainrule.flow.loss import AlignmentFlow, BroadcastFlow, LossFlow, LossPart, LossTerm
from chainrule.flow.slips import SlipFlow
from chainrule.flow.trial import OptimizerTrial, RateTrial, TermTrial, Trial, TrialOutcome
from made_flows import quantity

TRAINED, SLOW, FLAT = TrialOutcome.TRAINED, TrialOutcome.SLOW, TrialOutcome.FLAT
DIVERGED, NON_FINITE = TrialOutcome.DIVERGED, TrialOutcome.NON_FINITE


def rate(outcome, learned=0.5, value=0.1, **fields):
    values = {"steps": 40, "before": 2.0, "after": 1.0} | fields
    return RateTrial(rate=value, learned=learned, outcome=outcome, **values)


def trial(*optimizers, fresh=True, **fields):
    values = {"passes": 80.0, "limit": 300, "kept": 3} | fields
    return Trial(optimizers=optimizers, fresh=fresh, **values)


def tried(name, *rates):
    return OptimizerTrial(name=name, rates=rates)


class TestRates:
    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"outcome": TRAINED}, "trained: loss 2 → 1 in 40 steps"),
            ({"outcome": SLOW, "steps": 1}, "slow: loss 2 → 1 in 1 step"),
            ({"outcome": DIVERGED, "failed_at": 7}, "diverged at step 7: loss 2 → 1"),
            ({"outcome": DIVERGED}, "diverged: loss 2 → 1"),
            ({"outcome": NON_FINITE, "failed_at": 3}, "not finite after step 3"),
            ({"outcome": FLAT, "stopped": True}, "then left for better rates"),
        ],
    )
    def test_are_described(self, fields, words):
        assert words in rate(**fields).describe()

    def test_of_a_loss_above_guessing_say_how_far_it_still_is(self):
        found = rate(TrialOutcome.FALLING, before=9.0, after=3.0, guessing=1.5)
        assert "still 2 times what guessing gives (1.5)" in found.describe()
        assert "still" not in rate(TRAINED, before=9.0, after=3.0, guessing=1.5).describe()

    def test_best_is_by_outcome_then_tried_to_the_end_then_by_what_was_learned(self):
        rates = (
            rate(SLOW, 0.9, 1.0),
            rate(TRAINED, 0.4, 2.0),
            rate(TRAINED, 0.6, 3.0),
            rate(TRAINED, 0.8, 4.0, stopped=True),
            rate(TRAINED, math.nan, 5.0),
        )
        assert tried("SGD", *rates).best.rate == 3.0
        assert tried("SGD", *rates[3:]).best.rate == 5.0
        assert tried("SGD", rates[0], rate(FLAT, 0.95)).outcome is SLOW
        assert tried("SGD").best is tried("SGD").outcome is None


class TestTerms:
    @staticmethod
    def term(name="kl", before=0.5, after=0.5, fell=False):
        return TermTrial(name=name, before=before, after=after, fell=fell)

    @pytest.mark.parametrize(
        ("before", "after", "risen"),
        [
            (0.5, 0.506, True),
            (0.5, 0.50502, False),  # a hundredth of what it is now
            (0.5, 0.501, False),
            (0.0, 1e-9, True),
            (-1.0, -0.98, True),
            (-1.0, -0.995, False),
            (0.5, 0.4, False),
        ],
    )
    def test_have_risen_by_a_hundredth_or_more(self, before, after, risen):
        assert self.term(before=before, after=after).has_risen is risen

    @pytest.mark.parametrize(
        ("outcome", "named"),
        [(TRAINED, True), (SLOW, True), (FLAT, False), (DIVERGED, False), (NON_FINITE, False)],
    )
    def test_that_did_not_fall_are_standing_where_the_loss_fell(self, outcome, named):
        terms = (
            self.term("error", 1.0, 0.1, fell=True),
            self.term("kl"),
            self.term("off", 0.0, 0.0),
            self.term("new", 0.0, 0.1),
        )
        standing = rate(outcome, terms=terms, failed_at=2).standing
        assert [each.name for each in standing] == (["kl", "new"] if named else [])

    def test_are_named_with_those_that_rose_unless_these_may(self):
        fallen = self.term("error", 1.0, 0.1, fell=True)
        kl, penalty = self.term("kl"), self.term("penalty", 0.5, 0.9)
        both = rate(TRAINED, terms=(fallen, kl, penalty))
        assert both.describe_standing().startswith(
            "The terms 'kl' (0.5 → 0.5) and 'penalty' (0.5 → 0.9) did not fall"
        )
        assert both.describe_standing(unmoved=True).startswith("The term 'kl' (0.5 → 0.5) did not")
        assert rate(TRAINED, terms=(fallen, penalty)).describe_standing(unmoved=True) == ""


class TestTrial:
    SGD = tried("SGD", rate(FLAT, 0.0))
    ADAM = tried("Adam", rate(TRAINED, 0.9))

    def test_on_one_batch_success_of_adam_tells_nothing(self):
        both = trial(self.SGD, self.ADAM, fresh=False)
        assert both.telling == (self.SGD,)
        assert both.trains is False
        assert both.best is self.SGD
        assert trial(self.ADAM, fresh=False).trains is None
        assert trial(self.ADAM, fresh=False).best is self.ADAM
        failed = tried("Adam", rate(FLAT, 0.0))
        assert trial(failed, fresh=False).telling == (failed,)
        learned = tried("SGD", rate(TRAINED, 0.9))
        assert trial(learned, fresh=False).telling == (learned,)
        assert trial(learned, fresh=False).trains is True

    def test_on_fresh_batches_any_success_counts(self):
        both = trial(self.SGD, self.ADAM, tried("RMSprop"))
        assert both.tried == both.telling == (self.SGD, self.ADAM)
        assert both.trains is True
        assert both.best is self.ADAM
        assert not both.fails

    @pytest.mark.parametrize(
        ("outcomes", "steps", "fails"),
        [
            ((FLAT, DIVERGED), 20, True),
            ((FLAT, DIVERGED), 19, False),
            ((DIVERGED, NON_FINITE), 1, True),
            ((FLAT, SLOW), 40, False),
            ((FLAT, TRAINED), 40, False),
            ((), 40, False),
        ],
    )
    def test_fails_if_all_do_and_had_time_to(self, outcomes, steps, fails):
        found = trial(*(tried("SGD", rate(outcome, steps=steps)) for outcome in outcomes))
        assert found.fails is fails

    def test_time_is_that_of_the_rate_that_went_on_longest(self):
        left = rate(FLAT, steps=3, stopped=True)
        assert trial(tried("SGD", left, rate(FLAT, steps=20))).fails
        assert not trial(tried("SGD", left, rate(FLAT, steps=19))).fails

    def test_as_json_names_what_is_not_finite(self):
        one = tried("SGD", rate(NON_FINITE, math.nan, after=math.inf, failed_at=2))
        found = json.loads(json.dumps(trial(one, guessing=2.5).to_dict(), allow_nan=False))
        assert (found["trains"], found["guessing"], found["kept"]) == (False, 2.5, 3)
        (optimizer,) = found["optimizers"]
        assert (optimizer["best_rate"], optimizer["outcome"]) == (0.1, "non-finite")
        (each,) = optimizer["rates"]
        assert (each["before"], each["after"], each["learned"]) == (2.0, "Infinity", "NaN")
        assert (each["steps"], each["failed_at"], each["stopped"]) == (40, 2, False)
        assert (each["moved"], each["terms"]) == (None, [])

    def test_as_json_holds_the_best_rate_the_terms_and_the_way(self):
        term = TermTrial(name="kl", before=0.5, after=0.25, fell=True)
        rates = (rate(FLAT, 0.0, 0.01, moved=0.0), rate(TRAINED, 0.9, 0.1, terms=(term,)))
        (optimizer,) = trial(tried("SGD", *rates)).to_dict()["optimizers"]
        assert optimizer["best_rate"] == 0.1
        assert [each["moved"] for each in optimizer["rates"]] == [0.0, None]
        (found,) = optimizer["rates"][1]["terms"]
        assert found == {"name": "kl", "before": 0.5, "after": 0.25, "fell": True}


class TestLoss:
    @staticmethod
    def part(kind, **fields):
        return LossPart(kind=kind, **{name: quantity(each) for name, each in fields.items()})

    def test_adds_up_its_parts_and_what_is_constant(self):
        parts = (
            self.part("mse", guessing=[3.0, 4.0], constant=[2.0, 2.0], floor=[0.0, 0.0]),
            self.part("penalty", guessing=[0.5, 0.5], constant=[0.5, 0.5], floor=[0.0, 0.0]),
        )
        facts = LossFlow(parts=parts, offset=quantity([10.0, 20.0]))
        assert facts.guessing.values == (13.5, 24.5)
        assert facts.constant.values == (12.5, 22.5)
        assert facts.floor.values == (10.0, 20.0)
        assert facts.kind == "mse"

    def test_is_known_only_if_all_parts_are(self):
        known = self.part("mse", guessing=3.0)
        assert LossFlow(parts=(known,)).guessing is None  # an offset that is not known
        zero = quantity(0.0)
        assert LossFlow(parts=(known, self.part("l1")), offset=zero).guessing is None
        assert LossFlow(parts=(known,), offset=zero).floor is None

    @pytest.mark.parametrize(
        ("kinds", "kind"),
        [
            (("mse", "l1"), "mixed"),
            (("mse", "mse", "penalty"), "mse"),
            (("penalty",), "custom"),
            ((), "custom"),
        ],
    )
    def test_kind_is_that_of_its_parts_without_penalties(self, kinds, kind):
        assert LossFlow(parts=tuple(self.part(each) for each in kinds)).kind == kind

    def test_a_term_is_detached_if_it_was_measured_and_reaches_nothing(self):
        value = quantity(1.0)
        assert LossTerm(name="a", value=value, gradients=()).is_detached
        assert not LossTerm(name="a", value=value, gradients=None).is_detached


@pytest.mark.parametrize(
    ("file", "line", "position"),
    [("/home/me/train.py", 12, "train.py:12"), ("", None, ""), ("/home/me/train.py", None, "")],
)
def test_places_are_a_file_and_its_line(file, line, position):
    slip = SlipFlow(
        **{"kind": "flat", "operation": "sign", "module": "", "shape": (3,), "result": (3,)},
        **{"file": file, "line": line},
    )
    compared = BroadcastFlow(
        **{"operation": "subtraction", "output": (3, 1), "target": (3,), "result": (3, 3)},
        **{"by_mistake": True, "file": file, "line": line},
    )
    assert (slip.position, compared.position) == (position, position)
    assert compared.shapes == "(3, 1) and (3,)"


def test_an_optimizer_that_was_not_tried_has_no_outcome_in_json():
    skipped = OptimizerTrial(name="Adam", rates=(), skipped="sparse gradients")
    one, other = trial(skipped, tried("SGD", rate(TRAINED))).to_dict()["optimizers"]
    assert (one["outcome"], one["best_rate"], one["skipped"]) == (None, None, "sparse gradients")
    assert (other["outcome"], other["best_rate"], other["skipped"]) == ("trained", 0.1, "")


@pytest.mark.parametrize(
    ("repeats", "words"), [(1, "its 4 labels (1 repeated) need 5"), (0, "its 4 labels need 4")]
)
def test_labels_need_a_step_each_and_one_before_each_that_repeats(repeats, words):
    found = AlignmentFlow(
        examples=8, short=quantity(2.0), example=3, steps=3, labels=4, repeats=repeats
    )
    assert found.sentence == f"example 3 has 3 time steps, and {words}"
