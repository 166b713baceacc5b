"""A few examples that are far larger than the others: found, and trained."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import chainrule
from chainrule import Verdict
from chainrule.flow.loading import decode_flow

WEIGHTS = torch.randn(8, 4, generator=torch.Generator().manual_seed(2))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def draw(wild):
    x = torch.randn(64, 8)
    labels = (x @ WEIGHTS).argmax(1)
    if wild:
        x[0] = 1e4 * x[0]
    return x, labels


def build(norm):
    layers = nn.Linear(8, 32), norm(32), nn.ReLU(), nn.Linear(32, 4)
    return nn.Sequential(*layers)


def train(model, wild, kind, rate, steps=150):
    """Return the loss of examples of usual size, by statistics of such batches."""
    optimizer = kind(model.parameters(), rate)
    for _ in range(steps):
        x, labels = draw(wild)
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()
    x, labels = draw(wild)
    return float(F.cross_entropy(model(x)[1:], labels[1:]).detach())


@pytest.mark.parametrize("wild", [True, False])
def test_a_wild_row_before_a_batch_normalization(wild):
    x, labels = draw(wild)
    flow = chainrule.inspect(build(nn.BatchNorm1d), lambda m: F.cross_entropy(m(x), labels))
    diagnosis = chainrule.diagnose(flow)
    found = [each for each in diagnosis.findings if each.rule == "outlying_examples"]
    assert bool(found) is wild
    sizes = x.double().square().mean(1)
    expected = math.sqrt(float(sizes.median() / sizes.mean()))
    assert flow.inputs[0].typical == pytest.approx(expected, rel=1e-6)
    assert decode_flow(flow.to_json()) == flow
    if wild:
        assert diagnosis.verdict is Verdict.INPUTS
        assert found[0].value == pytest.approx(expected, rel=1e-6)
        assert found[0].threshold == 0.1
    losses = [
        train(build(nn.BatchNorm1d), wild, kind, rate)
        for kind, rate in ((torch.optim.SGD, 0.3), (torch.optim.Adam, 0.01))
    ]
    assert (min(losses) > 0.8 * math.log(4)) is wild
    assert (max(losses) < 0.5) is not wild


def test_what_scales_each_example_by_itself_does_not_mind():
    x, labels = draw(True)
    flow = chainrule.inspect(build(nn.LayerNorm), lambda m: F.cross_entropy(m(x), labels))
    rules = {each.rule for each in chainrule.diagnose(flow).findings}
    assert "outlying_examples" not in rules
    assert train(build(nn.LayerNorm), True, torch.optim.Adam, 0.01) < 0.5


@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.eye(16),
        lambda: torch.cat([torch.zeros(40, 8), torch.randn(24, 8)]),
        lambda: torch.poisson(torch.exp(torch.randn(64, 1)) * torch.rand(1, 8)),
        lambda: torch.rand(16, 1) ** 2 * torch.rand(16, 8),
    ],
)
def test_examples_of_usual_sizes_are_none(draw):
    x = draw()
    flow = chainrule.inspect(nn.Linear(x.shape[1], 1), lambda m: m(x).square().mean())
    rules = {each.rule for each in chainrule.diagnose(flow).findings}
    assert "outlying_examples" not in rules
