"""Verdict, outlook, cards, next action and every output say the same, whatever was measured."""

import io
import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from rich.console import Console

from chainrule import NetworkSpec, Verdict, diagnose, inspect, simulate
from chainrule.app.answers.flow_answer import describe_blame
from chainrule.diagnosis.causes import CALM
from chainrule.diagnosis.diagnosis import (
    ACTION_AT_RISK,
    ACTION_MEASURED,
    ACTION_WITH_SGD,
    ACTIONS,
)
from chainrule.diagnosis.viability.model import Outlook, find_hopeless
from chainrule.display.cards import (
    BAD,
    WARN,
    build_cards,
    build_forecasts,
    describe_viability,
)
from chainrule.display.export import summarize, to_result_json
from chainrule.display.terminal import render_diagnosis
from chainrule.flow.trial import OptimizerTrial, RateTrial, Trial, TrialOutcome
from chainrule.report.page import build_report
from model_zoo import MODELS
from sick_models import VARIANTS
from strategies import legal_specs
from zoo import ZOO

CAREFREE = ACTIONS[Verdict.HEALTHY]
ESTIMATED = (CAREFREE, ACTION_AT_RISK, ACTION_WITH_SGD)


def assert_one_voice(flow):
    diagnosis = diagnose(flow)
    sgd, adam = diagnosis.viability.sgd, diagnosis.viability.adam
    healthy = diagnosis.verdict is Verdict.HEALTHY
    assert healthy == (not diagnosis.findings)
    if healthy:
        advising = [note for note in diagnosis.notes if note.name not in CALM]
        if flow.spec is None and advising:  # what a note advises, the action does not deny
            assert advising[0].evidence in diagnosis.action
            assert "needs to change" not in diagnosis.action
        else:
            assert diagnosis.action in (ESTIMATED if flow.spec is not None else (ACTION_MEASURED,))
        assert sgd.word is not Outlook.NOT_VIABLE
        states = {card.title: card.state for card in build_cards(flow, diagnosis)}
        assert not {BAD, WARN} & set(states.values()), states
    else:
        assert diagnosis.action not in (*ESTIMATED, ACTION_MEASURED)
        assert sgd.word is not Outlook.VIABLE
    if diagnosis.action == CAREFREE:
        assert sgd.word in (Outlook.VIABLE, Outlook.UNKNOWN)
        assert adam.word is not Outlook.NOT_VIABLE
    if diagnosis.viability.covered or tuple(find_hopeless(flow)):
        assert Outlook.UNKNOWN not in (sgd.word, adam.word)
        return diagnosis
    assert sgd.word is adam.word is Outlook.UNKNOWN
    for prospect in (sgd, adam):  # a model without a specification has a score, which is not shown
        if flow.spec is None:
            assert 0.0 < prospect.probability < 1.0
        else:
            assert prospect.probability is None
    assert "%" not in describe_viability(diagnosis)
    assert not any("%" in each.note for each in build_forecasts(diagnosis))
    assert not any(each.log_odds for each in diagnosis.findings)
    return diagnosis


def assert_same_everywhere(flow, diagnosis):
    """Terminal, report and JSON give one verdict, one action, one outlook."""
    console = Console(width=10_000, record=True, file=io.StringIO())
    console.print(render_diagnosis(diagnosis, flow))
    page, short = build_report(flow), summarize(flow, diagnosis)
    terminal = console.export_text()
    assert str(diagnosis.verdict).upper() in terminal
    assert f"Diagnosis: {diagnosis.verdict}" in page
    assert short["verdict"] == str(diagnosis.verdict)
    assert diagnosis.action in terminal
    assert short["next"] == diagnosis.action
    for forecast in build_forecasts(diagnosis):
        assert forecast.title in terminal
        assert forecast.title in page
    result = json.loads(to_result_json(flow, diagnosis))["diagnosis"]
    for name in ("sgd", "adam"):
        prospect = getattr(diagnosis.viability, name)
        assert short["training"][name]["outlook"] == str(prospect.word)
        assert result["viability"][name]["word"] == str(prospect.word)
        assert short["training"][name]["chance"] == prospect.probability
    assert isinstance(describe_blame(flow, diagnosis), dict)


@settings(max_examples=30, deadline=None)
@given(legal_specs)
def test_specifications(spec):
    small = spec.replace(
        depth=min(spec.depth, 12), width=min(spec.width, 24), batch_size=min(spec.batch_size, 5)
    )
    assert_one_voice(simulate(small.replace(seed=spec.seed // 2), 2))


@pytest.mark.parametrize("name", [*ZOO, *MODELS, *VARIANTS])
def test_models(name):
    build = ZOO.get(name) or MODELS.get(name) or VARIANTS[name]
    flow = inspect(*build())
    assert_one_voice(flow)


@pytest.mark.parametrize("name", ["mlp", "unreached", "zero_gradient", "attention", "lstm"])
def test_all_outputs(name):
    flow = inspect(*ZOO[name]())
    assert_same_everywhere(flow, assert_one_voice(flow))


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_nothing_is_promised_of_constant_weights(value):
    """All weights zero, or all the same, on a model of one's own: no chance is given."""
    model = torch.nn.Sequential(
        torch.nn.Linear(16, 16), torch.nn.ReLU(), torch.nn.Linear(16, 16), torch.nn.Linear(16, 4)
    )
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, value)
    x, labels = torch.randn(8, 16), torch.arange(8) % 3
    flow = inspect(model, lambda m: torch.nn.functional.cross_entropy(m(x), labels))
    assert assert_one_voice(flow).viability.sgd.word is Outlook.UNKNOWN


def test_one_example_gives_no_chance():
    flow = simulate(NetworkSpec(depth=10, batch_size=1, activation="sigmoid", width=32), 2)
    assert assert_one_voice(flow).viability.sgd.word is Outlook.UNKNOWN


def test_a_noted_cause_is_in_the_action_of_a_tried_model_everywhere():
    """A loss that fell does not take back what a note says of one of its terms."""
    torch.manual_seed(0)
    model, x = torch.nn.Linear(6, 2), torch.randn(32, 6)
    flow = inspect(
        model,
        lambda m: {
            "error": torch.nn.functional.mse_loss(m(x), x[:, :2]),
            "size": 1e3 * m(x).square().mean(),
        },
    )
    rate = RateTrial(
        rate=0.01, steps=60, before=900.0, after=0.9, learned=0.99, outcome=TrialOutcome.TRAINED
    )
    trial = Trial(
        optimizers=(OptimizerTrial(name="SGD", rates=(rate,)),),
        passes=100.0, limit=300, fresh=True, kept=3,
    )  # fmt: skip
    tried = replace(flow, trial=trial)
    diagnosis = diagnose(tried)
    (noted,) = (each.evidence for each in diagnosis.notes if each.name == "swamped_term")
    console = Console(width=10_000, record=True, file=io.StringIO())
    console.print(render_diagnosis(diagnosis, tried))
    terminal = console.export_text()
    assert noted in diagnosis.action
    assert diagnosis.action in terminal
    assert summarize(tried, diagnosis)["next"] == diagnosis.action
    for text in (terminal, build_report(tried)):
        assert "Train it with" not in text
        assert "It trains" not in text
