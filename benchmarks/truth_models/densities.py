"""Normalizing flows, generators, sets and graphs."""

import math

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from truth_models.family import Batch, Draw, Problem, family
from truth_models.parts import (
    CLASSES,
    compute_cross_entropy,
    compute_square,
    fix,
    judge_classes,
    judge_values,
    make_activation,
    make_dense,
    start_weights,
)

# --- Normalizing flows ---------------------------------------------------------------------------


NARROW = 0.25


def draw_bananas(generator: Generator, count: int) -> Batch:
    """Three curved pairs of columns, whose density is known."""
    z = torch.randn(count, 6, generator=generator)
    first, second = z.chunk(2, 1)
    return (torch.cat([first, NARROW * second + first**2 - 1], 1),)


def judge_density(model: nn.Module, batch: Batch) -> float:
    """Return the negative log density, from that of the truth to that of columns apart."""
    loss = float(compute_density_loss(model, batch))
    floor = 6 * 0.5 * math.log(2 * math.pi * math.e) + 3 * math.log(NARROW)
    apart = 3 * math.log(math.sqrt(NARROW**2 + 2) / NARROW)
    return (loss - floor) / apart


def compute_density_loss(model: nn.Module, batch: Batch) -> Tensor:
    z, volume = model(batch[0])
    return (0.5 * (z**2 + math.log(2 * math.pi)).sum(1) - volume).mean()


class Coupling(nn.Module):
    """Half of the columns is scaled and shifted by what a network says of the other half."""

    def __init__(self, *, flip: bool, bound: str, activation: str, width: int) -> None:
        super().__init__()
        self.net = make_dense([3, width, width, 6], activation)
        self.flip = flip
        self.bound = bound

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x.chunk(2, 1)
        if self.flip:
            a, b = b, a
        scale, shift = self.net(a).chunk(2, 1)
        if self.bound == "tanh":
            scale = torch.tanh(scale)
        b = b * scale.exp() + shift
        return torch.cat([b, a] if self.flip else [a, b], 1), scale.sum(1)


