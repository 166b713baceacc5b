"""The errors that chainrule raises on purpose.

Every message states what must hold, what came instead, and how to fix it.

    ChainruleError
    ├── SpecError         a network specification that cannot be (also a ValueError)
    ├── InspectionError   a model or loss that cannot be measured (also a RuntimeError)
    │   └── LossError     `compute_loss` did not return a differentiable scalar
    ├── RemedyError       a remedy does not fit the model (also a ValueError)
    ├── FlowFileError     a flow file that is damaged or from a newer version (also a ValueError)
    ├── WatchError        a training run that cannot be watched (also a ValueError)
    ├── TrainingStopped   an alarm of a kind that shall stop the run (also a RuntimeError)
    ├── RunFileError      a run file that is damaged, taken, or none (also a ValueError)
    ├── PackageError      a package is needed that is not installed (also an ImportError)
    ├── SweepError        a sweep that cannot start or go on (also a ValueError)
    └── TargetError       the command line's FILE.py:FUNCTION cannot be loaded (also a ValueError)
"""

from collections.abc import Iterable, Sequence


class ChainruleError(Exception):
    """Base of every error that chainrule raises on purpose.

    Example:
        >>> issubclass(SpecError, ChainruleError)
        True
    """


class SpecError(ChainruleError, ValueError):
    """A network specification is out of range, contradictory or unknown."""


class InspectionError(ChainruleError, RuntimeError):
    """A model could not be measured."""


class LossError(InspectionError):
    """`compute_loss` did not return a scalar tensor attached to the graph."""


class RemedyError(ChainruleError, ValueError):
    """A remedy cannot be looked for, or does not fit the model that it is applied to."""


class FlowFileError(ChainruleError, ValueError):
    """A flow file is damaged, too large, or written by a newer chainrule."""


class WatchError(ChainruleError, ValueError):
    """A training run cannot be watched, or was asked for what it does not have."""


class TrainingStopped(ChainruleError, RuntimeError):  # noqa: N818  (an end that was asked for)
    """A watched run raised an alarm that it was told to stop at."""


class RunFileError(ChainruleError, ValueError):
    """A run file is damaged, held by another writer, no run at all, or cannot be written."""


class PackageError(ChainruleError, ImportError):
    """A package that somebody asked for by name is not installed."""


class SweepError(ChainruleError, ValueError):
    """A sweep cannot start, or cannot go on.

    Attributes:
        results: The results it had until then, whether or not they are in a store.
    """

    results: Sequence[object] = ()


class TargetError(ChainruleError, ValueError):
    """A `FILE.py:FUNCTION` or `package.module:FUNCTION` target cannot be used."""


def abbreviate(value: object) -> str:
    """Return what came, as a message shows it: at most 80 characters, all of them printable.

    Args:
        value: Anything, however large.

    Example:
        >>> abbreviate([1] * 1000)
        '[1, 1, 1, 1, 1, 1, ...]'
    """
    from reprlib import repr as shorten

    text = shorten(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def suggest(received: str, known: Iterable[str]) -> str:
    """Return a sentence listing the known names, led by the nearest to what came.

    Args:
        received: The unknown name.
        known: The names that would have been accepted, in display order.
    """
    from difflib import get_close_matches

    names = list(known)
    by_fold = {name.lower(): name for name in names}
    close = get_close_matches(received[:60].lower(), by_fold, n=1, cutoff=0.4)
    nearest = f"Did you mean {by_fold[close[0]]!r}? " if close else ""
    return f"{nearest}Known: {', '.join(names) or 'none'}."
