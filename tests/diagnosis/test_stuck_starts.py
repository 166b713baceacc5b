"""Starts that no optimizer gets off the ground, and twins that train."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import chainrule
from chainrule import Verdict
from chainrule.diagnosis.evidence import is_even

X = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
LABELS = (X @ torch.randn(8, 4, generator=torch.Generator().manual_seed(2))).argmax(1)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def dense():
    return nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 4))


def classify(m):
    return F.cross_entropy(m(X), LABELS)


def train(model, compute, kind, rates, steps=150):
    """Return the least loss over learning rates."""
    best = math.inf
    start = {key: value.clone() for key, value in model.state_dict().items()}
    for rate in rates:
        model.load_state_dict(start)
        optimizer = kind(model.parameters(), rate)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = compute(model)
            loss.backward()
            optimizer.step()
        best = min(best, float(compute(model).detach()))
    model.load_state_dict(start)
    return best


BOTH = ((torch.optim.SGD, (0.1, 1.0)), (torch.optim.Adam, (0.001, 0.01)))


# --- Gradients below Adam's epsilon --------------------------------------------------------------


@pytest.mark.parametrize(("factor", "sick"), [(1e-10, True), (1e-3, False), (1.0, False)])
def test_gradients_far_below_adams_epsilon(factor, sick):
    model = dense()

    def compute(m):
        return factor * classify(m)

    diagnosis = chainrule.diagnose(chainrule.inspect(model, compute))
    found = [each for each in diagnosis.findings if each.rule == "below_epsilon"]
    assert bool(found) is sick
    start = float(compute(model).detach())
    adam = train(model, compute, *BOTH[1])
    assert (adam > 0.9 * start) is sick
    if sick:
        assert diagnosis.verdict is Verdict.OPTIMIZER
        (finding,) = found
        gradients = torch.autograd.grad(compute(model), list(model.parameters()))
        entries = torch.cat([g.flatten() for g in gradients]).double()
        assert finding.value == pytest.approx(float(entries.square().mean().sqrt()), rel=1e-3)
        assert "10" in diagnosis.action
        assert train(model, compute, *BOTH[0]) > 0.9 * start


def test_small_gradients_at_the_end_of_a_training_are_no_fault():
    model = nn.Linear(8, 1).double()
    x, y = X.double(), X.double()[:, :1] * 2.0
    with torch.no_grad():
        model.weight.zero_()[0, 0] = 2.0
        model.bias.fill_(1e-12)
    diagnosis = chainrule.diagnose(chainrule.inspect(model, lambda m: F.mse_loss(m(x), y)))
    assert "below_epsilon" not in {each.rule for each in diagnosis.findings}


# --- Targets that rounding hides -----------------------------------------------------------------


@pytest.mark.parametrize(("scale", "offset", "sick"), [(1e-4, 100.0, True), (1.0, 1.0, False)])
def test_targets_far_from_zero_beside_their_spread(scale, offset, sick):
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
    y = offset + scale * torch.tanh(X[:, :1] + X[:, 1:2])
    level = float(y.double().var(correction=0))

    def compute(m):
        return F.mse_loss(m(X), y)

    diagnosis = chainrule.diagnose(chainrule.inspect(model, compute))
    assert (diagnosis.verdict is Verdict.LARGE_LOSS) is sick
    best = min(train(model, compute, kind, rates) for kind, rates in BOTH)
    assert (best > 0.9 * level) is sick


@pytest.mark.parametrize("target", [1.0, 0.1, 1000.3])
def test_targets_that_are_all_the_same_have_no_level_of_guessing(target):
    y = torch.full((64, 1), target)
    diagnosis = chainrule.diagnose(
        chainrule.inspect(nn.Linear(8, 1), lambda m: F.mse_loss(m(X), y))
    )
    assert "large_loss" not in {each.rule for each in diagnosis.findings}


# --- Nothing lets the input in -------------------------------------------------------------------


class Attending(nn.Module):
    """One block of attention on a residual stream, for sequences."""

    def __init__(self, start):
        super().__init__()
        self.embed, self.head = nn.Linear(6, 16), nn.Linear(16, 4)
        self.place = nn.Parameter(0.02 * torch.randn(5, 16))
        self.query, self.key, self.value, self.out = (nn.Linear(16, 16) for _ in range(4))
        if start == "zero":
            for layer in (m for m in self.modules() if isinstance(m, nn.Linear)):
                nn.init.zeros_(layer.weight)
        elif start == "head":
            nn.init.zeros_(self.head.weight)

    def forward(self, x):
        h = self.embed(x) + self.place
        h = h + self.out(F.scaled_dot_product_attention(self.query(h), self.key(h), self.value(h)))
        return self.head(h.mean(1))


def match(m):
    """Which step is largest, of sequences that are drawn at every call."""
    x = torch.randn(128, 5, 6)
    return F.cross_entropy(m(x), x[:, :4, 0].argmax(1))


@pytest.mark.parametrize(("start", "sick"), [("zero", True), ("head", False), ("usual", False)])
def test_no_layer_lets_the_input_in(start, sick):
    model = Attending(start)
    diagnosis = chainrule.diagnose(chainrule.inspect(model, match))
    assert ("nothing_passed_on" in {each.rule for each in diagnosis.findings}) is sick
    if sick:
        assert diagnosis.verdict is not Verdict.HEALTHY
        assert train(model, match, torch.optim.SGD, (0.1, 0.5), 150) > 0.96 * math.log(4)
    if start == "usual":
        assert train(model, match, torch.optim.Adam, (0.01,), 200) < 0.9 * math.log(4)


def test_a_single_layer_of_zeros_is_fine():
    model = nn.Linear(8, 4)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    diagnosis = chainrule.diagnose(chainrule.inspect(model, classify))
    assert "nothing_passed_on" not in {each.rule for each in diagnosis.findings}
    assert train(model, classify, *BOTH[0]) < 0.5


class TestLikeLayers:
    def test_ten_tanh_layers_at_the_default_start_are_vanishing(self):
        """Plain SGD gets 23 % of digits right with them, Adam 92 % (the lesson's figures)."""
        flow = chainrule.simulate(
            chainrule.NetworkSpec(depth=10, activation="tanh", init="pytorch"), 4
        )
        diagnosis = chainrule.diagnose(flow)
        assert diagnosis.verdict is Verdict.VANISHING
        assert [finding.rule for finding in diagnosis.findings] == ["vanishing_backward"]

    @pytest.mark.parametrize(
        ("changes", "even"),
        [({}, True), ({"normalization": "layernorm"}, False), ({"depth": 2}, False)],
    )
    def test_they_are_three_or_more_and_nothing_is_normalized(self, changes, even):
        flow = chainrule.simulate(chainrule.NetworkSpec(depth=4, width=8).replace(**changes), 2)
        assert is_even(flow) is even

    def test_another_width_makes_them_unlike(self):
        model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2), nn.Linear(2, 8), nn.Linear(8, 3))
        x, y = torch.randn(16, 8), torch.randint(3, (16,))
        assert not is_even(chainrule.inspect(model, lambda m: F.cross_entropy(m(x), y)))
