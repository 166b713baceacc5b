"""The rule on half precision, judged by training at several sizes of the loss."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.precision_rules import choose_loss_scale
from chainrule.diagnosis.rule import Verdict
from chainrule.measure.inspection import inspect


class Problem:
    """A small regression under autocast, its loss multiplied by a factor."""

    def __init__(self, dtype, factor):
        self.model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))
        self.x = torch.randn(64, 16)
        self.y = torch.tanh(self.x @ torch.randn(16, 8) / 4)
        self.dtype, self.factor = dtype, factor

    def compute_loss(self, model):
        with torch.autocast("cpu", dtype=self.dtype):
            output = model(self.x)
        return self.factor * F.mse_loss(output.float(), self.y)

    def judge(self):
        flow = inspect(self.model, self.compute_loss)
        return flow, diagnose(flow)

    def learn(self, scale=1.0, steps=60):
        """Return the loss after ÷ before; SGD, whose rate makes up for the factor."""
        update = torch.optim.SGD(self.model.parameters(), 0.3 / self.factor)
        before = self.compute_loss(self.model).item()
        for _ in range(steps):
            update.zero_grad()
            (scale * self.compute_loss(self.model)).backward()
            for each in self.model.parameters():
                each.grad /= scale
            update.step()
        return self.compute_loss(self.model).item() / before


@pytest.mark.parametrize("exponent", [-16, -22])
def test_gradients_below_the_format_are_named_with_the_scale_that_trains(exponent):
    torch.manual_seed(4)
    problem = Problem(torch.float16, 2.0**exponent)
    flow, diagnosis = problem.judge()
    assert diagnosis.verdict is Verdict.UNDERFLOW
    finding = diagnosis.findings[0]
    scale = choose_loss_scale(flow)
    assert 4 <= scale <= 30
    assert "float16" in finding.evidence
    assert "loss scale of 2" in finding.evidence
    state = {name: value.clone() for name, value in problem.model.state_dict().items()}
    sick = problem.learn()
    problem.model.load_state_dict(state)
    cured = problem.learn(2.0**scale)
    assert cured < 0.8
    assert sick > cured + 0.15
    scaled = diagnose(inspect(problem.model, lambda m: 2.0**scale * problem.compute_loss(m)))
    assert Verdict.UNDERFLOW not in {each.verdict for each in scaled.findings}


@pytest.mark.parametrize(
    ("dtype", "factor"), [(torch.bfloat16, 2.0**-20), (torch.float16, 1.0), (torch.float16, 0.1)]
)
def test_what_the_format_holds_is_quiet_and_trains(dtype, factor):
    problem = Problem(dtype, factor)
    _, diagnosis = problem.judge()
    assert Verdict.UNDERFLOW not in {each.verdict for each in diagnosis.findings}
    assert problem.learn() < 0.8


def test_zeros_of_units_that_are_off_are_no_underflow():
    problem = Problem(torch.float16, 1.0)
    with torch.no_grad():
        problem.model[0].bias[:16] = -100.0
    flow, diagnosis = problem.judge()
    (weight,) = [each for each in flow.precisions if each.name == "0.weight"]
    assert weight.zero_share >= 0.5
    assert Verdict.UNDERFLOW not in {each.verdict for each in diagnosis.findings}


def test_values_near_the_largest_number_are_a_note():
    problem = Problem(torch.float16, 1e-6)
    with torch.no_grad():
        problem.model[2].weight *= 1e5
    _, diagnosis = problem.judge()
    (note,) = [each for each in diagnosis.notes if each.name == "near_overflow"]
    assert note.modules[-1] == "2"
