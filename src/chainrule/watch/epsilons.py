"""The ε of Adam and its kin, where the weights are in a format that rounds it to 0."""

from chainrule._utils.numbers import format_number
from chainrule.flow.precision import FORMATS
from chainrule.watch.history import History

_DIVIDING = frozenset({"Adam", "AdamW", "NAdam", "RMSprop", "Adagrad", "Adamax"})
"""Optimizers that divide by a root of squared gradients plus an ε."""


def describe_lost_epsilon(history: History) -> str:
    """Return that an ε is 0 in the format of the weights that it is for; "" if none is.

    Args:
        history: The run.
    """
    for each in history.facts.parameters:
        if each.dtype != "float16" or each.optimizer is None or each.group is None:
            continue
        held = history.facts.optimizers[each.optimizer]
        settings = held.groups[each.group] if each.group < len(held.groups) else {}
        epsilon = settings.get("eps")
        if held.kind not in _DIVIDING or epsilon is None or settings.get("fused"):
            continue
        if epsilon <= 0.5 * FORMATS[each.dtype].smallest:
            return (
                f"The weights are in {each.dtype}, which rounds the ε of {held.kind} "
                f"({format_number(epsilon)}) to 0, and small squares of gradients as well: where "
                "both are 0, a step divides by 0, and the weights are infinite or undefined after "
                "it."
            )
    return ""
