"""Small models of many kinds, with good and bad starts and known faults, each with a task.

A model is a family, its parameters and a seed: `list_entries()` lists them all, `Entry.build()`
makes one. Each draws fresh batches from a seeded stream, and each says how wrong it is on a batch
that was kept aside: 0 is as good as can be, 1 is what guessing without a look at the input gives.

The kinds in `FITTED` are those that `truth.py` fits its score on; it is judged on the others.
"""

import ast
import hashlib
import inspect
import itertools
import math
import random
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

Batch = tuple[Tensor, ...]
Draw = Callable[[Generator, int], Batch]

FITTED = ("convolutional", "residual", "autoencoder", "head", "loss")
JUDGED = ("recurrent", "attention", "flow", "generator", "set", "input", "precision")
SEED = 11
CLASSES = 4
WORST = 2.0
"""Errors above this, and undefined ones, count as this."""


@dataclass(frozen=True)
class Problem:
    """A model with all that its training needs.

    `measure_error` returns 0 for a perfect model, and 1 for one that guesses. Models with the same
    `task` are measured alike on the same data, so what one of them reaches can be asked of all.
    Gradients are divided by `loss_scale` before a step, as a `GradScaler` does.
    """

    task: str
    model: nn.Module
    draw: Draw
    compute_loss: Callable[[nn.Module, Batch], Tensor]
    measure_error: Callable[[nn.Module, Batch], float]
    batch_size: int = 32
    loss_scale: float = 1.0


@dataclass(frozen=True)
class Family:
    """Models that one function builds."""

    kind: str
    name: str
    build: Callable[..., Problem]
    grid: Mapping[str, Sequence[Any]]
    most: int


@dataclass(frozen=True)
class Entry:
    """One model: a family, its parameters, and a seed."""

    family: Family
    parameters: tuple[tuple[str, Any], ...]
    seed: int

    @property
    def query(self) -> str:
        return "&".join(f"{name}={value}" for name, value in self.parameters)

    @property
    def key(self) -> str:
        """What the model is, code included: another key, another model."""
        text = "\n".join((self.query, str(self.seed), read_code(self.family.build)))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def build(self) -> Problem:
        torch.manual_seed(self.seed)
        return self.family.build(**dict(self.parameters))


FAMILIES: dict[str, Family] = {}


def family(
    kind: str, most: int, /, **grid: Sequence[Any]
) -> Callable[[Callable[..., Problem]], Callable[..., Problem]]:
    """Add a function to the families: it is called with one value per name of the grid.

    `most` members of the grid are drawn.
    """

    def add(build: Callable[..., Problem]) -> Callable[..., Problem]:
        name = build.__name__
        FAMILIES[name] = Family(kind=kind, name=name, build=build, grid=grid, most=most)
        return build

    return add


def list_entries() -> list[Entry]:
    """Return every model, in an order in which each part of the list holds all kinds."""
    ordered = []
    for each in FAMILIES.values():
        grid = [
            tuple(zip(each.grid, values, strict=True))
            for values in itertools.product(*each.grid.values())
        ]
        random.Random(f"{SEED} {each.name}").shuffle(grid)
        drawn = grid[: each.most]
        for position, parameters in enumerate(drawn):
            again = drawn[:position].count(parameters)
            seed = random.Random(f"{SEED} {each.name} {parameters} {again}").randrange(2**31)
            ordered.append(((position + 0.5) / len(drawn), each.name, Entry(each, parameters, seed)))
    ordered.sort(key=lambda item: item[:2])
    return [entry for *_, entry in ordered]


_CODE: dict[str, str] = {}


def read_code(thing: Callable[..., Any]) -> str:
    """Return the code of a function of this module and of all that it uses of the module.

    Comments, docstrings and layout do not count.
    """
    if thing.__name__ not in _CODE:
        found: dict[str, str] = {}
        _collect_code(thing.__name__, found)
        _CODE[thing.__name__] = "\n".join(found[name] for name in sorted(found))
    return _CODE[thing.__name__]


