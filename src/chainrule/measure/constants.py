"""What of a loss depends on the model and is constant all the same, for it was cut off the graph.

A sum shows in the graph that something was added that requires no gradient, but not what: a number
written in Python leaves the same trace as a term whose gradient was lost. So while the loss is
computed, results without gradient are followed that were made from tensors with one.
"""

import weakref
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor, is_grad_enabled

_SUBTRACT = frozenset(("sub", "sub_", "__sub__", "__isub__"))
SUMS = _SUBTRACT | {"add", "add_", "__add__", "__radd__", "__iadd__", "__rsub__", "rsub"}
"""Names of functions that add or subtract."""

_DETACHED_BY = frozenset(("detach", "detach_", "item", "__get__"))

_MOST = 256
"""Most tensors that are followed at a time."""


class Constants:
    """Follows what was cut off the graph, and notes where it is added to a number with a gradient.

    What is computed while gradients are off counts as detached on purpose.
    """

    def __init__(self) -> None:
        self._cut: dict[int, tuple[weakref.ref[Tensor], bool, str]] = {}
        self._added: dict[Any, tuple[Tensor, bool, str]] = {}

    @property
    def are_there(self) -> bool:
        """Whether anything was cut off so far."""
        return bool(self._cut)

    def note_sum(self, name: str, args: Sequence[Any], result: Tensor) -> None:
        """After something was added that gave a result with a gradient."""
        if result.numel() != 1:
            return
        for at, each in enumerate(args):
            known = self._find(each)
            if known is not None and each.numel() == 1:
                value = each.detach().reshape(()).clone()
                is_taken_off = name in _SUBTRACT and at == 1
                self._added[result.grad_fn] = -value if is_taken_off else value, *known

    def note_constant(self, name: str, args: Sequence[Any], result: Tensor) -> None:
        """After a function that gave a result without gradient."""
        if name.endswith("_like") or name.startswith("new_"):
            return
        is_meant = name in _DETACHED_BY or not is_grad_enabled()
        for each in _flatten(args):
            if not isinstance(each, Tensor):
                continue
            known = self._find(each)
            if each.requires_grad or known is not None:
                if len(self._cut) >= _MOST:
                    del self._cut[next(iter(self._cut))]
                self._cut[id(result)] = weakref.ref(result), *(known or (is_meant, name.strip("_")))
                return

    def is_cut(self, value: Tensor) -> bool:
        """Whether a tensor was made from values with a gradient, and has none itself."""
        return self._find(value) is not None

    def _find(self, value: Any) -> tuple[bool, str] | None:
        """Return whether a tensor was detached on purpose, and by which function it was cut off.

        `None` if it was not.
        """
        entry = self._cut.get(id(value))
        return entry[1:] if entry is not None and entry[0]() is value else None

    def sum_up(self, sums: Collection[Any]) -> tuple[float, float, tuple[str, ...]]:
        """Return the sum of what was cut off and of what was detached, and what cut it off.

        Args:
            sums: The nodes that add up the loss.
        """
        totals = [0.0, 0.0]
        names = []
        for node, (value, on_purpose, name) in self._added.items():
            if node in sums:
                totals[on_purpose] += float(value)
                names += [] if on_purpose else [name]
        self._cut.clear()
        self._added.clear()
        return totals[0], totals[1], tuple(dict.fromkeys(names))


def _flatten(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from value
        else:
            yield value
