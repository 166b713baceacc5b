"""Convolutional networks, residual networks, autoencoders."""

import math
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from truth_models.family import Batch, Problem, family
from truth_models.parts import (
    CLASSES,
    compute_cross_entropy,
    compute_square,
    draw_images,
    draw_vectors,
    fix,
    judge_classes,
    judge_values,
    make_activation,
    make_dense,
    start_weights,
)

# --- Convolutional -------------------------------------------------------------------------------


@family(
    "convolutional",
    48,
    depth=(2, 6, 12),
    norm=("none", "batch"),
    activation=("relu", "tanh", "sigmoid"),
    start=("pytorch", "pytorch", "he", "small", "large", "huge", "zero", "normal"),
)
def plain_convolutions(depth: int, norm: str, activation: str, start: str) -> Problem:
    parts: list[nn.Module] = []
    channels = 1
    for position in range(depth):
        parts.append(nn.Conv2d(channels, 8, 3, padding=1, stride=2 if position == 1 else 1))
        if norm == "batch":
            parts.append(nn.BatchNorm2d(8))
        parts.append(make_activation(activation))
        channels = 8
    net = nn.Sequential(*parts, nn.Flatten(), nn.Linear(8 * 16, CLASSES))
    return Problem(
        "images", start_weights(net, start), draw_images, compute_cross_entropy, judge_classes
    )


@family(
    "convolutional",
    16,
    activation=("relu", "tanh", "sigmoid"),
    pool=("max", "average"),
    start=("pytorch", "he", "small", "large", "huge", "constant", "normal"),
)
def lenet(activation: str, pool: str, start: str) -> Problem:
    def make_pool() -> nn.Module:
        return nn.MaxPool2d(2) if pool == "max" else nn.AvgPool2d(2)

    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        make_activation(activation),
        make_pool(),
        nn.Conv2d(6, 12, 3, padding=1),
        make_activation(activation),
        make_pool(),
        nn.Flatten(),
        nn.Linear(48, 40),
        make_activation(activation),
        nn.Linear(40, 24),
        make_activation(activation),
        nn.Linear(24, CLASSES),
    )
    return Problem(
        "images", start_weights(net, start), draw_images, compute_cross_entropy, judge_classes
    )


class Pooled(nn.Module):
    """A body whose maps are averaged before the last layer."""

    def __init__(self, body: nn.Module, width: int, outputs: int = CLASSES) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(2).mean(-1))


@family(
    "convolutional",
    14,
    depth=(3, 10),
    norm=("none", "batch", "group"),
    kind=("full", "depthwise"),
    start=("pytorch", "he", "small", "large", "normal"),
)
def pooled_convolutions(depth: int, norm: str, kind: str, start: str) -> Problem:
    width = 12
    parts: list[nn.Module] = [nn.Conv2d(1, width, 3, padding=1, stride=2)]
    for _ in range(depth):
        if kind == "depthwise":
            parts += [
                nn.Conv2d(width, width, 3, padding=1, groups=width),
                nn.Conv2d(width, width, 1),
            ]
        else:
            parts.append(nn.Conv2d(width, width, 3, padding=1))
        if norm == "batch":
            parts.append(nn.BatchNorm2d(width))
        elif norm == "group":
            parts.append(nn.GroupNorm(3, width))
        parts.append(nn.ReLU())
    net = Pooled(nn.Sequential(*parts), width)
    return Problem(
        "images", start_weights(net, start), draw_images, compute_cross_entropy, judge_classes
    )


def draw_waves(generator: Generator, count: int) -> Batch:
    """Waves of four frequencies and any phase, of length 32, with noise."""
    y = torch.randint(CLASSES, (count,), generator=generator)
    phase = 2 * math.pi * torch.rand(count, 1, generator=generator)
    x = torch.sin(torch.arange(32) * (0.3 + 0.45 * y.unsqueeze(1)) + phase)
    return (x + 0.3 * torch.randn(count, 32, generator=generator)).unsqueeze(1), y


@family(
    "convolutional",
    12,
    depth=(3, 8),
    activation=("relu", "gelu", "tanh"),
    start=("pytorch", "he", "small", "huge", "zero"),
)
def dilated_convolutions(depth: int, activation: str, start: str) -> Problem:
    parts: list[nn.Module] = []
    channels = 1
    for position in range(depth):
        dilation = 2 ** (position % 3)
        parts += [
            nn.Conv1d(channels, 12, 3, padding=dilation, dilation=dilation),
            make_activation(activation),
        ]
        channels = 12
    net = Pooled(nn.Sequential(*parts), 12)
    return Problem(
        "waves", start_weights(net, start), draw_waves, compute_cross_entropy, judge_classes
    )