def _collect_code(name: str, found: dict[str, str]) -> None:
    thing = globals().get(name)
    if name in found or thing in (None, Problem) or inspect.ismodule(thing):
        return
    if getattr(thing, "__module__", None) != __name__ or not hasattr(thing, "__name__"):
        if isinstance(thing, (int, float, str, tuple)):
            found[name] = repr(thing)
        return
    tree = ast.parse(textwrap.dedent(inspect.getsource(thing)))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            node.decorator_list = []
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
    found[name] = ast.unparse(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            _collect_code(node.id, found)


# --- Starts --------------------------------------------------------------------------------------

COMMON = ("pytorch", "he", "xavier", "small", "large", "huge", "zero", "constant", "normal")


def start_weights(model: nn.Module, start: str) -> nn.Module:
    """Draw the weights of a model anew, or scale them; scales of normalizations stay."""
    factors = {"small": 0.1, "large": 3.0, "huge": 10.0}
    for parameter in model.parameters():
        if parameter.dim() < 2:
            if start in {"he", "xavier"} and bool((parameter != 1).any()):
                nn.init.zeros_(parameter)
            continue
        fan_in = parameter[0].numel()
        if start in factors:
            parameter.data *= factors[start]
        elif start == "he":
            nn.init.kaiming_normal_(parameter)
        elif start == "xavier":
            nn.init.xavier_normal_(parameter)
        elif start == "zero":
            nn.init.zeros_(parameter)
        elif start == "constant":
            nn.init.constant_(parameter, 1 / fan_in)
        elif start == "normal":
            nn.init.normal_(parameter)
        elif start == "tiny":
            nn.init.normal_(parameter, std=0.001)
        elif start == "bert":
            nn.init.normal_(parameter, std=0.02)
        elif start == "orthogonal":
            nn.init.orthogonal_(parameter)
        elif start != "pytorch":
            raise ValueError(f"unknown start {start!r}")
    return model


def make_activation(name: str) -> nn.Module:
    kinds: dict[str, Callable[[], nn.Module]] = {
        "relu": nn.ReLU,
        "tanh": nn.Tanh,
        "sigmoid": nn.Sigmoid,
        "gelu": nn.GELU,
        "elu": nn.ELU,
        "leaky": nn.LeakyReLU,
    }
    return kinds[name]()


# --- Data and what is asked of it ----------------------------------------------------------------


def fix(seed: int) -> Generator:
    """Return the generator of what belongs to a task itself, alike for all models."""
    return torch.Generator().manual_seed(seed)


def draw_images(generator: Generator, count: int) -> Batch:
    """Four smooth patterns on 8×8 pixels, shifted by up to one pixel, with noise."""
    patterns = F.interpolate(torch.randn(CLASSES, 1, 3, 3, generator=fix(1)), 8, mode="bilinear")
    patterns = patterns / patterns.std(dim=(1, 2, 3), keepdim=True)
    y = torch.randint(CLASSES, (count,), generator=generator)
    x = patterns[y].roll(int(torch.randint(-1, 2, (), generator=generator)), 3)
    return x + 0.6 * torch.randn(x.shape, generator=generator), y


def draw_vectors(generator: Generator, count: int) -> Batch:
    """Four classes of two clusters each, in 16 columns of standard deviation about 1."""
    centers = torch.randn(2 * CLASSES, 16, generator=fix(2))
    cluster = torch.randint(2 * CLASSES, (count,), generator=generator)
    noise = torch.randn(count, 16, generator=generator)
    return 0.85 * centers[cluster] + 0.5 * noise, cluster % CLASSES


def draw_curve(generator: Generator, count: int) -> Batch:
    """A smooth function of 8 columns, of mean about 0 and standard deviation about 1."""
    x = torch.randn(count, 8, generator=generator)
    y = x[:, 0] * 0.7 + torch.sin(2 * x[:, 1]) * 0.7 + 0.4 * x[:, 2].abs() - 0.32
    return x, y.unsqueeze(1)


def compute_cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def compute_square(model: nn.Module, batch: Batch) -> Tensor:
    return F.mse_loss(model(batch[0]), batch[1])


def judge_classes(model: nn.Module, batch: Batch) -> float:
    """Return the share of wrong answers, relative to guessing."""
    wrong = (model(batch[0]).argmax(-1) != batch[1]).float().mean()
    return float(wrong) * CLASSES / (CLASSES - 1)


def judge_values(model: nn.Module, batch: Batch) -> float:
    """Return the mean squared error, relative to that of the mean."""
    x, y = batch
    return float((model(x) - y).square().mean() / (y - y.mean(0)).square().mean())


def make_dense(sizes: Sequence[int], activation: str, norm: str = "none") -> nn.Sequential:
    """Return dense layers with activations between them."""
    parts: list[nn.Module] = []
    for position, (width, following) in enumerate(itertools.pairwise(sizes)):
        parts.append(nn.Linear(width, following))
        if position < len(sizes) - 2:
            if norm == "batch":
                parts.append(nn.BatchNorm1d(following))
            elif norm == "layer":
                parts.append(nn.LayerNorm(following))
            parts.append(make_activation(activation))
    return nn.Sequential(*parts)


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
                nn.init.zeros_(module.branch[-1].weight)
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
                nn.init.zeros_(module.branch[-1].weight)
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


# --- Faults of the head --------------------------------------------------------------------------


class Headed(nn.Module):
    """A body and what stands between it and the loss."""

    def __init__(self, body: nn.Module, head: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body = body
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


HEADS = (
    "none",
    "softmax",
    "softmax twice",
    "log softmax",
    "tiny",
    "times 1e4",
    "times 10",
    "dead relu",
    "relu",
    "sigmoid",
    "tanh",
    "large bias",
)


def make_head(name: str) -> Callable[[Tensor], Tensor]:
    heads: dict[str, Callable[[Tensor], Tensor]] = {
        "none": lambda z: z,
        "softmax": lambda z: z.softmax(-1),
        "softmax twice": lambda z: (z.softmax(-1)).softmax(-1),
        "log softmax": lambda z: z.log_softmax(-1),
        "tiny": lambda z: 1e-4 * z,
        "times 1e4": lambda z: 1e4 * z,
        "times 10": lambda z: 10 * z,
        "dead relu": lambda z: torch.relu(z - 10),
        "relu": torch.relu,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "large bias": lambda z: z + 100 * F.one_hot(torch.tensor(0), z.shape[-1]),
    }
    return heads[name]


def make_body(body: str) -> tuple[str, nn.Module, Draw]:
    """Return a sound model with its task, for faults that stand elsewhere."""
    if body == "dense":
        return "vectors", make_dense([16, 32, 32, CLASSES], "relu"), draw_vectors
    if body == "tanh":
        return "vectors", make_dense([16, 32, 32, CLASSES], "tanh"), draw_vectors
    if body == "batch":
        return "vectors", make_dense([16, 32, 32, CLASSES], "relu", "batch"), draw_vectors
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, CLASSES),
    )
    return "images", net, draw_images


