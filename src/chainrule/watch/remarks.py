"""Facts that are no trouble where they are meant, and that whoever did not mean them must hear.

They are said once, in the log, and are no alarms: to freeze most of a network in mid-run is as
often a plan as a slip, and a loss that still falls does not tell which.
"""

from collections.abc import Iterator

import numpy as np

from chainrule._utils.numbers import format_number, format_share
from chainrule.watch.gradient_rules import FROZEN_STEPS
from chainrule.watch.history import FROZEN, NEAR, History
from chainrule.watch.rate_rules import list_unheld

MUCH = 0.5
"""Share of the numbers that were trained, of which it is said that they are not any more."""

DECAY = 0.1
"""Learning rate × weight decay above which weights halve within seven steps."""

_DECAYING = ("SGD", "AdamW")
"""Optimizers that take their weight decay as it is; Adam scales it with the gradient."""


def find_remarks(history: History) -> Iterator[tuple[str, str]]:
    """Yield what is to be said now: a subject, to say it once, and a sentence.

    Args:
        history: What is known of the run; ask after how its parameters stand was read.

    Example:
        >>> from chainrule.watch.records import RunFacts
        >>> list(find_remarks(History(RunFacts(name="a", model="M", parameters=(), optimizers=()))))
        []
    """
    for subject, find in _REMARKS.items():
        words = find(history)
        if words:
            yield subject, words


def _find_frozen(history: History) -> str:
    """Return that most of what was trained has asked for no gradient for some steps."""
    trained, asked = history.had_gradient, history.is_trained
    lost = trained & ~asked
    if not lost.any():
        return ""
    norms = history.get_norms(NEAR)
    if len(norms) < FROZEN_STEPS or history.has_turns:
        return ""
    is_frozen = (norms[:, lost] == FROZEN).all(1)
    if not is_frozen[-FROZEN_STEPS:].all():
        return ""
    share = float(history.sizes[lost].sum() / history.sizes[trained].sum())
    if share < MUCH:
        return ""
    length = len(norms) if is_frozen.all() else int((~is_frozen[::-1]).argmax())
    name = history.facts.parameters[int(np.flatnonzero(lost)[0])].name
    return (
        f"At step {history.step - length + 1} {_count(lost)} that had been trained, {name!r} "
        f"first, with {format_share(share)} of all trained numbers, stopped asking for gradients: "
        "something set `requires_grad` to false. They do not change any more. If that is not "
        "meant, look for what froze them; this is no alarm, and said once."
    )


def _find_unheld(history: History) -> str:
    """Return that some parameters get gradients in the first step, and nobody moves them."""
    if history.count > 1:
        return ""
    lost = list_unheld(history)
    if not lost.any() or not (history.is_trained & history.is_held).any():
        return ""
    reached = history.is_trained & (history.get_norms(1)[0] > 0.0)
    share = float(history.sizes[lost].sum() / history.sizes[reached].sum())
    name = history.facts.parameters[int(np.flatnonzero(lost)[0])].name
    return (
        f"{_count(lost)} get gradients, {name!r} first, with {format_share(share)} of the numbers "
        "that do, but are in no optimizer that has stepped: they stay as they are. If that is "
        "meant, `requires_grad_(False)` saves their gradients; else give them to the optimizer. "
        "This is no alarm, and said once."
    )


def _find_decay(history: History) -> str:
    """Return that weight decay alone takes a good part of weights in each step."""
    if history.count > 1:
        return ""
    for optimizer in history.facts.optimizers:
        if optimizer.kind not in _DECAYING:
            continue
        for settings in optimizer.groups:
            taken = settings.get("lr", 0.0) * settings.get("weight_decay", 0.0)
            if taken >= DECAY:
                return (
                    f"A group of {optimizer.kind} has a learning rate of "
                    f"{format_number(settings['lr'])} and a weight decay of "
                    f"{format_number(settings['weight_decay'])}: decay alone takes "
                    f"{format_share(taken)} of its weights in each step. Usual is less than "
                    "0.01 %. This is no alarm, and said once."
                )
    return ""


def _count(flags: np.ndarray) -> str:
    count = int(flags.sum())
    return f"{count} parameter{'' if count == 1 else 's'}"


_REMARKS = {"frozen": _find_frozen, "unheld": _find_unheld, "decay": _find_decay}
