"""Every kind of fault gets a verdict that names it and its place; its sound twin gets none.

What is called a cure is taken at its word: it is applied, and trained by a plain loop.
"""

import pytest
import torch

from chainrule import (
    Verdict,
    diagnose,
    find_non_finite,
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
from chainrule.measure.non_finite import add_origin
from chainrule.measure.sharpness import measure_sharpness
from faults import FAULTS, SOUND, Program

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


@pytest.mark.parametrize("name", SOUND)
def test_what_only_looks_broken_gets_notes_only(name):
    _, diagnosis = judge(Program(*SOUND[name]()))
    assert not diagnosis.findings
    assert diagnosis.verdict is Verdict.HEALTHY