@family("head", 40, head=HEADS, body=("dense", "tanh", "batch", "conv"), seed=(0, 1))
def classifier_head(head: str, body: str, seed: int) -> Problem:
    task, net, draw = make_body(body)
    return Problem(task, Headed(net, make_head(head)), draw, compute_cross_entropy, judge_classes)


@family(
    "head",
    16,
    scale=(0.0001, 0.1, 1.0, 30.0, 1000.0),
    target=("0 or 1", "one-hot"),
    body=("dense", "conv"),
)
def sigmoid_squared(scale: float, target: str, body: str) -> Problem:
    """A sigmoid at the end with a squared error, saturated if the scale is large."""
    task, net, draw = make_body(body)

    def compute_loss(model: nn.Module, batch: Batch) -> Tensor:
        wanted = F.one_hot(batch[1], CLASSES).float()
        if target == "0 or 1":
            wanted = 2 * wanted - 0.5
        return F.mse_loss(model(batch[0]), wanted)

    head = Headed(net, lambda z: torch.sigmoid(scale * z))
    return Problem(task, head, draw, compute_loss, judge_classes)


@family(
    "head",
    18,
    head=("none", "tiny", "times 1e4", "times 10", "dead relu", "relu", "sigmoid", "tanh", "softplus"),
    activation=("relu", "tanh"),
)
def regression_head(head: str, activation: str) -> Problem:
    """A head that may not reach the targets, which lie between about −2 and 2."""
    body = make_dense([8, 32, 32, 1], activation)
    net = Headed(body, F.softplus if head == "softplus" else make_head(head))
    return Problem("curve", net, draw_curve, compute_square, judge_values)


