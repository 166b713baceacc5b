"""Every private name of PyTorch that watching uses, each behind a function of its own.

A PyTorch that lacks one of them costs one feature: the functions then say that there is nothing to
be had.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def is_compiled(module: nn.Module) -> bool:
    """Whether calls of a module itself run code that `torch.compile` made."""
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None


def has_compiled() -> bool:
    """Whether `torch.compile` has compiled anything in this process, as far as is known."""
    dynamo: Any = sys.modules.get("torch._dynamo.utils")
    return dynamo is not None and bool(dynamo.counters.get("frames"))


def read_scale(scaler: Any) -> Tensor | float:
    """Return the scale of a gradient scaler, on its device if that can be: nothing waits."""
    scale = getattr(scaler, "_scale", None)
    return scale if isinstance(scale, Tensor) else float(scaler.get_scale())


def is_unscaled(scaler: Any, optimizer: torch.optim.Optimizer) -> bool:
    """Whether a scaler has divided the gradients of an optimizer already in this step."""
    states = getattr(scaler, "_per_optimizer_states", {})
    stage = states[id(optimizer)]["stage"] if id(optimizer) in states else None
    return getattr(stage, "name", "") == "UNSCALED"


def queue_after_backward(call: Callable[[], None]) -> bool:
    """Have a function called at the end of the backward pass that runs; `False` if it cannot be."""
    engine: Any = getattr(torch.autograd.Variable, "_execution_engine", None)
    if engine is None:
        return False
    engine.queue_callback(call)
    return True


CLIPPING = "_clip_grads_with_norm_"
"""The function of `torch.nn.utils.clip_grad` that scales gradients down, and gets their norm."""


def find_process_store() -> Any:
    """Return what processes exchange small values by without waiting for each other, or `None`."""
    try:
        from torch.distributed.distributed_c10d import _get_default_store

        return _get_default_store()
    except (ImportError, ValueError, RuntimeError):
        return None
