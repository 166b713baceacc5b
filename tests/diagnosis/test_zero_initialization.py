"""Designs that start at or near zero on purpose, against real trainings, and sick look-alikes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import chainrule
from chainrule import Verdict
from chainrule.diagnosis.rules import measure_metric
from chainrule.diagnosis.structure import find_last_dependent, list_explained, list_zero_initialized
from chainrule.diagnosis.viability.features import measure_features
from zoo import Lambda


def draw_task(width=32):
    torch.manual_seed(2)
    x, labels = torch.randn(32, width), torch.randint(0, 4, (32,))
    return lambda m: F.cross_entropy(m(x), labels)


def classify(*layers):
    return nn.Sequential(*layers), draw_task()


def train(model, compute_loss, steps, rate=0.3):
    """Return first and last loss of plain SGD."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=rate)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = compute_loss(model)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[0], losses[-1]


class Scaled(nn.Module):
    """x + scale · branch(norm(x)), as LayerScale has it."""

    def __init__(self, scale, branch=None):
        super().__init__()
        self.norm = nn.LayerNorm(32)
        self.branch = branch or nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
        self.scale = nn.Parameter(torch.full((32,), scale))

    def forward(self, x):
        return x + self.scale * self.branch(self.norm(x))


class LowRank(nn.Module):
    """A frozen layer and a product of two narrow ones, the second of them zero at first (LoRA)."""

    def __init__(self, outputs):
        super().__init__()
        self.base = nn.Linear(32, outputs).requires_grad_(False)
        self.down, self.up = nn.Linear(32, 4, bias=False), nn.Linear(4, outputs, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


def zero_head():
    torch.manual_seed(0)
    model, compute_loss = classify(
        nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)
    )
    nn.init.zeros_(model[-1].weight)
    return model, compute_loss


def low_rank():
    torch.manual_seed(0)
    return classify(LowRank(32), nn.ReLU(), LowRank(32), nn.ReLU(), LowRank(4))


def layer_scale(scale, make_branch=lambda: None):
    torch.manual_seed(0)
    blocks = [Scaled(scale, make_branch()) for _ in range(12)]
    return classify(nn.Linear(32, 32), *blocks, nn.LayerNorm(32), nn.Linear(32, 4))


def denoiser():
    """Residual blocks and a head that end in zero convolutions, as in DDPM."""
    torch.manual_seed(0)
    blocks = [
        nn.Sequential(
            nn.GroupNorm(4, 16), nn.SiLU(), nn.Conv2d(16, 16, 3, padding=1),
            nn.GroupNorm(4, 16), nn.SiLU(), nn.Conv2d(16, 16, 3, padding=1),
        )
        for _ in range(3)
    ]  # fmt: skip
    stem, head = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 3, 3, padding=1)
    for last in (head, *(block[-1] for block in blocks)):
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def run(m, x):
        x = m.stem(x)
        for name in ("a", "b", "c"):
            x = x + getattr(m, name)(x)
        return m.head(x)

    model = Lambda(run, stem=stem, a=blocks[0], b=blocks[1], c=blocks[2], head=head)
    images = torch.randn(8, 3, 8, 8)
    target = 0.5 * images + 0.3 * images.flip(1)
    return model, lambda m: F.mse_loss(m(images), target)


@pytest.mark.parametrize(
    ("build", "explained", "zero", "steps", "share"),
    [
        (zero_head, {1, 2}, {3}, 150, 0.3),
        (low_rank, {2, 5, 8}, {3, 6, 9}, 150, 0.6),
        (denoiser, {1, 2, 3, 4, 5, 6, 7}, {3, 5, 7, 8}, 150, 0.3),
        (lambda: layer_scale(1e-5), set(range(2, 26)), set(), 100, 0.3),
        (lambda: layer_scale(1e-6), set(range(2, 26)), set(), 100, 0.3),
    ],
)
def test_what_starts_near_zero_on_purpose_is_healthy_and_trains(
    build, explained, zero, steps, share
):
    model, compute_loss = build()
    flow = chainrule.inspect(model, compute_loss)
    assert list_explained(flow) == explained
    assert list_zero_initialized(flow) == zero
    found = chainrule.find_remedies(model, compute_loss)
    assert found.diagnosis.verdict is Verdict.HEALTHY, found.diagnosis.summary
    assert not found.tried  # no zero that is there on purpose is overwritten
    first, last = train(model, compute_loss, steps)
    assert last < share * first, (first, last)


