"""`Trial`: what a short real training of copies of a model showed, in numbers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import FailFast, Field, PlainSerializer, PlainValidator, Strict, with_config

from chainrule._utils.numbers import encode_number, format_number
from chainrule.flow.quantity import decode_number
from chainrule.flow.records import CLOSED, Size, Text


class TrialOutcome(StrEnum):
    """What became of a model at one learning rate, the best first.

    Example:
        >>> list(TrialOutcome)[0].value
        'trained'
    """

    TRAINED = "trained"
    SLOW = "slow"
    FALLING = "not yet at guessing"
    FLAT = "flat"
    DIVERGED = "diverged"
    NON_FINITE = "non-finite"


OUTCOME_MEANINGS: Mapping[TrialOutcome, str] = MappingProxyType(
    {
        TrialOutcome.TRAINED: "the loss falls clearly",
        TrialOutcome.SLOW: "the loss falls, but little in so few steps",
        TrialOutcome.FALLING: "the loss falls, but is still above what guessing gives",
        TrialOutcome.FLAT: "the loss does not fall below what was there, or what guessing gives",
        TrialOutcome.DIVERGED: "the loss rises",
        TrialOutcome.NON_FINITE: "the loss becomes infinite or undefined",
    }
)
"""What each outcome means, in a few words."""


Number = Annotated[float, PlainValidator(decode_number), PlainSerializer(encode_number)]
"""How files are read and written: a number, or "Infinity", "-Infinity" or "NaN"."""

_MANY = 1_000

LEARNED = 0.1
"""From this share of the way from guessing to the floor of the loss on, it is said to train."""

LEAST_STEPS = 20
"""A loss that did not fall in fewer steps tells nothing."""

HARDLY = 0.01
"""Below this share, nothing was learned."""


@with_config(CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TermTrial:
    """What became of one named term of the loss, on the batches that a trial is judged on.

    Attributes:
        name: Its name.
        before: Its mean before the first step.
        after: Its mean after the last step; may be infinite or undefined.
        fell: Whether it fell by a hundredth or more, and by more than chance.

    Example:
        >>> TermTrial(name="kl", before=0.5, after=0.5, fell=False).describe()
        "'kl' (0.5 → 0.5)"
    """

    name: Text
    before: Number
    after: Number
    fell: Annotated[bool, Strict()]

    def __eq__(self, other: object) -> bool:
        return list_values(self) == list_values(other) if type(other) is type(self) else False

    def __hash__(self) -> int:
        return hash(list_values(self))

    @property
    def has_risen(self) -> bool:
        """Whether it rose by a hundredth or more."""
        return self.after - self.before >= HARDLY * max(abs(self.before), abs(self.after))

    def describe(self) -> str:
        """Return its name and its values before and after."""
        return f"{self.name!r} ({format_number(self.before)} → {format_number(self.after)})"


def list_values(record: Any) -> tuple[Any, ...]:
    """Return what a record holds, with words in place of numbers that equal nothing."""
    values = (getattr(record, name) for name in record.__dataclass_fields__)
    return tuple(encode_number(each) if type(each) is float else each for each in values)


@with_config(CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RateTrial:
    """What became of a copy of the model at one learning rate.

    Two are equal if all they hold is, undefined losses (NaN) included.

    Attributes:
        rate: The learning rate; of several groups, the first one's.
        steps: Optimizer steps that were taken.
        before: Mean loss of the batches that it is judged on, before the first step.
        after: The same after the last step; may be infinite or undefined.
        learned: Share of the way from the loss at the start (or from guessing, if that is lower)
            to the floor of the loss: 1 is all of it, 0 nothing, below 0 worse than before.
        outcome: What it amounts to.
        failed_at: The first step after which the loss was not finite, or ten times what it was;
            `None` if there was none.
        stopped: Whether it was left in favour of rates that did better.
        guessing: What the best constant answer reaches; `None` if not measured.
        terms: What became of the named terms of the loss; empty if it has none.
        moved: How far the weights that the optimizer holds have gone ÷ their norm at the start;
            `None` if not known.
        unchanged: Of those in a format of 16 bits, the share of entries that are to the last bit
            what they were; `None` if there are none.
        spoiled: Names of parameters that were finite at the start and hold infinite or undefined
            numbers in the end, whatever the loss is: what a step function or a comparison makes of
            NaN is finite. The first ones; empty in older files.

    Example:
        >>> found = RateTrial(
        ...     rate=0.1, steps=80, before=2.3, after=0.4, learned=0.83, outcome="trained"
        ... )
        >>> found.describe()
        'trained: loss 2.3 → 0.4 in 80 steps'
    """

    rate: Number
    steps: Size
    before: Number
    after: Number
    learned: Number
    outcome: TrialOutcome
    failed_at: Size | None = None
    stopped: Annotated[bool, Strict()] = False
    guessing: Number | None = None
    terms: Annotated[tuple[TermTrial, ...], FailFast(), Field(max_length=_MANY)] = ()
    moved: Number | None = None
    unchanged: Number | None = None
    spoiled: Annotated[tuple[Text, ...], FailFast(), Field(max_length=_MANY)] = ()

    def __eq__(self, other: object) -> bool:
        return list_values(self) == list_values(other) if type(other) is type(self) else False

    def __hash__(self) -> int:
        return hash(list_values(self))

    @property
    def standing(self) -> tuple[TermTrial, ...]:
        """The terms that did not fall, though the loss did."""
        if self.outcome not in (TrialOutcome.TRAINED, TrialOutcome.SLOW):
            return ()
        return tuple(term for term in self.terms if not term.fell and (term.before or term.after))

    def describe_standing(self, *, unmoved: bool = False) -> str:
        """Return the terms that did not fall though the loss did, in a sentence; "" if none.

        Args:
            unmoved: Leave out those that rose: a penalty may be the price of all the rest.
        """
        found = [term for term in self.standing if not (unmoved and term.has_risen)]
        if not found:
            return ""
        named = " and ".join(term.describe() for term in found)
        many = "" if len(found) == 1 else "s"
        return f"The term{many} {named} did not fall, though the whole loss did."

    def describe(self) -> str:
        """Return the outcome with the loss before and after, in a few words."""
        if self.outcome is TrialOutcome.NON_FINITE:
            return f"non-finite: {self.describe_loss()}"
        if self.outcome is TrialOutcome.DIVERGED and self.failed_at is not None:
            return f"diverged at step {self.failed_at}: {self.describe_loss()}"
        return f"{self.outcome}: {self.describe_loss()}"

    def describe_loss(self) -> str:
        """Return the loss before and after, in a few words."""
        if self.outcome is TrialOutcome.NON_FINITE and self.spoiled and math.isfinite(self.after):
            return (
                f"weights ({', '.join(map(repr, self.spoiled))}) are infinite or undefined by step "
                f"{self.failed_at}, though the loss is {format_number(self.after)}"
            )
        if self.outcome is TrialOutcome.NON_FINITE:
            return f"the loss is not finite after step {self.failed_at}"
        steps = f"{self.steps} step{'' if self.steps == 1 else 's'}"
        loss = f"loss {format_number(self.before)} → {format_number(self.after)} in {steps}"
        if self.outcome is TrialOutcome.FALLING and self.guessing:
            times = format_number(self.after / self.guessing)
            loss += f", still {times} times what guessing gives ({format_number(self.guessing)})"
        return f"{loss}{', then left for better rates' if self.stopped else ''}"


@with_config(CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerTrial:
    """What one optimizer did with copies of the model.

    Attributes:
        name: "SGD", "Adam", or the class of your optimizer.
        rates: One entry per learning rate that was tried, in rising order.
        skipped: Why nothing was tried; "" if something was.
        settings: What it was given beside a learning rate ("eps=0.0001"); "" if nothing, and in
            older files.
        lost: Which of its constants the format of the weights cannot hold, in a clause; "" if none.

    Example:
        >>> OptimizerTrial(name="SGD", rates=(), skipped="no room").best is None
        True
    """

    name: Text
    rates: Annotated[tuple[RateTrial, ...], FailFast(), Field(max_length=_MANY)]
    skipped: Text = ""
    settings: Text = ""
    lost: Text = ""

    @property
    def title(self) -> str:
        """Its name, with what it was given beside a learning rate."""
        return f"{self.name} ({self.settings})" if self.settings else self.name

    @property
    def best(self) -> RateTrial | None:
        """The rate that did best; of equal outcomes, the one that was tried to the end."""
        return min(
            self.rates,
            key=lambda each: (_order(each.outcome), each.stopped, -_rank(each.learned)),
            default=None,
        )

    @property
    def outcome(self) -> TrialOutcome | None:
        """What became of it at its best rate; `None` if none was tried."""
        return None if self.best is None else self.best.outcome


@with_config(CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a short real training of copies of a model showed.

    Attributes:
        optimizers: SGD and Adam, or your optimizer alone.
        passes: Forward and backward passes that it took; a forward pass alone counts as half.
        limit: The most passes that were allowed.
        fresh: Whether every step had a batch of its own, and the loss is of batches kept aside.
            If not, one batch is repeated: then Adam may learn it by heart, whatever the model.
        kept: Number of batches that the loss is judged on.
        guessing: What the best constant answer reaches on these batches; `None` if not measured.
        notes: What else must be known: fewer passes than planned, parameters left out.
        skipped: Why nothing was tried; "" if something was.

    Example:
        >>> Trial(optimizers=(), passes=0.0, limit=300, fresh=False, kept=0, skipped="no room")
        Trial(not tried: no room)
    """

    optimizers: Annotated[tuple[OptimizerTrial, ...], FailFast(), Field(max_length=_MANY)]
    passes: Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False)]
    limit: Size
    fresh: Annotated[bool, Strict()]
    kept: Size
    guessing: Number | None = None
    notes: Annotated[tuple[Text, ...], FailFast(), Field(max_length=_MANY)] = ()
    skipped: Text = ""

    def __repr__(self) -> str:
        if self.skipped:
            return f"Trial(not tried: {self.skipped})"
        parts = [
            f"{each.name} {each.outcome} at {each.best.rate:g}" for each in self.tried if each.best
        ]
        return f"Trial({', '.join(parts)}; {self.passes:g} passes)"

    @property
    def tried(self) -> tuple[OptimizerTrial, ...]:
        """The optimizers that were tried at some rate."""
        return tuple(each for each in self.optimizers if each.rates)

    @property
    def telling(self) -> tuple[OptimizerTrial, ...]:
        """Those that say whether the model learns: on one repeated batch, Adam does not."""
        return tuple(each for each in self.tried if self.fresh or not _memorizes(each))

    @property
    def trains(self) -> bool | None:
        """Whether some telling optimizer trains it; `None` if that was not found out."""
        if not self.telling:
            return None
        return any(each.outcome is TrialOutcome.TRAINED for each in self.telling)

    @property
    def fails(self) -> bool:
        """Whether every optimizer that was tried leaves the loss where it is, or spoils it."""
        learns = (TrialOutcome.TRAINED, TrialOutcome.SLOW)
        return bool(self.tried) and all(
            each.outcome not in learns
            and (each.outcome not in _UNDECIDED or _count_steps(each) >= LEAST_STEPS)
            for each in self.tried
        )

    @property
    def best(self) -> OptimizerTrial | None:
        """The optimizer that did best; the telling ones first."""
        return min(
            self.tried,
            key=lambda each: (
                each not in self.telling,
                _order(each.outcome or TrialOutcome.NON_FINITE),
                -_rank(each.best.learned if each.best else math.nan),
            ),
            default=None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it: "Infinity" and "NaN" where a loss is not finite."""
        return {
            "trains": self.trains,
            "passes": self.passes,
            "limit": self.limit,
            "fresh": self.fresh,
            "kept": self.kept,
            "guessing": None if self.guessing is None else encode_number(self.guessing),
            "notes": list(self.notes),
            "skipped": self.skipped,
            "optimizers": [
                {
                    "name": each.name,
                    "skipped": each.skipped,
                    "settings": each.settings,
                    "lost": each.lost,
                    "best_rate": encode_number(each.best.rate) if each.best else None,
                    "outcome": str(each.outcome) if each.outcome else None,
                    "rates": [
                        {
                            "rate": encode_number(rate.rate),
                            "steps": rate.steps,
                            "before": encode_number(rate.before),
                            "after": encode_number(rate.after),
                            "learned": encode_number(rate.learned),
                            "outcome": str(rate.outcome),
                            "failed_at": rate.failed_at,
                            "stopped": rate.stopped,
                            "terms": [
                                {
                                    "name": term.name,
                                    "before": encode_number(term.before),
                                    "after": encode_number(term.after),
                                    "fell": term.fell,
                                }
                                for term in rate.terms
                            ],
                            "moved": None if rate.moved is None else encode_number(rate.moved),
                            "spoiled": list(rate.spoiled),
                        }
                        for rate in each.rates
                    ],
                }
                for each in self.optimizers
            ],
        }


_UNDECIDED = (TrialOutcome.FALLING, TrialOutcome.FLAT)
"""What may change with more steps."""


def _count_steps(optimizer: OptimizerTrial) -> int:
    return max((rate.steps for rate in optimizer.rates), default=0)


ADAPTIVE = (
    "Adafactor",
    "Adadelta",
    "Adagrad",
    "Adam",
    "Adamax",
    "AdamW",
    "LBFGS",
    "Muon",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SparseAdam",
)
"""Optimizers that learn one batch by heart, however small its gradients are."""


def _memorizes(optimizer: OptimizerTrial) -> bool:
    """Whether success on one repeated batch tells nothing; failure does."""
    return optimizer.name in ADAPTIVE and optimizer.outcome in (
        TrialOutcome.TRAINED,
        TrialOutcome.SLOW,
    )


def _order(outcome: TrialOutcome) -> int:
    """Return the place of an outcome, the best first; of two that learned nothing, none is."""
    known = TrialOutcome.FLAT if outcome is TrialOutcome.FALLING else outcome
    return list(TrialOutcome).index(known)


def _rank(learned: float) -> float:
    return -math.inf if math.isnan(learned) else learned
