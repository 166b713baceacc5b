"""Rules about what enters a model: its size, its offset, the scales of its columns."""

import math
from collections.abc import Callable, Sequence

from chainrule._utils.numbers import format_number, format_share
from chainrule.diagnosis.rule import Reading, Rule, Verdict, describe_worst, find_worst
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.inputs import InputFlow

LARGE = 30.0
"""Root mean square from which on inputs are too large."""

SMALL = 1e-2
"""Largest absolute value up to which inputs are too small."""

OFFSET = 10.0
"""Mean ÷ standard deviation from which on inputs are too far from zero."""

UNEVEN = 1e3
"""Ratio of standard deviations from which on columns have no common scale."""

_BETWEEN = {"weight", "normalization"}


def is_normalized(flow: GradientFlow, entering: InputFlow) -> bool:
    """Return whether a normalization follows at once: it, or what its first weights return.

    Then size and offset of the input change nothing.

    Example:
        >>> import torch
        >>> from chainrule import inspect
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3))
        >>> flow = inspect(model, lambda m: m(torch.ones(4, 3)).square().sum())
        >>> is_normalized(flow, flow.inputs[0])
        True
    """
    start = next((at for at, e in enumerate(flow.layers) if e.name == entering.reader), None)
    if start is None:
        return False
    following = flow.layers[start:]
    first = next((at for at, e in enumerate(following) if e.role in _BETWEEN), None)
    if first is None:
        return False
    if following[first].role == "normalization":
        return True
    return len(following) > first + 1 and following[first + 1].role == "normalization"


def list_entering(flow: GradientFlow) -> tuple[InputFlow, ...]:
    """Return the inputs as the first modules read them.

    What a module gets and changes, before a module in it reads it, is left out: the change may be
    what scales it.

    Example:
        >>> import torch
        >>> from chainrule import inspect
        >>> flow = inspect(torch.nn.Linear(2, 1), lambda m: m(torch.ones(4, 2)).sum())
        >>> [each.shape for each in list_entering(flow)]
        [(4, 2)]
    """
    sizes = [(each, math.prod(each.shape)) for each in flow.inputs]
    return tuple(
        each
        for each, size in sizes
        if not any(
            other is not each and its == size and _is_inside(other.reader, each.reader)
            for other, its in sizes
        )
    )


def _is_inside(inner: str, outer: str) -> bool:
    return inner != outer and (not outer or inner.startswith(f"{outer}."))


def list_constant(flow: GradientFlow) -> tuple[InputFlow, ...]:
    """Return the inputs that have a single value in all examples and places.

    A module that runs several times may start from such a state.

    Example:
        >>> import torch
        >>> from chainrule import inspect
        >>> flow = inspect(torch.nn.Linear(2, 1), lambda m: m(torch.ones(9, 2)).sum())
        >>> len(list_constant(flow))
        1
    """
    repeated = {call.name for call in flow.layers if call.call > 0}
    return tuple(
        each
        for each in list_entering(flow)
        if each.examples >= ENOUGH
        and each.min == each.max
        and each.non_finite == 0.0
        and each.reader not in repeated
    )


def _read_constant(flow: GradientFlow) -> list[Reading]:
    """Return the share of inputs with a single value each; the rule asks for all of them."""
    found = list_constant(flow)
    every = list_entering(flow)
    if not every:
        return []
    names = tuple(dict.fromkeys(each.reader for each in found))
    where = f"the input of {names[0] or '(model)'!r}" if names else ""
    return [Reading(value=len(found) / len(every), modules=names, where=where)]


def count_possible(entering: InputFlow) -> float:
    """Return how many different examples there can be of an input with two values; else infinity.

    With c columns these are 2ᶜ, and fewer where each example has k ones, as one-hot states have.

    Example:
        >>> import torch
        >>> from chainrule import inspect
        >>> x = torch.eye(5).repeat(4, 1)
        >>> count_possible(inspect(torch.nn.Linear(5, 1), lambda m: m(x).sum()).inputs[0])
        5.0
    """
    low, high, mean = float(entering.min), float(entering.max), float(entering.mean)
    spread = (mean - low) * (high - mean)
    columns = entering.columns
    if len(entering.shape) > 2 or columns > _FEW or not 0.0 < spread < math.inf:
        return math.inf
    deviation = float(entering.std)
    if abs(deviation * deviation - spread) > 1e-6 * spread:  # equal for two values alone
        return math.inf
    ones = columns * ((mean - low) / (high - low))
    if abs(ones - round(ones)) < 1e-6:
        return float(math.comb(columns, round(ones)))
    return 2.0**columns


