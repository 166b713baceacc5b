"""How far a training has moved the weights of a copy."""

import math
from collections.abc import Collection

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

_HALVES = (torch.float16, torch.bfloat16)

_NAMED = 2
"""So many parameters are named at most."""


@torch.no_grad()
def list_spoiled(model: nn.Module, copied: nn.Module) -> list[str]:
    """Return the first parameters that are finite in a model and no longer so in a trained copy."""
    found: list[str] = []
    pairs = zip(model.parameters(), copied.named_parameters(), strict=True)
    for was, (name, now) in pairs:
        if len(found) == _NAMED:
            break
        if not now.requires_grad or isinstance(was, UninitializedParameter) or was.is_meta:
            continue
        if not bool(now.isfinite().all()) and bool(was.isfinite().all()):
            found.append(name)
    return found


@torch.no_grad()
def measure_movement(
    model: nn.Module, copied: nn.Module, held: Collection[int]
) -> tuple[float | None, float | None]:
    """Return how far weights have gone, and the share of 16-bit entries that have not.

    Args:
        model: The model as it was.
        copied: A copy of it that was trained.
        held: The parameters of the copy that its optimizer holds, by `id`.

    Returns:
        The norm of the change ÷ the norm at the start (infinite if that is 0 and something moved),
        and of entries in a format of 16 bits the share that is to the last bit what it was; `None`
        for what is not known.
    """
    ways, sizes, same, count = [], [], 0, 0
    for was, now in zip(model.parameters(), copied.parameters(), strict=True):
        if id(now) not in held or isinstance(was, UninitializedParameter) or was.is_meta:
            continue
        if was.shape != now.shape:
            return None, None
        wide = torch.float32 if now.dtype in _HALVES else now.dtype
        ways.append(float(torch.linalg.vector_norm(now.to(wide) - was.to(wide))))
        sizes.append(float(torch.linalg.vector_norm(was.to(wide))))
        if now.dtype in _HALVES:
            same += int((now == was).sum())
            count += now.numel()
    if not sizes:
        return None, None
    way, size = math.hypot(*ways), math.hypot(*sizes)
    moved = way / size if size else (math.inf if way else 0.0)
    return moved, same / count if count else None
