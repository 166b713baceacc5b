"""Units that are copies of each other, against a comparison of every pair."""

import pytest
import torch
from torch import nn

from chainrule.flow.loading import decode_flow
from chainrule.measure.inspection import inspect


def count_by_pairs(weight, gradient):
    """Return copies with a gradient and without one, by comparing every unit with all before it."""
    copies = idle = 0
    rows = list(zip(weight.flatten(1), gradient.flatten(1), strict=True))
    for at, (w, g) in enumerate(rows):
        bound = 1e-5 * gradient.abs().max()
        if any(torch.equal(w, v) and (g - h).abs().max() <= bound for v, h in rows[:at]):
            copies += bool(g.any())
            idle += not g.any()
    return copies, idle


def measure(model, x):
    flow = inspect(model, lambda m: m(x).square().mean())
    assert decode_flow(flow.to_json()) == flow
    model.zero_grad()
    model(x).square().mean().backward()
    want = {
        name: found
        for name, p in model.named_parameters()
        if p.dim() > 1 and any(found := count_by_pairs(p.detach(), p.grad))
    }
    assert {each.parameter: (each.copies, each.idle) for each in flow.symmetries} == want
    return flow.symmetries


def widen(model, distinct):
    """Give the hidden layer only so many different units, in and out."""
    at = torch.arange(len(model[0].weight)) % distinct
    with torch.no_grad():
        model[0].weight.copy_(model[0].weight[at])
        model[0].bias.copy_(model[0].bias[at])
        model[2].weight.copy_(model[2].weight[:, at])


@pytest.mark.parametrize("distinct", [1, 3, 4, 12])
def test_copies_are_counted(distinct):
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))
    widen(model, distinct)
    found = measure(model, torch.randn(8, 6))
    assert [each.copies for each in found] == ([12 - distinct] if distinct < 12 else [])


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_constant_weights(value):
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))
    for each in model.parameters():
        nn.init.constant_(each, value)
    found = {each.parameter: each for each in measure(model, torch.randn(8, 6))}
    assert found["0.weight"].share == pytest.approx(11 / 12)


def test_equal_weights_with_different_gradients_are_no_copies():
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))
    nn.init.constant_(model[0].weight, 0.1)
    assert measure(model, torch.randn(8, 6)) == ()


def test_kernels_and_large_weights():
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.ReLU(), nn.ConvTranspose2d(6, 2, 3), nn.Flatten(), nn.Linear(72, 2)
    )
    for each in model[:3].parameters():
        nn.init.constant_(each, 0.1)
    flow = inspect(model, lambda m: m(torch.ones(2, 2, 6, 6)).square().mean())
    found = {each.parameter: each.copies for each in flow.symmetries}
    assert found["0.weight"] == 5


def test_rows_of_an_embedding_are_no_units():
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2))
    nn.init.zeros_(model[0].weight)
    words = torch.randint(9, (6,))
    assert inspect(model, lambda m: m(words).square().mean()).symmetries == ()


def test_numbers_that_are_not_finite_say_nothing():
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))
    nn.init.constant_(model[0].weight, float("inf"))
    x = torch.ones(8, 6)
    assert inspect(model, lambda m: m(x).square().mean()).symmetries == ()
