"""Every kind of fault gets a verdict that names it and its place; its sound twin gets none.

What is called a cure is taken at its word: it is applied, and trained by a plain loop.
"""

import math

import pytest
import torch

from chainrule import (
    Verdict,
    apply_remedy,
    diagnose,
    find_non_finite,
    find_remedies,
    inspect,
    try_training,
)
from chainrule.diagnosis.diagnosis import (
    ACTION_AT_RISK,
    ACTION_MEASURED,
    ACTION_WITH_SGD,
    ACTIONS,
)
from chainrule.diagnosis.viability.model import Outlook
from chainrule.display.cards import BAD, WARN, build_cards
from chainrule.flow.trial import OptimizerTrial, RateTrial, Trial, TrialOutcome
from chainrule.measure.non_finite import add_origin
from chainrule.measure.sharpness import measure_sharpness
from faults import FAULTS, NOTED, SOUND, Program

CAREFREE = (ACTIONS[Verdict.HEALTHY], ACTION_MEASURED, ACTION_AT_RISK, ACTION_WITH_SGD)


def start(name, *, broken):
    """Return a program, the same at every call."""
    torch.manual_seed(0)
    made = FAULTS[name].build(broken)
    return made if isinstance(made, Program) else Program(*made)


def judge(program, finds=""):
    model, compute_loss, optimizer = program.model, program.compute_loss, program.optimizer
    flow = inspect(model, compute_loss, optimizer)
    trial = try_training(model, compute_loss, optimizer) if finds == "training" else None
    sharpness = measure_sharpness(model, compute_loss, optimizer) if finds == "sharpness" else None
    flow = add_origin(flow, model, compute_loss)
    return flow, diagnose(flow, trial=trial, sharpness=sharpness)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_with_its_place(name):
    fault, program = FAULTS[name], start(name, broken=True)
    flow, diagnosis = judge(program, fault.finds)
    finding = diagnosis.findings[0]
    assert (diagnosis.verdict, finding.rule) == (fault.verdict, fault.rule)
    named = (*finding.modules, finding.worst or "", finding.evidence)
    for place in fault.places:
        assert any(place in text for text in named), named
    assert diagnosis.action not in CAREFREE
    assert "Nothing needs to change" not in diagnosis.action
    assert Outlook.VIABLE not in (diagnosis.viability.sgd.word, diagnosis.viability.adam.word)
    if not fault.finds:
        assert {BAD, WARN} & {card.state for card in build_cards(flow, diagnosis)}
    if finding.rule == "non_finite":
        origin = find_non_finite(program.model, program.compute_loss)
        assert not origin.is_harmless
        assert origin.op in finding.evidence
        assert origin.place in finding.evidence


@pytest.mark.parametrize("name", FAULTS)
def test_its_sound_twin_gets_notes_only(name):
    _, diagnosis = judge(start(name, broken=False), FAULTS[name].finds)
    assert not diagnosis.findings
    assert diagnosis.verdict is Verdict.HEALTHY


FACTS = (
    *(Verdict.NON_FINITE, Verdict.UNDERFLOW, Verdict.NO_GRADIENT),
    *(Verdict.SHAPES, Verdict.SIGN, Verdict.OUTPUT),
)
"""What is wrong whatever becomes of the loss; of all else a training that works says that it is
none."""


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if not fault.finds])
def test_a_network_that_trains_keeps_only_faults_that_no_training_refutes(name):
    flow, before = judge(start(name, broken=True))
    rate = RateTrial(
        rate=0.1, steps=60, before=2.0, after=0.5, learned=0.75, outcome=TrialOutcome.TRAINED
    )
    tried = tuple(OptimizerTrial(name=each, rates=(rate,)) for each in ("SGD", "Adam"))
    trial = Trial(optimizers=tried, passes=100.0, limit=300, fresh=True, kept=3)
    after = diagnose(flow, trial=trial)
    kept = [each.rule for each in before.findings if each.verdict in FACTS]
    assert [each.rule for each in after.findings] == kept
    assert {each.rule for each in before.findings} - set(kept) <= {n.name for n in after.notes}


@pytest.mark.parametrize("broken", [True, False])
@pytest.mark.parametrize("name", NOTED)
def test_what_cannot_be_called_a_fault_for_sure_gets_a_note(name, broken):
    torch.manual_seed(0)
    made = NOTED[name].build(broken)
    _, diagnosis = judge(made if isinstance(made, Program) else Program(*made))
    assert diagnosis.verdict is Verdict.HEALTHY
    found = [note.evidence for note in diagnosis.notes if note.name == NOTED[name].note]
    assert bool(found) is broken
    for place in NOTED[name].places if broken else ():
        assert any(place in text for text in found), found


@pytest.mark.parametrize("name", SOUND)
def test_what_only_looks_broken_gets_notes_only(name):
    _, diagnosis = judge(Program(*SOUND[name]()))
    assert not diagnosis.findings
    assert diagnosis.verdict is Verdict.HEALTHY


CURED = {
    "tied head": "Embeddings of σ = 0.02",
    "large head": "Initialization by what follows each layer",
    "unbounded scales": "Weights of 0.1 times their size",
    "forgetful": "Gates that remember",
    "growing branches": "Initialization by what follows each layer",
    "sunken biases": "Biases that wake dead units",
    "all zero": "Initialization by what follows each layer",
    "all the same": "Initialization by what follows each layer",
}
"""Faults that a change of weights was seen to cure, and the change."""


def train(program, kind, rate, steps=60):
    """Train by a plain loop; return the first loss and the mean of the last five."""
    optimizer = kind(program.model.parameters(), rate)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = program.compute_loss(program.model)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            return losses[0], math.inf
    return losses[0], math.fsum(losses[-5:]) / 5


@pytest.mark.slow
@pytest.mark.parametrize("name", CURED)
def test_what_is_called_a_cure_trains(name):
    program = start(name, broken=True)
    found = find_remedies(program.model, program.compute_loss, enough=1, prove=True)
    remedy = found.cures[0]
    assert remedy is found[0]
    assert remedy.title == CURED[name]
    best = remedy.trial_after.best
    apply_remedy(remedy, program.model)
    first, last = train(program, getattr(torch.optim, best.name), best.best.rate)
    assert last < 0.8 * first
    untouched = found.before.loss
    assert last < 0.75 * untouched or math.isnan(untouched)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name, fault in FAULTS.items() if name not in CURED and not fault.finds]
)
def test_where_no_change_of_weights_cures_none_is_called_a_cure(name):
    program = start(name, broken=True)
    found = find_remedies(
        program.model, program.compute_loss, enough=1, prove=True, optimizer=program.optimizer
    )
    assert not found.cures
    assert found.diagnosis.verdict is FAULTS[name].verdict
    assert found.note or found.tried
