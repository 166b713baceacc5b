"""Steps that half precision rounds away: `OptimizerFlow.rounded`, beside real steps."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import chainrule
from chainrule.flow.loading import decode_flow

X = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))


def build(dtype, scale=4.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 2)).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def compute_loss(model):
    return F.mse_loss(model(X.to(model[0].weight.dtype)).float(), X[:, :2])


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 3e-2),
    "adam": lambda p: torch.optim.Adam(p, 1e-3),
    "adamw": lambda p: torch.optim.AdamW(p, 2e-3, weight_decay=0.0),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_shares_are_those_of_a_real_step(name, dtype):
    model = build(dtype)
    flow = chainrule.inspect(model, compute_loss, OPTIMIZERS[name](model.parameters()))
    twin = copy.deepcopy(model)
    optimizer = OPTIMIZERS[name](twin.parameters())
    compute_loss(twin).backward()
    optimizer.step()
    for old, new, share in zip(
        model.parameters(), twin.parameters(), flow.optimizer.rounded, strict=True
    ):
        moves = new.grad != 0
        stays = ((old == new) & moves).sum() / moves.sum()
        # PyTorch rounds the moments of Adam, too, so a few entries differ.
        assert share == pytest.approx(float(stays), abs=0.05)
    assert decode_flow(flow.to_json()) == flow


NOTED = {
    "bfloat16, Adam": (torch.bfloat16, lambda p: torch.optim.Adam(p, 1e-4), True),
    "bfloat16, SGD": (torch.bfloat16, lambda p: torch.optim.SGD(p, 1e-4), True),
    "bfloat16, a large rate": (torch.bfloat16, lambda p: torch.optim.Adam(p, 3e-2), False),
    "float16, Adam": (torch.float16, lambda p: torch.optim.Adam(p, 1e-3, eps=1e-4), False),
    "float32, Adam": (torch.float32, lambda p: torch.optim.Adam(p, 1e-4), False),
    "float32, SGD": (torch.float32, lambda p: torch.optim.SGD(p, 1e-4), False),
}


@pytest.mark.parametrize("name", NOTED)
def test_a_note_says_that_most_entries_cannot_move(name):
    dtype, make, noted = NOTED[name]
    model = build(dtype)
    diagnosis = chainrule.diagnose(chainrule.inspect(model, compute_loss, make(model.parameters())))
    found = [each for each in diagnosis.notes if each.name == "rounded_steps"]
    assert bool(found) is noted
    if noted:
        assert "bfloat16" in found[0].evidence
        assert found[0].value > 0.5
        assert "0.weight" in found[0].modules


def test_autocast_over_weights_in_float32_is_not_noted():
    model = build(torch.float32)

    def compute(m):
        with torch.autocast("cpu", torch.bfloat16):
            return F.mse_loss(m(X), X[:, :2])

    flow = chainrule.inspect(model, compute, torch.optim.Adam(model.parameters(), 1e-4))
    assert set(flow.optimizer.rounded) == {None}


def test_of_other_classes_of_optimizers_nothing_is_known():
    class Compensated(torch.optim.Adam):
        """It may keep a copy in float32."""

    model = build(torch.bfloat16)
    for kind in (Compensated, torch.optim.Adadelta):
        flow = chainrule.inspect(model, compute_loss, kind(model.parameters(), lr=1e-4))
        assert set(flow.optimizer.rounded) == {None}


def test_entries_without_a_gradient_do_not_count():
    model = nn.Embedding(50, 4).bfloat16()
    ids = torch.tensor([3, 7])
    flow = chainrule.inspect(
        model, lambda m: m(ids).float().square().mean(), torch.optim.Adam(model.parameters(), 10.0)
    )
    assert flow.optimizer.rounded == (0.0,)
