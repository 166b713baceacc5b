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
    read: Tensor,
    targets: Tensor,
    steps: Sequence[int],
    state: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor | None:
    """Return how likely such a tie with the targets would be by chance, for every step and the end.

    Targets may go with the values of a step, with their squares (the size of a signal), or with
    their products with the values one step before (its pace): the closest of the three counts, and
    that there were three. Many steps may show a little each; so for the end, what the loss hears
    counts: the state that it reads, and the means of values, squares and products over all steps,
    weighted by the gradient that each receives.

    Args:
        read: All steps, [length, examples, features].
        targets: [examples, numbers]
        steps: Those that are kept. One that is kept speaks for those before it that are not, too.
        state: What the loss reads of the output at a single step, [examples, units], or `None`.
        weights: Of the kept steps, [steps]; needed for a state.

    Returns:
        A probability for each kept step, and one for the end if there is a state; 1 where all
        examples have the same values, and 0 for the only step where they differ: what the targets
        depend on can stand nowhere else. `None` if examples do not fit, or are too few.
    """
    count = read.shape[1]
    if count != len(targets) or count < FEWEST or read.is_complex():
        return None
    kept = torch.linspace(0, count - 1, min(count, MOST), device=read.device).round().long()
    if len(kept) * read[:, 0].numel() > LARGEST:
        return None

    def take(rows: Tensor) -> Tensor:
        return _scale(rows.index_select(1, kept).to(torch.float32))

    answers, size = _compare(take(targets.to(read.device).unsqueeze(0)))
    values = take(read)
    looks = (values, values.square(), values * torch.cat([0 * values[:1], values[:-1]]))

    def pick(groups: Sequence[Tensor]) -> Tensor:
        found = torch.stack([_test(*_compare(each), answers, size) for each in groups])
        return (len(groups) * found.amin(0)).clamp(max=1.0)

    chances = pick(looks)
    differs = (values.amax(1) - values.amin(1)).amax(-1) > ROUNDING
    is_only = differs & (differs.sum() == 1)
    chances = torch.where(is_only, torch.zeros_like(chances), chances)
    places = torch.tensor(steps, device=read.device)
    if len(steps) < len(read):
        parts = chances.split(torch.diff(places, prepend=places.new_tensor([-1])).tolist())
        chances = torch.stack([(len(part) * part.amin()).clamp(max=1.0) for part in parts])
    if state is None or weights is None or len(state) != count:
        return chances
    heard = (weights / weights.sum()).to(values).view(-1, 1, 1)
    pooled = [_scale((look[places] * heard).sum(0, keepdim=True)) for look in looks]
    return torch.cat([chances, pick([take(state.unsqueeze(0)), *pooled])])


def _scale(rows: Tensor) -> Tensor:
    """Return values so that the largest of each reading is 1."""
    largest = rows.abs().amax((1, 2), keepdim=True)
    return rows / torch.where(largest > 0, largest, torch.ones_like(largest))


def _test(values: Tensor, traces: Tensor, answers: Tensor, size: Tensor) -> Tensor:
    """Return the chance of such a tie or a closer one, from inner products and their traces."""
    wide = torch.float32 if values.device.type == "mps" else torch.float64
    examples = values.shape[1]
    flat, flat_answers = values.flatten(1), answers.flatten()
    both = (traces * size).to(wide)
    # Relative to its mean over all orders of the targets, tr K · tr L ÷ (examples − 1).
    statistic = (flat @ flat_answers).to(wide) * (examples - 1) / both
    sizes = torch.linalg.vector_norm(flat, dim=1) * torch.linalg.vector_norm(flat_answers)
    shape = (both / sizes.to(wide)).square() / 2
    chances = torch.special.gammaincc(shape, (shape * statistic).clamp(min=0.0))
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


def stack_steps(every: Sequence[Tensor | None]) -> Tensor | None:
    """Return what was read step by step, [length, examples, features].

    `None` if it is not known, or differs in shape.
    """
    steps = [each for each in every if each is not None]
    if len(steps) < len(every) or len({each.shape for each in steps}) != 1 or steps[0].dim() < 2:
        return None
    return torch.stack([each.flatten(1) for each in steps])
