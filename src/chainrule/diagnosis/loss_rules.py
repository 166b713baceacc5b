"""Rules about the loss: flat, far above guessing, fed with the wrong kind of output, cut off.

They read `GradientFlow.loss_facts`, so they find nothing in flows without it. None moves with the
scale of the loss.
"""

import math
from collections.abc import Iterator, Sequence

from chainrule._utils.numbers import format_number
from chainrule.diagnosis.evidence import name_outputs
from chainrule.diagnosis.rule import Reading, Rule, Verdict, describe_bound, find_worst, read_whole
from chainrule.diagnosis.shape_rules import SHAPE_RULES
from chainrule.diagnosis.slip_rules import word_off
from chainrule.diagnosis.structure import (
    FLAT,
    find_small_head,
    find_tied_head,
    is_loss_flat,
    is_output_half,
)
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.loss import KIND_NAMES, LossPart

FAR = 100.0
"""Loss ÷ loss of guessing from which on few networks learn. Measured (benchmarks/truth.csv): of 17
that start at 20 to 100 times guessing, 14 trained with SGD and with Adam; of 17 above it, 2 did."""

FAR_WHEN_TIED = 20.0
"""The same where the output layer is the embedding's weight: the first steps on the one undo what
the other needs. A start at 8 times guessing or less costs nothing, one at 70 times most of the
training: this is halfway, in powers of ten."""

MANY_CLASSES = 20
"""Classes from which on a second softmax keeps plain SGD from learning. At its start, it divides
the gradient by the number of classes. Measured with rates up to 1: with 10 classes SGD answers all
right after 120 steps, with 20 it is 80 %, with 40 it is 7 %."""

OUT_OF_REACH = 1.4
"""Loss ÷ that of the best constant answer, at the start of a sigmoid taken for logits, above
which even perfect answers, 0 and 1, cost more than that constant. With a share p of ones, these
cost log 2 − 0.38 p, and the constant H(p): equal at p = 0.28 and at p = 0.88. Outputs of one half,
as at the start, cost 1.41 and 1.45 times as much there. Training drives all outputs to one end."""

_OF_SQUARES = 16.0 * FLAT**2
"""Variance of targets ÷ what the best outputs cost up to which they differ by rounding only."""

NEARLY_ALL = 0.95
"""Share of examples without gradient from which on training sees next to nothing of the data."""

HALF = 0.5
"""Part of the way from guessing to a perfect answer that counts as trained (docs/truth.md)."""

HAVE_A_FLOOR = frozenset(
    [
        "cross_entropy",
        "kl",
        "binary_cross_entropy",
        "binary_cross_entropy_with_logits",
        "mse",
        "l1",
        "smooth_l1",
        "huber",
    ]
)
"""Kinds of losses that are lowest for the right answer."""

_REGRESSIONS = frozenset(["mse", "l1", "smooth_l1", "huber"])
"""Kinds of losses whose targets are any numbers."""

APPLIED_TWICE = frozenset(
    {
        ("cross_entropy", "softmax"),
        ("cross_entropy", "sigmoid"),
        ("nll", "softmax"),
        ("nll", "sigmoid"),
        ("binary_cross_entropy_with_logits", "sigmoid"),
        ("binary_cross_entropy_with_logits", "softmax"),
    }
)
"""Kinds of losses, and activations of the output that they are not made for."""


# --- What rules read -----------------------------------------------------------------------------


def _locate(flow: GradientFlow, positions: Sequence[int]) -> tuple[tuple[str, ...], str]:
    """Return the names of modules, and the first of them in words."""
    if not positions:
        return (), ""
    return name_outputs(flow, positions), repr(flow.layers[positions[0]].label)


def _read_reaction(flow: GradientFlow) -> list[Reading]:
    facts = flow.loss_facts
    if facts is None:
        return []
    modules, where = _locate(flow, facts.outputs)
    value = facts.step if facts.reaction is None else facts.reaction
    return [Reading(value=value, modules=modules, where=where)]


