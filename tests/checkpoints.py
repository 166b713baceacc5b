"""A checkpoint as libraries write their own: its backward pass runs another one."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class HandCheckpoint(torch.autograd.Function):
    """Runs a function without a graph, and again with one on the way back."""

    @staticmethod
    def forward(ctx: Any, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        ctx.run = run
        ctx.save_for_backward(x)
        with torch.no_grad():
            return run(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor | None]:
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            y = ctx.run(x)
        torch.autograd.backward(y, gradient)
        return None, x.grad
