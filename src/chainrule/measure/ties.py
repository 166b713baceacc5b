"""How closely what a recurrent module reads, and what it hands the loss, goes with the targets.

It is a test of independence: the linear HSIC (Gretton et al. 2007), the sum of all squared
covariances between two groups of numbers, compared with its distribution over random orders of the
targets, which is close to a gamma distribution.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from chainrule.measure.loss import Loss

FEWEST, MOST = 16, 64
"""Examples from which on a tie is looked for, and most examples that are looked at: so a weak tie
does not count as a strong one in a large batch."""

LARGEST = 2**22
"""Most entries that are looked at: steps × examples × features."""


def take_targets(loss: Loss | None) -> Tensor | None:
    """Return the targets of a loss, a row of numbers for each example, or `None`.

    Numbers of classes become a column for each class.
    """
    parts = [] if loss is None else [part for part in loss.parts if part.kind != "penalty"]
    target = parts[0].saved.get("target") if len(parts) == 1 else None
    if not isinstance(target, Tensor) or target.dim() == 0 or target.layout != torch.strided:
        return None
    target = target.detach()
    if len(target) < FEWEST:
        return None
    if target.is_floating_point():
        rows = target.flatten(1) if target.dim() > 1 else target.unsqueeze(1)
        return rows if 0 < rows.numel() <= LARGEST else None
    if target.numel() != len(target):
        return None
    classes = torch.unique(target.flatten(), return_inverse=True)[1]
    return torch.nn.functional.one_hot(classes).to(torch.float32)


def measure_chances(read: Tensor, targets: Tensor) -> Tensor | None:
    """Return how likely such a tie with the targets would be by chance, for several readings.

    Args:
        read: [readings, examples, features]
        targets: [examples, numbers]

    Returns:
        A probability for each reading, [readings]; 1 where all examples have the same values.
        `None` if examples do not fit, are too few, or too large, or numbers are not finite.
    """
    count = read.shape[1]
    if count != len(targets) or count < FEWEST or read.is_complex():
        return None
    kept = torch.linspace(0, count - 1, min(count, MOST), device=read.device).round().long()
    if len(read) * len(kept) * read[0, 0].numel() > LARGEST:
        return None
    wide = torch.float32 if read.device.type == "mps" else torch.float64
    every = read.index_select(1, kept).to(wide)
    target = targets.to(read.device).index_select(0, kept).to(wide).unsqueeze(0)
    values, traces = _compare(every)
    (answers, size) = _compare(target)
    both = traces * size
    examples = len(kept)
    # Relative to its mean over all orders, tr K · tr L ÷ (examples − 1).
    statistic = (values * answers).sum((1, 2)) * (examples - 1) / both
    spread = 2 * values.square().sum((1, 2)) * answers.square().sum((1, 2)) / both.square()
    shape = 1 / spread
    chances = torch.special.gammaincc(shape, shape * statistic)
    return torch.where(traces > 0, chances, torch.ones_like(chances))


def _compare(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the inner products of all examples, less their mean, and their traces."""
    largest = rows.abs().amax((1, 2), keepdim=True)
    scaled = rows / torch.where(largest > 0, largest, torch.ones_like(largest))
    centered = scaled - scaled.mean(1, keepdim=True)
    # What is left of equal values is rounding.
    same = centered.abs().amax((1, 2), keepdim=True) < 1e-6
    centered = torch.where(same, torch.zeros_like(centered), centered)
    products = centered @ centered.mT
    return products, products.diagonal(dim1=1, dim2=2).sum(1)


def stack_steps(steps: Sequence[Tensor]) -> Tensor | None:
    """Return what was read at several steps, [steps, examples, features]; `None` if it differs."""
    if len({each.shape for each in steps}) != 1 or steps[0].dim() < 2:
        return None
    return torch.stack([each.detach().flatten(1) for each in steps])