def _read_step(flow: GradientFlow) -> list[Reading]:
    """Return what a step changes, unless a last layer made small keeps it small for a few steps.

    1 % of such a layer is nothing. But it receives a usable gradient, whatever its own size.
    """
    if flow.loss_facts is None or find_small_head(flow) is not None:
        return []
    return read_whole(flow, flow.loss_facts.step)


def _read_idle(flow: GradientFlow) -> list[Reading]:
    facts = flow.loss_facts
    if facts is None:
        return []
    modules, where = _locate(flow, facts.outputs)
    return [Reading(value=facts.zero_examples, modules=modules, where=where)]


def _read_excess(flow: GradientFlow) -> list[Reading]:
    """Return every part's value ÷ its value for guessing, if it judges the model's own answer."""
    found = []
    for part in _list_parts(flow):
        if part.value is None or part.guessing is None or not part.is_direct:
            continue
        modules, where = _locate(flow, part.outputs)
        # Targets that are all the same differ by rounding at most: guessing is no measure there.
        measures = part.guessing > 0.0 and not has_same_numbers(part)
        value = part.value / part.guessing if measures else None
        found.append(Reading(value=value, modules=modules, where=where))
    return found


def has_same_numbers(part: LossPart) -> bool:
    """Whether the targets of a regression are the same for all examples, up to rounding."""
    if part.kind not in _REGRESSIONS or part.guessing is None or part.value is None:
        return False
    return part.is_direct and part.guessing == 0.0


def _read_tied_excess(flow: GradientFlow) -> list[Reading]:
    """Return the same if the output layer is tied to an embedding."""
    return _read_excess(flow) if find_tied_head(flow) is not None else []


def _read_activations(flow: GradientFlow) -> list[Reading]:
    """Return by how much an activation that the loss does not expect divides the gradient."""
    found = []
    for part in _list_parts(flow):
        modules, where = _locate(flow, part.outputs)
        value = 1.0
        if is_single(part) or is_out_of_reach(part):
            value = math.inf
        elif is_applied_twice(part) and part.activation == "softmax" and part.width:
            value = float(part.width)
        found.append(Reading(value=value, modules=modules, where=where))
    return found


def _read_sign(flow: GradientFlow) -> list[Reading]:
    """Return the loss of the model's own answers if it is all there is, negative if it is turned.

    An optimizer that maximizes turns it, too. Targets that are all the same are no answers: so a
    generator may be trained against the loss of its critic.
    """
    parts = [part for part in _list_parts(flow) if part.kind != "penalty"]
    if len(parts) != 1 or parts[0].kind not in HAVE_A_FLOOR or not parts[0].is_direct:
        return []
    (part,) = parts
    if part.value is None or not part.constant:
        return []
    modules, where = _locate(flow, part.outputs)
    maximizes = flow.optimizer is not None and flow.optimizer.maximizes
    size = abs(float(part.value))
    right = (part.constant < 0.0) is maximizes
    return [Reading(value=size if right else -size, modules=modules, where=where)]


def read_reach(flow: GradientFlow) -> list[Reading]:
    """Return what the best outputs in their range cost, relative to guessing.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> read_reach(simulate(NetworkSpec(depth=3, width=4)))
        []
    """
    found = []
    for part in _list_parts(flow):
        if part.reach is None or not part.guessing or part.guessing <= _OF_SQUARES * part.reach:
            continue
        if part.kind == "cross_entropy":  # what is most likely can be right all the same
            continue
        if part.rectifier is not None:  # so can ones be told from zeros: a note of its own
            continue
        modules, where = _locate(flow, part.outputs)
        found.append(Reading(value=part.reach / part.guessing, modules=modules, where=where))
    return found


def is_applied_twice(part: LossPart) -> bool:
    """Whether what a part reads went through an activation that it does not expect."""
    return (part.kind, part.activation) in APPLIED_TWICE


def is_single(part: LossPart) -> bool:
    """Whether what a part reads is a softmax over a single value, which is always 1."""
    return part.activation == "softmax" and part.width == 1


