"""Rules about calls whose effect is seldom meant: flat functions, examples taken for time steps."""

import math
from collections.abc import Callable, Sequence

from chainrule._utils.numbers import format_number
from chainrule.diagnosis.rule import Reading, Rule, Verdict
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.slips import STEP_FUNCTIONS, SlipFlow, SlipKind


def list_slips(flow: GradientFlow, kind: SlipKind) -> list[SlipFlow]:
    """Return the calls of a kind, in the order in which they ran.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> list_slips(simulate(NetworkSpec(depth=3, width=4)), "flat")
        []
    """
    parts = () if flow.loss_facts is None else flow.loss_facts.parts
    # A softmax over a single output is a finding of its own.
    is_single = any(part.activation == "softmax" and part.width == 1 for part in parts)
    return [
        each
        for each in flow.slips
        if each.kind == kind and not (is_single and each.operation.endswith("softmax"))
    ]


def word_place(slip: SlipFlow) -> str:
    """Return where a call is, in words: its line of code, else its module.

    Example:
        >>> word_place(SlipFlow(kind="flat", operation="sign", module="body", shape=(2,),
        ...                     result=(2,), file="a/net.py", line=7, code="h = h.sign()"))
        " (net.py:7: h = h.sign(), in 'body')"
    """
    code = f": {slip.code}" if slip.code else ""
    where = "in the loss" if slip.is_in_loss else f"in {slip.module or '(model)'!r}"
    return f" ({slip.position}{code}, {where})" if slip.position else f" ({where})"


def _read(kind: SlipKind) -> Callable[[GradientFlow], list[Reading]]:
    def read(flow: GradientFlow) -> list[Reading]:
        found = list_slips(flow, kind)
        if not found:
            return []
        names = tuple(dict.fromkeys(each.module for each in found if not each.is_in_loss))
        return [Reading(value=float(len(found)), modules=names)]

    return read


