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

ROUNDING = 1e-6
"""Differences between examples, relative to the largest value, that are rounding."""

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


def measure_chances(
    read: Tensor, targets: Tensor, before: Tensor | None = None, *, simple: bool = False
) -> Tensor | None:
    """Return how likely such a tie with the targets would be by chance, for several readings.

    Targets may go with the values, with their squares (the size of a signal), or with their
    products with the values one step before (its pace): the closest of the three counts, and that
    there were three.

    Args:
        read: [readings, examples, features]
        targets: [examples, numbers]
        before: What was read one step before each; `None` if there is none.
        simple: Whether the values alone count, as for what a linear layer reads.

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

    def take(rows: Tensor) -> Tensor:
        values = rows.index_select(1, kept).to(wide)
        largest = values.abs().amax((1, 2), keepdim=True)
        return values / torch.where(largest > 0, largest, torch.ones_like(largest))

    values = take(read)
    answers, size = _compare(take(targets.to(read.device).unsqueeze(0)))
    if simple:
        return _test(*_compare(values), answers, size)
    found = [_test(*_compare(each), answers, size) for each in (values, values.square())]
    if before is not None and before.shape == read.shape:
        found.append(_test(*_compare(values * take(before)), answers, size))
    return (len(found) * torch.stack(found).amin(0)).clamp(max=1.0)


def _test(values: Tensor, traces: Tensor, answers: Tensor, size: Tensor) -> Tensor:
    """Return the chance of such a tie or a closer one, from inner products and their traces."""
    both = traces * size
    # Relative to its mean over all orders of the targets, tr K · tr L ÷ (examples − 1).
    statistic = (values * answers).sum((1, 2)) * (values.shape[1] - 1) / both
    spread = 2 * values.square().sum((1, 2)) * answers.square().sum((1, 2)) / both.square()
    shape = 1 / spread
    chances = torch.special.gammaincc(shape, shape * statistic)
    return torch.where(both > 0, chances, torch.ones_like(chances))


def _compare(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the inner products of all examples, less their mean, and their traces.

    Args:
        rows: [readings, examples, features], the largest of each reading is 1.
    """
    centered = rows - rows.mean(1, keepdim=True)
    # What is left of equal values is rounding.
    same = centered.abs().amax((1, 2), keepdim=True) < ROUNDING
    centered = torch.where(same, torch.zeros_like(centered), centered)
    products = centered @ centered.mT
    return products, products.diagonal(dim1=1, dim2=2).sum(1)


def stack_steps(
    every: Sequence[Tensor | None], kept: Sequence[int]
) -> tuple[Tensor, Tensor] | None:
    """Return what was read at the steps that are kept, and before: [steps, examples, features].

    `None` if it is not known, or differs in shape.
    """
    steps = [each for each in every if each is not None]
    if len(steps) < len(every) or len({each.shape for each in steps}) != 1 or steps[0].dim() < 2:
        return None
    before = [steps[at - 1] if at else torch.zeros_like(steps[0]) for at in kept]
    return (
        torch.stack([steps[at].flatten(1) for at in kept]),
        torch.stack([each.flatten(1) for each in before]),
    )