def is_out_of_reach(part: LossPart) -> bool:
    """Whether even perfect answers cost more than a constant, as they are taken for logits."""
    return (
        part.kind == "binary_cross_entropy_with_logits"
        and is_applied_twice(part)
        and part.value is not None
        and part.constant is not None
        and part.constant > 0.0
        and part.value > OUT_OF_REACH * part.constant
    )


def _read_cut(flow: GradientFlow) -> list[Reading]:
    """Return what of the loss reaches no parameter, relative to it: terms, or what was cut."""
    facts = flow.loss_facts
    if facts is None:
        return []
    values = [abs(term.value) for term in facts.terms]
    if not values:
        if not facts.cut:
            return []
        rest = abs(flow.loss - facts.cut)
        return [Reading(value=_divide(abs(facts.cut), abs(facts.cut) + rest))]
    whole = math.fsum(values) if all(map(math.isfinite, values)) else math.nan
    return [
        Reading(
            value=_divide(value, whole) if term.is_detached else 0.0,
            where=f"the term {term.name!r}",
        )
        for term, value in zip(facts.terms, values, strict=True)
    ]


def _divide(part: float, whole: float) -> float:
    return part / whole if whole > 0.0 else math.nan


def _list_parts(flow: GradientFlow) -> tuple[LossPart, ...]:
    return () if flow.loss_facts is None else flow.loss_facts.parts


def _read_short(flow: GradientFlow) -> list[Reading]:
    """Return the share of sequences that are too short for their labels."""
    facts = flow.loss_facts
    if facts is None or facts.alignment is None:
        return []
    share = facts.alignment.short / facts.alignment.examples
    return [Reading(value=share, modules=name_outputs(flow, facts.outputs))]


def word_short(flow: GradientFlow, bound: str = "") -> str:
    """Return how many sequences of a CTC loss are too short, with both lengths of the first."""
    assert flow.loss_facts is not None
    found = flow.loss_facts.alignment
    assert found is not None
    return (
        f"{format_number(found.short)} of {found.examples:,} sequences of the CTC loss are too "
        f"short for their labels{bound}: {found.sentence}"
    )


