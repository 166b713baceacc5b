"""Tensors that are given to a model and changed in place by it, though they are needed again."""

import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from chainrule._utils.user_code import read_line
from chainrule.flow.quantity import Quantity
from chainrule.flow.slips import SlipFlow
from chainrule.measure._torch_internals import find_base, is_functorch_wrapped, read_version
from chainrule.measure.sharing import finish_all
from chainrule.measure.slips import Place

_MOST = 8
"""Most tensors that are looked at."""

_SAMPLE = 1_024
"""About how many of the values of each are compared."""


@dataclass(slots=True, eq=False)
class _Given:
    """A tensor that was given to the model.

    `owner` is the tensor itself, or the one that it is a view of; `version` says how often it was
    changed before.
    """

    tensor: Tensor | None
    owner: weakref.ref[Tensor]
    shape: tuple[int, ...]
    version: int
    sample: Tensor
    changed: float = 0.0
    name: str = ""
    place: Place | None = None


class Overwrites:
    """Watches what is given to a model while it runs.

    Attributes:
        is_open: Whether a tensor is watched now.
    """

    def __init__(self) -> None:
        self.is_open = False
        self._depth = 0
        self._now: list[_Given] = []
        self._found: list[_Given] = []

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Before a module; the outermost counts."""
        self._depth += 1
        if self._depth > 1 or len(self._found) >= _MOST:
            return
        for tensor in (*args, *kwargs.values()):
            if not _is_watched(tensor) or len(self._now) >= _MOST:
                continue
            version = read_version(tensor)
            base = find_base(tensor)
            if version is not None:
                owner = weakref.ref(tensor if base is None else base)
                shape = tuple(tensor.shape)
                self._now.append(_Given(tensor, owner, shape, version, _take_sample(tensor)))
        self.is_open = bool(self._now)

    def leave(self, module: nn.Module, args: Any, result: Any) -> None:
        """After a module."""
        self._depth -= 1
        if self._depth > 0:
            return
        for each in self._now:
            tensor, each.tensor = each.tensor, None
            if tensor is not None and read_version(tensor) != each.version:
                after = _take_sample(tensor)
                is_same = (after == each.sample) | (after.isnan() & each.sample.isnan())
                each.changed = 1.0 - float(is_same.double().mean())
                each.place = each.place or Place("", "", None)
                self._found.append(each)
        self._now.clear()
        self.is_open = False

    def note(self, name: str, find_place: Callable[[], Place]) -> None:
        """After a function of PyTorch: whether it was the one that changed a tensor."""
        for each in self._now:
            tensor = each.tensor
            if each.place is None and tensor is not None and read_version(tensor) != each.version:
                each.name, each.place = name, find_place()

    def conclude(self) -> tuple[SlipFlow, ...]:
        """Return what was changed and is still there; after the graph was released."""
        return tuple(
            SlipFlow(
                kind="overwritten",
                operation=each.name or "a function",
                module=each.place.module,
                shape=each.shape,
                result=each.shape,
                value=Quantity([each.changed]),
                is_in_loss=each.place.is_in_loss,
                file=each.place.file[-1000:],
                line=each.place.line,
                code=read_line(each.place.file, each.place.line),
            )
            for each in self._found
            if each.place is not None and each.changed > 0.0 and each.owner() is not None
        )


def _is_watched(tensor: Any) -> bool:
    return (
        type(tensor) is Tensor
        and tensor.grad_fn is None
        and not tensor.requires_grad
        and tensor.layout == torch.strided
        and not (tensor.is_nested or tensor.is_quantized or tensor.is_meta)
        and tensor.numel() > 1
        and not is_functorch_wrapped(tensor)
    )


def _take_sample(tensor: Tensor) -> Tensor:
    """Return a copy of evenly spaced values."""
    values = tensor.detach()
    each = max(2, math.ceil(_SAMPLE ** (1 / max(1, values.dim()))))
    for dim, size in enumerate(values.shape):
        values = values[(slice(None),) * dim + (slice(None, None, max(1, size // each)),)]
    return values.clone()


@contextmanager
def watch_overwrites(
    overwrites: Overwrites, modules: Sequence[nn.Module], wrap: Callable[..., Any]
) -> Iterator[None]:
    """Hook modules, of which the outermost that runs counts; unhook them on leaving.

    Args:
        overwrites: What watches.
        modules: The model and the modules that may be called by themselves.
        wrap: Makes a hook of which no watch sees the operations.
    """
    handles: list[Any] = []
    enter, leave = wrap(overwrites.enter), wrap(overwrites.leave)
    try:
        for module in modules:
            handles.append(module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True))
            handles.append(module.register_forward_hook(leave, always_call=True))
        yield
    finally:
        finish_all(handle.remove for handle in handles)