_FEW = 1_000
"""Columns up to which combinations are counted."""


def word_constant(entering: InputFlow) -> str:
    """Return that an input has a single value, in one clause.

    Example:
        >>> import torch
        >>> from chainrule import inspect
        >>> flow = inspect(torch.nn.Linear(2, 1), lambda m: m(torch.zeros(9, 2)).sum())
        >>> word_constant(flow.inputs[0])
        "the input of '(model)' is 0 everywhere: in all of 9 examples and all places"
    """
    return (
        f"the input of {entering.reader or '(model)'!r} is {format_number(entering.min)} "
        f"everywhere: in all of {entering.examples:,} examples and all places"
    )


def _describe_constant(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    return "; ".join(map(word_constant, list_constant(flow)))


def _read_inputs(
    read: Callable[[InputFlow], float | None],
) -> Callable[[GradientFlow], list[Reading]]:
    """Return a function that reads one value of every input that no normalization takes care of."""

    def read_all(flow: GradientFlow) -> list[Reading]:
        return [
            Reading(
                value=read(each),
                layers=_find_layers(flow, each),
                modules=(each.reader,),
                where=f"the input of {each.reader or '(model)'!r}",
            )
            for each in list_entering(flow)
            if not is_normalized(flow, each)
        ]

    return read_all


def list_large(flow: GradientFlow) -> tuple[InputFlow, ...]:
    """Return the inputs that are too large, and that no normalization takes care of.

    Example:
        >>> import torch
        >>> from chainrule import inspect
        >>> model = torch.nn.Linear(3, 3)
        >>> flow = inspect(model, lambda m: m(torch.full((4, 3), 99.0)).square().sum())
        >>> [each.size for each in list_large(flow)]
        [99.0]
    """
    return tuple(
        each for each in list_entering(flow) if each.size > LARGE and not is_normalized(flow, each)
    )


def _find_layers(flow: GradientFlow, entering: InputFlow) -> tuple[int, ...]:
    return tuple(layer.layer for layer in flow.weight_layers if layer.name == entering.reader)


def _read_size(entering: InputFlow) -> float | None:
    return entering.size


def _read_largest(entering: InputFlow) -> float | None:
    """Return the largest absolute entry; nothing for zeros alone, which have no scale.

    Nor for what is read joined to values of another size.
    """
    if entering.is_part:
        return None
    largest = max(abs(entering.min), abs(entering.max))
    return largest if largest > 0 else None


def _read_offset(entering: InputFlow) -> float | None:
    """Return the offset; not that of a mask of ones and zeros that is joined to something."""
    is_mask = entering.is_part and entering.min >= 0.0 and entering.max <= 1.0
    return entering.offset if entering.examples >= ENOUGH and not is_mask else None


def _read_spread_ratio(entering: InputFlow) -> float | None:
    return entering.spread_ratio if entering.examples >= ENOUGH else None


def _read_typical(flow: GradientFlow) -> list[Reading]:
    """Return what a common scale leaves to the median example, unless each has its own."""
    return [
        Reading(
            value=each.typical if each.examples >= ENOUGH else None,
            layers=_find_layers(flow, each),
            modules=(each.reader,),
            where=f"the input of {each.reader or '(model)'!r}",
        )
        for each in list_entering(flow)
        if not _is_scaled_one_by_one(flow, each)
    ]


def _is_scaled_one_by_one(flow: GradientFlow, entering: InputFlow) -> bool:
    """Whether a normalization follows that scales every example by itself (any but batch norm)."""
    start = next((at for at, e in enumerate(flow.layers) if e.name == entering.reader), None)
    following = () if start is None else flow.layers[start : start + 2]
    return any(e.role == "normalization" and "BatchNorm" not in e.kind for e in following)


ENOUGH = 8
"""Examples from which on the spread of a column says something."""


def _read_non_finite(flow: GradientFlow) -> list[Reading]:
    return [
        Reading(
            value=each.non_finite,
            layers=_find_layers(flow, each),
            modules=(each.reader,),
            where=f"the input of {each.reader or '(model)'!r}",
        )
        for each in flow.inputs
    ]


def _describe_range(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    worst, _ = find_worst(rule, wrong)
    each = next(each for each in flow.inputs if each.reader == worst.modules[0])
    return (
        f"{describe_worst(rule, flow, readings, wrong)}; its values lie between "
        f"{format_number(each.min)} and {format_number(each.max)}"
    )


def _describe_non_finite(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    worst, value = find_worst(rule, wrong)
    share = format_share(value) if value >= 0.005 else "less than 1 %"
    return f"{share} of the entries of {worst.where} are infinite or undefined"


_ADVICE = "Subtract the mean of each column and divide by its standard deviation, both taken from "
_ADVICE += "the training data, or put a normalization first."

INPUT_RULES = (
    Rule(
        name="constant_inputs",
        verdict=Verdict.INPUTS,
        metric="share of inputs that have a single value",
        threshold=0.95,
        beyond=">",
        reason="All that enters the model is the same for all examples, so all answers are, too, "
        "whatever it learns. Look at what makes the input: a cast to integers, a division of "
        "integers, a mask, a scaling that was done twice.",
        source="definition: a function of the same input gives the same output",
        action="Look at what is done with the data before the first layer reads them; then measure "
        "again.",
        read=_read_constant,
        describe=_describe_constant,
        scale="share",
        ignored_by_remedies=True,
    ),
    Rule(
        name="non_finite_inputs",
        verdict=Verdict.INPUTS,
        metric="share of input entries that are infinite or undefined",
        threshold=0.0,
        beyond=">",
        reason="They come in from outside, so no change of the network helps. Look for missing "
        "values and divisions by zero in the data.",
        source="IEEE 754 arithmetic",
        read=_read_non_finite,
        describe=_describe_non_finite,
        scale="share",
        despite_overflow=True,
    ),
    Rule(
        name="large_inputs",
        verdict=Verdict.INPUTS,
        metric="root mean square of the input",
        threshold=LARGE,
        beyond=">",
        reason="The first layer's values grow with the input, and so does its gradient. "
        "So it needs a far smaller learning rate than all others, and saturating activations are "
        f"flat from the start. {_ADVICE}",
        source="LeCun et al. 1998, Efficient BackProp, section 4.3; threshold measured",
        read=_read_inputs(_read_size),
        describe=_describe_range,
    ),
    Rule(
        name="outlying_examples",
        verdict=Verdict.INPUTS,
        metric="size of the median example ÷ size of all",
        threshold=0.1,
        beyond="<",
        reason="A few examples are so large that they set the scale alone: they make up nearly all "
        "of the gradient, and behind a batch normalization the others are almost equal. Look for "
        "wrong units, missing values that stand as large numbers, and a division by almost zero.",
        source="LeCun et al. 1998, Efficient BackProp, section 4.3; the bound is that of a starved "
        "normalization",
        read=_read_typical,
        describe=_describe_range,
    ),
    Rule(
        name="small_inputs",
        verdict=Verdict.INPUTS,
        metric="largest absolute value of the input",
        threshold=SMALL,
        beyond="<",
        reason="The input is so small beside the biases that all examples look alike to the first "
        f"layer, and the gradient of its weights is as small. {_ADVICE}",
        source="LeCun et al. 1998, Efficient BackProp, section 4.3; threshold measured",
        read=_read_inputs(_read_largest),
        describe=_describe_range,
    ),
    Rule(
        name="offset_inputs",
        verdict=Verdict.INPUTS,
        metric="mean of the input's columns ÷ their standard deviation",
        threshold=OFFSET,
        beyond=">",
        reason="What differs between examples is small beside what they share. So one direction of "
        f"the first layer's weights is far steeper than those that tell examples apart. {_ADVICE}",
        source="LeCun et al. 1998, Efficient BackProp, section 4.3; threshold measured",
        read=_read_inputs(_read_offset),
        describe=_describe_range,
    ),
    Rule(
        name="uneven_inputs",
        verdict=Verdict.INPUTS,
        metric="largest ÷ smallest standard deviation of the input's columns",
        threshold=UNEVEN,
        beyond=">",
        reason="No learning rate suits all columns: one safe for the largest learns nothing "
        f"from the smallest. {_ADVICE}",
        source="LeCun et al. 1998, Efficient BackProp, section 4.3; threshold measured",
        read=_read_inputs(_read_spread_ratio),
        describe=_describe_range,
    ),
)
"""What can be wrong with what enters a model."""
