"""What Adam and its kin divide by, in the format that weights are kept in.

They divide by the root of a mean of squared gradients, plus a small ε. PyTorch keeps the squares,
and adds ε, in the format of the weights: in float16 the usual ε of 1e-8 is 0, and so is a
thousandth of the square of a gradient below 0.005.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from chainrule.flow.optimizer import LOST_STEP

DIVIDING = (
    torch.optim.Adam,
    torch.optim.NAdam,
    torch.optim.RMSprop,
    torch.optim.Adagrad,
    torch.optim.Adamax,
)
"""Optimizers whose first step divides so, with their subclasses."""


def is_lost(epsilon: float, dtype: torch.dtype) -> bool:
    """Return whether a format of numbers rounds an ε to 0."""
    return dtype.is_floating_point and float(torch.tensor(epsilon, dtype=dtype)) == 0.0


@torch.no_grad()
def measure_divided(
    optimizer: torch.optim.Optimizer,
    group: Mapping[str, Any],
    weights: Tensor,
    gradient: Tensor | None,
) -> float | None:
    """Return the share of entries at which the next step divides by 0, or by next to nothing.

    Args:
        optimizer: The optimizer; its state is read.
        group: The group that holds the weights.
        weights: The weights.
        gradient: Their gradient.

    Returns:
        The share; `None` where the format holds all that is needed, or what is divided by is not
        known: with `fused`, PyTorch computes in float32.
    """
    epsilon = group.get("eps")
    if not isinstance(epsilon, int | float) or group.get("fused") or group.get("capturable"):
        return None
    if not (weights.dtype is torch.float16 or is_lost(epsilon, weights.dtype)):
        return None
    if gradient is None or gradient.layout != torch.strided or hasattr(weights, "to_local"):
        return None
    if gradient.shape != weights.shape or not gradient.numel():
        return None
    slope = gradient.detach().to(weights.dtype)
    decay = float(group.get("weight_decay") or 0.0)
    is_decoupled = isinstance(optimizer, torch.optim.AdamW) or group.get("decoupled_weight_decay")
    if decay and not is_decoupled:
        slope = slope.add(weights.detach(), alpha=decay)
    divisor = _compute_divisor(optimizer, group, slope, optimizer.state.get(weights) or {})
    if divisor is None or not bool(slope.isfinite().all()):
        return None
    lost = (divisor == 0) | (slope.abs().float() > LOST_STEP * divisor.float())
    return int(lost.sum()) / lost.numel()


def _compute_divisor(
    optimizer: torch.optim.Optimizer, group: Mapping[str, Any], slope: Tensor, state: Any
) -> Tensor | None:
    """Return what the next step divides by, as the for-loop of the class computes it."""
    epsilon = float(group["eps"])

    def read(name: str) -> Tensor:
        held = state.get(name)
        is_there = isinstance(held, Tensor) and held.shape == slope.shape
        return held.clone() if is_there else torch.zeros_like(slope)

    if isinstance(optimizer, torch.optim.Adam | torch.optim.NAdam):  # AdamW is an Adam
        share = float(group["betas"][1])
        squares = read("exp_avg_sq").mul_(share).addcmul_(slope, slope, value=1.0 - share)
        if group.get("amsgrad"):
            squares = torch.maximum(squares, read("max_exp_avg_sq"))
        count = float(state.get("step", 0.0)) + 1.0
        return (squares.sqrt() / math.sqrt(1.0 - share**count)).add_(epsilon)
    if isinstance(optimizer, torch.optim.RMSprop):
        share = float(group["alpha"])
        squares = read("square_avg").mul_(share).addcmul_(slope, slope, value=1.0 - share)
        return squares.sqrt_().add_(epsilon)
    if isinstance(optimizer, torch.optim.Adagrad):
        return read("sum").addcmul_(slope, slope, value=1.0).sqrt_().add_(epsilon)
    if isinstance(optimizer, torch.optim.Adamax):
        kept = read("exp_inf").mul_(float(group["betas"][1]))
        return torch.maximum(kept, slope.abs().add_(epsilon))
    return None
