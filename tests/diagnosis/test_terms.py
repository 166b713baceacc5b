"""Terms of a loss: what guessing gives for each, and a term that another one swamps."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import chainrule
from chainrule.flow.loading import decode_flow

BASIS = torch.randn(4, 16, generator=torch.Generator().manual_seed(7))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


class Autoencoder(nn.Module):
    """A small variational one."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(16, 32), nn.Tanh())
        self.mean, self.spread = nn.Linear(32, 4), nn.Linear(32, 4)
        self.decoder = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 16))

    def forward(self, x):
        h = self.encoder(x)
        mean, spread = self.mean(h), self.spread(h)
        return self.decoder(mean + torch.randn_like(mean) * (spread / 2).exp()), mean, spread


def reconstruct(weight):
    """The mean of squares, beside a KL divergence that is summed over the latent variables."""

    def compute(m):
        x = torch.tanh(torch.randn(64, 4) @ BASIS)
        out, mean, spread = m(x)
        apart = -0.5 * (1 + spread - mean**2 - spread.exp()).sum(1).mean()
        return {"reconstruction": F.mse_loss(out, x), "kl": weight * apart}

    return Autoencoder(), compute


def train(model, compute, kind, rate, steps=300):
    """Return the mean of every term over the last steps ÷ what guessing gives for it."""
    optimizer = kind(model.parameters(), rate)
    late = []
    for step in range(steps):
        optimizer.zero_grad()
        terms = compute(model)
        sum(terms.values()).backward()
        optimizer.step()
        if step >= steps - 20:
            late.append(terms["reconstruction"].item())
    x = torch.tanh(torch.randn(2000, 4) @ BASIS)
    return sum(late) / len(late) / float((x - x.mean(0)).square().mean())


@pytest.mark.parametrize(("weight", "swamped"), [(2.0, True), (0.01, False)])
def test_a_term_that_swamps_the_reconstruction_is_a_note(weight, swamped):
    model, compute = reconstruct(weight)
    flow = chainrule.inspect(model, compute)
    notes = [n for n in chainrule.diagnose(flow).notes if n.name == "swamped_term"]
    assert bool(notes) is swamped
    left = train(model, compute, torch.optim.Adam, 0.005)
    assert (left > 0.9) is swamped
    if swamped:
        (note,) = notes
        norms = [
            _measure_norms(model.__class__, compute, name) for name in ("reconstruction", "kl")
        ]
        shared = [name for name in norms[0] if name in norms[1]]
        sizes = [math.hypot(*(each[name] for name in shared)) for each in norms]
        assert note.value == pytest.approx(sizes[1] / sizes[0], rel=1e-3)
        assert note.value > note.threshold
        assert note.modules[0] in shared
        for part in ("'kl'", "'reconstruction'", repr(note.modules[0])):
            assert part in note.evidence


def _measure_norms(kind, compute, name):
    """Return the norms of one term's gradients at weights, by plain autograd."""
    torch.manual_seed(0)
    model = kind()
    compute(model)[name].backward()
    return {
        name: p.grad.norm().item()
        for name, p in model.named_parameters()
        if p.grad is not None and p.dim() > 1
    }


def test_terms_have_their_own_level_of_guessing():
    x = torch.randn(30, 5)
    y, labels = x[:, :2] * 3.0, torch.arange(30) % 4
    model = nn.Linear(5, 6)

    def compute(m):
        out = m(x)
        return {
            "both": F.mse_loss(out[:, :2], y) + 0.5 * F.cross_entropy(out[:, 2:], labels),
            "labels": 2.0 * F.cross_entropy(out[:, 2:], labels),
            "penalty": 0.1 * m.weight.square().sum(),
            "mine": out.exp().mean(),
        }

    flow = chainrule.inspect(model, compute)
    both, labels_again, penalty, mine = flow.loss_facts.terms
    level = float((y - y.mean(0)).square().mean())
    assert both.guessing == pytest.approx(level + 0.5 * math.log(4), rel=1e-5)
    assert labels_again.guessing == pytest.approx(2.0 * math.log(4), rel=1e-5)
    assert penalty.guessing is None
    assert mine.guessing is None
    assert decode_flow(flow.to_json()) == flow


def test_a_penalty_on_weights_leaves_the_level_of_guessing_known():
    x, labels = torch.randn(30, 5), torch.arange(30) % 4
    model = nn.Linear(5, 4)

    def compute(m):
        return F.cross_entropy(m(x), labels) + 0.1 * m.weight.square().sum()

    facts = chainrule.inspect(model, compute).loss_facts
    penalty = 0.1 * model.weight.square().sum().item()
    assert facts.guessing == pytest.approx(math.log(4) + penalty, rel=1e-5)
    (part,) = [part for part in facts.parts if part.kind == "penalty"]
    assert part.value == pytest.approx(penalty, rel=1e-4)
    unknown = chainrule.inspect(model, lambda m: compute(m) + m(x).exp().mean()).loss_facts
    assert unknown.guessing is None


def test_a_regularizer_that_is_small_is_no_note():
    x, labels = torch.randn(30, 5), torch.arange(30) % 4
    model = nn.Linear(5, 4)
    flow = chainrule.inspect(
        model,
        lambda m: {"loss": F.cross_entropy(m(x), labels), "decay": 1e-5 * m.weight.square().sum()},
    )
    assert "swamped_term" not in {note.name for note in chainrule.diagnose(flow).notes}