def _describe_short(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    return word_short(flow, f" ({describe_bound(rule, readings, wrong)})")


def _lengthen(flow: GradientFlow) -> str:
    return (
        f"Make the inputs longer (pool or stride less), or the targets shorter: {word_short(flow)}."
        " Then measure again."
    )


# --- How findings are worded ---------------------------------------------------------------------


def _describe_flat(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    worst, value = find_worst(rule, wrong)
    facts = flow.loss_facts
    lowest = ""
    if facts is not None and facts.floor is not None and facts.guessing is not None:
        at_floor = flow.loss - facts.floor <= FLAT * abs(facts.guessing)
        lowest = ", its lowest possible value" if at_floor else ""
    what = f"the output of {worst.where}" if worst.where else "the output"
    return (
        f"the loss is {format_number(flow.loss)}{lowest}; if {what} moved by 1 % along its "
        f"gradient, the loss would fall by {rule.format(value)} times itself "
        f"({describe_bound(rule, readings, wrong)}){word_off(flow)}"
    )


def _describe_excess(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    worst, value = find_worst(rule, wrong)
    part = next(
        part
        for part in _list_parts(flow)
        if part.value is not None and part.guessing and part.value / part.guessing == value
    )
    return (
        f"the {KIND_NAMES[part.kind]} is {format_number(part.value)}, and guessing would give "
        f"{format_number(part.guessing)}: {rule.format(value)} times as much"
        f"{f' at {worst.where}' if worst.where else ''} ({describe_bound(rule, readings, wrong)})"
    )


def _describe_activation(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    return "; ".join(word_activations(flow))


def word_activations(flow: GradientFlow) -> Iterator[str]:
    """Yield what is said of outputs that went through an activation too many."""
    for part in _list_parts(flow):
        _, where = _locate(flow, part.outputs)
        place = f" ({where})" if where else ""
        if is_single(part):
            yield (
                f"the output{place} is a softmax over a single value: it is 1 for every input, and "
                "passes no gradient"
            )
        elif is_applied_twice(part):
            text = (
                f"the output{place} went through a {part.activation} already, but "
                f"{_NEEDS[part.kind]}"
            )
            if part.kind == "cross_entropy" and part.activation == "softmax" and part.width:
                least = math.log1p((part.width - 1) / math.e)
                text += f". With {part.width:,} classes it cannot fall below {least:.3g}"
            elif is_out_of_reach(part):
                text += ". Ones or zeros are rare in these targets, and even perfect answers cost "
                text += "more than a constant does with logits"
            yield text


_NEEDS = {
    "cross_entropy": "cross_entropy takes the softmax itself: it expects logits",
    "nll": "nll_loss expects logarithms of probabilities",
    "binary_cross_entropy_with_logits": (
        "binary_cross_entropy_with_logits takes the sigmoid itself: it expects logits"
    ),
}
"""What a part of the loss expects."""


def _explain_activation(flow: GradientFlow) -> str:
    if not any(map(is_single, _list_parts(flow))):
        return ""
    return (
        "A softmax makes probabilities of several values that compete, and they sum to 1. Of one "
        "value nothing is left, so nothing before it can learn."
    )


_MENDED = {
    "cross_entropy": "leave the {activation} out",
    "nll": "take log_{activation} in its place",
    "binary_cross_entropy_with_logits": (
        "leave the {activation} out, or use binary_cross_entropy (nn.BCELoss)"
    ),
}
"""What to do about an activation that a part of the loss does not expect."""


def _mend_activation(flow: GradientFlow) -> str:
    for part in _list_parts(flow):
        _, where = _locate(flow, part.outputs)
        place = f"At {where}, " if where else ""
        if is_single(part):
            change = (
                "take a sigmoid in place of the softmax, or leave it out and use "
                "binary_cross_entropy_with_logits (nn.BCEWithLogitsLoss)"
                if part.kind.startswith("binary")
                else "give the model one output for each class, or leave the softmax out"
            )
        elif is_applied_twice(part) and part.kind in _MENDED:
            change = _MENDED[part.kind].format(activation=part.activation)
        else:
            continue
        return f"{place}{change if place else change[:1].upper() + change[1:]}; then measure again."
    return ""


def _describe_sign(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    part = next(part for part in _list_parts(flow) if part.kind != "penalty")
    name = KIND_NAMES[part.kind]
    if part.constant is not None and part.constant < 0.0:
        return (
            f"the loss is the {name} times a negative number, {format_number(flow.loss)}: the "
            "worse the answers, the lower it is, without a lowest value"
        )
    assert flow.optimizer is not None
    return (
        f"{flow.optimizer.name} maximizes (maximize=True) a loss that is the {name}, "
        f"{format_number(flow.loss)}: the worse the answers, the higher it is"
    )


def _turn(flow: GradientFlow) -> str:
    if flow.optimizer is not None and flow.optimizer.maximizes:
        return "Leave out maximize=True, or turn the sign of the loss; then measure again."
    return (
        "Take the minus sign off the loss; then measure again. If the model shall unlearn these "
        "examples, it is meant, and needs a limit of its own."
    )


def describe_reach(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    """Return what outputs can reach at best, in words."""
    worst, value = find_worst(rule, wrong)
    bound = describe_bound(rule, readings, wrong)
    return f"{word_reach(flow, worst)}: {rule.format(value)} times as much ({bound})"


def word_reach(flow: GradientFlow, reading: Reading) -> str:
    """Return what outputs can reach at best, and what guessing gives, in one clause."""
    part = next(
        part
        for part in _list_parts(flow)
        if part.reach is not None and part.guessing and part.reach / part.guessing == reading.value
    )
    at = f" ({reading.where})" if reading.where else ""
    return (
        f"the function that makes the output{at} has a range, and many targets lie outside: even "
        f"the best values in it give a {KIND_NAMES[part.kind]} of {format_number(part.reach)}, "
        f"where guessing gives {format_number(part.guessing)}"
    )


def _describe_cut(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    facts = flow.loss_facts
    assert facts is not None
    names = [term.name for term in facts.terms if term.is_detached]
    if names:
        words = " and ".join(f"{name!r}" for name in names)
        plural = len(names) > 1
        start = (
            f"the term{'s' if plural else ''} {words} reach{'' if plural else 'es'} no parameter"
        )
    else:
        start = (
            f"{format_number(facts.cut)} of the loss depends on the model only through "
            f"{_word_cut(facts.cut_by)}, so it reaches no parameter"
        )
    _, value = find_worst(rule, wrong)
    return f"{start}: {rule.format(value)} of the loss ({describe_bound(rule, readings, wrong)})"


COPIES = frozenset({"tensor", "as_tensor", "asarray", "scalar_tensor", "new_tensor"})
"""Functions that make a tensor of the numbers of others, and leave their graph behind."""


def _word_cut(names: Sequence[str]) -> str:
    """Return through what a part of the loss depends on the model, as exactly as it is known."""
    copies = [f"torch.{name}(…)" for name in names if name in COPIES]
    flat = [name for name in names if name not in COPIES]
    words = []
    if copies:
        words.append(f"{' and '.join(copies)}, which copies numbers and leaves their graph behind")
    if flat or not names:
        known = ", ".join(flat) or "such as argmax or a comparison"
        words.append(f"functions without a derivative ({known})")
    return " and ".join(words)


def _reconnect(flow: GradientFlow) -> str:
    """Return what to do about a part of the loss that was cut off, by what cut it off."""
    facts = flow.loss_facts
    names = () if facts is None or facts.terms else facts.cut_by
    if names and all(name in COPIES for name in names):
        return (
            f"Join tensors with torch.stack(…) or torch.cat(…), and not with torch.{names[0]}(…), "
            "which makes a tensor of their numbers alone; then measure again."
        )
    return (
        "Compute this part of the loss from functions with a derivative (softmax instead of "
        "argmax, torch.stack instead of torch.tensor, no detach(), no item()), or leave it out; "
        "then measure again."
    )


# --- The table -----------------------------------------------------------------------------------

LOSS_RULES = (
    Rule(
        name="short_sequences",
        verdict=Verdict.FLAT_LOSS,
        metric="share of sequences that are shorter than their labels need",
        threshold=NEARLY_ALL,
        beyond=">",
        reason="A target that is longer than its input has probability 0, so its loss is infinite. "
        "With zero_infinity=True it is left out, and nothing is learned from that sequence. Each "
        "label takes a time step, and a repeated one a blank in between.",
        source="Graves et al. 2006, Connectionist Temporal Classification, section 3.1",
        read=_read_short,
        describe=_describe_short,
        action=_lengthen,
        scale="share",
        despite_overflow=True,
    ),
    Rule(
        name="flat_loss",
        verdict=Verdict.FLAT_LOSS,
        metric="fall of the loss for a 1 % change of the output, relative to the loss",
        threshold=FLAT,
        beyond="<",
        reason="The loss does not react to what the model puts out, so there is nothing to learn "
        "from, whatever the layers do. Typical causes: a sigmoid or a clamp that has reached its "
        "end, a rectifier that is off everywhere, targets for which the loss is constant, or a "
        "part that was detached.",
        source="2⁻²³, the precision of float32: a smaller change leaves the loss as it is",
        read=_read_reaction,
        applies=is_loss_flat,
        describe=_describe_flat,
        feature="no_gradient",
    ),
    *SHAPE_RULES,
    Rule(
        name="idle_examples",
        verdict=Verdict.FLAT_LOSS,
        metric="share of examples that send no gradient back",
        threshold=NEARLY_ALL,
        beyond=">",
        reason="For these examples the loss is flat, so training learns from the few others only. "
        "Look for a clamp, a margin or a mask that takes them out.",
        source="definition: an example with zero gradient at the output changes no weight",
        action="Look for what takes examples out of the loss: a mask, a margin, a clamp, or "
        "targets for which it is constant; then measure again.",
        read=_read_idle,
        applies=lambda flow: not is_loss_flat(flow) and not is_output_half(flow),
        scale="share",
    ),
    Rule(
        name="large_loss",
        verdict=Verdict.LARGE_LOSS,
        metric="loss ÷ loss of guessing",
        threshold=FAR,
        beyond=">",
        reason="The model starts far worse than an answer that knows nothing: its outputs are far "
        "too large, or far from the targets. The first part of training only undoes that.",
        source="measured: docs/truth.md",
        action="Worth trying: smaller initial weights of what makes the output, or targets of mean "
        "0 and standard deviation 1; then measure again.",
        read=_read_excess,
        describe=_describe_excess,
    ),
    Rule(
        name="large_tied_loss",
        verdict=Verdict.LARGE_LOSS,
        metric="loss ÷ loss of guessing, of a head that is tied to an embedding",
        threshold=FAR_WHEN_TIED,
        beyond=">",
        reason="The embedding's weights are the output layer's, too. With a standard deviation of "
        "1, they make outputs as large as the root of the width. Draw them with a standard "
        "deviation of 0.02, or divide the outputs by that root.",
        source="Press & Wolf 2017 (arXiv 1608.05859) on tied weights; measured: docs/decisions.md",
        action="Worth trying: an embedding with a standard deviation of 0.02; then measure again.",
        read=_read_tied_excess,
        describe=_describe_excess,
    ),
    Rule(
        name="unsuited_output",
        verdict=Verdict.OUTPUT,
        metric="by how much an activation that the loss does not expect divides the gradient",
        threshold=MANY_CLASSES,
        beyond=">",
        reason="Applied twice, a softmax or sigmoid squeezes the output into a small range, and "
        "with it the gradient. The loss cannot become small, even for perfect answers.",
        source="derivative of softmax at equal outputs: 1 ÷ classes; threshold measured",
        read=_read_activations,
        describe=_describe_activation,
        explain=_explain_activation,
        action=_mend_activation,
    ),
    Rule(
        name="wrong_sign",
        verdict=Verdict.SIGN,
        metric="loss, negative if training makes the answers worse",
        threshold=0.0,
        beyond="<",
        reason="Every step moves the answers away from their targets. A reward or a likelihood is "
        "turned to make a loss of it; an error is not.",
        source="definition: cross-entropy and squared error are lowest for the right answers",
        read=_read_sign,
        describe=_describe_sign,
        action=_turn,
        ignored_by_remedies=True,
    ),
    Rule(
        name="out_of_reach",
        verdict=Verdict.OUTPUT,
        metric="loss of the best outputs that are possible ÷ loss of guessing",
        threshold=HALF,
        beyond=">",
        reason="No weights can give these answers: a rectifier makes nothing below 0, tanh nothing "
        "beyond ±1, a sigmoid or softmax nothing outside of 0 to 1. At the end of its range the "
        "function is flat as well.",
        source="range of the function; half of the way from guessing to a perfect answer is what "
        "counts as trained (docs/truth.md)",
        action="Leave the last activation out, or scale the targets into its range; then measure "
        "again.",
        read=read_reach,
        describe=describe_reach,
        last=True,
        ignored_by_remedies=True,
    ),
    Rule(
        name="detached_term",
        verdict=Verdict.NO_GRADIENT,
        metric="share of the loss that reaches no parameter",
        threshold=0.01,
        beyond=">",
        reason="Whatever the weight of such a term, training does nothing about it.",
        source="reverse-mode differentiation: no path in the graph, no derivative",
        action=_reconnect,
        read=_read_cut,
        describe=_describe_cut,
        scale="share",
        ignored_by_remedies=True,
    ),
    Rule(
        name="no_step",
        verdict=Verdict.VANISHING,
        metric="fall of the loss if all parameters moved by 1 %, relative to the loss",
        threshold=FLAT,
        beyond="<",
        reason="The loss reacts to the output, but no parameter can change the output: the "
        "gradient is lost between them.",
        source="2⁻²³, the precision of float32: a smaller change leaves the loss as it is",
        read=_read_step,
        applies=lambda flow: not is_loss_flat(flow),
        last=True,
    ),
)
"""Rules about the loss."""
