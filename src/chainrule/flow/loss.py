"""What a measurement knows of the loss itself: its kind, what guessing would give, its terms."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import FailFast, Field, Strict, with_config

from chainrule._utils.numbers import format_number
from chainrule.flow.quantity import Quantity
from chainrule.flow.records import (
    CLOSED,
    Count,
    Magnitude,
    Position,
    PositiveSize,
    Shape,
    Share,
    Size,
    Text,
    get_file_name,
)

LossKind = Literal[
    "cross_entropy",
    "nll",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "mse",
    "l1",
    "smooth_l1",
    "huber",
    "kl",
    "penalty",
    "custom",
]
OutputActivation = Literal["softmax", "log_softmax", "sigmoid"]
Rectifier = Literal["relu", "relu6", "softplus", "exp", "abs", "clamp"]

KIND_NAMES: dict[str, str] = {
    "cross_entropy": "cross-entropy",
    "nll": "negative log-likelihood",
    "binary_cross_entropy": "binary cross-entropy of probabilities",
    "binary_cross_entropy_with_logits": "binary cross-entropy",
    "mse": "mean squared error",
    "l1": "L1",
    "smooth_l1": "smooth L1",
    "huber": "Huber",
    "kl": "KL divergence",
    "penalty": "penalty on weights",
    "custom": "custom",
}
"""Kinds of losses in words."""

_MANY = 10_000


@with_config(CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True)
class LossPart:
    """One summand of the loss, as the autograd graph shows it.

    All values are in the units of the whole loss: multiplied by the weight that the summand has
    in it.

    Attributes:
        kind: What is computed; "penalty" if it depends on parameters alone, "custom" if it is not
            one of PyTorch's usual losses.
        value: The summand; `None` for kinds that are not known.
        guessing: What an answer that knows nothing gives: equal probabilities for all classes, or
            the targets' mean (median for L1 and its kin) for every example; `None` if not known.
            No answer changes a penalty on weights: there it is the value.
        constant: What the best answer that is the same for every example gives: with the
            frequencies of the classes as its probabilities. Of a summand that is taken off the
            loss it is known as well, and negative.
        floor: The lowest possible value: 0, or the entropy of targets that are probabilities.
        reach: The lowest value that it can have with outputs in the range of the function that made
            them (a rectifier, tanh, sigmoid, softmax, …); `None` where that is not known. It is
            above `floor` where targets lie outside of that range.
        activation: The activation that made the values that it reads; `None` if it was another one
            or none.
        rectifier: The function that made the values that a cross-entropy reads as logits, if it has
            none below 0; else `None`.
        off: Share of the examples of which that function puts the logit of the right class to the
            lower end of its range, where it passes no gradient; `None` where that is not known.
        width: Number of values over which that softmax goes, or the loss's own.
        is_direct: Whether it reads `outputs` themselves, or a last matrix product of them with a
            trained weight; not so where another network (a critic) stands in between.
        outputs: Positions in `GradientFlow.layers` of what it reads.

    Example:
        >>> LossPart(kind="mse", value=Quantity([0.25]), guessing=Quantity([1.0]))
        LossPart(mse 0.25, guessing 1)
    """

    kind: LossKind
    value: Quantity | None = None
    guessing: Quantity | None = None
    constant: Quantity | None = None
    floor: Quantity | None = None
    reach: Magnitude | None = None
    activation: OutputActivation | None = None
    rectifier: Rectifier | None = None
    off: Share | None = None
    width: PositiveSize | None = None
    is_direct: Annotated[bool, Strict()] = False
    outputs: Annotated[tuple[Position, ...], FailFast(), Field(max_length=_MANY)] = ()

    def __repr__(self) -> str:
        guessing = "" if self.guessing is None else f", guessing {format_number(self.guessing)}"
        return f"LossPart({self.kind} {format_number(self.value)}{guessing})"


@with_config(CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True)
class TermGradient:
    """The gradient of one named term of the loss with respect to one parameter.

    Attributes:
        parameter: Position in `GradientFlow.parameters`.
        norm: ‖∂term/∂parameter‖.
        cosine: Cosine of the angle between it and the gradient of the whole loss, in [−1, 1]; below
            0, the term pulls the parameter the other way. Undefined if either is zero.

    Example:
        >>> TermGradient(parameter=0, norm=Quantity([2.0]), cosine=Quantity([1.0])).norm
        2.0
    """

    parameter: Position
    norm: Magnitude
    cosine: Quantity


@with_config(CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True)
class LossTerm:
    """One named term of the loss.

    Attributes:
        name: Its name.
        value: The term.
        gradients: Its gradient at every parameter that it reaches, in the order of parameters;
            `None` if it was not measured.
        guessing: What an answer that knows nothing gives for this term; `None` unless it is known
            for all of it.
        is_penalty: Whether it is computed from parameters alone.

    Example:
        >>> LossTerm(name="kl", value=Quantity([0.5]), gradients=()).is_detached
        True
    """

    name: Text
    value: Quantity
    gradients: Annotated[tuple[TermGradient, ...], Field(max_length=100_000)] | None
    guessing: Quantity | None = None
    is_penalty: Annotated[bool, Strict()] = False

    @property
    def is_detached(self) -> bool:
        """Whether it reaches no parameter at all, so that training does nothing about it."""
        return self.gradients == ()


@with_config(CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True)
class AlignmentFlow:
    """Whether the sequences of a CTC loss are long enough for their labels.

    Attributes:
        examples: Number of sequences.
        short: How many of them have fewer time steps than their labels need.
        example: Index of the first of these; 0 if there is none.
        steps: Its time steps.
        labels: Its labels.
        repeats: How many of its labels repeat the one before: a blank must come in between.

    Example:
        >>> AlignmentFlow(
        ...     examples=8, short=Quantity([2.0]), example=3, steps=4, labels=4, repeats=1
        ... ).sentence
        'example 3 has 4 time steps, and its 4 labels (1 repeated) need 5'
    """

    examples: PositiveSize
    short: Count
    example: Size
    steps: Size
    labels: Size
    repeats: Size

    @property
    def sentence(self) -> str:
        """Both lengths, and what the labels need."""
        repeated = f" ({self.repeats} repeated)" if self.repeats else ""
        return (
            f"example {self.example} has {self.steps} time steps, and its {self.labels} labels"
            f"{repeated} need {self.labels + self.repeats}"
        )


@with_config(CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True)
class BroadcastFlow:
    """A comparison in the loss in which all answers meet the targets of all examples.

    Attributes:
        operation: What compares: "subtraction", "mse_loss".
        output: Shape of what depends on the model.
        target: Shape of what it is compared with.
        result: Shape of the comparison: larger than both.
        by_mistake: Whether no example has a target of its own in the loss, so that training can
            only find the best constant; if not, it may be meant (a distance between two sets).
        file: The file of your code that calls it; "" if unknown.
        line: Its line there, from 1; `None` if unknown.
        code: What that line says.

    Example:
        >>> BroadcastFlow(
        ...     operation="mse_loss", output=(8, 1), target=(8,), result=(8, 8), by_mistake=True
        ... ).shapes
        '(8, 1) and (8,)'
    """

    operation: Text
    output: Shape
    target: Shape
    result: Shape
    by_mistake: Annotated[bool, Strict()]
    file: Text = ""
    line: PositiveSize | None = None
    code: Text = ""

    @property
    def shapes(self) -> str:
        """Both shapes, as Python writes them."""
        return f"{self.output} and {self.target}"

    @property
    def position(self) -> str:
        """The line of code, as "file.py:12"; "" if unknown."""
        return "" if self.line is None else f"{get_file_name(self.file)}:{self.line}"


@with_config(CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True)
class LossFlow:
    """What is known of the loss, in addition to its value.

    Attributes:
        parts: Its summands as the graph shows them.
        outputs: Positions in `GradientFlow.layers` of what the loss reads: the outputs of modules
            from which it is computed without a further module in between. Those from which
            others of them are computed are left out.
        offset: What of the loss does not come from `parts`, a constant; `None` if a part's value is
            not known.
        step: By how much the loss would fall, relative to itself above its floor, if every
            parameter moved by 1 % of its norm along its gradient, to first order: Σ 0.01 · ‖W‖ ·
            ‖∂loss/∂W‖ ÷ (loss − floor). A parameter that is exactly zero moves by 1 % of what it
            could be: by default a weight matrix has the norm √(rows ÷ 3) at initialization, a
            vector is taken with entries of size 1. Where no floor is known, it is relative to
            |loss|; at the floor, up to rounding, to the loss of guessing. It does not change when
            the loss is multiplied by a constant.
        reaction: The same for `outputs`: 0.01 · ‖output‖ · ‖∂loss/∂output‖ ÷ (loss − floor), with
            entries of size 1 where the output's are smaller.
        zero_examples: Share of examples (along the first dimension) whose gradient is exactly zero
            in all of `outputs`; `None` if there are fewer than two examples.
        terms: Its named terms, if `compute_loss` returned several; empty for one loss.
        cut: Sum of the terms that depend on the model, but only through functions without a
            derivative (`argmax`, comparisons, rounding to integers) or copies of its numbers
            (`torch.tensor`); 0 if there are none.
        detached: Sum of the terms that depend on the model, but were detached from it on purpose.
        broadcasts: Comparisons in which all answers meet the targets of all examples.
        alignment: Of a CTC loss, whether its sequences are long enough; `None` without one.
        cut_readers: Names of modules that read what the model computed and what was cut off the
            graph: a sample, a detached tensor, numbers of words.
        cut_by: Names of the functions that made what `cut` is the sum of ("argmax", "gt",
            "tensor"); empty in older files.

    Example:
        >>> LossFlow(parts=(LossPart(kind="mse"), LossPart(kind="penalty"))).kind
        'mse'
    """

    parts: Annotated[tuple[LossPart, ...], FailFast(), Field(max_length=_MANY)]
    outputs: Annotated[tuple[Position, ...], FailFast(), Field(max_length=_MANY)] = ()
    offset: Quantity | None = None
    step: Magnitude | None = None
    reaction: Magnitude | None = None
    zero_examples: Share | None = None
    terms: Annotated[tuple[LossTerm, ...], FailFast(), Field(max_length=_MANY)] = ()
    cut: Quantity | None = None
    detached: Quantity | None = None
    broadcasts: Annotated[tuple[BroadcastFlow, ...], FailFast(), Field(max_length=_MANY)] = ()
    alignment: AlignmentFlow | None = None
    cut_readers: Annotated[tuple[Text, ...], FailFast(), Field(max_length=_MANY)] = ()
    cut_by: Annotated[tuple[Text, ...], FailFast(), Field(max_length=_MANY)] = ()

    @property
    def kind(self) -> str:
        """Kind of the loss: that of its parts (without penalties), "mixed" if they differ."""
        kinds = {part.kind for part in self.parts} - {"penalty"}
        return "mixed" if len(kinds) > 1 else next(iter(kinds), "custom")

    @property
    def guessing(self) -> Quantity | None:
        """The loss of an answer that knows nothing; `None` unless it is known for all parts."""
        return self._add(part.guessing for part in self.parts)

    @property
    def constant(self) -> Quantity | None:
        """The loss of the best answer that is the same for every example; as `guessing`."""
        return self._add(part.constant for part in self.parts)

    @property
    def floor(self) -> Quantity | None:
        """The lowest possible loss; as `guessing`."""
        return self._add(part.floor for part in self.parts)

    def _add(self, values: Iterable[Quantity | None]) -> Quantity | None:
        summands = [self.offset, *values]
        known = [each for each in summands if each is not None]
        if len(known) < len(summands):
            return None
        return Quantity(map(sum, zip(*(each.values for each in known), strict=True)))