def test_after_a_few_steps_nothing_waits_behind_a_zero_head():
    model, compute_loss = zero_head()
    train(model, compute_loss, 20)
    flow = chainrule.inspect(model, compute_loss)
    assert not list_explained(flow)
    assert not list_zero_initialized(flow)
    assert chainrule.diagnose(flow).verdict is Verdict.HEALTHY


def test_features_that_zeros_hold_back_are_unknown():
    flow = chainrule.inspect(*zero_head())
    features = measure_features(flow)
    assert features["sensitivity"] is None
    assert features["effective_depth"] is None
    assert find_last_dependent(flow).layer == 2
    assert measure_metric(flow, "same_answer") == flow.weight_layers[1].variation
    only = flow.weight_layers[2]
    expected = torch.tensor(float(only.weight_gradient_norm / only.delta_norm)).log10().item()
    assert features["smallest_gradient"] == pytest.approx(expected, rel=1e-4)


def test_a_zero_head_hides_no_collapse_before_it():
    torch.manual_seed(0)
    layers = [layer for _ in range(12) for layer in (nn.Linear(32, 32), nn.Sigmoid())]
    model, compute_loss = classify(*layers, nn.Linear(32, 4))
    nn.init.zeros_(model[-1].weight)
    assert chainrule.diagnose(chainrule.inspect(model, compute_loss)).verdict == "signal collapse"
    first, last = train(model, compute_loss, 100)
    assert last > 0.9 * first


def test_two_zero_layers_in_a_row_do_not_open():
    """Neither of them receives anything while the other is zero: all is stuck for good."""
    model, compute_loss = zero_head()
    nn.init.zeros_(model[2].weight)
    nn.init.zeros_(model[2].bias)
    flow = chainrule.inspect(model, compute_loss)
    assert not list_explained(flow)
    assert chainrule.diagnose(flow).verdict is not Verdict.HEALTHY
    _, _ = train(model, compute_loss, 30)
    assert model[2].weight.abs().max() == 0.0


def test_zeros_behind_zeros_are_no_head():
    """The head receives a gradient, as a sigmoid of 0 is 0.5; what is before it does not."""
    torch.manual_seed(0)
    layers = [layer for _ in range(4) for layer in (nn.Linear(32, 32), nn.Sigmoid())]
    model, compute_loss = classify(*layers, nn.Linear(32, 4))
    for layer in model[::2]:
        nn.init.zeros_(layer.weight)
    flow = chainrule.inspect(model, compute_loss)
    assert not list_explained(flow)
    assert not list_zero_initialized(flow)
    assert chainrule.diagnose(flow).verdict is not Verdict.HEALTHY
    first, last = train(model, compute_loss, 100)
    assert last > 0.9 * first


def test_a_small_scale_does_not_excuse_a_branch_that_is_sick_itself():
    def make_branch():
        layers = [layer for _ in range(16) for layer in (nn.Linear(32, 32), nn.Sigmoid())]
        return nn.Sequential(*layers, nn.Linear(32, 32))

    flow = chainrule.inspect(*layer_scale(1e-6, make_branch))
    assert len(list_explained(flow)) < len(flow.weight_layers) / 2
    assert chainrule.diagnose(flow).verdict is Verdict.VANISHING


def test_a_small_scale_without_a_gradient_of_its_own_excuses_nothing():
    model, compute_loss = layer_scale(1e-6)
    for block in model[1:-2]:
        block.scale.requires_grad_(False)
    flow = chainrule.inspect(model, compute_loss)
    assert not list_explained(flow)
    assert chainrule.diagnose(flow).verdict is Verdict.VANISHING
