"""Losses that compare every answer with all targets: found where it is a mistake, and only there.

What is a mistake is decided by real training: such a loss leaves the model at guessing.
"""

import linecache
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.rule import Verdict
from chainrule.flow.loading import decode_flow
from chainrule.measure.inspection import inspect

N = 48
MISMATCH = pytest.mark.filterwarnings("ignore:Using a target size")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def build(outputs=1, end=()):
    return nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, outputs), *end)


class Losing(nn.Module):
    """A model that computes its own loss."""

    def __init__(self, column):
        super().__init__()
        self.net, self.column = build(), column

    def forward(self, x, target=None):
        out = self.net(x)
        if target is None:
            return out
        return ((out - (target[:, None] if self.column else target)) ** 2).mean()


X = torch.randn(N, 4, generator=torch.Generator().manual_seed(1))
Y = torch.tanh(2.0 * X[:, 0]) + X[:, 1]
ONES = (Y > 0).float()


def square(out, y):
    return ((out - y) ** 2).mean()


def pseudo_huber(out, y):
    d = out - y
    return torch.where(d.abs() < 1, 0.5 * d * d, d.abs() - 0.5).mean()


def cross_entropy_by_hand(out, y):
    p = torch.sigmoid(out).clamp(1e-6, 1 - 1e-6)
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean()


LOSSES = {
    "mse_loss": (F.mse_loss, Y),
    "MSELoss": (nn.MSELoss(), Y),
    "l1_loss, sum": (lambda out, y: F.l1_loss(out, y, reduction="sum") / N, Y),
    "smooth_l1_loss, none": (lambda out, y: F.smooth_l1_loss(out, y, reduction="none").mean(), Y),
    "huber_loss": (F.huber_loss, Y),
    "square by hand": (square, Y),
    "sum, then mean": (lambda out, y: (y - out).square().sum(-1).mean() / out.shape[-1], Y),
    "root": (lambda out, y: ((out - y) ** 2).mean().sqrt(), Y),
    "log cosh": (lambda out, y: torch.log(torch.cosh(out - y)).mean(), Y),
    "Huber by hand": (pseudo_huber, Y),
    "log_prob": (lambda out, y: -torch.distributions.Normal(out, 0.5).log_prob(y).mean(), Y),
    "cross-entropy by hand": (cross_entropy_by_hand, ONES),
}


def fit(model, compute, steps=200):
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = compute(model)
        loss.backward()
        optimizer.step()
    return model


def miss(out, y):
    """Return what is left of the targets' variance: 1 is guessing."""
    return float(((out.detach().reshape(-1) - y) ** 2).mean() / y.var(correction=0))


@MISMATCH
@pytest.mark.parametrize("which", ["column of answers", "column of targets"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_that_broadcasts_by_mistake_is_named_and_does_not_train(name, which):
    loss, y = LOSSES[name]
    end = [nn.Flatten(0)] if which == "column of targets" else []
    model, other = build(end=end), build(end=end)
    given = y[:, None] if end else y

    def compute(m):
        return loss(m(X), given)

    def mended(m):
        return loss(m(X).reshape(given.shape), given)

    diagnosis = diagnose(inspect(model, compute))
    finding = diagnosis.findings[0]
    assert diagnosis.verdict is Verdict.SHAPES
    assert (finding.rule, finding.value, finding.threshold) == ("broadcast_loss", N, 1.0)
    for part in (f"({N}, 1)", f"({N},)", f"({N}, {N})", "test_broadcast_rule.py:"):
        assert part in finding.evidence
    assert "squeeze(-1)" in diagnosis.action
    assert "[:, None]" in diagnosis.action
    assert "all_pairs" not in {note.name for note in diagnosis.notes}

    right = diagnose(inspect(other, mended))
    assert right.verdict is Verdict.HEALTHY
    answer = torch.sigmoid if y is ONES else torch.Tensor.detach
    assert miss(answer(fit(model, compute)(X)), y) > 0.9
    assert miss(answer(fit(other, mended)(X)), y) < 0.3


@MISMATCH
def test_maps_without_a_channel():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 1))
    images = torch.randn(6, 3, 5, 5)
    masks = images[:, 0] + 0.5
    diagnosis = diagnose(inspect(model, lambda m: F.mse_loss(m(images), masks)))
    assert diagnosis.verdict is Verdict.SHAPES
    assert diagnosis.findings[0].value == 6
    assert "squeeze(1)" in diagnosis.action
    sound = diagnose(inspect(model, lambda m: F.mse_loss(m(images), masks[:, None])))
    assert not {"broadcast_loss"} & {each.rule for each in sound.findings}


@pytest.mark.parametrize("column", [False, True])
def test_a_loss_inside_of_the_model(column):
    model = Losing(column)
    diagnosis = diagnose(inspect(model, lambda m: m(X, Y)))
    assert (diagnosis.verdict is Verdict.SHAPES) is not column
    fit(model, lambda m: m(X, Y))
    assert (miss(model(X), Y) > 0.9) is not column


@MISMATCH
def test_the_line_is_that_of_the_loss_and_comes_back_from_a_file():
    def compute(m):
        return F.mse_loss(m(X), Y)  # this line

    flow = inspect(build(), compute)
    (found,) = flow.loss_facts.broadcasts
    assert found.file == __file__
    assert "this line" in linecache.getline(found.file, found.line)
    assert found.code == "return F.mse_loss(m(X), Y)  # this line"
    assert (found.output, found.target, found.result) == ((N, 1), (N,), (N, N))
    assert decode_flow(flow.to_json()) == flow


# --- What broadcasts on purpose ------------------------------------------------------------------