def _describe_flat(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    slip = list_slips(flow, "flat")[0]
    over = "" if slip.operation in STEP_FUNCTIONS else " over a single value"
    others = len(list_slips(flow, "flat")) - 1
    more = f"; so it is in {others + 1} calls" if others else ""
    return (
        f"{slip.operation}{over} passes no gradient: what it reads, of shape {slip.shape}, "
        f"receives exactly zero{word_place(slip)}{more}"
    )


def _replace_flat(flow: GradientFlow) -> str:
    slip = list_slips(flow, "flat")[0]
    if slip.operation in STEP_FUNCTIONS:
        change = (
            f"Replace {slip.operation}, or let the gradient past it (straight-through): "
            f"x + ({slip.operation}(x) - x).detach()"
        )
    elif slip.operation.endswith("softmax"):
        change = "Let the softmax go over the dimension along which the values compete"
    else:
        change = "Let the normalization go over the features, or leave it out"
    return f"{change}{word_place(slip)}. Then measure again."


def _describe_steps(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    slip = list_slips(flow, "examples_as_steps")[0]
    count, steps = slip.shape[:2]
    return (
        f"{slip.operation} {slip.module or '(model)'!r} expects [time, examples, features], but "
        f"gets {slip.shape}: the loss has {format_number(count)} answers, one for each of what it "
        f"takes for time steps, so it runs along the {count} examples and takes their {steps} "
        "steps for examples"
    )


def _put_batch_first(flow: GradientFlow) -> str:
    slip = list_slips(flow, "examples_as_steps")[0]
    owner = slip.module or "(model)"
    return (
        f"Build {owner!r} with batch_first=True, or give it x.transpose(0, 1). Then measure again."
    )


def _describe_probabilities(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    slip = list_slips(flow, "probabilities")[0]
    return (
        f"{slip.operation} expects logarithms of probabilities, but gets probabilities: none is "
        f"below 0, and they sum to 1{word_place(slip)}"
    )


def _take_logarithms(flow: GradientFlow) -> str:
    slip = list_slips(flow, "probabilities")[0]
    return f"Take log_softmax in place of softmax{word_place(slip)}. Then measure again."


def _describe_mixed(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    return word_mixed(list_slips(flow, "mixed")[0])


def word_mixed(slip: SlipFlow) -> str:
    """Return what rows a reshape makes of which examples, in one clause.

    Example:
        >>> word_mixed(SlipFlow(kind="mixed", operation="view", module="", shape=(2, 8, 3),
        ...                     result=(8, 6)))
        "view makes 8 rows of (2, 8, 3) (in '(model)'): each row holds values of 2 of the 8"
    """
    count = slip.shape[1]
    each = -(-math.prod(slip.shape[:2]) // slip.result[0])
    return (
        f"{slip.operation} makes {slip.result[0]:,} rows of {slip.shape}{word_place(slip)}: each "
        f"row holds values of {min(each, count):,} of the {count:,}"
    )


def _put_examples_first(flow: GradientFlow) -> str:
    slip = list_slips(flow, "mixed")[0]
    return (
        f"Put the examples first, .transpose(0, 1) before {slip.operation}{word_place(slip)}. Then "
        "measure again."
    )


def list_one_sided(flow: GradientFlow) -> list[SlipFlow]:
    """Return the losses for which one answer is best, whatever their targets are.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> list_one_sided(simulate(NetworkSpec(depth=3, width=4)))
        []
    """
    smoothed = [each for each in list_slips(flow, "smoothed") if (each.value or 0.0) >= 1.0]
    return [*smoothed, *list_slips(flow, "one_target")]


def _read_one_sided(flow: GradientFlow) -> list[Reading]:
    found = list_one_sided(flow)
    return [Reading(value=float(len(found)))] if found else []


_SMOOTHED = (
    "with a label smoothing of 1, {} asks the same of all classes, whatever the target",
    "Take a label smoothing near 0.1, or none",
)
_BINARY = (
    "with a pos_weight of 0, {} does not count targets of 1, so 0 is always the best answer",
    "Take a pos_weight above 0: negative ÷ positive examples, or 1",
)
_ONE_CLASS = (
    "the weights of {} are 0 for all classes but one, so that class is always best",
    "Give the other classes weights above 0",
)
"""What is wrong with a loss for which one answer is best, and what to change."""


def _choose_words(slip: SlipFlow) -> tuple[str, str]:
    if slip.kind == "smoothed":
        return _SMOOTHED
    return _BINARY if slip.operation.startswith("binary") else _ONE_CLASS


def _describe_one_sided(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    slip = list_one_sided(flow)[0]
    return f"{_choose_words(slip)[0].format(slip.operation)}{word_place(slip)}"


def _let_targets_count(flow: GradientFlow) -> str:
    slip = list_one_sided(flow)[0]
    return f"{_choose_words(slip)[1]}{word_place(slip)}. Then measure again."


def list_alike(flow: GradientFlow) -> list[SlipFlow]:
    """Return the frozen modules that leave nothing by which examples could be told apart.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> list_alike(simulate(NetworkSpec(depth=3, width=4)))
        []
    """
    return [each for each in list_slips(flow, "alike") if (each.value or 0.0) >= 1.0]


def word_alike(slip: SlipFlow) -> str:
    """Return what a frozen module gives, in one clause.

    Example:
        >>> word_alike(SlipFlow(kind="alike", operation="Embedding", module="e", shape=(8, 5),
        ...                     result=(8, 5)))
        "Embedding 'e', which is frozen, gives the same for all examples: an output of (8, 5)"
    """
    return (
        f"{slip.operation} {slip.module or '(model)'!r}, which is frozen, gives the same for all "
        f"examples: an output of {slip.shape}"
    )


def _read_alike(flow: GradientFlow) -> list[Reading]:
    found = list_alike(flow)
    names = tuple(dict.fromkeys(each.module for each in found))
    return [Reading(value=float(len(found)), modules=names)] if found else []


def _describe_alike(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    return f"{word_alike(list_alike(flow)[0])}. Nothing else tells them apart"


def word_wave(slip: SlipFlow) -> str:
    """Return how far the angles of a sine or a cosine spread, in one clause.

    Example:
        >>> from chainrule.flow.quantity import Quantity
        >>> word_wave(SlipFlow(kind="wave", operation="sin", module="0", shape=(4, 2),
        ...                    result=(4, 2), value=Quantity([628.3])))
        "the angles that sin reads (in '0') spread by 628 radians, 100 times round"
    """
    spread = 0.0 if slip.value is None else float(slip.value)
    return (
        f"the angles that {slip.operation} reads{word_place(slip)} spread by "
        f"{format_number(spread)} radians, {spread / math.tau:,.0f} times round"
    )


def word_off(flow: GradientFlow) -> str:
    """Return which function is at a flat end with all of its values, in one clause, or "".

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> word_off(simulate(NetworkSpec(depth=3, width=4)))
        ''
    """
    found = list_slips(flow, "off")
    if not found:
        return ""
    slip = found[-1]
    return (
        f"; {slip.operation} sends nothing back: all that it reads, of shape {slip.shape}, is "
        f"where it is flat{word_place(slip)}"
    )


SLIP_RULES = (
    Rule(
        name="probabilities_for_logarithms",
        verdict=Verdict.OUTPUT,
        metric="divergences that get probabilities in place of their logarithms",
        threshold=0.0,
        beyond=">",
        reason="The first argument of kl_div is a logarithm. With probabilities the loss is lowest "
        "where all of the probability is at the likeliest class, and not where it is that of the "
        "targets.",
        source="PyTorch documentation of kl_div; Σ t·p over probabilities p is largest at a corner",
        read=_read("probabilities"),
        describe=_describe_probabilities,
        action=_take_logarithms,
        scale="count",
        ignored_by_remedies=True,
    ),
    Rule(
        name="targets_without_effect",
        verdict=Verdict.OUTPUT,
        metric="losses for which one answer is best, whatever their targets are",
        threshold=0.0,
        beyond=">",
        reason="The loss does fall, but only to where all examples get the same answer. Which "
        "target belongs to which example cannot be learned from it.",
        source="PyTorch documentation of these losses; Szegedy et al. 2016 (arXiv 1512.00567), "
        "section 7: the target keeps 1 − ε",
        read=_read_one_sided,
        describe=_describe_one_sided,
        action=_let_targets_count,
        scale="count",
        ignored_by_remedies=True,
    ),
    Rule(
        name="frozen_alike",
        verdict=Verdict.INPUTS,
        metric="frozen modules that make all examples alike",
        threshold=0.0,
        beyond=">",
        reason="All that the trained part reads is the same for all examples, so all answers are, "
        "too, whatever it learns.",
        source="definition: a function of the same input gives the same output",
        read=_read_alike,
        describe=_describe_alike,
        action="Look at what filled the frozen weights: a file that was not found, words that are "
        "written in another way, a table of zeros. Or let them learn (freeze=False, "
        "requires_grad_(True)). Then measure again.",
        scale="count",
        ignored_by_remedies=True,
    ),
    Rule(
        name="mixed_examples",
        verdict=Verdict.SHAPES,
        metric="reshapes that mix examples",
        threshold=0.0,
        beyond=">",
        reason="A reshape reads entries one after the other. Here the examples stand in the second "
        "dimension, behind the time steps or the layers, and the loss takes each row for the "
        "answer of one example.",
        source="PyTorch documentation of torch.reshape and of the shapes that recurrent modules "
        "and attention return",
        read=_read("mixed"),
        describe=_describe_mixed,
        action=_put_examples_first,
        scale="count",
        ignored_by_remedies=True,
    ),
    Rule(
        name="flat_function",
        verdict=Verdict.NO_GRADIENT,
        metric="functions that pass no gradient",
        threshold=0.0,
        beyond=">",
        reason="Its derivative is zero everywhere, so nothing before it learns. A function with "
        "steps needs a derivative that takes its place. A softmax over one value is always 1, and "
        "a normalization of one value always 0.",
        source="derivative of a step function; Bengio et al. 2013 (arXiv 1308.3432) on "
        "straight-through gradients",
        read=_read("flat"),
        describe=_describe_flat,
        action=_replace_flat,
        scale="count",
        ignored_by_remedies=True,
    ),
    Rule(
        name="examples_as_steps",
        verdict=Verdict.SHAPES,
        metric="modules that take examples for time steps",
        threshold=0.0,
        beyond=">",
        reason="Every answer is made from other examples, and the steps of an example never meet. "
        "What stands in several steps of one example cannot be learned.",
        source="PyTorch documentation, batch_first of recurrent modules and of attention",
        read=_read("examples_as_steps"),
        describe=_describe_steps,
        action=_put_batch_first,
        scale="count",
        ignored_by_remedies=True,
    ),
)
"""What can be wrong with single calls."""


def word_scrambled(slip: SlipFlow) -> str:
    """Return what a reshape does to which sizes, in one clause.

    Example:
        >>> word_scrambled(SlipFlow(kind="scrambled", operation="view", module="", shape=(8, 5, 3),
        ...                         result=(5, 8, 3)))
        "view makes (5, 8, 3) of (8, 5, 3) (in '(model)'): sizes change places, entries do not"
    """
    return (
        f"{slip.operation} makes {slip.result} of {slip.shape}{word_place(slip)}: sizes change "
        "places, entries do not"
    )


def count_examples(slip: SlipFlow) -> int:
    """Return how many examples a call goes over.

    Example:
        >>> count_examples(SlipFlow(kind="over_examples", operation="softmax", module="a",
        ...                         shape=(8, 5), result=(8, 5)))
        8
    """
    dim = slip.value
    return slip.shape[int(dim) if dim is not None and 0 <= dim < len(slip.shape) else 0]


def word_over_examples(slip: SlipFlow) -> str:
    """Return what goes over the examples, in one clause.

    Example:
        >>> word_over_examples(SlipFlow(kind="over_examples", operation="softmax", module="a",
        ...                             shape=(8, 5), result=(8, 5)))
        "softmax goes over the 8 examples of (8, 5) (in 'a')"
    """
    what = f"the {count_examples(slip):,} examples of {slip.shape}"
    return f"{slip.operation} goes over {what}{word_place(slip)}"


def word_not_logarithms(slip: SlipFlow) -> str:
    """Return what a loss gets instead of logarithms of probabilities, in one clause.

    Example:
        >>> from chainrule.flow.quantity import Quantity
        >>> word_not_logarithms(SlipFlow(kind="not_logarithms", operation="nll_loss", module="a",
        ...                              shape=(8, 5), result=(), value=Quantity([2.0])))
        "nll_loss expects logarithms of probabilities (at most 0), but gets up to 2 (in 'a')"
    """
    value = math.nan if slip.value is None else slip.value
    return (
        f"{slip.operation} expects logarithms of probabilities (at most 0), but gets up to "
        f"{format_number(value)}{word_place(slip)}"
    )
