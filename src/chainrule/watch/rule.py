"""What a rule about a training run is."""

from collections.abc import Callable
from dataclasses import dataclass, field

from chainrule.watch.history import History
from chainrule.watch.records import Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a rule found at a step.

    Attributes:
        value: The number that went out of its bound.
        bound: The bound.
        summary: What happened, in one sentence.
        layer: Where; "" if it is nowhere in particular.
        cause: Why, if it can be said better than the rule says it.
        action: What to do, if it can be said better than the rule says it.
        evidence: Measured numbers behind it.
    """

    value: float
    bound: float
    summary: str
    layer: str = ""
    cause: str = ""
    action: str = ""
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A number that a rule compares with.

    Attributes:
        value: The number.
        unit: What it is a bound of.
        source: Where it comes from.
    """

    value: float
    unit: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule about a run.

    Attributes:
        name: Key of the rule.
        kind: The trouble in two or three words.
        find: Looks at a history; `None` if it has nothing to say now. It says where.
        bounds: What it compares with, and why.
        cause: Why it happens, in one sentence.
        action: What to do, in one sentence.
        follows: Names of rules whose trouble brings this one about: while theirs lasts, this is
            no trouble of its own.
        repeats: Steps without the trouble after which it is a new one.
        outlasts: Whether such a trouble explains this one however long ago it was.
    """

    name: str
    kind: str
    find: Callable[[History], Finding | None] = field(repr=False)
    bounds: tuple[Bound, ...]
    cause: str
    action: str
    follows: tuple[str, ...] = ()
    repeats: int = 100
    outlasts: bool = False
