"""Faulty programs after published benchmarks of faulty training, rebuilt small, with sound twins.

Two of them, marked as clean, were published as faulty and train.
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from alarm_parts import (
    Setup,
    adam,
    classify,
    clean,
    draw,
    faulty,
    glorot,
    he,
    judge_classes,
    judge_values,
    load_images,
    regress,
    sgd,
    stack,
    zeros,
)
from torch import Tensor, nn

EXPLODES = ("exploding", "learning rate too high")


class _OneUnit(nn.Module):
    """A softmax over one unit: always 1."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x, -1)


class _Exp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(x)


def _small(layer: nn.Linear) -> None:
    nn.init.uniform_(layer.weight, -0.05, 0.05)
    nn.init.zeros_(layer.bias)


def _unit(layer: nn.Linear) -> None:
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)


@faulty(*EXPLODES, group="known")
def linear_layers_large_rate(bug: bool) -> Setup:
    """No activations, weights of N(0, 1), squared error, SGD 3."""
    data = load_images()
    judge = judge_classes(data, 0.85)
    if bug:
        model = stack(64, 30, 10, act=None, init=_unit)

        def loss(model: nn.Module, step: int) -> Tensor:
            x, y = draw(data, 10, step)
            return F.mse_loss(model(x), F.one_hot(y, 10).float())

        return Setup(model, sgd(model, 3.0), loss, judge, 100)
    model = stack(64, 30, 10, act=nn.Sigmoid, init=_unit)
    return Setup(model, sgd(model, 0.5), classify(data, 10), judge, 800)


@faulty("no gradient", group="known")
def softmax_over_one_unit(bug: bool) -> Setup:
    """XOR with a softmax over a single output unit."""
    x = torch.tensor([[1.0, 1], [0, 0], [1, 0], [0, 1]])
    y = torch.tensor([[0.0], [0], [1], [1]])
    if bug:
        model = stack(2, 2, 3, 1, act=nn.Sigmoid, end=_OneUnit(), init=_small)
        optimizer: Any = sgd(model, 0.001, momentum=0.9, nesterov=True)
    else:
        model = stack(2, 8, 8, 1, act=nn.Tanh, end=nn.Sigmoid(), init=glorot)
        optimizer = adam(model, 0.02)
    return Setup(model, optimizer, lambda m, s: F.mse_loss(m(x), y), judge_values((x, y), 0.9), 400)


@faulty("saturation", group="known", also=("no gradient",))
def unscaled_inputs_tanh(bug: bool) -> Setup:
    """Inputs up to 10,000 into tanh, and a softmax over one unit."""
    g = torch.Generator().manual_seed(0)
    x = torch.rand(2000, 3, generator=g) * 10000
    y = (x @ torch.tensor([2, 1, 0.5]) + 2.2)[:, None]
    if not bug:
        x, y = (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()
    model = stack(
        3, 3, 2, 1, act=nn.Tanh, end=_OneUnit() if bug else None, init=_small if bug else glorot
    )
    optimizer = sgd(model, 0.1 if bug else 0.02, momentum=0.9, nesterov=True)
    return Setup(model, optimizer, regress((x, y)), judge_values((x, y), 0.9), 500)


@faulty(*EXPLODES, group="known")
def pixels_to_255(bug: bool) -> Setup:
    """Pixels from 0 to 255, SGD 0.1."""
    data = load_images(255 / 16 if bug else 1 / 16)
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 50), nn.ReLU(), nn.Linear(50, 10))
    return Setup(model, sgd(model, 0.1), classify(data), judge_classes(data, 0.85), 400)


@clean
def relu_autoencoder_control() -> Setup:
    """Autoencoder with ReLU everywhere: published as faulty, and its twin trains."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1000, 2, generator=g) @ torch.randn(2, 8, generator=g)
    model = stack(8, 16, 16, 2, 16, 16, 8, act=nn.Tanh, init=glorot)
    return Setup(model, adam(model, 0.01), regress((x, x)), judge_values((x, x), 0.7), 600)


@faulty("dead units", onset=11, group="known")
def relu_output_negative_targets(bug: bool) -> Setup:
    """A ReLU on the output of a regression whose targets are mostly negative."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(500, 2, generator=g)
    y = (x @ torch.tensor([1.0, -2.0]) - 2)[:, None]
    model = stack(2, 4 if bug else 16, 1, end=nn.ReLU() if bug else None, init=glorot)
    return Setup(model, sgd(model, 0.01), regress((x, y), 10), judge_values((x, y), 0.9), 800)


@clean
def large_start_with_adam_control() -> Setup:
    """Weights of N(0, 1), three hidden layers, Adam: the first loss is 10⁴, and it trains."""
    data = load_images()
    model = stack(64, 200, 200, 200, 10, init=_unit)
    return Setup(model, adam(model, 0.003), classify(data, 100), judge_classes(data, 0.8), 60)


