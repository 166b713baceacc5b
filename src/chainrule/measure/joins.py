"""What enters a model beside values that have a gradient already: the two are joined, then read.

A table's columns next to an embedding of its categories, a condition next to an image's features:
what is joined needs a gradient, so it no longer shows that a part of it came from outside.
"""

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

JOINS = frozenset(("cat", "concat", "concatenate", "hstack"))
"""Names of functions that put tensors next to each other."""

_MOST = 16
"""Most joined tensors that are remembered at a time."""


class Joins:
    """Remembers of joined tensors which parts have no gradient, until a module reads them."""

    def __init__(self) -> None:
        self._parts: dict[int, tuple[weakref.ref[Tensor], tuple[Tensor, ...]]] = {}

    def note(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        """After a function of PyTorch."""
        if name not in JOINS or not isinstance(result, Tensor) or not result.requires_grad:
            return
        given = args[0] if args else kwargs.get("tensors")
        if not isinstance(given, list | tuple):
            return
        parts = tuple(
            each
            for each in given
            if isinstance(each, Tensor)
            and not each.requires_grad
            and not isinstance(each, nn.Parameter)
        )
        if parts:
            if len(self._parts) >= _MOST:
                del self._parts[next(iter(self._parts))]
            self._parts[id(result)] = weakref.ref(result), parts

    def find(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Return the parts of a tensor that have no gradient, if it was joined of several."""
        entry = self._parts.get(id(tensor))
        return entry[1] if entry is not None and entry[0]() is tensor else ()
