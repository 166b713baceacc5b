"""Rules on inputs, judged by training: what is flagged does not train, sound twins do."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.input_rules import LARGE
from chainrule.diagnosis.rule import Verdict
from chainrule.measure.inspection import inspect

EXAMPLES, FEATURES, CLASSES = 512, 12, 3


def draw():
    """Return examples of unit scale, and classes that a small network can learn."""
    x = torch.randn(EXAMPLES, FEATURES)
    teacher = torch.randn(FEATURES, CLASSES)
    return x, torch.tanh(x @ teacher).argmax(1)


def build(activation=nn.ReLU, features=FEATURES):
    return nn.Sequential(
        nn.Linear(features, 32),
        activation(),
        nn.Linear(32, 32),
        activation(),
        nn.Linear(32, CLASSES),
    )


def find(model, x, y):
    diagnosis = diagnose(inspect(model, lambda m: F.cross_entropy(m(x), y)))
    return {each.rule for each in diagnosis.findings if each.verdict is Verdict.INPUTS}


def learn(make, x, y, optimizer, rates, steps=150):
    """Return the best accuracy on the examples over learning rates."""
    best = 0.0
    for rate in rates:
        torch.manual_seed(1)
        model = make()
        update = optimizer(model.parameters(), rate)
        for _ in range(steps):
            at = torch.randint(EXAMPLES, (32,))
            update.zero_grad()
            F.cross_entropy(model(x[at]), y[at]).backward()
            update.step()
        best = max(best, (model(x).argmax(1) == y).float().mean().item())
    return best


def sgd(parameters, rate):
    return torch.optim.SGD(parameters, rate, momentum=0.9)


RATES = (1e-3, 1e-2, 1e-1)

BAD = {
    "large": (lambda x: 1e4 * x, "large_inputs"),
    "small": (lambda x: 1e-3 * x, "small_inputs"),
    "far away": (lambda x: 1 + x / 30, "offset_inputs"),
    "uneven": (lambda x: x * torch.logspace(-4, 0, FEATURES), "uneven_inputs"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_out_of_scale_trains_worse_at_every_rate_of_sgd(name):
    change, rule = BAD[name]
    x, y = draw()
    assert rule in find(build(), change(x), y)
    assert find(build(), x, y) == set()
    sound = learn(build, x, y, sgd, (1e-2, 1e-1))
    sick = learn(build, change(x), y, sgd, RATES)
    assert sound > 0.85
    assert sick < sound - 0.15


def test_pixels_up_to_255_break_a_usual_rate_and_are_a_note():
    x, y = draw()
    pixels = (x.clamp(-2, 2) + 2) / 4
    make = lambda: build(nn.Tanh)  # noqa: E731
    assert find(make(), pixels, y) == set()
    diagnosis = diagnose(inspect(make(), lambda m: F.cross_entropy(m(255 * pixels), y)))
    assert diagnosis.verdict is Verdict.HEALTHY
    (note,) = [each for each in diagnosis.notes if each.name == "large_inputs"]
    assert note.value > note.threshold == LARGE
    assert learn(build, 255 * pixels, y, sgd, RATES) > 0.8  # a rate that suits them
    for optimizer, rate in ((sgd, 1e-1), (torch.optim.Adam, 1e-2)):
        sound = learn(make, pixels, y, optimizer, [rate])
        assert learn(make, 255 * pixels, y, optimizer, [rate]) < sound - 0.1


SOUND = {
    "images": lambda: torch.rand(64, 1, 8, 8),
    "dark images": lambda: torch.rand(64, 3, 8, 8) * 0.1,
    "one-hot": lambda: F.one_hot(torch.randint(50, (64,)), 50).float(),
    "binary": lambda: (torch.rand(64, 30) < torch.linspace(0.01, 0.99, 30)).float(),
    "bag of words": lambda: torch.poisson(torch.full((64, 2000), 0.01)),
    "tf-idf": lambda: F.normalize(torch.poisson(torch.full((64, 500), 0.05))),
    "standardized": lambda: torch.randn(64, 10),
    "one example": lambda: torch.randn(1, 10),
}


@pytest.mark.parametrize("name", SOUND)
def test_usual_inputs_are_quiet(name):
    x = SOUND[name]()
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(x[0].numel(), 16), nn.ReLU(), nn.Linear(16, CLASSES)
    )
    diagnosis = diagnose(
        inspect(model, lambda m: F.cross_entropy(m(x), torch.zeros(len(x)).long()))
    )
    assert Verdict.INPUTS not in {each.verdict for each in diagnosis.findings}


@pytest.mark.parametrize("first", [nn.BatchNorm1d(FEATURES), nn.LayerNorm(FEATURES), None])
def test_a_normalization_makes_it_harmless(first):
    x, y = draw()
    layers = [first] if first else [nn.Linear(FEATURES, FEATURES), nn.BatchNorm1d(FEATURES)]
    assert find(nn.Sequential(*layers, *build()), 1e3 * x, y) == set()


def test_numbers_that_are_not_finite_are_found_where_they_come_in():
    x, y = draw()
    x[3, 4] = math.nan
    diagnosis = diagnose(inspect(build(), lambda m: F.cross_entropy(m(x), y)))
    assert diagnosis.verdict is Verdict.NON_FINITE
    (finding,) = [each for each in diagnosis.findings if each.rule == "non_finite_inputs"]
    assert finding.value == pytest.approx(1 / x.numel())
    assert "'0'" in finding.evidence


class TestNotes:
    def read(self, x):
        model = build(features=x.shape[1])
        flow = inspect(model, lambda m: F.cross_entropy(m(x), torch.zeros(len(x)).long()))
        return {each.name: each for each in diagnose(flow).notes}

    def test_constant_columns(self):
        x = torch.randn(16, 6)
        x[:, :2] = 1.0
        assert self.read(x)["constant_columns"].value == pytest.approx(1 / 3)
        x[:, :2] = 0.0
        assert "constant_columns" not in self.read(x)

    def test_repeated_examples(self):
        x = torch.randn(2, 6).repeat(8, 1)
        assert self.read(x)["repeated_examples"].value == pytest.approx(14 / 16)
        assert "repeated_examples" not in self.read(torch.randn(16, 6))

    def test_a_state_to_start_from_is_no_example(self):
        model = nn.ModuleDict({"x": nn.Linear(6, 4), "h": nn.Linear(4, 4), "out": nn.Linear(4, 1)})
        x, y = torch.randn(16, 6), torch.randn(16, 1)
        for start in (torch.zeros(16, 4), torch.randn(4).expand(16, 4)):
            flow = inspect(
                model,
                lambda m, h=start: F.mse_loss(m["out"](torch.tanh(m["x"](x) + m["h"](h))), y),
            )
            assert len(flow.inputs) == 2
            assert "repeated_examples" not in {each.name for each in diagnose(flow).notes}

    def test_partly_saturated(self):
        model = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 1))
        nn.init.normal_(model[0].weight, std=1.8)
        x = torch.randn(64, 6)
        flow = inspect(model, lambda m: m(x).square().mean())
        share = flow.weight_layers[0].saturation
        assert 0.5 < share < 0.9
        (note,) = [each for each in diagnose(flow).notes if each.name == "partly_saturated"]
        assert note.value == share
        nn.init.normal_(model[0].weight, std=0.3)
        flow = inspect(model, lambda m: m(x).square().mean())
        assert "partly_saturated" not in {each.name for each in diagnose(flow).notes}
