"""Reading an optimizer: which of a model's parameters it holds, and at which learning rates."""

from typing import Any

import torch

from chainrule.errors import InspectionError
from chainrule.flow.optimizer import OptimizerFlow, Steps
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
    """Raise unless it is an optimizer or `None`.

    Raises:
        InspectionError: If it is something else.
    """
    if optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
        raise InspectionError(
            f"optimizer must be a torch.optim.Optimizer; got {type(optimizer).__name__}. Call "
            "inspect(model, compute_loss, optimizer), or leave it out."
        )


def read_optimizer(optimizer: torch.optim.Optimizer, inventory: Inventory) -> OptimizerFlow:
    """Return what an optimizer does with the parameters of a model.

    Args:
        optimizer: The optimizer; it is not changed.
        inventory: The model's.
    """
    rates = {
        id(parameter): float(group.get("lr", 0.0))
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    own = {id(parameter.tensor) for parameter in inventory.parameters}
    steps: Steps = "other"
    if isinstance(optimizer, torch.optim.SGD):
        steps = "gradient"
    elif isinstance(optimizer, RESCALING):
        steps = "rescaled"
    momentum = max(float(group.get("momentum", 0.0)) for group in optimizer.param_groups)
    return OptimizerFlow(
        name=type(optimizer).__name__,
        steps=steps,
        rates=tuple(rates.get(id(parameter.tensor)) for parameter in inventory.parameters),
        momentum=momentum if steps == "gradient" else 0.0,
        foreign=len(rates.keys() - own),
    )