@faulty("non-finite", group="known")
def logarithm_of_raw_outputs(bug: bool) -> Setup:
    """Cross-entropy by hand, with logarithms of outputs that are negative."""
    data = load_images()

    def loss(model: nn.Module, step: int) -> Tensor:
        x, y = draw(data, 32, step)
        answer, target = model(x), F.one_hot(y, 10).float()
        if bug:
            return (-(target * answer.log() + (1 - target) * (1 - answer).log()).sum(1)).mean()
        return F.binary_cross_entropy_with_logits(answer, target) * 10

    model = stack(64, 128, 10, act=nn.Sigmoid)
    return Setup(model, sgd(model, 0.2), loss, judge_classes(data, 0.8), 600)


@faulty(*EXPLODES, group="known")
def feature_to_100(bug: bool) -> Setup:
    """Linear regression on a feature from 0 to 99, SGD 0.5."""
    x = torch.arange(100.0)[:, None]
    y = 2 * x + 4
    if not bug:
        x = (x - x.mean()) / x.std()
    x = torch.cat([x, torch.ones(100, 1)], 1)
    model = nn.Sequential(nn.Linear(2, 1, bias=False))
    nn.init.zeros_(model[0].weight)
    return Setup(
        model,
        sgd(model, 0.5),
        lambda m, s: 0.5 * F.mse_loss(m(x), y),
        judge_values((x, y), 0.95),
        200,
    )


@faulty("symmetric units", group="known")
def all_weights_zero(bug: bool) -> Setup:
    """Every weight and bias zero."""
    data = load_images()
    model = stack(64, 32, 10, init=zeros if bug else he)
    return Setup(model, sgd(model, 0.2), classify(data), judge_classes(data, 0.85), 300)


@faulty("exploding", group="known")
def exponential_activations(bug: bool) -> Setup:
    """Eight layers with exp as activation."""
    g = torch.Generator().manual_seed(0)
    angle = 6.3 * torch.rand(1000, generator=g)
    y = (torch.rand(1000, generator=g) > 0.5).long()
    radius = 0.5 + 0.5 * y + 0.05 * torch.randn(1000, generator=g)
    x = torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
    widths = [2, *[5 if bug else 16] * 8, 2]
    model = stack(*widths, act=_Exp if bug else nn.Tanh, init=he if bug else glorot)
    return Setup(model, adam(model, 0.003), classify((x, y), 128), judge_classes((x, y), 0.9), 600)


@faulty("no update", group="known")
def optimizer_of_another_copy(bug: bool) -> Setup:
    """The model is copied after the optimizer was built."""
    data = load_images()
    model = stack(64, 64, 10, init=he)
    optimizers = sgd(model, 0.2)
    if bug:
        model = copy.deepcopy(model)
    return Setup(model, optimizers, classify(data), judge_classes(data, 0.85), 200)


class _Half(nn.Module):
    def __init__(self, inner: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner, self.dtype = inner.to(dtype), dtype

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.to(self.dtype)).float()


@faulty("underflow", group="known")
def half_precision_small_loss(bug: bool) -> Setup:
    """float16, and the loss is divided by a million."""
    data = load_images()
    inner = stack(64, 64, 64, 10, init=he)
    model = _Half(inner, torch.float16 if bug else torch.float32)
    small = classify(data)
    return Setup(
        model, sgd(model, 6e4), lambda m, s: 1e-6 * small(m, s), judge_classes(data, 0.85), 200
    )


class _Rows(nn.Module):
    """Attention over the rows of an image, without the rows that are empty."""

    def __init__(self, fill: float) -> None:
        super().__init__()
        self.into, self.three, self.head = nn.Linear(8, 32), nn.Linear(32, 96), nn.Linear(32, 10)
        self.fill = fill

    def forward(self, x: Tensor) -> Tensor:
        rows = x.view(-1, 8, 8)
        h = self.into(rows)
        q, k, v = self.three(h).chunk(3, -1)
        mask = (rows.abs().sum(-1) == 0)[:, None]
        weights = (q @ k.transpose(1, 2) / 32**0.5).masked_fill(mask, self.fill).softmax(-1)
        return self.head(torch.relu(h + weights @ v).mean(1))


@faulty("non-finite", onset=137, group="known")
def one_row_all_masked(bug: bool) -> Setup:
    """One example whose attention is masked everywhere, at step 137."""
    data = load_images()

    def spoil(batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, Tensor]:
        x = batch[0].clone()
        if step == 137:
            x[5] = 0
        return x, batch[1]

    model = _Rows(float("-inf") if bug else -1e4)
    return Setup(
        model, adam(model, 0.005), classify(data, 32, spoil), judge_classes(data, 0.7), 500
    )
