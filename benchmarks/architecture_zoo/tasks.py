"""Small tasks that a sound model learns: patterns with noise, and sequences with a rule."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Case = tuple[nn.Module, Callable[[nn.Module], Tensor]]
"""A model and what computes its loss."""

CLASSES = 4
VOCABULARY = 64


def draw_images(count: int, size: int, channels: int = 3) -> tuple[Tensor, Tensor]:
    """Return images [count, channels, size, size] of noisy patterns, and their classes [count]."""
    coarse = torch.randn(CLASSES, channels, 4, 4)
    patterns = F.interpolate(coarse, size=(size, size), mode="bilinear")
    labels = torch.arange(count) % CLASSES
    images = patterns[labels] + 0.5 * torch.randn(count, channels, size, size)
    return (images - images.mean()) / images.std(), labels


def draw_tokens(count: int, length: int, vocabulary: int = VOCABULARY) -> Tensor:
    """Return sequences [count, length] in which every token is the last one plus a step."""
    first, step = torch.randint(vocabulary, (count, 1)), torch.randint(1, 4, (count, 1))
    return 3 + (first + step * torch.arange(length)) % (vocabulary - 3)


def draw_series(count: int, length: int, width: int) -> tuple[Tensor, Tensor]:
    """Return noisy waves [count, length, width] and which of four frequencies each has [count]."""
    labels = torch.arange(count) % CLASSES
    time = torch.arange(length)[None, :, None] * (0.2 + 0.2 * labels[:, None, None])
    phase = torch.randn(count, 1, width)
    return torch.sin(time + phase) + 0.1 * torch.randn(count, length, width), labels


def classify(model: nn.Module, inputs: Tensor, labels: Tensor) -> Case:
    """Return a model with the cross-entropy of its logits."""
    return model, lambda m: F.cross_entropy(m(inputs), labels)
