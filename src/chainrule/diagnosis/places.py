"""Where most of a product comes from: one layer or a few, or all of them alike."""

import math
from collections.abc import Iterable

from chainrule.diagnosis.factors import Part

MOST = 0.8
"""Share of all that goes the wrong way, in powers of ten, that a few modules must have."""

FEW = 3
"""Most modules that are few."""

LOCAL = 10.0
"""A factor of one module that differs from 1 by less stands for nothing by itself."""


def list_local(parts: Iterable[Part], *, grows: bool) -> tuple[str, ...]:
    """Return the modules that most of a product comes from, the first one met on the way first.

    Args:
        parts: The factors.
        grows: Whether large factors go the wrong way, or small ones.

    Returns:
        At most three names, and at most a third of all modules with a factor; none where more share
        in it, or where a factor is zero, infinite or undefined.

    Example:
        >>> from chainrule.flow.quantity import Quantity
        >>> names = ("d", "c", "b", "a")
        >>> parts = [Part(name, "Linear", 1, Quantity([1e-6 if name == "b" else 0.9]), "gradient")
        ...          for name in names]
        >>> list_local(parts, grows=False)
        ('b',)
    """
    logs: dict[str, float] = {}
    for part in parts:
        value = float(part.value)
        if not 0.0 < value < math.inf:
            return ()
        logs[part.name] = logs.get(part.name, 0.0) + (1 if grows else -1) * math.log10(value)
    total = math.fsum(log for log in logs.values() if log > 0.0)
    most = min(FEW, len(logs) // 3)
    ranked = sorted(logs, key=lambda name: -logs[name])
    for count in range(1, most + 1):
        few = ranked[:count]
        if math.fsum(logs[name] for name in few) >= MOST * total > 0.0:
            is_local = all(logs[name] >= math.log10(LOCAL) for name in few)
            return tuple(name for name in logs if name in few) if is_local else ()
    return ()


def word_names(names: Iterable[str]) -> str:
    """Return names in a clause: "'a', 'b' and 2 more".

    Example:
        >>> word_names(["a", "b", "c", "d"])
        "'a', 'b' and 2 more"
    """
    every = [repr(name or "(model)") for name in dict.fromkeys(names)]
    if len(every) > 3:
        return f"{', '.join(every[:2])} and {len(every) - 2:,} more"
    return " and ".join(filter(None, (", ".join(every[:-1]), *every[-1:])))