def pull_together(m):
    """A contrastive loss: every pair of embeddings, positives masked."""
    z = F.normalize(m(X), dim=1)
    distances = (z[:, None] - z[None].detach()).square().sum(-1)
    same = (ONES[:, None] == ONES[None]).float()
    return (same * distances + (1 - same) * F.relu(1 - distances)).mean()


def triplets(m):
    d = torch.cdist(m(X), m(X))
    return F.relu(d[:, :, None] - d[:, None, :] + 0.2).mean()


def to_centres(m):
    centres = torch.linspace(-1, 1, N)[:, None]
    return torch.exp(-((m(X)[:, None] - centres[None]) ** 2).sum(-1)).log().mean().neg()


def kernels(m):
    """Similarities to as many fixed points as there are examples (maximum mean discrepancy)."""
    return -torch.exp(-((m(X) - Y) ** 2)).mean()


def weights_of_classes(m):
    logits = m(X)
    each = F.cross_entropy(logits, ONES.long(), reduction="none")
    return (each * torch.tensor([0.3, 0.7])[ONES.long()]).mean()


def smoothed(m):
    target = 0.9 * F.one_hot(ONES.long(), 2) + 0.05
    return -(target * F.log_softmax(m(X), 1)).sum(1).mean()


def mixture(m):
    weight, mean, spread = m(X).chunk(3, 1)
    each = torch.distributions.Normal(mean, F.softplus(spread) + 0.1).log_prob(Y[:, None])
    return -torch.logsumexp(F.log_softmax(weight, 1) + each, 1).mean()


LEVELS = torch.tensor([0.1, 0.5, 0.9])


def pinball(m):
    left = Y[:, None] - m(X)
    return torch.maximum(LEVELS * left, (LEVELS - 1) * left).mean()


def one_answer_many_levels(m):
    left = m(X) - LEVELS
    return torch.maximum(0.5 * left, -0.5 * left).mean() + 0.0 * left.sum()


def quantile_temporal_difference(m):
    """QR-DQN: all quantiles of an example against all of its own targets."""
    q = m(X)
    target = Y[:, None] + torch.linspace(-1, 1, 8)
    left = target[:, None, :] - q[:, :, None]
    levels = ((torch.arange(8) + 0.5) / 8)[None, :, None]
    return ((levels - (left < 0).float()).abs() * F.huber_loss(
        q[:, :, None].expand(N, 8, 8), target[:, None, :].expand(N, 8, 8), reduction="none"
    )).mean()  # fmt: skip


def ordinal(m):
    levels = (Y[:, None] > LEVELS).float()
    return F.binary_cross_entropy_with_logits(m(X) - LEVELS, levels)


def rank(m):
    score = m(X).squeeze(1)
    wanted = (Y[:, None] > Y[None]).float()
    return (wanted * F.softplus(-(score[:, None] - score[None]))).mean()


def off_diagonal(m):
    score = m(X).squeeze(1)
    left = score[:, None] - score.detach()
    return (left.square() * (1 - torch.eye(N))).mean() - score.mean()


def masked_scores(m):
    score = m(X) @ m(X).T / 4
    barred = torch.ones(N, N).triu(1).bool()
    weights = score.masked_fill(barred, -math.inf).softmax(-1)
    return ((weights @ Y) - Y).square().mean()


ON_PURPOSE = {
    "contrastive": (pull_together, 8),
    "triplets": (triplets, 8),
    "centres": (to_centres, 1),
    "kernels": (kernels, 1),
    "class weights": (weights_of_classes, 2),
    "label smoothing": (smoothed, 2),
    "mixture": (mixture, 9),
    "pinball": (pinball, 3),
    "levels": (one_answer_many_levels, 1),
    "QR-DQN": (quantile_temporal_difference, 8),
    "ordinal": (ordinal, 1),
    "ranks": (rank, 1),
    "off the diagonal": (off_diagonal, 1),
    "attention": (masked_scores, 8),
}


@pytest.mark.parametrize("name", ON_PURPOSE)
def test_what_broadcasts_on_purpose_is_not_named(name):
    compute, outputs = ON_PURPOSE[name]
    flow = inspect(build(outputs), compute)
    assert flow.loss_facts.broadcasts == ()
    assert "broadcast_loss" not in {each.rule for each in diagnose(flow).findings}


def spread_like_targets(m):
    """The energy distance between two sets: its second term keeps answers apart."""
    x = m(X).squeeze(1)
    apart = (x[:, None] - x[None]).abs().mean()
    return (x[:, None] - Y[None]).abs().mean() - 0.5 * apart


def paired_critic(m):
    """Scores that shall exceed those of other examples: no constant is best."""
    return F.softplus(Y[None] - m(X)).mean()


def without_weights(m):
    each = F.binary_cross_entropy_with_logits(m(X), ONES[:, None], reduction="none")
    return (each * (0.5 + Y.abs())).mean()


@pytest.mark.parametrize("compute", [spread_like_targets, paired_critic, without_weights])
def test_what_may_be_meant_is_a_note(compute):
    model = build()
    diagnosis = diagnose(inspect(model, compute))
    assert diagnosis.verdict is Verdict.HEALTHY
    (note,) = [each for each in diagnosis.notes if each.name == "all_pairs"]
    assert (note.value, note.threshold) == (N, 1.0)


def test_sets_that_are_compared_train():
    model = fit(build(), spread_like_targets, 300)
    x, y = model(X).detach().squeeze(1).sort().values, Y.sort().values
    assert float((x - y).abs().mean()) < 0.3 * float((y - y.mean()).abs().mean())


def test_a_value_that_is_only_watched_is_not_the_loss():
    def compute(m):
        out = m(X)
        ((out - Y) ** 2).mean()
        return F.mse_loss(out.squeeze(1), Y)

    assert inspect(build(), compute).loss_facts.broadcasts == ()