# --- Residual ------------------------------------------------------------------------------------


class Branch(nn.Module):
    """x + scale · branch(x)."""

    def __init__(self, branch: nn.Module, scale: float | nn.Parameter = 1.0) -> None:
        super().__init__()
        self.branch = branch
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.branch(x)


class After(nn.Module):
    """norm(x + branch(x))."""

    def __init__(self, branch: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.branch(x))


@family(
    "residual",
    34,
    blocks=(3, 12),
    norm=("none", "batch", "zero scale"),
    start=("pytorch", "pytorch", "he", "small", "large", "huge", "zero", "normal"),
)
def residual_convolutions(blocks: int, norm: str, start: str) -> Problem:
    def make_branch() -> nn.Module:
        first, second = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        if norm == "none":
            return nn.Sequential(first, nn.ReLU(), second)
        return nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU(), second, nn.BatchNorm2d(8))

    body = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, stride=2),
        *(layer for _ in range(blocks) for layer in (Branch(make_branch()), nn.ReLU())),
    )
    net = start_weights(Pooled(body, 8), start)
    if norm == "zero scale":
        for module in net.modules():
            if isinstance(module, Branch) and isinstance(module.branch, nn.Sequential):
                nn.init.zeros_(module.branch[-1].weight)  # type: ignore[arg-type]
    return Problem("images", net, draw_images, compute_cross_entropy, judge_classes)


@family(
    "residual",
    40,
    blocks=(4, 12, 30),
    norm=("none", "before", "after"),
    scale=("1", "depth", "zero", "last zero"),
    start=("pytorch", "pytorch", "he", "small", "large", "normal", "huge"),
)
def residual_dense(blocks: int, norm: str, scale: str, start: str) -> Problem:
    width = 24

    def make_block() -> nn.Module:
        parts = [nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)]
        if norm == "before":
            parts.insert(0, nn.LayerNorm(width))
        branch = nn.Sequential(*parts)
        if norm == "after":
            return After(branch, nn.LayerNorm(width))
        if scale == "zero":
            return Branch(branch, nn.Parameter(torch.zeros(())))
        return Branch(branch, 1 / math.sqrt(blocks) if scale == "depth" else 1.0)

    net = nn.Sequential(
        nn.Linear(16, width), *(make_block() for _ in range(blocks)), nn.Linear(width, CLASSES)
    )
    start_weights(net, start)
    if scale == "last zero":
        for module in net.modules():
            if isinstance(module, Branch | After) and isinstance(module.branch, nn.Sequential):
                nn.init.zeros_(module.branch[-1].weight)  # type: ignore[arg-type]
    return Problem("vectors", net, draw_vectors, compute_cross_entropy, judge_classes)


class Highway(nn.Module):
    """x · (1 − gate) + gate · h(x)."""

    def __init__(self, width: int, bias: float) -> None:
        super().__init__()
        self.change = nn.Linear(width, width)
        self.gate = nn.Linear(width, width)
        nn.init.constant_(self.gate.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(x))
        return x * (1 - gate) + gate * torch.tanh(self.change(x))


