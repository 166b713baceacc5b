"""Reading an optimizer: which of a model's parameters it holds, and at which learning rates."""

import math
from collections.abc import Mapping
from inspect import signature
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from chainrule.errors import InspectionError
from chainrule.flow.optimizer import OptimizerFlow, Steps
from chainrule.measure.divisors import measure_divided
from chainrule.measure.modules import Inventory

RESCALING = (
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.Adamax,
    torch.optim.RMSprop,
    torch.optim.Adagrad,
)
"""Optimizers whose first step is about the learning rate in every entry."""


def check_optimizer(optimizer: Any) -> None:
    """Raise unless it is an optimizer that could take steps, or `None`.

    Raises:
        InspectionError: If it is something else, or has no groups or no usable learning rate.
    """
    if optimizer is None:
        return
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InspectionError(
            f"optimizer must be a torch.optim.Optimizer; got {type(optimizer).__name__}. Call "
            "inspect(model, compute_loss, optimizer), or leave it out."
        )
    if not optimizer.param_groups:
        raise InspectionError(
            "optimizer must hold parameters, but it has no groups of them. Build it from "
            "model.parameters()."
        )
    for number, group in enumerate(optimizer.param_groups):
        rate = float(group.get("lr") or 0.0)  # some find their own, and have none
        if not 0.0 <= rate < math.inf:
            raise InspectionError(
                f"optimizer must have learning rates that are finite and at least 0; that of "
                f"param_groups[{number}] is {rate:g}. Look at what sets it, such as a schedule."
            )


def read_optimizer(
    optimizer: torch.optim.Optimizer,
    inventory: Inventory,
    gradients: Mapping[int, Tensor] = MappingProxyType({}),
) -> OptimizerFlow:
    """Return what an optimizer does with the parameters of a model.

    Args:
        optimizer: The optimizer; it is not changed.
        inventory: The model's.
        gradients: Those of its parameters, by position.
    """
    rates = {
        id(parameter): float(group.get("lr") or 0.0)
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    planned = {
        id(parameter): read_planned_rate(group)
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    decays = {
        id(parameter): float(group.get("weight_decay", 0.0))
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    own = {id(parameter.tensor) for parameter in inventory.parameters}
    steps: Steps = "other"
    if isinstance(optimizer, torch.optim.SGD):
        steps = "gradient"
    elif isinstance(optimizer, RESCALING):
        steps = "rescaled"
    groups = [
        group
        for group in optimizer.param_groups
        if not own.isdisjoint(map(id, group["params"]))  # others are no matter of this model
    ]
    epsilon = momentum = 0.0  # others may keep something else under these names
    if steps == "rescaled":
        epsilon = max((float(group.get("eps", 0.0)) for group in groups), default=0.0)
    elif steps == "gradient":
        momentum = max((float(group.get("momentum", 0.0)) for group in groups), default=0.0)
    known = [planned.get(id(each.tensor)) for each in inventory.parameters]
    group_of = {id(parameter): group for group in groups for parameter in group["params"]}
    is_of_torch = type(optimizer).__module__.startswith("torch.optim")
    return OptimizerFlow(
        name=type(optimizer).__name__,
        steps=steps,
        rates=tuple(rates.get(id(parameter.tensor)) for parameter in inventory.parameters),
        momentum=momentum,
        foreign=len(rates.keys() - own),
        epsilon=epsilon,
        decays=tuple(decays.get(id(parameter.tensor)) for parameter in inventory.parameters),
        is_decoupled=isinstance(optimizer, torch.optim.AdamW)
        or any(bool(group.get("decoupled_weight_decay")) for group in groups),
        maximizes=bool(groups) and all(bool(group.get("maximize")) for group in groups),
        default_rate=_read_default_rate(type(optimizer)),
        planned=tuple(known),
        rounded=tuple(
            _measure_rounded(each.tensor, gradients.get(position), rate, steps, momentum, epsilon)
            if rate and steps != "other" and is_of_torch
            else None
            for position, (each, rate) in enumerate(zip(inventory.parameters, known, strict=True))
        ),
        divided=tuple(
            measure_divided(
                optimizer, group_of[id(each.tensor)], each.tensor, gradients.get(position)
            )
            if is_of_torch and id(each.tensor) in group_of
            else None
            for position, each in enumerate(inventory.parameters)
        ),
    )


def _measure_rounded(
    weights: Tensor,
    gradient: Tensor | None,
    rate: float,
    steps: Steps,
    momentum: float,
    epsilon: float,
) -> float | None:
    """Return the share of entries with a gradient that a step leaves unchanged, by rounding.

    A step is taken as large as it can be at the rates that a schedule leads to: with momentum, as
    that of many steps in one direction.
    """
    is_half = weights.dtype in (torch.float16, torch.bfloat16)
    if not is_half or gradient is None or gradient.layout != torch.strided:
        return None
    slope, old = gradient.detach().float(), weights.detach()
    if steps == "gradient":
        step = slope * (rate / (1.0 - min(momentum, 0.999)))
    else:
        step = rate * slope / (slope.abs() + epsilon)
    if hasattr(old, "to_local") or old.shape != step.shape or not bool(step.isfinite().all()):
        return None
    moves = slope != 0
    count = int(moves.sum())
    stays = ((old.float() - step).to(old.dtype) == old) & moves
    return int(stays.sum()) / count if count else None


def read_planned_rate(group: Mapping[str, Any]) -> float:
    """Return the largest learning rate that a group has, or that a schedule has written down."""
    found = [group.get(name) for name in ("lr", "initial_lr", "max_lr")]
    rates = [float(rate) for rate in found if isinstance(rate, int | float | Tensor)]
    return max((rate for rate in rates if 0.0 <= rate < math.inf), default=0.0)


def _read_default_rate(kind: type[torch.optim.Optimizer]) -> float | None:
    """Return the learning rate that a class of optimizers takes if it is given none."""
    try:
        rate = signature(kind).parameters["lr"].default
    except (KeyError, TypeError, ValueError):  # it has none, or cannot be asked
        return None
    is_number = isinstance(rate, int | float) and not isinstance(rate, bool)
    return float(rate) if is_number and 0.0 < rate < math.inf else None
