"""Two zero factors of one product never move; one does. Both are trained."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import chainrule
from chainrule import Verdict
from chainrule.diagnosis.zero_rules import list_zero_products

X = torch.randn(32, 16, generator=torch.Generator().manual_seed(1))
LABELS = (X @ torch.randn(16, 4, generator=torch.Generator().manual_seed(2))).argmax(1)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def zero(layer):
    for parameter in layer.parameters(recurse=False):
        nn.init.zeros_(parameter)


class LowRank(nn.Module):
    """A frozen layer and two narrow ones in a row (LoRA)."""

    def __init__(self, both, outputs):
        super().__init__()
        self.base = nn.Linear(16, outputs).requires_grad_(False)
        self.down, self.up = nn.Linear(16, 4, bias=False), nn.Linear(4, outputs, bias=False)
        zero(self.up)
        if both:
            zero(self.down)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


class LowRankMatrices(nn.Module):
    """The same with matrices of its own."""

    def __init__(self, both, outputs):
        super().__init__()
        self.base = nn.Linear(16, outputs).requires_grad_(False)
        self.A = nn.Parameter(torch.zeros(16, 4) if both else 0.3 * torch.randn(16, 4))
        self.B = nn.Parameter(torch.zeros(4, outputs))

    def forward(self, x):
        return self.base(x) + 2.0 * (x @ self.A @ self.B)


class Gated(nn.Module):
    """A branch times a gate that starts at zero."""

    def __init__(self, both, around):
        super().__init__()
        self.gate, self.around = nn.Parameter(torch.zeros(1)), around
        self.branch = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 16))
        if both:
            zero(self.branch[2])

    def forward(self, x):
        return self.gate * self.branch(x) + (x if self.around else 0.0)


class Normed(nn.Module):
    """A branch that ends in a normalization with scale zero."""

    def __init__(self, both):
        super().__init__()
        self.linear, self.norm = nn.Linear(16, 16), nn.BatchNorm1d(16)
        zero(self.norm)
        if both:
            zero(self.linear)

    def forward(self, x):
        return x + self.norm(self.linear(x))


class Alone(nn.Module):
    """A gate that the model itself holds."""

    def __init__(self, both):
        super().__init__()
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)
        self.head, self.alpha = nn.Linear(16, 4), nn.Parameter(torch.zeros(()))
        if both:
            zero(self.second)

    def forward(self, x):
        return self.head(x + self.alpha * self.second(torch.relu(self.first(x))))


def row(both):
    model = nn.Sequential(
        nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)
    )
    nn.init.zeros_(model[4].weight)
    if both:
        zero(model[2])
    return model


def between(*layers):
    return nn.Sequential(nn.Linear(16, 16), *layers, nn.Linear(16, 4))


BUILDS = {
    "low rank": (
        lambda both: nn.Sequential(LowRank(both, 16), nn.ReLU(), LowRank(both, 4)),
        {"0.down.weight", "0.up.weight"},
    ),
    "low rank matrices": (
        lambda both: nn.Sequential(LowRankMatrices(both, 16), nn.ReLU(), LowRankMatrices(both, 4)),
        {"0.A", "0.B"},
    ),
    "gates around": (
        lambda both: between(Gated(both, around=True), Gated(both, around=True)),
        {"1.gate", "1.branch.2.weight"},
    ),
    "gate": (lambda both: between(Gated(both, around=False)), {"1.gate", "1.branch.2.weight"}),
    "norms": (
        lambda both: between(Normed(both), Normed(both)), {"1.linear.weight", "1.norm.weight"}
    ),
    "gate of the model": (Alone, {"alpha", "second.weight"}),
    "row": (row, {"2.weight", "4.weight"}),
}  # fmt: skip


def compute_loss(model):
    return F.cross_entropy(model(X), LABELS)


def train(model, kind, rate, steps=150):
    optimizer = kind([p for p in model.parameters() if p.requires_grad], rate)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = compute_loss(model)
        loss.backward()
        optimizer.step()
    return float(loss.detach())


@pytest.mark.parametrize(("kind", "rate"), [(torch.optim.SGD, 0.5), (torch.optim.Adam, 0.01)])
@pytest.mark.parametrize("name", BUILDS)
def test_two_zero_factors_are_named_and_never_move(name, kind, rate):
    build, factors = BUILDS[name]
    model = build(True)
    diagnosis = chainrule.diagnose(chainrule.inspect(model, compute_loss))
    finding = diagnosis.findings[0]
    assert diagnosis.verdict is Verdict.NO_GRADIENT
    assert (finding.rule, finding.value, finding.threshold) == ("zero_product", 2.0, 1.0)
    assert factors <= set(finding.modules)
    matrix = min(factors, key=lambda each: model.get_parameter(each).dim() < 2)
    assert matrix in diagnosis.action
    train(model, kind, rate)
    for each in finding.modules:
        assert not model.get_parameter(each).any()


@pytest.mark.parametrize("name", BUILDS)
def test_one_zero_factor_is_fine_and_trains(name):
    build, factors = BUILDS[name]
    model = build(False)
    flow = chainrule.inspect(model, compute_loss)
    assert list_zero_products(flow) == ()
    assert chainrule.diagnose(flow).verdict is Verdict.HEALTHY
    for kind, rate in ((torch.optim.SGD, 0.5), (torch.optim.Adam, 0.01)):
        trained = copy.deepcopy(model)
        assert train(trained, kind, rate) < 0.3
        assert all(trained.get_parameter(each).any() for each in factors)


@pytest.mark.parametrize("name", BUILDS)
def test_what_the_action_says_frees_both(name):
    build, factors = BUILDS[name]
    model = build(True)
    before = list_zero_products(chainrule.inspect(model, compute_loss))
    for product in before:
        weight = next(p for each in product.factors if (p := model.get_parameter(each)).dim() > 1)
        nn.init.kaiming_uniform_(weight)
    assert list_zero_products(chainrule.inspect(model, compute_loss)) == ()
    train(model, torch.optim.Adam, 0.01, 20)
    assert all(model.get_parameter(each).any() for each in factors)


def test_zeros_that_a_later_zero_explains_are_no_product():
    """A head of zeros keeps all gradients back, and gets one itself."""
    model = between(Gated(False, around=True), Gated(False, around=True))
    nn.init.zeros_(model[3].weight)
    assert list_zero_products(chainrule.inspect(model, compute_loss)) == ()
    train(model, torch.optim.SGD, 0.5, 5)
    assert model[1].gate.any()
    assert model[3].weight.any()


def test_zeros_before_dead_units_are_no_product():
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
    model.append(nn.Linear(16, 4))
    with torch.no_grad():
        model[0].bias.fill_(-50.0)
        model[2].weight.zero_()
    assert list_zero_products(chainrule.inspect(model, compute_loss)) == ()
