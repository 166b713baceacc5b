"""The verdict follows a training that was tried: verdict, action and forecast say one thing."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import chainrule
from chainrule import Trial, Verdict
from chainrule.diagnosis.trial_rules import choose_failure, count_steps, name_outcomes
from chainrule.display.cards import build_forecasts, describe_viability
from chainrule.flow.trial import OptimizerTrial, RateTrial, TrialOutcome


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
