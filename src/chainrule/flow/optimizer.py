"""What a measurement knows of the optimizer: which parameters it holds, and at which rates."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import FailFast, Field, Strict, with_config

from chainrule.flow.records import CLOSED, Text

Rate = Annotated[float, Strict(), Field(ge=0)]
Part = Annotated[float, Strict(), Field(ge=0, le=1)]
Count = Annotated[int, Strict(), Field(ge=0, lt=2**31)]

Steps = Literal["gradient", "rescaled", "other"]

LOST_STEP = 10_000.0
"""From so many times the learning rate on a step is lost. In float16 it is up to 54 times with an ε
of 1e-4, 540 with 1e-5, 5,400 with 1e-6, 46,000 with 1e-7. Of four small classifiers each, all with
1e-7 or less were lost, three with 1e-6, one with 1e-5, and none with 1e-4 or more."""

SUITED_EPSILON = 1e-4
"""The least ε with which Adam trained all of them in float16, to what it reached in float32."""


@with_config(CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerFlow:
    """The optimizer that a model was inspected with.

    Attributes:
        name: Its class.
        steps: "gradient" if a step is the learning rate times the gradient (SGD), "rescaled" if it
            is about the learning rate in every entry (Adam and its kin), "other" if neither.
        rates: The learning rate of each of the flow's parameters, in their order; `None` for one
            that the optimizer does not hold.
        momentum: Momentum of SGD, 0 for others.
        foreign: Number of parameters that it holds and the model does not have.
        epsilon: What Adam and its kin add to the size of a gradient before they divide by it:
            gradients far below it hardly move anything. 0 for others.
        decays: The weight decay of each parameter, as `rates`; empty in older files.
        is_decoupled: Whether a step takes rate · decay · weight off the weight (AdamW), in place of
            adding decay · weight to the gradient.
        default_rate: The learning rate that its class takes if it is given none; `None` if it has
            no such rate.
        planned: The largest learning rate of each parameter that a schedule has written down
            (`initial_lr` or `max_lr`) or that it has now: a schedule may begin, and end, near 0.
            Empty in older files.
        rounded: Of each parameter in half precision, the share of the entries with a gradient that
            the first step leaves as they are, because the sum is rounded back to the old number.
            `None` for others, and where the size of a step is not known. Empty in older files.
        divided: Of each parameter in a format that is too narrow for the squares of gradients and
            ε, the share of the entries at which the next step divides by 0, or is more than
            ten thousand times the learning rate. `None` for others. Empty in older files.
        maximizes: Whether it makes the loss larger (`maximize=True`).

    Example:
        >>> found = OptimizerFlow(name="SGD", steps="gradient", rates=(0.1, None))
        >>> found.rates.count(None)
        1
    """

    name: Text
    steps: Steps
    rates: Annotated[tuple[Rate | None, ...], FailFast(), Field(max_length=100_000)]
    momentum: Annotated[float, Strict()] = 0.0
    foreign: Count = 0
    epsilon: Annotated[float, Strict(), Field(ge=0)] = 0.0
    decays: Annotated[tuple[Rate | None, ...], FailFast(), Field(max_length=100_000)] = ()
    is_decoupled: Annotated[bool, Strict()] = False
    maximizes: Annotated[bool, Strict()] = False
    default_rate: Rate | None = None
    planned: Annotated[tuple[Rate | None, ...], FailFast(), Field(max_length=100_000)] = ()
    rounded: Annotated[tuple[Part | None, ...], FailFast(), Field(max_length=100_000)] = ()
    divided: Annotated[tuple[Part | None, ...], FailFast(), Field(max_length=100_000)] = ()
