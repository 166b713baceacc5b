"""The rule on units that are copies, judged by training."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.rule import Verdict
from chainrule.measure.inspection import inspect

EXAMPLES = 256


def draw():
    x = torch.randn(EXAMPLES, 8)
    return x, torch.tanh(2 * x @ torch.randn(8, 6)).argmax(1)


def build(fill=None, distinct=None, width=32):
    model = nn.Sequential(
        nn.Linear(8, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 6)
    )
    with torch.no_grad():
        for each in model.parameters() if fill is not None else ():
            each.fill_(fill)
        at = torch.arange(width) % (distinct or width)
        for layer, following in ((model[0], model[2]), (model[2], model[4])):
            layer.weight.copy_(layer.weight[at])
            layer.bias.copy_(layer.bias[at])
            following.weight.copy_(following.weight[:, at])
    return model


def judge(model, x, y):
    return diagnose(inspect(model, lambda m: F.cross_entropy(m(x), y)))


def learn(model, x, y, optimizer=torch.optim.Adam, rate=1e-2, steps=200):
    update = optimizer(model.parameters(), rate)
    for _ in range(steps):
        at = torch.randint(EXAMPLES, (32,))
        update.zero_grad()
        F.cross_entropy(model(x[at]), y[at]).backward()
        update.step()
    return (model(x).argmax(1) == y).float().mean().item()


@pytest.mark.parametrize("fault", [{"fill": 0.1}, {"fill": 0.0}, {"distinct": 1}])
def test_units_that_are_all_alike_do_not_learn(fault):
    x, y = draw()
    model = build(**fault)
    findings = judge(model, x, y).findings
    (finding,) = [each for each in findings if each.verdict is Verdict.SYMMETRIC]
    assert finding.value == pytest.approx(1.0)
    assert finding.modules[0] == "0.weight"
    assert "all 32 units" in finding.evidence
    assert learn(build(), x, y) > 0.9
    assert learn(model, x, y) < 0.7
    assert learn(build(**fault), x, y, torch.optim.SGD, 0.1) < 0.7


def test_many_different_units_learn_and_copies_are_a_note():
    x, y = draw()
    model = build(distinct=8)
    diagnosis = judge(model, x, y)
    assert Verdict.SYMMETRIC not in {each.verdict for each in diagnosis.findings}
    assert "copied_units" in {each.name for each in diagnosis.notes}
    assert learn(model, x, y) > 0.85


class Adapted(nn.Module):
    """A low-rank correction, a gate and a branch that start at zero."""

    def __init__(self):
        super().__init__()
        self.enter, self.down, self.up = nn.Linear(8, 16), nn.Linear(16, 4), nn.Linear(4, 16)
        self.norm, self.inner, self.outer = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)
        self.condition = nn.Linear(8, 48)
        self.head = nn.Linear(16, 6)
        for layer in (self.up, self.outer, self.condition):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        h = self.enter(x)
        h = h + self.up(self.down(h))
        scale, shift, gate = self.condition(x).chunk(3, 1)
        h = h + gate * torch.tanh(self.norm(h) * (1 + scale) + shift)
        return self.head(h + self.outer(torch.relu(self.inner(self.norm(h)))))


SOUND = {
    "zero last layer": lambda: nn.Sequential(
        nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 6).apply(lambda m: nn.init.zeros_(m.weight))
    ),
    "zero linear model": lambda: nn.Sequential(
        nn.Linear(8, 6).apply(lambda m: nn.init.zeros_(m.weight))
    ),
    "adapters, zero branches, gates": Adapted,
    "orthogonal": lambda: nn.Sequential(
        nn.Linear(8, 8).apply(lambda m: nn.init.eye_(m.weight)), nn.Tanh(), nn.Linear(8, 6)
    ),
}


@pytest.mark.parametrize("name", SOUND)
def test_zeros_on_purpose_are_no_symmetry(name):
    x, y = draw()
    model = SOUND[name]()
    diagnosis = judge(model, x, y)
    assert Verdict.SYMMETRIC not in {each.verdict for each in diagnosis.findings}
    assert "copied_units" not in {each.name for each in diagnosis.notes}
    assert learn(model, x, y) > 0.7
