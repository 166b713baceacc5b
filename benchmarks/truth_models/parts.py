"""What many models share: starts of weights, dense stacks, data, and how wrong an answer is."""

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from truth_models.family import Batch

CLASSES = 4


# --- Starts --------------------------------------------------------------------------------------

FACTORS = {"pytorch": 1.0, "small": 0.1, "large": 3.0, "huge": 10.0}
STDS = {"normal": 1.0, "bert": 0.02, "tiny": 0.001}


def start_weights(model: nn.Module, start: str) -> nn.Module:
    """Draw the weights of a model anew, or scale them; scales of normalizations stay."""
    drawn: dict[str, Callable[[Tensor], object]] = {
        "he": nn.init.kaiming_normal_,
        "xavier": nn.init.xavier_normal_,
        "zero": nn.init.zeros_,
        "constant": lambda weight: nn.init.constant_(weight, 1 / weight[0].numel()),
    }
    for parameter in model.parameters():
        if parameter.dim() < 2:
            if start in {"he", "xavier"} and bool((parameter != 1).any()):
                nn.init.zeros_(parameter)
        elif start in STDS:
            nn.init.normal_(parameter, std=STDS[start])
        elif start in FACTORS:
            parameter.data *= FACTORS[start]
        else:
            drawn[start](parameter)
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
