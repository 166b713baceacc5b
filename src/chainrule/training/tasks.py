"""What networks are trained on to find out whether they train: small classification tasks."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from chainrule.training.training import load_digits

TaskName = Literal["digits", "teacher", "patterns"]

_EXAMPLES = 2048
_FEATURES = 64
_TASK_SEED = 20


@dataclass(frozen=True, slots=True)
class Task:
    """A classification task.

    Attributes:
        inputs: [examples, 64] in float64; each feature has mean 0 and deviation 1.
        classes: [examples], counted from 0.
    """

    inputs: Tensor
    classes: Tensor

    @property
    def count(self) -> int:
        """Number of classes."""
        return int(self.classes.max()) + 1

    @property
    def chance(self) -> float:
        """Share right when the most frequent class is named always."""
        return float(self.classes.bincount().max()) / len(self.classes)


def load_task(name: TaskName) -> Task:
    """Return a task; each is the same every time.

    Raises:
        ChainruleError: If it is "digits" and scikit-learn is not installed.
    """
    return _TASKS[name]()


@cache
def _draw_teacher() -> Task:
    """Return Gaussian inputs whose class is the largest output of a random tanh network.

    The inputs vary in 10 directions out of 64, as natural data do.
    """
    generator = torch.Generator().manual_seed(_TASK_SEED)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    latent = draw(_EXAMPLES, 10)
    inputs = latent @ draw(10, _FEATURES) + 0.3 * draw(_EXAMPLES, _FEATURES)
    hidden = torch.tanh(latent @ draw(10, 64) / math.sqrt(10))
    scores = hidden @ draw(64, 6)
    classes = (scores - scores.mean(0)).argmax(1)
    return Task(_standardize(inputs), classes)


@cache
def _draw_patterns() -> Task:
    """Return 8 × 8 images of stripes in noise; the class is one of eight directions."""
    generator = torch.Generator().manual_seed(_TASK_SEED + 1)
    classes = torch.randint(0, 8, (_EXAMPLES,), generator=generator)
    angle = classes * (math.pi / 8)
    phase = torch.rand(_EXAMPLES, generator=generator, dtype=torch.float64) * (0.6 * math.pi)
    grid = torch.linspace(-1, 1, 8, dtype=torch.float64)
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    along = angle.cos()[:, None] * x.flatten() + angle.sin()[:, None] * y.flatten()
    images = torch.sin(4.0 * along + phase[:, None])
    noise = torch.randn(_EXAMPLES, _FEATURES, generator=generator, dtype=torch.float64)
    return Task(_standardize(images + 0.5 * noise), classes)


def _standardize(inputs: Tensor) -> Tensor:
    return (inputs - inputs.mean(0)) / (inputs.std(0) + 1e-3)


_TASKS: Mapping[TaskName, Callable[[], Task]] = MappingProxyType(
    {
        "digits": lambda: Task(*load_digits()),
        "teacher": _draw_teacher,
        "patterns": _draw_patterns,
    }
)
