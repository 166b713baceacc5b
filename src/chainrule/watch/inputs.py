"""What the model read last, looked at when a gradient is zero or not finite: is it the batch?"""

import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from chainrule.measure._torch_internals import is_functorch_wrapped
from chainrule.measure.results import find_tensors
from chainrule.measure.statistics import is_cheap_to_read
from chainrule.watch.history import BadInput
from chainrule.watch.hooks import ModuleHook
from chainrule.watch.notices import Notices
from chainrule.watch.steps import Step

_MOST_CALLS = 64
"""Earlier calls of one step whose inputs are looked at, if they are still there."""


_MANY_CALLS = 100
"""Calls without a step: more than gradients of are usually added up."""


class InputKeeper:
    """Holds what the model read in its last call until its optimizer steps, and no longer.

    A backward pass holds it as well, so that this takes no memory at the peak.
    """

    def __init__(self, called: nn.Module, notices: Notices) -> None:
        """Hold from now on.

        Args:
            called: Whose hooks run when the model is called.
            notices: Says what fails.
        """
        self._notices = notices
        self._last: tuple[Any, Any] | None = None
        self._older: list[weakref.ref[Tensor]] = []
        self._calls = 0
        hook = ModuleHook(self._enter)
        self._handle = called.register_forward_pre_hook(hook, with_kwargs=True)

    def remove(self) -> None:
        """Hold nothing more."""
        self._handle.remove()
        self.release()

    def release(self) -> None:
        """After a step: let go of what was read for it."""
        self._last, self._calls = None, 0
        if self._older:
            self._older = []

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if not torch.is_grad_enabled():
            return
        if self._last is not None and len(self._older) < _MOST_CALLS:
            self._older += [weakref.ref(tensor) for _, tensor in find_tensors(self._last)]
        self._last = args, kwargs
        self._calls += 1
        if self._calls == _MANY_CALLS:
            self._notices.say(
                "no step",
                f"The model has run {_MANY_CALLS} times, with gradients, since an optimizer of "
                "this run stepped last. Is `optimizer.step()` called, and of this optimizer? If "
                "these runs are no training, `torch.no_grad()` spares them the graph.",
            )

    def finish(self, step: Step) -> BadInput | None:
        """Return what is wrong with the inputs of a step some gradients of which are odd.

        Args:
            step: The step, whose norms are measured. Those of a device are not waited for.
        """
        if not any(norms.is_odd() for _, norms, _ in step.norms):
            return None
        with self._notices.guard("looking at the inputs"), torch.no_grad():
            found = [each for each in self._list_inputs() if _is_readable(each[1])]
            for name, tensor in found:
                bad = _find_bad(name, tensor)
                if bad is not None:
                    return bad
            step.has_sound_input = any(bool(tensor.any()) for _, tensor in found)
            if found and not step.has_sound_input:
                name, tensor = max(found, key=lambda each: each[1].numel())
                return BadInput(name, tuple(tensor.shape), 0, 0) if tensor.numel() > 1 else None
        return None

    def _list_inputs(self) -> Iterator[tuple[str, Tensor]]:
        if self._last is not None:
            args, kwargs = self._last
            for at, value in enumerate(args):
                yield from _name_inputs("the input" if at == 0 else f"input {at}", value)
            for name, value in kwargs.items():
                yield from _name_inputs(f"{name!r}", value)
        for each in self._older:
            tensor = each()
            if tensor is not None:
                yield "the input of an earlier call", tensor


def _name_inputs(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
        return
    for path, tensor in find_tensors(value):
        yield f"{path!r} of {name}", tensor


def _is_readable(tensor: Tensor) -> bool:
    """Return whether numbers of an input can be looked at; what asks for gradients is no data."""
    if not tensor.is_floating_point() or is_functorch_wrapped(tensor) or tensor.requires_grad:
        return False
    return tensor.layout == torch.strided and is_cheap_to_read(tensor.device)


def _find_bad(name: str, tensor: Tensor) -> BadInput | None:
    """Return what is not finite in an input; −∞ is what masks are made of."""
    bad = tensor.isnan() | tensor.isposinf()
    count = int(bad.sum())
    if not count:
        return None
    rows = int(bad.flatten(1).any(1).sum()) if bad.dim() > 1 else count
    return BadInput(name, tuple(tensor.shape), count, rows)
