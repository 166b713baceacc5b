"""Faults of the head, the loss, the input and the number format."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from truth_models.family import Batch, Draw, Problem, family
from truth_models.images import Branch
from truth_models.parts import (
    CLASSES,
    compute_cross_entropy,
    compute_square,
    draw_curve,
    draw_images,
    draw_vectors,
    judge_classes,
    judge_values,
    make_dense,
    start_weights,
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


HEADS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda z: z,
    "softmax": lambda z: z.softmax(-1),
    "softmax twice": lambda z: z.softmax(-1).softmax(-1),
    "log softmax": lambda z: z.log_softmax(-1),
    "tiny": lambda z: 1e-4 * z,
    "times 1e4": lambda z: 1e4 * z,
    "times 10": lambda z: 10 * z,
    "dead relu": lambda z: torch.relu(z - 10),
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": F.softplus,
    "large bias": lambda z: z + 100 * F.one_hot(torch.tensor(0), z.shape[-1]),
}


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


@family("head", 40, head=tuple(HEADS), body=("dense", "tanh", "batch", "conv"), seed=(0, 1))
def classifier_head(head: str, body: str, seed: int) -> Problem:
    task, net, draw = make_body(body)
    return Problem(task, Headed(net, HEADS[head]), draw, compute_cross_entropy, judge_classes)


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
    head=(
        "none",
        "tiny",
        "times 1e4",
        "times 10",
        "dead relu",
        "relu",
        "sigmoid",
        "tanh",
        "softplus",
    ),
    activation=("relu", "tanh"),
)
def regression_head(head: str, activation: str) -> Problem:
    """A head that may not reach the targets, which lie between about −2 and 2."""
    body = make_dense([8, 32, 32, 1], activation)
    net = Headed(body, HEADS[head])
    return Problem("curve", net, draw_curve, compute_square, judge_values)


# --- Faults of the loss --------------------------------------------------------------------------


def pick_probabilities(z: Tensor, y: Tensor) -> Tensor:
    """Return the probability of each right answer."""
    return z.softmax(-1).gather(1, y.unsqueeze(1))


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "none": F.cross_entropy,
    "sum": lambda z, y: F.cross_entropy(z, y, reduction="sum"),
    "detached": lambda z, y: F.cross_entropy(z.detach(), y) + 0 * z.sum(),
    "half detached": lambda z, y: F.cross_entropy(z.detach() + 0.001 * z, y),
    "label smoothing": lambda z, y: F.cross_entropy(z, y, label_smoothing=0.1),
    "clamped": lambda z, y: F.cross_entropy(z, y).clamp(max=0.1),
    "probabilities": lambda z, y: -pick_probabilities(z, y).mean(),
    "square root": lambda z, y: (F.cross_entropy(z, y) - F.cross_entropy(z, y).detach()).sqrt(),
    "always right": lambda z, y: F.multi_margin_loss(z + 50 * F.one_hot(y, CLASSES), y),
}


@family(
    "loss",
    44,
    fault=(*LOSSES, "times 1e-10", "times 1e-8", "times 1e-3", "times 1e4"),
    body=("dense", "tanh", "conv", "batch"),
)
def classifier_loss(fault: str, body: str) -> Problem:
    task, net, draw = make_body(body)

    def compute_loss(model: nn.Module, batch: Batch) -> Tensor:
        z = model(batch[0])
        if fault.startswith("times"):
            return F.cross_entropy(z, batch[1]) * float(fault.split()[1])
        return LOSSES[fault](z, batch[1])

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
        return 2 - 2 * float((near < far).float().mean())  # undefined ones are wrong

    return Problem("triplets", net, draw_vectors, compute_loss, measure_error)


# --- Faults of the input -------------------------------------------------------------------------


def change_entries(x: Tensor, value: Tensor | float, *where: Any) -> Tensor:
    """Return a copy in which some entries are others."""
    x = x.clone()
    x[where] = value
    return x


INPUTS: dict[str, Callable[[Tensor, Generator], Tensor]] = {
    "good": lambda x, g: x,
    "0 to 255": lambda x, g: (64 * x + 128).clamp(0, 255).round(),
    "times 1e4": lambda x, g: 1e4 * x,
    "times 1e-4": lambda x, g: 1e-4 * x,
    "offset": lambda x, g: x + 100,
    "wild column": lambda x, g: change_entries(
        x, 1e5 * torch.randn(x[..., 0].shape, generator=g), ..., 0
    ),
    "wild row": lambda x, g: change_entries(x, 1e4 * x[0], 0),
    "constant": lambda x, g: torch.ones_like(x),
    "almost constant": lambda x, g: 1 + 1e-5 * x,
    "constant columns": lambda x, g: change_entries(x, 1.0, ..., slice(None, None, 3)),
    "one NaN": lambda x, g: change_entries(x, math.nan, 0, 0),
}
"""Inputs as they should not be, but for the first."""


@family(
    "input",
    56,
    fault=tuple(INPUTS),
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
        return INPUTS[fault](x, generator), y

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

    return Problem("vectors", net, draw_vectors, compute_loss, judge_classes, loss_scale=scale)


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
