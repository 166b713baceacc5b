"""Parameters and tensors by device, and the settings of the optimizers that hold them."""

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

_NESTED = 2
"""Calls of `step` of one optimizer on the stack, if one of them called the other."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Parameters on one device, whose norms are computed together.

    Attributes:
        positions: Where they are among those of the run.
        places: The same as an array.
        parameters: The parameters.
        is_plain: Whether they are all float32, or all float64.
    """

    positions: list[int]
    places: Any
    parameters: list[Tensor]
    is_plain: bool


def split_by_device(positions: Iterable[int], parameters: Sequence[Tensor]) -> list[Part]:
    """Return parameters by device."""
    found: dict[torch.device, list[int]] = {}
    for at in positions:
        found.setdefault(parameters[at].device, []).append(at)
    parts = []
    for places in found.values():
        own = [parameters[at] for at in places]
        dtypes = {each.dtype for each in own}
        is_plain = dtypes in ({torch.float32}, {torch.float64})
        parts.append(Part(places, np.array(places), own, is_plain))
    return parts


def split_tensors(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Return tensors by device."""
    found: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        found.setdefault(tensor.device, []).append(tensor)
    return list(found.values())


def has_closure(args: Any, kwargs: Any) -> bool:
    """Whether an optimizer's step was given a closure."""
    return (args[1] if len(args) > 1 else kwargs.get("closure")) is not None


class Nesting:
    """Which calls of `step` are made by another `step` of the same optimizer, as `super().step()`.

    PyTorch runs the hooks of an optimizer in both, and only those of the outer one are a step. A
    call out of which an error came never ends; it is known by its absence from the stack.
    """

    def __init__(self) -> None:
        self._inner: dict[int, int] = {}

    def enter(self, optimizer: torch.optim.Optimizer) -> bool:
        """Note that a call begins; return whether it is an outer one."""
        key = id(optimizer)
        if key in self._inner and _is_nested(optimizer):
            self._inner[key] += 1
            return False
        self._inner[key] = 0
        return True

    def leave(self, optimizer: torch.optim.Optimizer) -> bool:
        """Note that a call ends; return whether it is an outer one."""
        inner = self._inner.pop(id(optimizer), 0)
        if inner:
            self._inner[id(optimizer)] = inner - 1
        return not inner


def _is_nested(optimizer: torch.optim.Optimizer) -> bool:
    code = getattr(type(optimizer).step, "__code__", None)
    frame: Any = sys._getframe()
    count = 0
    while frame is not None and count < _NESTED:
        if frame.f_code is code:
            args = frame.f_locals.get("args", ())
            count += bool(args) and args[0] is optimizer
        frame = frame.f_back
    return count >= _NESTED


def read_rates(optimizer: torch.optim.Optimizer) -> Iterable[float]:
    """Yield the learning rate of each group."""
    for group in optimizer.param_groups:
        rate = group.get("lr", math.nan)
        yield rate if type(rate) is float else float(rate)
