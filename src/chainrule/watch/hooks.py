"""Hooks of modules that leave nothing in what is copied or saved of a model.

Hooks for all modules of the process would leave nothing either, but `torch.compile` objects to
them. A hook of a module is copied and pickled with it, so here its copy is a function of the
standard library that does nothing.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch


class ModuleHook:
    """Calls a function, unless the module's code is being compiled: then it is not there."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> None:
        """Call the function."""
        if not torch.compiler.is_compiling():
            self._call(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (nullcontext(), "__exit__")  # takes anything, returns nothing
