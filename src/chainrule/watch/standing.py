"""How the parameters of a run stand: which ask for gradients, and which optimizer moves them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chainrule.watch.records import RunFacts

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Standing:
    """How the parameters of a run stand at a step.

    Attributes:
        asked: Which of them ask for a gradient.
        held: Which of them a watched optimizer holds.
        elsewhere: Which of them another optimizer of this process holds, and steps.
        groups: Position of each one's learning rate in `StepRecord.rates`; −1 if it has none.
        unused: Tensors that watched optimizers hold though the model has none of them, and that
            have no gradient.
        strays: Names of parameters that are new in the model, have gradients, and that no
            optimizer holds.
    """

    asked: Flags
    held: Flags
    elsewhere: Flags
    groups: NDArray[np.int_]
    unused: int = 0
    strays: tuple[str, ...] = ()


def read_standing(facts: RunFacts) -> Standing:
    """Return how the parameters stood when the run began.

    Args:
        facts: What is known of the run.
    """
    starts = np.cumsum([0, *(len(each.groups) for each in facts.optimizers)])
    groups = [
        -1
        if each.optimizer is None or each.group is None or each.optimizer >= len(starts)
        else int(starts[each.optimizer]) + each.group
        for each in facts.parameters
    ]
    held = np.array([each.optimizer is not None for each in facts.parameters], bool)
    return Standing(
        asked=np.array([each.trained for each in facts.parameters], bool),
        held=held,
        elsewhere=np.zeros(len(held), bool),
        groups=np.array(groups, int),
    )
