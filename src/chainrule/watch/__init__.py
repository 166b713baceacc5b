"""A training run: sampled while it trains, kept in one file, with alarms in words.

`chainrule.watch` is this package and can be called: `chainrule.watch(model, optimizer)` is
`chainrule.watch.watch(model, optimizer)`. What reads runs (store, rules) needs no torch, so what
watches is loaded when it is first asked for.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chainrule.watch.gradients import sharded_norms
    from chainrule.watch.run import Run
    from chainrule.watch.watching import watch

__all__ = ["Run", "sharded_norms", "watch"]

_HOMES = {"Run": "run", "sharded_norms": "gradients", "watch": "watching"}


class _CallableRoom(ModuleType):
    """This package as an object that can be called, like the function it is named after."""

    def __call__(self, *args: Any, **kwargs: Any) -> "Run":
        """Call `watch`."""
        return import_module(f"{__name__}.watching").watch(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableRoom

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a public name when it is first asked for (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
