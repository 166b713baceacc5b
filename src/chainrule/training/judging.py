"""Whether losses fell enough to say that a model learns."""

import math
from collections.abc import Sequence

from chainrule.flow.trial import HARDLY, LEARNED, TermTrial, TrialOutcome

DIVERGED = 10.0
"""A loss that grows to this many times what it was has diverged."""

_CERTAIN = 2.0
"""Standard errors by which a loss must have fallen."""


def judge(
    before: Sequence[float], after: Sequence[float], *, guessing: float | None = None
) -> tuple[TrialOutcome, float]:
    """Return whether losses fell enough to say that a model learns, and how far they fell.

    The scale of the loss does not matter. What counts is how far it falls from where it was, or
    from what guessing gives if that is lower, on the way to 0; a loss that can be negative has no
    floor, and its fall is compared with the larger of its sizes before and after.

    Args:
        before: Losses of the batches kept aside, before training.
        after: The same batches after training.
        guessing: Mean loss of the best answer that does not depend on the input, if it is known.

    Returns:
        The outcome, and the share of the way that was gone: 1 is all of it.

    Example:
        >>> judge([2.3], [0.4])[0].value, judge([50.0], [2.3], guessing=2.3)[0].value
        ('trained', 'flat')
    """
    if not all(map(math.isfinite, (*before, *after))):
        return TrialOutcome.NON_FINITE, math.nan
    start, end = math.fsum(before) / len(before), math.fsum(after) / len(after)
    falls = [old - new for old, new in zip(before, after, strict=True)]
    error = _estimate_error(falls)
    if end > start + (DIVERGED - 1) * abs(start) or (end > 1.5 * start > 0 and end - start > error):
        return TrialOutcome.DIVERGED, _share(start, end)
    if start - end <= _CERTAIN * error:
        return TrialOutcome.FLAT, min(0.0, _share(start, end))
    level = start if guessing is None else min(start, guessing)
    learned = _share(level, end)
    if learned >= LEARNED:
        return TrialOutcome.TRAINED, learned
    if learned >= HARDLY:
        return TrialOutcome.SLOW, learned
    is_above = learned < -LEARNED and _share(start, end) >= HARDLY
    return (TrialOutcome.FALLING if is_above else TrialOutcome.FLAT), learned


def judge_term(name: str, before: Sequence[float], after: Sequence[float]) -> TermTrial:
    """Return what became of one named term of the loss.

    Args:
        name: Its name.
        before: The term on the batches kept aside, before training.
        after: The same after training.

    Example:
        >>> judge_term("start", [1.0, 1.2], [1.0, 1.21]).fell
        False
    """
    start, end = math.fsum(before) / len(before), math.fsum(after) / len(after)
    falls = [old - new for old, new in zip(before, after, strict=True)]
    fell = start - end > _CERTAIN * _estimate_error(falls) and _share(start, end) >= HARDLY
    return TermTrial(name=name, before=start, after=end, fell=fell)


def _share(level: float, end: float) -> float:
    size = max(abs(level), abs(end))
    return (level - end) / size if size else 0.0


def _estimate_error(falls: Sequence[float]) -> float:
    """Return the standard error of a mean; 0 for a single value."""
    if len(falls) < 2:
        return 0.0
    mean = math.fsum(falls) / len(falls)
    variance = math.fsum((fall - mean) ** 2 for fall in falls) / (len(falls) - 1)
    return math.sqrt(variance / len(falls))
