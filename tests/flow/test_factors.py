"""Factors of residual networks multiply to what autograd says, or have no product."""

import pytest
import torch
from torch import nn

import chainrule
from chainrule.figures import build_factor_figure
from chainrule.report import build_report

X = torch.linspace(-1, 1, 96).reshape(3, 4, 8).sin()


class Block(nn.Module):
    """A transformer block with queries, keys and values of their own."""

    def __init__(self, *, pre_norm):
        super().__init__()
        self.pre_norm = pre_norm
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))
        self.up, self.down = nn.Linear(8, 32), nn.Linear(32, 8)
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)

    def attend(self, x):
        weights = (self.q(x) @ self.k(x).transpose(1, 2) / 8**0.5).softmax(-1)
        return self.o(weights @ self.v(x))

    def expand(self, x):
        return self.down(torch.relu(self.up(x)))

    def forward(self, x, sums):
        for norm, branch in ((self.norm1, self.attend), (self.norm2, self.expand)):
            total = x + branch(norm(x) if self.pre_norm else x)
            sums.append(total)
            x = total if self.pre_norm else norm(total)
        return x


class Transformer(nn.Module):
    """Three blocks between two layers; it keeps its sums."""

    def __init__(self, *, pre_norm):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 2)
        self.blocks = nn.ModuleList(Block(pre_norm=pre_norm) for _ in range(3))

    def forward(self, x):
        self.sums = []
        h = self.first(x)
        for block in self.blocks:
            h = block(h, self.sums)
        return self.last(h)


def compute_loss(m):
    return m(X).square().sum()


@pytest.mark.parametrize("pre_norm", [True, False])
def test_blocks_multiply_to_what_autograd_says_along_the_residual_stream(pre_norm):
    model = Transformer(pre_norm=pre_norm)
    flow = chainrule.inspect(model, compute_loss)
    loss = compute_loss(model)
    norms = [g.norm().item() for g in torch.autograd.grad(loss, model.sums)]
    factors = flow.factors()
    assert len(factors) == len(norms) - 1
    assert {factor.role for factor in factors} == {"residual"}
    product = 1.0
    for factor, before in zip(factors, reversed(norms[:-1]), strict=True):
        product *= factor.value
        assert factor.running == pytest.approx(product, rel=1e-6)
        assert factor.running == pytest.approx(before / norms[-1], rel=1e-5)
    assert build_factor_figure(flow)["data"]
    assert "<svg" in build_report(flow)


class Parallel(nn.Module):
    """Two layers side by side."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.c(torch.cat([self.a(x), self.b(x)], -1).unflatten(-1, (2, 8)).sum(-2))


def test_modules_side_by_side_have_no_product():
    x = X.clone().requires_grad_()
    flow = chainrule.inspect(Parallel(), lambda m: m(x).square().sum())
    factors = flow.factors()
    assert len(factors) == 3
    assert factors[0].value is not None
    assert all(factor.running is None for factor in factors)
    assert build_factor_figure(flow, other=flow)["data"]


class Reshaped(nn.Module):
    """Layers in a row with a view between them, which keeps the gradient's norm."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv1d(4, 4, 3), nn.Linear(24, 2)

    def forward(self, x):
        return self.b(self.a(x).flatten(1))


def test_views_between_modules_leave_the_product():
    x = X.clone().requires_grad_()
    model = Reshaped()
    flow = chainrule.inspect(model, lambda m: m(x).square().sum())
    assert not flow.chain
    inward = torch.autograd.grad((out := model(x)).square().sum(), (x, out))
    norms = [gradient.norm().item() for gradient in inward]
    assert flow.factors()[-1].running == pytest.approx(norms[0] / norms[1], rel=1e-5)
