"""What a rule of the diagnosis is: what it reads, its limit, and how it is worded."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Literal

from chainrule._utils.numbers import format_number
from chainrule.diagnosis.factors import Trace
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.records import WeightLayer


class Verdict(StrEnum):
    """What is wrong with a network, the gravest first; a cause comes before what it brings about.

    Example:
        >>> str(Verdict.VANISHING)
        'vanishing'
    """

    NON_FINITE = "non-finite"
    UNDERFLOW = "underflow"
    NO_GRADIENT = "no gradient"
    SHAPES = "mismatched shapes"
    SIGN = "wrong sign"
    FLAT_LOSS = "flat loss"
    OUTPUT = "output unsuited to the loss"
    SYMMETRIC = "symmetric units"
    INPUTS = "inputs out of scale"
    DEAD_UNITS = "dead units"
    EXPLODING = "exploding"
    LARGE_LOSS = "large loss"
    VANISHING = "vanishing"
    SATURATED = "saturated"
    SIGNAL_COLLAPSE = "signal collapse"
    OPTIMIZER = "optimizer"
    LEARNING_RATE = "learning rate"
    HARD_TO_TRAIN = "hard to train"
    HEALTHY = "healthy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One value that a rule compares with its bound, and what it was measured on.

    Attributes:
        value: The value; `None` if there is none here.
        layers: Numbers of the weight layers that it speaks of.
        modules: Names of the modules or parameters that it speaks of.
        where: Where it was measured, in words; "" if it is a value of the whole network.

    Example:
        >>> Reading(value=0.5, layers=(3,), modules=("fc3",), where="layer 3").value
        0.5
    """

    value: float | None
    layers: tuple[int, ...] = ()
    modules: tuple[str, ...] = ()
    where: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of the diagnosis: what it measures, its limit, and its words.

    Attributes:
        name: Key of the rule.
        verdict: What it says when a value is beyond the threshold.
        metric: What is compared, in words.
        threshold: The bound.
        beyond: ">" if values above the threshold are wrong, "<" if those below are.
        reason: Why it matters, in plain language.
        explain: Words why it matters in a flow; `None`, or "" there, for `reason`.
        source: Where reason or threshold come from.
        action: What to do next if this is the gravest finding, as words or as a function of the
            flow that finds them; "" for what its verdict says.
        read: Reads what is compared from a flow: one value per layer or module, or one in all.
        applies: Whether what is read counts as evidence in a flow; `read` itself answers for any.
        describe: Words a finding; `None` for the usual sentence of `describe_worst`.
        trace: Lists the factors of the metric, for the attribution; `None` if it has none.
        harmful: ">" if large factors make it worse, "<" if small ones do; as `beyond` if `None`.
        scale: How values compare: "ratio" in powers of ten, "share" (shown in percent) and "count"
            as they are.
        resolution: Below this a value above zero is rounding, and is reported as below it.
        of_layers: Whether every weight layer has a value of its own.
        clipped: Whether clipping gradients scales the value; ratios of layers stay as they are.
        of_gradients: Whether it bounds ‖∂loss/∂W‖, so that a limit of your own takes its place.
        feature: The feature of the model of viability that reads the same thing ("" for none).
        despite_overflow: Whether it says something of networks with infinite or undefined numbers.
        last: Whether it counts only where no other rule finds anything.
        ignored_by_remedies: Whether changes are judged as if it found nothing: weights that the
            loss does not reach, as an unused head has them, need not keep the rest from being
            helped.

    Example:
        >>> from chainrule.diagnosis.rules import RULES
        >>> RULES["dead_units"].format(0.75)
        '75 %'
    """

    name: str
    verdict: Verdict
    metric: str
    threshold: float
    beyond: Literal["<", ">"]
    reason: str
    source: str
    read: Callable[[GradientFlow], Sequence[Reading]] = field(repr=False)
    action: str | Callable[[GradientFlow], str] = field(default="", repr=False)
    applies: Callable[[GradientFlow], bool] = field(default=lambda flow: True, repr=False)
    describe: "Describe | None" = field(default=None, repr=False)
    explain: Callable[[GradientFlow], str] | None = field(default=None, repr=False)
    trace: Trace | None = field(default=None, repr=False)
    harmful: Literal["<", ">"] | None = None
    scale: Literal["ratio", "share", "count"] = "ratio"
    resolution: float = 0.0
    of_layers: bool = False
    clipped: bool = False
    of_gradients: bool = False
    feature: str = ""
    despite_overflow: bool = False
    last: bool = False
    ignored_by_remedies: bool = False

    def format(self, value: float) -> str:
        """Return a value as people read it: shares in percent."""
        if self.scale == "share" and math.isfinite(value):
            return f"{100 * value:.0f} %"
        if 0.0 < value < self.resolution:
            return f"below {format_number(self.resolution)}"
        return format_number(value)

    def is_beyond(self, value: float) -> bool:
        """Return whether a value is on the wrong side of the bound; an undefined one is not."""
        return value > self.threshold if self.beyond == ">" else value < self.threshold

    def finds(self, flow: GradientFlow) -> bool:
        """Return whether some value of a flow is on the wrong side, and counts as evidence."""
        return self.applies(flow) and any(
            each.value is not None and self.is_beyond(each.value) for each in self.read(flow)
        )


Describe = Callable[[Rule, GradientFlow, Sequence[Reading], Sequence[Reading]], str]
"""Given a rule, a flow, all that was read of it, and what of that is beyond the bound."""


def read_layers(
    layers: Sequence[WeightLayer], read: Callable[[WeightLayer], float | None]
) -> list[Reading]:
    """Return one reading per weight layer."""
    return [
        Reading(
            value=read(layer),
            layers=(layer.layer,),
            modules=(layer.name,),
            where=f"layer {layer.layer}",
        )
        for layer in layers
    ]


def read_whole(flow: GradientFlow, value: float | None) -> list[Reading]:
    """Return one reading of the whole network."""
    return [
        Reading(
            value=value,
            layers=tuple(layer.layer for layer in flow.weight_layers),
            modules=tuple(layer.name for layer in flow.weight_layers),
        )
    ]


def describe_worst(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    """Return a finding in words: the worst value, where it is, how many there are, the bound."""
    worst, value = find_worst(rule, wrong)
    where = f" at {worst.where}" if worst.where else ""
    bound = describe_bound(rule, readings, wrong)
    return f"{rule.metric} is {rule.format(value)}{where} ({bound})"


def find_worst(rule: Rule, readings: Sequence[Reading]) -> tuple[Reading, float]:
    """Return the reading with the worst value, the first of several, and its value."""
    known = [(each, each.value) for each in readings if each.value is not None]
    return (max if rule.beyond == ">" else min)(known, key=lambda pair: pair[1])


def describe_bound(rule: Rule, readings: Sequence[Reading], wrong: Sequence[Reading]) -> str:
    """Return the bound in words, and how many of several values are beyond it."""
    side = "above" if rule.beyond == ">" else "below"
    limit = f"{side} the limit of {rule.format(rule.threshold)}"
    if len(readings) <= 1:
        return limit
    noun = " layers" if rule.of_layers else ""
    return f"{len(wrong)} of {len(readings)}{noun} {'is' if len(wrong) == 1 else 'are'} {limit}"


MEANINGS: Mapping[Verdict, str] = MappingProxyType(
    {
        Verdict.NON_FINITE: "some numbers are infinite or undefined",
        Verdict.UNDERFLOW: "gradients are too small for the number format, and become zero",
        Verdict.NO_GRADIENT: "some weights are not reached by the loss",
        Verdict.SHAPES: "what belongs to one example meets that of the others",
        Verdict.SIGN: "training makes the answers worse: the loss has the wrong sign",
        Verdict.FLAT_LOSS: "the loss hardly changes, whatever the weights do",
        Verdict.DEAD_UNITS: "many units are off for every input",
        Verdict.EXPLODING: "gradients are too large for a training step",
        Verdict.LARGE_LOSS: "the loss is far above what guessing would give",
        Verdict.VANISHING: "some layers receive too small a gradient to learn",
        Verdict.SATURATED: "activations are flat and block the gradient",
        Verdict.SIGNAL_COLLAPSE: "the output hardly depends on the input",
        Verdict.SYMMETRIC: "units with the same weights receive the same gradients",
        Verdict.INPUTS: "the inputs have values of an unusual size",
        Verdict.OUTPUT: "the loss does not suit what it is given, or what it is for",
        Verdict.OPTIMIZER: "the optimizer does not follow the gradients",
        Verdict.LEARNING_RATE: "steps are too large or too small for the weights",
        Verdict.HARD_TO_TRAIN: "gradients have a usable size, but learning is unlikely, or failed",
        Verdict.HEALTHY: "every layer receives a usable gradient",
    }
)
"""What each verdict means, in a few words."""
