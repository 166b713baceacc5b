"""The gradients of a step, as its optimizers use them: norms, and units that get none."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from chainrule.watch.gradients import Lagged, measure_norms, sharded_norms
from chainrule.watch.ownership import Ownership
from chainrule.watch.parts import Part
from chainrule.watch.steps import Step


def measure_gradients(
    step: Step,
    owners: Ownership,
    optimizer: torch.optim.Optimizer,
    grad_scale: Tensor | None,
    *,
    is_spread: bool,
) -> None:
    """Measure the norms of the gradients that an optimizer is about to use.

    Args:
        step: The step, which gets them.
        owners: What the optimizer holds.
        optimizer: The optimizer.
        grad_scale: What it divides its gradients by.
        is_spread: Whether parameters are spread over processes.
    """
    if owners.has_grown(optimizer):
        owners.read()
    before = len(step.norms)
    key = id(optimizer), before == 0
    try:
        try:
            for part in owners.parts[key]:
                _measure_part(step, part, grad_scale, is_spread=is_spread)
        except RuntimeError:  # parameters have moved to another device
            owners.read()
            del step.norms[before:]
            for part in owners.parts[key]:
                _measure_part(step, part, grad_scale, is_spread=is_spread)
    except BaseException:
        step.is_whole = False
        raise


def take_gradients(
    step: Step,
    owners: Ownership,
    optimizer: torch.optim.Optimizer,
    grad_scale: Tensor | None,
    *,
    copies: bool,
) -> dict[int, Tensor]:
    """Return the gradients that an optimizer uses, by position; others if nobody holds them.

    Args:
        step: The step, with what it has so far.
        owners: What the optimizer holds.
        optimizer: The optimizer.
        grad_scale: What it divides its gradients by.
        copies: Whether they must stay as they are when the optimizer has stepped.
    """
    found: dict[int, Tensor] = {}
    for part in owners.parts[id(optimizer), not step.gradients]:
        for at, parameter in zip(part.positions, part.parameters, strict=True):
            gradient = parameter.grad
            if gradient is not None:
                if grad_scale is not None:
                    gradient = gradient / grad_scale
                found[at] = gradient.clone() if copies else gradient
    return found


def _measure_part(step: Step, part: Part, grad_scale: Tensor | None, *, is_spread: bool) -> None:
    positions: Any = part.places
    gradients: list[Any] = [parameter.grad for parameter in part.parameters]
    with torch.no_grad():
        try:
            norms = _compute_norms(gradients, part, is_spread=is_spread)
        except (TypeError, AttributeError):  # some have no gradient
            found = [at for at, each in enumerate(gradients) if each is not None]
            if not found:
                return
            positions = positions[found]
            norms = _compute_norms([gradients[at] for at in found], part, is_spread=is_spread)
        factor = Lagged(grad_scale) if isinstance(grad_scale, Tensor) else None
        step.norms.append((positions, Lagged(norms, is_fresh=True), factor))


def _compute_norms(gradients: Sequence[Tensor], part: Part, *, is_spread: bool) -> Tensor:
    if is_spread:
        return sharded_norms(gradients)
    return measure_norms(gradients, is_plain=part.is_plain)


def look_at_units(step: Step, owners: Ownership, key: int) -> None:
    """Look which units of layers have no gradient at all: entries of biases that are zero.

    Args:
        step: The step, which gets the flags; they may still be on the device.
        owners: What the optimizers hold.
        key: The `id` of the one that steps.
    """
    found = [
        (at, gradient.reshape(-1))
        for at, parameter in owners.vectors[key]
        if (gradient := parameter.grad) is not None and gradient.layout == torch.strided
    ]
    if len({gradient.device for _, gradient in found}) == 1:
        with torch.no_grad():
            zero = torch.cat([gradient == 0 for _, gradient in found])
        places = [(at, gradient.numel()) for at, gradient in found]
        step.idle_units.append((places, Lagged(zero, is_fresh=True)))