class Normalizer(nn.Module):
    """Couplings in a row."""

    def __init__(self, depth: int, bound: str, activation: str) -> None:
        super().__init__()
        self.steps = nn.ModuleList(
            Coupling(flip=bool(position % 2), bound=bound, activation=activation, width=24)
            for position in range(depth)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        volume = torch.zeros(len(x))
        for step in self.steps:
            x, change = step(x)
            volume = volume + change
        return x, volume


@family(
    "flow",
    40,
    depth=(2, 6, 12),
    bound=("tanh", "none"),
    activation=("relu", "tanh"),
    start=("pytorch", "he", "small", "large", "huge", "zero", "last zero", "last zero", "normal"),
)
def coupling_flow(depth: int, bound: str, activation: str, start: str) -> Problem:
    net = Normalizer(depth, bound, activation)
    if start == "last zero":
        for step in net.steps:
            start_weights(step.net[-1], "zero")  # type: ignore[index,arg-type]
            nn.init.zeros_(step.net[-1].bias)  # type: ignore[index,union-attr]
    else:
        start_weights(net, start)
    return Problem("bananas", net, draw_bananas, compute_density_loss, judge_density)


# --- Generators ----------------------------------------------------------------------------------


def draw_codes(generator: Generator, count: int) -> Batch:
    """Codes of 8 columns and the pictures that belong to them."""
    z = torch.randn(count, 8, generator=generator)
    basis = torch.randn(12, 64, generator=fix(6)) / math.sqrt(12)
    x = torch.cat([z, torch.sin(2 * z[:, :4])], 1) @ basis
    return z, torch.tanh(x).view(count, 1, 8, 8)


def make_generator(kind: str, norm: str, activation: str) -> nn.Module:
    if kind == "dense":
        return nn.Sequential(
            make_dense([8, 48, 48, 64], activation, norm), nn.Unflatten(1, (1, 8, 8))
        )

    def make_norm() -> nn.Module:
        return nn.BatchNorm2d(12) if norm == "batch" else nn.Identity()

    return nn.Sequential(
        nn.Linear(8, 12 * 4),
        nn.Unflatten(1, (12, 2, 2)),
        make_norm(),
        make_activation(activation),
        nn.ConvTranspose2d(12, 12, 4, stride=2, padding=1),
        make_norm(),
        make_activation(activation),
        nn.ConvTranspose2d(12, 1, 4, stride=2, padding=1),
    )


@family(
    "generator",
    22,
    kind=("dense", "conv"),
    norm=("none", "batch"),
    activation=("relu", "tanh", "sigmoid"),
    end=("none", "tanh"),
    start=("pytorch", "he", "small", "large", "huge", "zero"),
)
def decoder(kind: str, norm: str, activation: str, end: str, start: str) -> Problem:
    """Codes to pictures, with a squared error."""
    net = start_weights(make_generator(kind, norm, activation), start)
    if end == "tanh":
        net = nn.Sequential(net, nn.Tanh())
    return Problem("codes", net, draw_codes, compute_square, judge_values)


def measure_misses(x: Tensor) -> Tensor:
    """Return the squared distance of pictures to the nearest of four that are wanted."""
    wanted = torch.randn(4, 64, generator=fix(7)) * 0.6
    return (x.flatten(1).unsqueeze(1) - wanted).square().mean(-1).min(1).values


def judge_pictures(model: nn.Module, batch: Batch) -> float:
    """Return how far pictures are from those that are wanted, relative to empty ones."""
    return float(measure_misses(model(batch[0])).mean() / measure_misses(torch.zeros(1, 64)))


@family(
    "generator",
    40,
    kind=("dense", "conv"),
    norm=("none", "batch"),
    loss=("saturating", "other", "wasserstein", "least squares"),
    critic=("fair", "sure", "very sure", "blind"),
    start=("pytorch", "small", "large"),
)
def against_critic(kind: str, norm: str, loss: str, critic: str, start: str) -> Problem:
    """A generator against a critic that does not change."""
    net = start_weights(make_generator(kind, norm, "relu"), start)
    offset, slope = {
        "fair": (1.0, 8.0),
        "sure": (-12.0, 8.0),
        "very sure": (-150.0, 8.0),
        "blind": (0.0, 1e-6),
    }[critic]

    def compute_loss(model: nn.Module, batch: Batch) -> Tensor:
        z = offset - slope * measure_misses(model(batch[0]))
        if loss == "saturating":
            return torch.log(1 - torch.sigmoid(z) + 1e-12).mean()
        if loss == "other":
            return F.softplus(-z).mean()
        if loss == "wasserstein":
            return -z.mean()
        return (torch.sigmoid(z) - 1).square().mean()

    return Problem("misses", net, draw_codes, compute_loss, judge_pictures)


# --- Sets and graphs -----------------------------------------------------------------------------


class Sets(nn.Module):
    """Every member alone, then all together, then the answer."""

    def __init__(self, pool: str, depth: int, activation: str) -> None:
        super().__init__()
        self.each = make_dense([2, *[24] * depth], activation)
        self.all = make_dense([24, 24, CLASSES], activation)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        z = self.each(x)
        if self.pool == "max":
            return self.all(z.amax(1))
        return self.all(z.sum(1) if self.pool == "sum" else z.mean(1))


def draw_sets(size: int) -> Draw:
    """Return a task: points in the plane, spread in one of four ways."""

    def draw(generator: Generator, count: int) -> Batch:
        y = torch.randint(CLASSES, (count,), generator=generator)
        scale = torch.tensor([[1.0, 1.0], [2.0, 0.3], [0.3, 2.0], [0.3, 0.3]])
        x = torch.randn(count, size, 2, generator=generator)
        return x * scale[y].unsqueeze(1), y

    return draw


@family(
    "set",
    28,
    pool=("sum", "mean", "max"),
    size=(10, 100),
    depth=(2, 6),
    activation=("relu", "tanh", "sigmoid"),
    start=("pytorch", "he", "small", "large", "zero", "huge"),
)
def deep_sets(pool: str, size: int, depth: int, activation: str, start: str) -> Problem:
    net = start_weights(Sets(pool, depth, activation), start)
    return Problem("sets", net, draw_sets(size), compute_cross_entropy, judge_classes)


class GraphLayers(nn.Module):
    """Messages between neighbours, with or without a look at the node itself."""

    def __init__(self, depth: int, join: str, *, residual: bool) -> None:
        super().__init__()
        self.enter = nn.Linear(CLASSES, 24)
        self.layers = nn.ModuleList(nn.Linear(24, 24) for _ in range(depth))
        self.leave = nn.Linear(24, CLASSES)
        self.join = join
        self.residual = residual

    def forward(self, graph: Tensor) -> Tensor:
        links, x = graph[..., :-CLASSES], graph[..., -CLASSES:]
        if self.join == "mean":
            links = links / links.sum(-1, keepdim=True).clamp(min=1)
        x = self.enter(x)
        for layer in self.layers:
            message = torch.relu(layer(links @ x))
            x = x + message if self.residual else message
        return self.leave(x)


def draw_graphs(generator: Generator, count: int) -> Batch:
    """Graphs of 24 nodes in four groups, joined within, with features that say little alone."""
    y = torch.randint(CLASSES, (count, 24), generator=generator)
    alike = y.unsqueeze(1) == y.unsqueeze(2)
    drawn = torch.rand(count, 24, 24, generator=generator)
    links = (drawn < torch.where(alike, 0.7, 0.05)).float()
    links = torch.maximum(links, links.transpose(1, 2))
    links = torch.maximum(links, torch.eye(24))
    x = F.one_hot(y, CLASSES) + 1.2 * torch.randn(count, 24, CLASSES, generator=generator)
    return torch.cat([links, x], -1), y


def compute_node_loss(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())


@family(
    "set",
    24,
    depth=(2, 5, 12),
    join=("sum", "mean"),
    residual=(False, True),
    start=("pytorch", "he", "small", "large", "constant"),
)
def graph_convolutions(depth: int, join: str, residual: bool, start: str) -> Problem:
    net = start_weights(GraphLayers(depth, join, residual=residual), start)
    return Problem("graphs", net, draw_graphs, compute_node_loss, judge_classes, batch_size=8)
