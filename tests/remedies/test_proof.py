"""Only what was tried and trains is called a cure."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule import apply_remedy, find_remedies
from chainrule.errors import RemedyError
from chainrule.remedies.result import Outcome
from traces import unchanged


def draw(model):
    x = torch.randn(64, 16)
    return F.cross_entropy(model(x), x[:, :4].argmax(1))


def small_start():
    torch.manual_seed(0)
    layers = [part for _ in range(6) for part in (nn.Linear(16, 16), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(16, 4))
    for module in model:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
    return model


@pytest.mark.slow
def test_what_is_called_a_cure_trains():
    model = small_start()
    with unchanged(model):
        found = find_remedies(model, draw, enough=1, measurements=4, prove=True)
    remedy = found.cures[0]
    assert found[0] is remedy
    assert remedy.trial_before.trains is False
    assert remedy.trial_after.trains
    assert "passes" in found.note
    assert " → " in remedy.loss_text
    apply_remedy(remedy, model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(300):
        optimizer.zero_grad()
        loss = draw(model)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.7


def test_what_is_only_measured_is_no_cure():
    found = find_remedies(small_start(), draw, enough=1, measurements=4)
    assert found.measured
    assert not found.cures
    assert found[0].outcome is Outcome.MEASURES
    assert found[0].to_dict()["trial"] is None


def test_a_small_last_layer_that_is_meant_is_not_blown_up():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(),
                          nn.Linear(32, 5))  # fmt: skip
    nn.init.normal_(model[4].weight, std=1e-4)
    nn.init.zeros_(model[4].bias)
    x = torch.randn(64, 20)
    y = 1e-3 * x[:, :5]
    found = find_remedies(model, lambda m: F.mse_loss(m(x), y), measurements=5)
    for remedy in found.tried:
        if remedy.after.loss > 10 * remedy.before.loss:
            assert remedy.outcome is Outcome.FAILS
            assert "loss" in remedy.outcome_text
    assert not any(remedy.after.loss > 10 * remedy.before.loss for remedy in found)


def test_batches_that_are_empty_or_none_are_refused():
    model = nn.Linear(4, 1)

    def compute(m, batch):
        return m(batch).square().mean()

    for given in ([], 3):
        with pytest.raises(RemedyError, match="batches: must"):
            find_remedies(model, compute, prove=True, batches=given)


def test_no_room_for_a_training_is_said_and_what_was_measured_stays(monkeypatch):
    def run_out(*args, **settings):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr("chainrule.remedies.model_search.try_training", run_out)
    torch.manual_seed(0)
    model = nn.Sequential(*(p for _ in range(8) for p in (nn.Linear(8, 8), nn.Sigmoid())))
    x = torch.randn(16, 8)
    found = find_remedies(model, lambda m: m(x).square().mean(), enough=1, prove=True)
    assert found.tried
    assert "no room" in found.note
    assert "OutOfMemoryError" in found.note
