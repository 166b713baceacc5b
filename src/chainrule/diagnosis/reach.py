"""Which weights the loss does not reach: whether the network is cut, or has parts not used.

Both look the same to a parameter: it has no gradient. A head for another task, a pooler, an expert
that no token chose, or cross-attention without an encoder is unused, and everything else trains. A
`detach()` in the middle of a network takes the gradient from all that comes before it.
"""

import re
from dataclasses import dataclass

from chainrule.diagnosis.structure import read_once
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.records import ParameterFlow

MAIN_BODY = 1 / 2
"""Share of the weights from which on unreached ones are more than a part left unused."""


@dataclass(frozen=True, slots=True)
class Unreached:
    """The weights that the loss does not depend on.

    Attributes:
        names: Their names.
        layers: Their numbers, of those that have one.
        called: How many of them belong to a module that ran.
        total: Number of weights in all.
        cut: Whether they are the main body of the network or its beginning, rather than parts that
            this loss does not use.
    """

    names: tuple[str, ...]
    layers: tuple[int, ...]
    called: int
    total: int
    cut: bool


def list_unreached(flow: GradientFlow) -> list[str]:
    """Return the names of the weights that the loss does not depend on."""
    return [p.name for p in flow.parameters if p.status == "unreached" and p.is_weight]


@read_once
def read_unreached(flow: GradientFlow) -> Unreached:
    """Return the weights that the loss does not depend on, and what they are to the network.

    The network is cut if some of them ran before any weight that is reached (what comes first feeds
    all the rest, so its gradient was lost on the way back); if they are more than half of the
    weights that ran; or if more than half of all weights never ran at all. Experts that no token
    chose do not count among the last: others of the same kind are reached.
    """
    weights = [p for p in flow.parameters if p.is_weight and p.status != "frozen"]
    unreached = [p for p in weights if p.status == "unreached"]
    first_calls: dict[str, int] = {}
    for position, call in enumerate(flow.layers):
        first_calls.setdefault(call.name, position)

    def find_call(parameter: ParameterFlow) -> int | None:
        """Return where the module ran that owns a parameter, under any of its names."""
        names = (parameter.name, *parameter.aliases)
        places = (first_calls.get(name.rpartition(".")[0]) for name in names)
        return min((place for place in places if place is not None), default=None)

    called = [place for p in unreached if (place := find_call(p)) is not None]
    reached = [p for p in weights if p.status == "measured"]
    starts = [place for p in reached if (place := find_call(p)) is not None]
    patterns = {_generalize(p.name) for p in reached}
    left = [p for p in unreached if find_call(p) is None and _generalize(p.name) not in patterns]
    cut = bool(unreached) and (
        (bool(called) and min(called) < min(starts, default=-1))
        or len(called) > MAIN_BODY * (len(called) + len(starts))
        or len(left) > MAIN_BODY * len(weights)
    )
    return Unreached(
        names=tuple(p.name for p in unreached),
        layers=tuple(sorted({p.layer for p in unreached if p.layer is not None})),
        called=len(called),
        total=sum(p.is_weight for p in flow.parameters),
        cut=cut,
    )


def describe_unreached(unreached: Unreached) -> str:
    """Return how many weights the loss does not reach, and one of them."""
    count = f"{len(unreached.names)} of {unreached.total} weight tensors"
    return f"the loss does not reach {count}, for example {unreached.names[0]!r}"


def _generalize(name: str) -> str:
    """Return a parameter's name without the numbers in it."""
    return re.sub(r"\d+", "*", name)
