"""Calls of PyTorch that no hook tells of: gradient scalers, and the clipping of gradients.

A scaler that finds an infinite gradient does not call the optimizer, so that no hook of the
optimizer runs. While something is watched, these two functions report to whoever watches; the last
one that ends puts them back.
"""

import threading
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils import clip_grad

from chainrule.measure._torch_internals import CLIPPING


class Listener(Protocol):
    """What is told of the calls. It must not raise."""

    def enter_scaler(self, scaler: Any, optimizer: torch.optim.Optimizer) -> None:
        """Before a scaler steps, or does not step, an optimizer."""

    def leave_scaler(self, optimizer: torch.optim.Optimizer) -> None:
        """After it returned."""

    def abandon_scaler(self, optimizer: torch.optim.Optimizer) -> None:
        """After it raised an error."""

    def note_clipping(self, parameters: Sequence[Tensor], total_norm: Tensor) -> None:
        """Before gradients are scaled down, if their norm is above a bound."""


class _Listening:
    """Who listens in this process; guarded by `lock`.

    A signal handler or the garbage collector may close a run at any moment, also while the same
    thread has the lock.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.listeners: dict[int, Listener] = {}
        self.undo: list[Callable[[], None]] = []


_LISTENING = _Listening()


def listen(listener: Listener) -> None:
    """Have a listener told from now on."""
    with _LISTENING.lock:
        if not _LISTENING.listeners:
            _LISTENING.undo = [_replace_scaler_step(), _replace_clipping()]
        _LISTENING.listeners[id(listener)] = listener


def unlisten(listener: Listener) -> None:
    """Have a listener told no more."""
    with _LISTENING.lock:
        _LISTENING.listeners.pop(id(listener), None)
        if not _LISTENING.listeners:
            for undo in _LISTENING.undo:
                undo()
            _LISTENING.undo = []


def _replace_scaler_step() -> Callable[[], None]:
    original: Any = torch.amp.GradScaler.step

    @wraps(original)
    def step(self: Any, optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> Any:
        listeners = tuple(_LISTENING.listeners.values()) if self.is_enabled() else ()
        for listener in listeners:
            listener.enter_scaler(self, optimizer)
        try:
            result = original(self, optimizer, *args, **kwargs)
        except BaseException:
            for listener in listeners:
                listener.abandon_scaler(optimizer)
            raise
        for listener in listeners:
            listener.leave_scaler(optimizer)
        return result

    return _put(torch.amp.GradScaler, "step", step, original)


def _replace_clipping() -> Callable[[], None]:
    original: Any = getattr(clip_grad, CLIPPING, None)
    if original is None:
        return lambda: None

    @wraps(original)
    def clip(
        parameters: Any, max_norm: float, total_norm: Tensor, *args: Any, **kwargs: Any
    ) -> None:
        if not isinstance(parameters, Tensor):
            parameters = list(parameters)
        held = [parameters] if isinstance(parameters, Tensor) else parameters
        for listener in () if torch.compiler.is_compiling() else (*_LISTENING.listeners.values(),):
            listener.note_clipping(held, total_norm)
        original(parameters, max_norm, total_norm, *args, **kwargs)

    return _put(clip_grad, CLIPPING, clip, original)


def _put(owner: Any, name: str, function: Any, original: Any) -> Callable[[], None]:
    """Replace an attribute; return what puts it back unless somebody has replaced it since."""
    setattr(owner, name, function)

    def undo() -> None:
        if getattr(owner, name) is function:
            setattr(owner, name, original)

    return undo
