"""Steps that are left out because a gradient is not finite."""

from collections.abc import Callable
from functools import wraps
from types import MethodType
from typing import Any

import torch

from chainrule.watch.gradients import measure_norms, take_local
from chainrule.watch.parts import split_tensors


def has_bad_gradient(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a gradient that an optimizer would use is infinite or undefined here."""
    gradients = [
        take_local(gradient)
        for group in optimizer.param_groups
        for each in group["params"]
        if (gradient := each.grad) is not None
    ]
    with torch.no_grad():
        return bool(gradients) and not all(
            bool(torch.isfinite(measure_norms(part)).all()) for part in split_tensors(gradients)
        )


def guard_step(
    optimizer: torch.optim.Optimizer, must_skip: Callable[[torch.optim.Optimizer], bool]
) -> Callable[[], None]:
    """Have a function decide before each step whether the optimizer takes it.

    Returns:
        What undoes it.
    """
    original: Any = optimizer.step
    had_own = "step" in vars(optimizer)
    is_active = [True]

    @wraps(original)
    def step(self: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> Any:
        if not is_active or isinstance(self, torch.optim.LBFGS):
            return original(*args, **kwargs)
        closure = args[0] if args else kwargs.get("closure")
        if closure is not None:  # it computes the gradients, which the optimizer would have it do
            with torch.enable_grad():
                loss = closure()
            if must_skip(self):
                return loss
            rest = {name: value for name, value in kwargs.items() if name != "closure"}
            return original(lambda: loss, *args[1:], **rest)
        return None if must_skip(self) else original(*args, **kwargs)

    bound = MethodType(step, optimizer)
    vars(optimizer)["step"] = bound

    def undo() -> None:
        is_active.clear()
        if vars(optimizer).get("step") is bound:
            if had_own:
                vars(optimizer)["step"] = original
            else:
                del vars(optimizer)["step"]

    return undo
