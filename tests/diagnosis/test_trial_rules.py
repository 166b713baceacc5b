"""The verdict follows a training that was tried: verdict, action and forecast say one thing."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import chainrule
from chainrule import Trial, Verdict
from chainrule.diagnosis.trial_rules import choose_failure, count_steps, name_outcomes
from chainrule.display.cards import build_forecasts, describe_viability
from chainrule.flow.trial import OptimizerTrial, RateTrial, TermTrial, TrialOutcome


def trial(*outcomes, fresh=True, steps=60):
    found = []
    for name, outcome in zip(("SGD", "Adam"), outcomes, strict=False):
        learned = {"trained": 0.6, "slow": 0.05}.get(outcome, 0.0)
        rate = RateTrial(
            rate=0.1, steps=steps, before=2.0, after=2.0 * (1 - learned), learned=learned,
            outcome=TrialOutcome(outcome), failed_at=3,
        )  # fmt: skip
        found.append(OptimizerTrial(name=name, rates=(rate,)))
    return Trial(optimizers=tuple(found), passes=100, limit=300, fresh=fresh, kept=3)


def measure(depth, activation):
    torch.manual_seed(0)
    layers = [part for _ in range(depth) for part in (nn.Linear(16, 16), activation())]
    x = torch.randn(32, 16)
    model = nn.Sequential(*layers, nn.Linear(16, 4))
    return chainrule.inspect(model, lambda m: F.cross_entropy(m(x), x[:, :4].argmax(1)))


HEALTHY, SICK = measure(1, nn.ReLU), measure(14, nn.Sigmoid)
BAD = ("not yet at guessing", "flat", "diverged", "non-finite")


@pytest.mark.parametrize("outcomes", list(itertools.product(map(str, TrialOutcome), repeat=2)))
@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("flow", [HEALTHY, SICK])
def test_nothing_contradicts_the_trial(outcomes, fresh, flow):
    found = trial(*outcomes, fresh=fresh)
    diagnosis = chainrule.diagnose(flow, trial=found)
    if set(outcomes) <= set(BAD):
        assert diagnosis.verdict is not Verdict.HEALTHY
        lost = set(outcomes) == {"non-finite"}
        rule = "loses_numbers" if lost else "did_not_train"
        assert rule in {finding.rule for finding in diagnosis.findings}
        assert (diagnosis.verdict is Verdict.NON_FINITE) is lost
    if outcomes == ("trained", "trained"):
        assert diagnosis.verdict is Verdict.HEALTHY
    if diagnosis.verdict is Verdict.HEALTHY:
        assert not diagnosis.findings
        if "trained" not in outcomes:
            assert not diagnosis.action.startswith("Train it with")
    forecasts = build_forecasts(diagnosis)
    for forecast, outcome in zip(forecasts, outcomes, strict=True):
        memorized = not fresh and forecast.title.startswith("Adam") and outcome not in BAD
        assert (outcome in forecast.title) != memorized
    assert "viable" not in describe_viability(diagnosis) + repr(diagnosis)


def test_what_was_found_in_a_network_that_trains_becomes_a_note():
    before = chainrule.diagnose(SICK)
    after = chainrule.diagnose(SICK, trial=trial("trained", "trained"))
    assert before.verdict is Verdict.VANISHING
    assert {finding.rule for finding in before.findings} <= {note.name for note in after.notes}
    assert after.trial is not None


@pytest.mark.parametrize("outcomes", list(itertools.product(map(str, TrialOutcome), repeat=2)))
def test_it_stays_a_finding_unless_all_that_was_tried_trained(outcomes):
    before = {finding.rule for finding in chainrule.diagnose(SICK).findings}
    after = chainrule.diagnose(SICK, trial=trial(*outcomes))
    found = {finding.rule for finding in after.findings} & before
    assert found == (set() if outcomes == ("trained", "trained") else before)


def test_a_gradient_that_is_missing_stays_a_finding():
    torch.manual_seed(0)
    model = nn.ModuleDict({"cut": nn.Linear(4, 4), "used": nn.Linear(4, 2)})
    x = torch.randn(3, 4)
    flow = chainrule.inspect(model, lambda m: m["used"](m["cut"](x).detach()).square().mean())
    after = chainrule.diagnose(flow, trial=trial("trained", "trained"))
    assert after.verdict is Verdict.NO_GRADIENT
    assert "all the same" in after.action


def test_what_learned_one_batch_by_heart_excuses_nothing():
    found = trial("trained", "trained", fresh=False)
    adam = replace(found, optimizers=found.optimizers[1:])
    assert not adam.telling
    assert chainrule.diagnose(SICK, trial=adam).verdict is Verdict.VANISHING


def test_what_learned_one_batch_by_heart_is_not_said_to_train():
    assert name_outcomes(trial("flat", "trained")) == "SGD flat, Adam trained"
    said = name_outcomes(trial("flat", "trained", fresh=False))
    assert said.startswith("SGD flat, Adam learned")
    assert "trained" not in said


@pytest.mark.parametrize("fresh", [True, False])
def test_what_did_not_train_is_named_where_that_was_shown(fresh):
    action = chainrule.diagnose(HEALTHY, trial=trial("trained", "flat", fresh=fresh)).action
    assert "SGD at a learning rate" in action
    assert ("Adam" in action) is fresh


@pytest.mark.parametrize(
    ("rates", "rule"),
    [((1,), "diverges"), ((2,), "did_not_train"), ((1, 1), "did_not_train")],
)
def test_a_training_that_diverges_is_yours_if_one_rate_of_one_optimizer_was_tried(rates, rule):
    found = trial("diverged", "diverged")
    optimizers = tuple(
        replace(each, rates=each.rates * count)
        for each, count in zip(found.optimizers, rates, strict=False)
    )
    assert choose_failure(replace(found, optimizers=optimizers)).name == rule


def test_steps_are_those_of_the_longest_training():
    found = trial("flat", "flat", steps=60)
    short = replace(found.optimizers[0].rates[0], steps=5)
    optimizers = (replace(found.optimizers[0], rates=(short,)), found.optimizers[1])
    assert count_steps(replace(found, optimizers=optimizers)) == 60
    assert count_steps(replace(found, optimizers=())) == 0


def test_too_few_steps_are_no_failure():
    assert chainrule.diagnose(HEALTHY, trial=trial("flat", "flat", steps=5)).verdict is (
        Verdict.HEALTHY
    )


@pytest.mark.parametrize("sgd", ["slow", "flat", "diverged"])
def test_an_optimizer_that_learned_is_not_said_to_have_done_little(sgd):
    diagnosis = chainrule.diagnose(HEALTHY, trial=trial(sgd, "trained", fresh=False))
    assert "fell little" not in diagnosis.action
    assert "Adam learned the one batch" in diagnosis.action
    assert "batches" in diagnosis.action


@pytest.mark.parametrize("flow", [HEALTHY, SICK])
@pytest.mark.parametrize(("shares", "best"), [((0.6, 0.9), "Adam"), ((0.9, 0.6), "SGD")])
def test_of_two_that_trained_the_one_that_learned_more_is_recommended(flow, shares, best):
    found = trial("trained", "trained")
    optimizers = tuple(
        replace(each, rates=(replace(each.rates[0], learned=share),))
        for each, share in zip(found.optimizers, shares, strict=True)
    )
    action = chainrule.diagnose(flow, trial=replace(found, optimizers=optimizers)).action
    assert f"{best} at a learning rate" in action


def test_a_model_of_yours_is_measured_only():
    diagnosis = chainrule.diagnose(HEALTHY)
    assert "measured only" in repr(diagnosis)
    assert [forecast.title for forecast in build_forecasts(diagnosis)] == ["Measured only"]
    assert "try_training" in diagnosis.action


def one_rate(name="SGD", **values):
    known = {"rate": 0.1, "steps": 60, "before": 2.0, "after": 1.0, "learned": 0.5}
    rate = RateTrial(**{"outcome": TrialOutcome.TRAINED, **known, **values})
    return OptimizerTrial(name=name, rates=(rate,))


def tried(*optimizers, **values):
    known = {"passes": 100, "limit": 300, "fresh": True, "kept": 3, "guessing": 2.0}
    return Trial(optimizers=optimizers, **{**known, **values})


UNKNOWN = chainrule.inspect(
    nn.Linear(4, 2), lambda m: m(torch.linspace(-1, 2, 32).reshape(8, 4)).exp().mean()
)
"""A healthy measurement of a loss of which nobody knows what guessing gives."""


class TestWordsOfATrial:
    def test_a_loss_of_unknown_level_promises_nothing(self):
        sure = chainrule.diagnose(UNKNOWN, trial=tried(one_rate()))
        open_ = chainrule.diagnose(UNKNOWN, trial=tried(one_rate(), guessing=None))
        assert sure.action.startswith("Train it with SGD")
        assert "Train it with" not in open_.action
        assert "from 2 to 1 in 60 steps" in open_.action
        assert "not known" in open_.action

    def test_the_level_may_come_from_the_measurement(self):
        assert HEALTHY.loss_facts.guessing is not None
        known = chainrule.diagnose(
            HEALTHY, trial=tried(one_rate(after=0.2, learned=0.9), guessing=None)
        )
        assert known.action.startswith("Train it with SGD")

    @pytest.mark.parametrize(("learned", "promises"), [(0.11, False), (0.39, False), (0.4, True)])
    def test_little_learned_is_said_to_be_little(self, learned, promises):
        found = tried(one_rate(after=2.0 * (1 - learned), learned=learned))
        action = chainrule.diagnose(UNKNOWN, trial=found).action
        assert action.startswith("Train it with SGD") is promises
        assert ("little so far" in action) is not promises

    def test_terms_that_did_not_fall_are_named(self):
        terms = (
            TermTrial(name="equation", before=2.0, after=1.0, fell=True),
            TermTrial(name="start", before=0.3, after=0.3, fell=False),
            TermTrial(name="kl", before=0.1, after=0.9, fell=False),
        )
        for guessing, named in ((2.0, {"start"}), (None, {"start", "kl"})):
            found = tried(one_rate(terms=terms), guessing=guessing)
            action = chainrule.diagnose(UNKNOWN, trial=found).action
            assert {name for name in ("equation", "start", "kl") if f"'{name}'" in action} == named
            assert "Train it with" not in action

    def test_a_term_that_stays_at_guessing_is_named_and_one_far_below_settles_it(self):
        torch.manual_seed(0)
        x = torch.randn(32, 16)
        flow = chainrule.inspect(
            nn.Linear(16, 4),
            lambda m: {
                "error": F.cross_entropy(m(x), x[:, :4].argmax(1)),
                "size": m(x).exp().mean(),
            },
        )
        level = float(flow.loss_facts.terms[0].guessing)
        for after, settles in ((0.5 * level, True), (0.7 * level, False), (0.95 * level, False)):
            term = TermTrial(name="error", before=2.0 * level, after=after, fell=True)
            found = tried(one_rate(terms=(term,)), guessing=None)
            action = chainrule.diagnose(flow, trial=found).action
            assert action.startswith("Train it with") is settles
            assert ("guessing costs it" in action) is (after > 0.9 * level)

    def test_a_noted_cause_is_part_of_the_action(self):
        torch.manual_seed(0)
        x, model = torch.randn(32, 8), nn.Linear(8, 4)
        targets = torch.randn(32, 4).softmax(1)
        flow = chainrule.inspect(
            model, lambda m: F.kl_div(m(x).sigmoid(), targets, reduction="batchmean")
        )
        (note,) = (each for each in flow_notes(flow) if each.name == "not_logarithms")
        for found in (tried(one_rate()), tried(one_rate(outcome="slow", learned=0.05))):
            diagnosis = chainrule.diagnose(flow, trial=found)
            assert diagnosis.verdict is Verdict.HEALTHY
            assert note.evidence in diagnosis.action
            assert "Train it with" not in diagnosis.action


def flow_notes(flow):
    return chainrule.diagnose(flow).notes


FLAT = {"outcome": TrialOutcome.FLAT, "after": 2.0, "learned": 0.0}


class TestWordsOfAFailure:
    @pytest.mark.parametrize(
        ("moved", "rule"),
        [(0.0, "hardly_moved"), (9e-4, "hardly_moved"), (1e-3, "did_not_train"), (None, None)],
    )
    def test_weights_that_did_not_move_are_a_matter_of_the_optimizer(self, moved, rule):
        found = tried(one_rate(**FLAT, moved=moved))
        (finding,) = chainrule.diagnose(HEALTHY, trial=found).findings
        assert finding.rule == (rule or "did_not_train")
        if rule == "hardly_moved":
            assert (finding.verdict, finding.value) == (Verdict.LEARNING_RATE, moved)
            assert "optimizer" in chainrule.diagnose(HEALTHY, trial=found).action

    def test_a_model_whose_gradients_vanish_is_not_blamed_on_the_optimizer(self):
        found = tried(one_rate(**FLAT, moved=0.0))
        rules = {each.rule for each in chainrule.diagnose(SICK, trial=found).findings}
        assert "did_not_train" in rules
        assert "hardly_moved" not in rules

    def test_of_several_rates_of_a_race_none_is_yours(self):
        race = tried(one_rate(**FLAT, moved=0.0), one_rate("Adam", **FLAT, moved=0.0))
        assert chainrule.diagnose(HEALTHY, trial=race).findings[0].rule == "did_not_train"

    def test_an_optimizer_that_lost_its_numbers_is_named_and_no_value_is_undefined(self):
        lost = {"outcome": TrialOutcome.NON_FINITE, "learned": math.nan, "failed_at": 89}
        found = tried(one_rate(**FLAT), one_rate("Adam", **lost))
        for each in (found, replace(found, optimizers=found.optimizers[::-1])):
            diagnosis = chainrule.diagnose(HEALTHY, trial=each)
            assert diagnosis.findings[0].value == 0.0
            assert "Adam" in diagnosis.action
            assert "find_non_finite" in diagnosis.action

    @pytest.mark.parametrize(("share", "is_named"), [(0.83, True), (0.5, False), (None, False)])
    def test_weights_of_16_bits_that_stay_as_they_were(self, share, is_named):
        found = tried(one_rate(**FLAT, moved=0.01, unchanged=share))
        assert ("16 bits" in chainrule.diagnose(HEALTHY, trial=found).action) is is_named

    def test_a_loss_that_fell_is_not_said_to_have_stayed(self):
        above = {"outcome": TrialOutcome.FALLING, "before": 5e14, "after": 6e5, "learned": -1.0}
        (finding,) = chainrule.diagnose(HEALTHY, trial=tried(one_rate(**above))).findings
        assert "The loss fell" in finding.reason
        flat = chainrule.diagnose(HEALTHY, trial=tried(one_rate(**FLAT))).findings[0]
        assert "fell" not in flat.reason

    def test_what_is_noted_is_named_where_nothing_else_is_known(self):
        torch.manual_seed(0)
        x = torch.randn(32, 16)
        flow = chainrule.inspect(
            nn.Linear(16, 1), lambda m: (m(x) - 1000.0 * x[:, :1]).square().mean()
        )
        noted = [
            each.evidence for each in chainrule.diagnose(flow).notes if each.name == "slow_start"
        ]
        action = chainrule.diagnose(flow, trial=tried(one_rate(**FLAT))).action
        assert noted
        assert all(each in action for each in noted)