class Concatenated(nn.Module):
    """[x, branch(x)], as in dense networks of convolutions."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.branch(x)], 1)


@family(
    "residual",
    12,
    blocks=(5, 25),
    bias=(-3.0, 0.0, 3.0),
    start=("pytorch", "xavier", "small", "large"),
)
def highway(blocks: int, bias: float, start: str) -> Problem:
    net = nn.Sequential(
        nn.Linear(16, 24), *(Highway(24, 0.0) for _ in range(blocks)), nn.Linear(24, CLASSES)
    )
    start_weights(net, start)
    for module in net.modules():
        if isinstance(module, Highway):
            nn.init.constant_(module.gate.bias, bias)
    return Problem("vectors", net, draw_vectors, compute_cross_entropy, judge_classes)


@family(
    "residual",
    10,
    blocks=(4, 10),
    norm=("none", "batch"),
    start=("pytorch", "he", "small", "large", "zero"),
)
def concatenated(blocks: int, norm: str, start: str) -> Problem:
    parts: list[nn.Module] = [nn.Conv2d(1, 6, 3, padding=1, stride=2)]
    for position in range(blocks):
        width = 6 + 4 * position
        branch: list[nn.Module] = [nn.ReLU(), nn.Conv2d(width, 4, 3, padding=1)]
        if norm == "batch":
            branch.insert(0, nn.BatchNorm2d(width))
        parts.append(Concatenated(nn.Sequential(*branch)))
    net = Pooled(nn.Sequential(*parts, nn.ReLU()), 6 + 4 * blocks)
    return Problem(
        "images", start_weights(net, start), draw_images, compute_cross_entropy, judge_classes
    )


# --- Autoencoders --------------------------------------------------------------------------------


def draw_manifold(generator: Generator, count: int) -> Batch:
    """20 columns that depend on three hidden ones; the target is the input."""
    basis = torch.randn(6, 20, generator=fix(3))
    z = torch.randn(count, 3, generator=generator)
    x = torch.cat([z, torch.sin(2 * z)], 1) @ basis / math.sqrt(6)
    x = x + 0.05 * torch.randn(count, 20, generator=generator)
    return x, x


@family(
    "autoencoder",
    36,
    depth=(2, 5, 10),
    activation=("relu", "tanh", "sigmoid", "elu"),
    norm=("none", "batch"),
    start=("pytorch", "he", "xavier", "small", "large", "huge", "zero", "constant"),
)
def dense_autoencoder(depth: int, activation: str, norm: str, start: str) -> Problem:
    encoder = make_dense([20, *[32] * (depth - 1), 4], activation, norm)
    decoder = make_dense([4, *[32] * (depth - 1), 20], activation, norm)
    net = start_weights(nn.Sequential(encoder, decoder), start)
    return Problem("manifold", net, draw_manifold, compute_square, judge_values)


class VariationalAutoencoder(nn.Module):
    """Gaussian posterior, with drawn codes while it trains."""

    def __init__(self, depth: int, activation: str) -> None:
        super().__init__()
        self.encoder = make_dense([20, *[32] * (depth - 1), 8], activation)
        self.decoder = make_dense([4, *[32] * (depth - 1), 20], activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x).chunk(2, -1)[0])

    def compute_loss(self, x: Tensor, weight: float, spread: float) -> Tensor:
        mean, log_variance = self.encoder(x).chunk(2, -1)
        code = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
        divergence = (mean**2 + log_variance.exp() - 1 - log_variance).sum(-1) / 2
        error = (self.decoder(code) - x).square().sum(-1) / (2 * spread**2)
        return (error + weight * divergence).mean()


@family(
    "autoencoder",
    16,
    depth=(2, 4),
    activation=("relu", "tanh"),
    weight=(0.0, 1.0, 100.0),
    spread=(0.1, 0.5),
    start=("pytorch", "he", "large", "huge", "small"),
)
def variational(depth: int, activation: str, weight: float, spread: float, start: str) -> Problem:
    net = start_weights(VariationalAutoencoder(depth, activation), start)

    def compute_loss(model: Any, batch: Batch) -> Tensor:
        return model.compute_loss(batch[0], weight, spread)

    return Problem("manifold", net, draw_manifold, compute_loss, judge_values)


def draw_pictures(generator: Generator, count: int) -> Batch:
    """The patterns with little noise; the target is the input."""
    x, _ = draw_images(generator, count)
    smooth = F.avg_pool2d(x, 3, 1, 1)
    return smooth, smooth


@family(
    "autoencoder",
    12,
    norm=("none", "batch"),
    activation=("relu", "sigmoid", "tanh"),
    start=("pytorch", "he", "small", "huge", "zero"),
)
def convolutional_autoencoder(norm: str, activation: str, start: str) -> Problem:
    def make_norm(width: int) -> nn.Module:
        return nn.BatchNorm2d(width) if norm == "batch" else nn.Identity()

    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, stride=2),
        make_norm(8),
        make_activation(activation),
        nn.Conv2d(8, 8, 3, padding=1, stride=2),
        make_norm(8),
        make_activation(activation),
        nn.ConvTranspose2d(8, 8, 4, stride=2, padding=1),
        make_norm(8),
        make_activation(activation),
        nn.ConvTranspose2d(8, 1, 4, stride=2, padding=1),
    )
    return Problem(
        "pictures", start_weights(net, start), draw_pictures, compute_square, judge_values
    )