# --- Faults of the loss --------------------------------------------------------------------------


@family(
    "loss",
    44,
    fault=(
        "none",
        "times 1e-10",
        "times 1e-8",
        "times 1e-3",
        "times 1e4",
        "sum",
        "detached",
        "half detached",
        "label smoothing",
        "negative",
        "clamped",
        "probabilities",
        "square root",
        "always right",
    ),
    body=("dense", "tanh", "conv", "batch"),
)
def classifier_loss(fault: str, body: str) -> Problem:
    task, net, draw = make_body(body)

    def compute_loss(model: nn.Module, batch: Batch) -> Tensor:
        x, y = batch
        z = model(x)
        loss = F.cross_entropy(z, y)
        if fault.startswith("times"):
            return loss * float(fault.split()[1])
        if fault == "sum":
            return F.cross_entropy(z, y, reduction="sum")
        if fault == "detached":
            return F.cross_entropy(z.detach(), y) + 0 * z.sum()
        if fault == "half detached":
            return F.cross_entropy(z.detach() + 0.001 * z, y)
        if fault == "label smoothing":
            return F.cross_entropy(z, y, label_smoothing=0.1)
        if fault == "negative":
            return -torch.log(1 - z.softmax(-1).gather(1, y.unsqueeze(1)).mean())
        if fault == "clamped":
            return loss.clamp(max=0.1)
        if fault == "probabilities":
            return -z.softmax(-1).gather(1, y.unsqueeze(1)).mean()
        if fault == "square root":
            return (loss - loss.detach()).sqrt()
        if fault == "always right":
            return F.multi_margin_loss(z + 50 * F.one_hot(y, CLASSES), y)
        return loss

    return Problem(task, net, draw, compute_loss, judge_classes)


@family(
    "loss",
    24,
    scale=(1e-4, 1.0, 30.0, 1000.0, 1e6),
    offset=(0.0, 100.0),
    loss=("square", "absolute", "huber"),
)
def regression_target(scale: float, offset: float, loss: str) -> Problem:
    """Targets that were not brought to mean 0 and standard deviation 1."""
    net = make_dense([8, 32, 32, 1], "relu")
    kinds = {"square": F.mse_loss, "absolute": F.l1_loss, "huber": F.smooth_l1_loss}

    def draw(generator: Generator, count: int) -> Batch:
        x, y = draw_curve(generator, count)
        return x, scale * y + offset

    def compute_loss(model: nn.Module, batch: Batch) -> Tensor:
        return kinds[loss](model(batch[0]), batch[1])

    return Problem("curve", net, draw, compute_loss, judge_values)


def draw_masks(generator: Generator, count: int) -> Batch:
    """A bright square of 3×3 pixels in noise, and where it is."""
    place = torch.randint(6, (count, 2), generator=generator)
    rows, columns = torch.arange(8).view(1, 8, 1), torch.arange(8).view(1, 1, 8)
    top, left = place[:, 0].view(-1, 1, 1), place[:, 1].view(-1, 1, 1)
    mask = ((rows >= top) & (rows < top + 3) & (columns >= left) & (columns < left + 3)).float()
    x = 2 * mask - 0.3 + 0.5 * torch.randn(count, 8, 8, generator=generator)
    return x.unsqueeze(1), mask.unsqueeze(1)


def judge_masks(model: nn.Module, batch: Batch) -> float:
    """Return the share of wrong pixels, relative to the answer that there is nothing."""
    x, mask = batch
    wrong = ((model(x) > 0).float() != mask).float().mean()
    return float(wrong / mask.mean())


@family(
    "loss",
    20,
    loss=("dice", "dice of logits", "dice empty", "binary", "binary probabilities", "both"),
    bias=(0.0, -20.0, 30.0, -120.0),
)
def segmentation(loss: str, bias: float) -> Problem:
    """Dice and binary cross-entropy, with a last layer that may start saturated."""
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 1, 1),
    )
    nn.init.constant_(net[-1].bias, bias)  # type: ignore[arg-type]

    def compute_dice(p: Tensor, mask: Tensor) -> Tensor:
        both = (p * mask).sum((1, 2, 3))
        return (1 - (2 * both + 1) / (p.sum((1, 2, 3)) + mask.sum((1, 2, 3)) + 1)).mean()

    def compute_loss(model: nn.Module, batch: Batch) -> Tensor:
        x, mask = batch
        z = model(x)
        if loss == "dice":
            return compute_dice(z.sigmoid(), mask)
        if loss == "dice of logits":
            return compute_dice(z, mask)
        if loss == "dice empty":
            return compute_dice(z.sigmoid(), 0 * mask)
        if loss == "binary":
            return F.binary_cross_entropy_with_logits(z, mask)
        if loss == "binary probabilities":
            return F.binary_cross_entropy(z.sigmoid(), mask)
        return F.binary_cross_entropy_with_logits(z, mask) + compute_dice(z.sigmoid(), mask)

    return Problem("masks", net, draw_masks, compute_loss, judge_masks)


@family(
    "loss",
    14,
    margin=(0.0, 0.2, 1.0),
    collapse=("none", "zero", "shared"),
    distance=("square", "root"),
)
def triplet(margin: float, collapse: str, distance: str) -> Problem:
    """An embedding in which examples of a class should be near to each other."""
    net = make_dense([16, 32, 32, 8], "relu")
    if collapse == "zero":
        start_weights(net, "zero")
    elif collapse == "shared":
        nn.init.constant_(net[-1].bias, 100.0)  # type: ignore[arg-type]

    def measure(a: Tensor, b: Tensor) -> Tensor:
        square = (a - b).square().sum(-1)
        return square if distance == "square" else square.sqrt()

    def split(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        x, y = batch
        order = y.argsort(stable=True)
        x, y = x[order], y[order]
        near = torch.where(y == y.roll(1), 1, 0).bool()
        return x[near], x.roll(1, 0)[near], x.roll(len(x) // 2, 0)[near]

    def compute_loss(model: nn.Module, batch: Batch) -> Tensor:
        anchor, same, other = map(model, split(batch))
        return F.relu(measure(anchor, same) - measure(anchor, other) + margin).mean()

    def measure_error(model: nn.Module, batch: Batch) -> float:
        anchor, same, other = (model(x) for x in split(batch))
        near, far = (anchor - same).norm(dim=-1), (anchor - other).norm(dim=-1)
        return 2 * float((near >= far).float().mean())

    return Problem("triplets", net, draw_vectors, compute_loss, measure_error)


# --- Recurrent -----------------------------------------------------------------------------------


def draw_first(length: int) -> Draw:
    """Return a task: which of four symbols came first, before noise of a length."""

    def draw(generator: Generator, count: int) -> Batch:
        y = torch.randint(CLASSES, (count,), generator=generator)
        x = 0.3 * torch.randn(count, length, 6, generator=generator)
        x[:, 0, :CLASSES] += F.one_hot(y, CLASSES)
        return x, y

    return draw


def draw_sum(length: int) -> Draw:
    """Return the adding task: the sum of the two numbers that are marked, standardized."""

    def draw(generator: Generator, count: int) -> Batch:
        x = torch.rand(count, length, 2, generator=generator)
        x[..., 1] = 0
        half = max(1, length // 2)
        for low, high in ((0, half), (half, length)):
            place = torch.randint(low, high, (count,), generator=generator)
            x[torch.arange(count), place, 1] = 1
        y = (x[..., 0] * x[..., 1]).sum(-1, keepdim=True)
        return x, (y - 1) / 0.41

    return draw


def draw_majority(length: int) -> Draw:
    """Return a task: the most frequent of four symbols."""

    def draw(generator: Generator, count: int) -> Batch:
        y = torch.randint(CLASSES, (count,), generator=generator)
        other = torch.randint(CLASSES, (count, length), generator=generator)
        keep = torch.rand(count, length, generator=generator) < 0.5
        symbols = torch.where(keep, y.unsqueeze(1), other)
        return F.one_hot(symbols, 6).float(), y

    return draw


class Recurrent(nn.Module):
    """A recurrent module whose last step is read."""

    def __init__(self, cell: str, inputs: int, outputs: int, layers: int = 1) -> None:
        super().__init__()
        kinds: dict[str, Callable[[], nn.Module]] = {
            "rnn": lambda: nn.RNN(inputs, 24, layers, batch_first=True),
            "rnn relu": lambda: nn.RNN(
                inputs, 24, layers, nonlinearity="relu", batch_first=True
            ),
            "lstm": lambda: nn.LSTM(inputs, 24, layers, batch_first=True),
            "gru": lambda: nn.GRU(inputs, 24, layers, batch_first=True),
        }
        self.body = kinds[cell]()
        self.head = nn.Linear(24, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[0][:, -1])


def start_recurrent(net: Recurrent, start: str) -> nn.Module:
    """Start the recurrent weights of a model in a way of their own."""
    if start == "remembering":  # forget gates or update gates almost closed, or the identity
        for name, parameter in net.body.named_parameters():
            if isinstance(net.body, nn.LSTM) and "bias_ih" in name:
                parameter.data[24:48] = 5.0
            elif isinstance(net.body, nn.GRU) and "bias_ih" in name:
                parameter.data[24:48] = 4.0
            elif isinstance(net.body, nn.RNN) and "weight_hh" in name:
                nn.init.eye_(parameter)
        return net
    if start == "orthogonal":
        for name, parameter in net.body.named_parameters():
            if "weight_hh" in name:
                for chunk in parameter.data.split(24):
                    nn.init.orthogonal_(chunk)
        return net
    return start_weights(net, start)


STEP_STARTS = ("pytorch", "pytorch", "remembering", "remembering", "orthogonal", "small", "large")


@family(
    "recurrent",
    44,
    cell=("rnn", "rnn relu", "lstm", "gru"),
    length=(4, 12, 30, 60),
    start=(*STEP_STARTS, "huge"),
)
def first_step(cell: str, length: int, start: str) -> Problem:
    net = start_recurrent(Recurrent(cell, 6, CLASSES), start)
    return Problem("first", net, draw_first(length), compute_cross_entropy, judge_classes)


@family(
    "recurrent",
    22,
    cell=("rnn", "lstm", "gru"),
    length=(4, 20, 50),
    start=(*STEP_STARTS, "zero"),
)
def adding(cell: str, length: int, start: str) -> Problem:
    net = start_recurrent(Recurrent(cell, 2, 1), start)
    return Problem("adding", net, draw_sum(length), compute_square, judge_values)


@family(
    "recurrent",
    20,
    cell=("rnn", "rnn relu", "lstm", "gru"),
    layers=(1, 3),
    length=(8, 30),
    start=(*STEP_STARTS, "normal", "zero"),
)
def majority(cell: str, layers: int, length: int, start: str) -> Problem:
    net = start_recurrent(Recurrent(cell, 6, CLASSES, layers), start)
    return Problem("majority", net, draw_majority(length), compute_cross_entropy, judge_classes)


# --- Attention -----------------------------------------------------------------------------------


class Mixer(nn.Module):
    """Self-attention or a dense branch, in a residual block with its normalization."""

    def __init__(self, width: int, norm: str, *, causal: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.dense = make_dense([width, 2 * width, width], "gelu")
        self.norms = nn.ModuleList(
            nn.Identity() if norm == "none" else nn.LayerNorm(width) for _ in range(2)
        )
        self.after = norm == "after"
        self.causal = causal

    def attend(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        mask = torch.ones(length, length, dtype=torch.bool).triu(1) if self.causal else None
        return self.attention(x, x, x, attn_mask=mask, need_weights=False)[0]

    def forward(self, x: Tensor) -> Tensor:
        if self.after:
            x = self.norms[0](x + self.attend(x))
            return self.norms[1](x + self.dense(x))
        x = x + self.attend(self.norms[0](x))
        return x + self.dense(self.norms[1](x))


class Transformer(nn.Module):
    """Tokens in; classes of the whole, or the next token, out."""

    def __init__(
        self, tokens: int, depth: int, norm: str, outputs: int, *, causal: bool = False
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, 24)
        self.position = nn.Parameter(0.02 * torch.randn(16, 24))
        self.blocks = nn.Sequential(*(Mixer(24, norm, causal=causal) for _ in range(depth)))
        self.norm = nn.LayerNorm(24) if norm == "before" else nn.Identity()
        self.head = nn.Linear(24, outputs)
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        z = self.embedding(x) + self.position[: x.shape[1]]
        z = self.norm(self.blocks(z))
        return self.head(z if self.causal else z.mean(1))


def draw_pair(generator: Generator, count: int) -> Batch:
    """Tokens of which one is a mark: the token after it is the answer."""
    y = torch.randint(CLASSES, (count,), generator=generator)
    x = torch.randint(CLASSES, (count, 10), generator=generator)
    place = torch.randint(0, 9, (count,), generator=generator)
    x[torch.arange(count), place] = CLASSES
    x[torch.arange(count), place + 1] = y + CLASSES + 1
    return x, y


TRANSFORMER_STARTS = (
    "pytorch", "pytorch", "bert", "xavier", "small", "large", "huge", "zero", "constant", "normal",
)  # fmt: skip


@family(
    "attention",
    40,
    depth=(1, 4, 10),
    norm=("before", "after", "none"),
    start=TRANSFORMER_STARTS,
)
def encoder(depth: int, norm: str, start: str) -> Problem:
    net = start_weights(Transformer(9, depth, norm, CLASSES), start)
    return Problem("pair", net, draw_pair, compute_cross_entropy, judge_classes)


TOKENS = 12


def make_chain() -> tuple[Tensor, float, float]:
    """Return a Markov chain, and the loss of guessing and of knowing it."""
    table = (2.5 * torch.randn(TOKENS, TOKENS, generator=fix(5))).softmax(-1)
    share = torch.matrix_power(table, 50)[0]
    entropy = -(share.unsqueeze(1) * table * table.log()).sum()
    return table, float(-(share * share.log()).sum()), float(entropy)


def draw_text(generator: Generator, count: int) -> Batch:
    table, *_ = make_chain()
    steps = [torch.randint(TOKENS, (count,), generator=generator)]
    for _ in range(12):
        steps.append(torch.multinomial(table[steps[-1]], 1, generator=generator).squeeze(1))
    text = torch.stack(steps, 1)
    return text[:, :-1], text[:, 1:]


def compute_text_loss(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())


def judge_text(model: nn.Module, batch: Batch) -> float:
    """Return the loss, from that of knowing the chain to that of knowing how frequent tokens are."""
    _, guess, floor = make_chain()
    return (float(compute_text_loss(model, batch)) - floor) / (guess - floor)


@family(
    "attention",
    36,
    depth=(1, 4, 10),
    norm=("before", "after", "none"),
    tied=("no", "std 1", "std 0.02", "scaled"),
    start=("pytorch", "pytorch", "bert", "large", "small"),
)
def language_model(depth: int, norm: str, tied: str, start: str) -> Problem:
    net = Transformer(TOKENS, depth, norm, TOKENS, causal=True)
    start_weights(net, start)
    if tied != "no":
        net.head.weight = net.embedding.weight
        stds = {"std 1": 1.0, "std 0.02": 0.02, "scaled": 24**-0.5}
        nn.init.normal_(net.embedding.weight, std=stds[tied])
    return Problem("text", net, draw_text, compute_text_loss, judge_text)


class Patches(nn.Module):
    """A vision transformer: patches of 2×2 pixels and a token for the class."""

    def __init__(self, depth: int, norm: str) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 24, 2, stride=2)
        self.token = nn.Parameter(torch.zeros(1, 1, 24))
        self.position = nn.Parameter(0.02 * torch.randn(17, 24))
        self.blocks = nn.Sequential(*(Mixer(24, norm, causal=False) for _ in range(depth)))
        self.norm = nn.LayerNorm(24) if norm == "before" else nn.Identity()
        self.head = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        z = self.patches(x).flatten(2).transpose(1, 2)
        z = torch.cat([self.token.expand(len(z), -1, -1), z], 1) + self.position
        return self.head(self.norm(self.blocks(z))[:, 0])


@family("attention", 18, depth=(2, 6), norm=("before", "after", "none"), start=TRANSFORMER_STARTS)
def vision(depth: int, norm: str, start: str) -> Problem:
    net = start_weights(Patches(depth, norm), start)
    return Problem("images", net, draw_images, compute_cross_entropy, judge_classes)


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
            nn.init.zeros_(step.net[-1].bias)  # type: ignore[index,union-attr,arg-type]
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


# --- Faults of the input -------------------------------------------------------------------------


INPUTS = (
    "good",
    "0 to 255",
    "times 1e4",
    "times 1e-4",
    "offset",
    "wild column",
    "wild row",
    "constant",
    "almost constant",
    "constant columns",
    "one NaN",
)


def spoil(x: Tensor, fault: str, generator: Generator) -> Tensor:
    """Return inputs as they should not be."""
    if fault == "0 to 255":
        return (64 * x + 128).clamp(0, 255).round()
    if fault.startswith("times"):
        return x * float(fault.split()[1])
    if fault == "offset":
        return x + 100
    if fault == "wild column":
        x = x.clone()
        x[..., 0] = 1e5 * torch.randn(x[..., 0].shape, generator=generator)
        return x
    if fault == "wild row":
        x = x.clone()
        x[0] *= 1e4
        return x
    if fault == "constant":
        return torch.ones_like(x)
    if fault == "almost constant":
        return 1 + 1e-5 * x
    if fault == "constant columns":
        x = x.clone()
        x[..., ::3] = 1.0
        return x
    if fault == "one NaN":
        x = x.clone()
        x.view(-1)[0] = math.nan
        return x
    return x


@family(
    "input",
    56,
    fault=INPUTS,
    body=("dense", "tanh", "conv", "batch", "normalized"),
    deep=(False, True),
)
def spoiled_input(fault: str, body: str, deep: bool) -> Problem:
    task, net, draw = make_body("dense" if body == "normalized" else body)
    if deep and task == "vectors":
        activation = "tanh" if body == "tanh" else "relu"
        norm = "batch" if body == "batch" else "none"
        net = make_dense([16, *[32] * 7, CLASSES], activation, norm)
        start_weights(net, "he" if activation == "relu" else "xavier")
    if body == "normalized":
        net = nn.Sequential(nn.BatchNorm1d(16), net)

    def draw_spoiled(generator: Generator, count: int) -> Batch:
        x, y = draw(generator, count)
        return spoil(x, fault, generator), y

    return Problem(task, net, draw_spoiled, compute_cross_entropy, judge_classes)


# --- Faults of the number format -----------------------------------------------------------------


class Cast(nn.Module):
    """A model that computes in another number format, as under autocast."""

    def __init__(self, body: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.body = body
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=self.dtype):
            return self.body(x)


@family(
    "precision",
    40,
    dtype=("float16", "bfloat16", "float32"),
    scale=(1e-6, 1e-3, 1.0, 1024.0, 1e7),
    body=("shallow", "deep", "residual"),
    outputs=("float32", "same"),
)
def computed_in(dtype: str, scale: float, body: str, outputs: str) -> Problem:
    """Autocast with a loss that is scaled; gradients may become zero or infinite."""
    if body == "residual":
        blocks = [Branch(make_dense([24, 24, 24], "relu"), 0.3) for _ in range(6)]
        net: nn.Module = nn.Sequential(nn.Linear(16, 24), *blocks, nn.Linear(24, CLASSES))
    else:
        net = make_dense([16, *[32] * (2 if body == "shallow" else 8), CLASSES], "relu")
        start_weights(net, "he")
    if dtype != "float32":
        net = Cast(net, getattr(torch, dtype))

    def compute_loss(model: nn.Module, batch: Batch) -> Tensor:
        z = model(batch[0])
        if outputs == "float32":
            z = z.float()
        return F.cross_entropy(z, batch[1]) * scale

    return Problem(
        "vectors", net, draw_vectors, compute_loss, judge_classes, loss_scale=scale
    )


@family(
    "precision",
    14,
    dtype=("float16", "bfloat16", "float32"),
    size=(1.0, 100.0, 3000.0),
    start=("he", "small", "tiny"),
)
def weights_in(dtype: str, size: float, start: str) -> Problem:
    """Weights that are kept in another number format, and inputs of another size."""
    kind = getattr(torch, dtype)
    net = start_weights(make_dense([16, 32, 32, 32, CLASSES], "relu"), start).to(kind)

    def draw(generator: Generator, count: int) -> Batch:
        x, y = draw_vectors(generator, count)
        return (size * x).to(kind), y

    return Problem("vectors", net, draw, compute_cross_entropy, judge_classes)
