"""Notes on what keeps a model with usable gradients from learning: targets, steps, calls."""

import math
from collections.abc import Callable, Iterator

from chainrule._utils.numbers import format_number, format_share
from chainrule.diagnosis.loss_rules import has_same_numbers, read_reach, word_reach
from chainrule.diagnosis.note import Note, make_note
from chainrule.diagnosis.observations import OBSERVATIONS
from chainrule.diagnosis.optimizer_rules import (
    EPSILON,
    FIND_THEIR_OWN,
    count_still,
    list_planned,
    list_rounded,
    measure_rounded,
    measure_usual_rate,
    word_decay,
    word_rounded,
    word_step,
)
from chainrule.diagnosis.rules import RULES, measure_metric
from chainrule.diagnosis.slip_rules import (
    count_examples,
    list_slips,
    word_not_logarithms,
    word_over_examples,
    word_place,
    word_scrambled,
    word_wave,
)
from chainrule.diagnosis.structure import is_loss_flat, list_explained
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.loss import KIND_NAMES, LossPart


def _find_unnamed(flow: GradientFlow) -> Iterator[Note]:
    """Find a loss whose other summands outweigh the error that it knows, where none has a name."""
    facts = flow.loss_facts
    parts = () if facts is None or facts.terms else facts.parts
    known = [part for part in parts if part.guessing is not None and part.kind != "penalty"]
    if not known or not any(part.kind == "custom" for part in parts):
        return
    values = [part.value for part in parts if part.value is not None]
    rest = float(flow.loss) - math.fsum(map(float, values))
    level = math.fsum(float(part.guessing or 0.0) for part in known)
    ratio = abs(rest) / level if level > 0.0 else 0.0
    if OBSERVATIONS["unnamed_terms"].threshold < ratio < math.inf:
        kinds = " and ".join(dict.fromkeys(KIND_NAMES[part.kind] for part in known))
        yield make_note(
            "unnamed_terms",
            ratio,
            f"what is added to the {kinds} amounts to {format_number(rest)}, and guessing costs "
            f"the {kinds} {format_number(level)}",
            [],
        )


def _is_faultless(flow: GradientFlow) -> bool:
    """Whether no rule finds anything: what a finding explains needs no note."""
    return not any(rule.finds(flow) for rule in RULES.values() if not rule.last)


def _find_tiny_gradients(flow: GradientFlow) -> Iterator[Note]:
    size = measure_metric(flow, "below_epsilon")
    bound = OBSERVATIONS["tiny_gradients"].threshold
    if size is None or not 0.0 < size < bound or not _is_faultless(flow):
        return
    yield make_note(
        "tiny_gradients",
        size,
        f"the entries of all gradients together have a size of {format_number(size)}, and Adam "
        f"adds {format_number(EPSILON)} before it divides by it; the loss is "
        f"{format_number(flow.loss)}",
        [],
    )


def _find_unusual_rate(flow: GradientFlow) -> Iterator[Note]:
    rate = measure_usual_rate(flow)
    for name in ("low_rate", "high_rate"):
        entry = OBSERVATIONS[name]
        beyond = rate is not None and (
            rate < entry.threshold if entry.beyond == "<" else rate > entry.threshold
        )
        if rate is None or not beyond or flow.spec is not None or not _is_faultless(flow):
            continue
        # Scales that start small divide the gradients, and grow.
        if name == "low_rate" or 2 * len(list_explained(flow)) <= len(flow.weight_layers):
            yield make_note(
                name,
                rate,
                f"plain SGD would need a learning rate of {format_number(rate)} to change the "
                "median parameter by 1 % in a step",
                [],
            )


def _find_reach(flow: GradientFlow) -> Iterator[Note]:
    low, high = OBSERVATIONS["partly_out_of_reach"].threshold, RULES["out_of_reach"].threshold
    for each in read_reach(flow):
        if each.value is not None and low < each.value <= high:
            evidence = f"{word_reach(flow, each)}: {format_number(each.value)} times as much"
            yield make_note("partly_out_of_reach", each.value, evidence, each.modules)


def _find_one_sided(flow: GradientFlow) -> Iterator[Note]:
    """Find logits that a function keeps from being negative, and what that costs."""
    for part in flow.loss_facts.parts if flow.loss_facts else ():
        if part.rectifier is None:
            continue
        bound = OBSERVATIONS["one_sided_logits"].threshold
        names = [flow.layers[at].name for at in part.outputs]
        start = f"{part.rectifier} makes the logits that the {KIND_NAMES[part.kind]} reads"
        if part.kind == "cross_entropy" and part.off is not None and part.off > bound:
            yield make_note(
                "one_sided_logits",
                part.off,
                f"{start}: none is below 0, and in {format_share(part.off)} of the examples that "
                "of the right class is at its end, where no gradient raises it",
                names,
            )
        elif part.reach and part.guessing and part.reach > bound * part.guessing:
            yield make_note(
                "one_sided_logits",
                part.reach / part.guessing,
                f"{start}: none is below 0, so no probability is below one half. The best such "
                f"logits cost {format_number(part.reach)}, and guessing costs "
                f"{format_number(part.guessing)}"
                f"{_word_constant(part)}",
                names,
            )


def _word_constant(part: LossPart) -> str:
    """Return that the same answer for all examples would cost less than the best logits."""
    if part.constant is None or part.reach is None or part.reach <= part.constant:
        return ""
    return f" (one answer for all, of any sign, {format_number(part.constant)})"


def _find_alike_targets(flow: GradientFlow) -> Iterator[Note]:
    """Find classes of which one is all there is, or nearly so."""
    for part in flow.loss_facts.parts if flow.loss_facts else ():
        is_binary = part.kind.startswith("binary_cross_entropy")
        width = 2 if is_binary else part.width if part.kind == "cross_entropy" else None
        rows = [flow.layers[at].shape[0] for at in part.outputs if flow.layers[at].shape]
        if not width or part.constant is None or not part.guessing or part.floor is None:
            continue
        if width < 2 or max(rows, default=0) < _ENOUGH_ANSWERS or part.floor > 0.0:
            continue
        spread = part.constant / part.guessing * math.log(width)
        names = [flow.layers[at].name for at in part.outputs]
        if spread < 1e-6:
            yield make_note(
                "same_targets", 1.0, "all examples of the batch have the same target", names
            )
        elif spread < OBSERVATIONS["rare_targets"].threshold:
            yield make_note(
                "rare_targets",
                spread,
                "nearly all targets are the same: the best constant answer costs "
                f"{format_number(part.constant)}, and guessing {format_number(part.guessing)}",
                names,
            )


def _find_same_numbers(flow: GradientFlow) -> Iterator[Note]:
    """Find targets of a regression that are the same for all examples."""
    facts = flow.loss_facts
    parts = [part for part in facts.parts if part.kind != "penalty"] if facts else []
    if len(parts) != 1 or not has_same_numbers(parts[0]):
        return
    rows = [flow.layers[at].shape[0] for at in parts[0].outputs if flow.layers[at].shape]
    if max(rows, default=0) >= _ENOUGH_ANSWERS:
        yield make_note(
            "same_targets",
            1.0,
            "all examples of the batch have the same target: the best constant answer costs "
            f"{format_number(0.0)}",
            [flow.layers[at].name for at in parts[0].outputs],
        )


def _find_same_views(flow: GradientFlow) -> Iterator[Note]:
    """Find two outputs of a module that one part of the loss reads, and that are the same."""
    for part in flow.loss_facts.parts if flow.loss_facts else ():
        seen: dict[object, int] = {}
        for at in sorted(part.outputs):
            call = flow.layers[at]
            values = call.statistics
            shape = call.shape
            if values is None or len(shape) < 2 or shape[0] < _ENOUGH_ANSWERS:
                continue
            if math.prod(shape[1:]) == 1:  # scores are read twice to rank examples
                continue
            first = seen.setdefault((call.name, call.output, shape, values), at)
            if first != at and values.variation:
                yield make_note(
                    "same_views",
                    1.0,
                    f"the loss reads {flow.layers[first].label!r} and {call.label!r}. Over "
                    f"{shape[0]:,} examples, mean, deviation, ends and histogram of both are "
                    "the same to the last digit",
                    [call.name],
                )
                break


_ENOUGH_ANSWERS = 8
"""Answers from which on it is no accident that their targets are the same."""


def _find_one_number(flow: GradientFlow) -> Iterator[Note]:
    """Find logits of several classes that all are made of a single number."""
    weights = {each.name: each.shape for each in flow.parameters if each.is_weight}
    for part in flow.loss_facts.parts if flow.loss_facts else ():
        if part.kind != "cross_entropy" or len(part.outputs) != 1 or not part.is_direct:
            continue
        name = flow.layers[part.outputs[0]].name
        shape = weights.get(f"{name}.weight" if name else "weight", ())
        if len(shape) < 2 or shape[0] != part.width or math.prod(shape[1:]) != 1:
            continue
        data = [each for each in flow.inputs if each.reader == name]
        if data and all(each.columns == 1 for each in data):  # there is no more than one number
            continue
        if shape[0] > OBSERVATIONS["one_number"].threshold:
            yield make_note(
                "one_number",
                shape[0],
                f"{name or '(model)'!r} makes the logits of {shape[0]:,} classes from a single "
                f"number per example: its weight has the shape {shape}",
                [name],
            )


def _find_slow_start(flow: GradientFlow) -> Iterator[Note]:
    step = None if flow.loss_facts is None else flow.loss_facts.step
    if step is None or is_loss_flat(flow) or RULES["no_step"].is_beyond(step):
        return
    if step < OBSERVATIONS["slow_start"].threshold and _is_faultless(flow):
        yield make_note(
            "slow_start",
            step,
            "if every weight moved by 1 % along its gradient, the loss would fall by "
            f"{format_number(100 * step)} %",
            [],
        )


def _find_linear(flow: GradientFlow) -> Iterator[Note]:
    """Find models of several matrices, with nothing between them that is not linear."""
    calls = [call for call in flow.layers if call.parent is None]
    while calls and (calls[-1].role == "activation" or calls[-1].kind in _LAST):
        calls.pop()  # what makes probabilities of the answers
    weights = [call.name for call in calls if call.kind in _MATRICES]
    kinds = {call.kind for call in calls}
    linear = all(kind in _MATRICES or kind.startswith(_LINEAR) for kind in kinds)
    if flow.spec is None and flow.chain and linear and len(set(weights)) > 1:
        yield make_note(
            "no_activations",
            len(set(weights)),
            f"nothing stands between the {len(set(weights))} weight layers but linear functions",
            list(dict.fromkeys(weights)),
        )


_MATRICES = frozenset(
    {"Linear", *(f"Conv{at}{n}d" for at in ("", "Transpose") for n in "123")},
)
_LINEAR = (
    *("Dropout", "AlphaDropout", "Flatten", "Unflatten", "Identity", "BatchNorm", "ZeroPad"),
    *("AvgPool", "AdaptiveAvgPool", "Upsample"),
)
_LAST = frozenset({"Softmax", "LogSoftmax", "Flatten", "Unflatten", "Identity"})


def _find_slips(flow: GradientFlow) -> Iterator[Note]:
    for each in list_slips(flow, "scrambled"):
        yield make_note("scrambled_sizes", 1.0, word_scrambled(each), [each.module])
    for each in list_slips(flow, "over_examples"):
        yield make_note(
            "over_examples", count_examples(each), word_over_examples(each), [each.module]
        )
    for each in list_slips(flow, "not_logarithms"):
        value = 0.0 if each.value is None else float(each.value)
        yield make_note("not_logarithms", value, word_not_logarithms(each), [each.module])
    for each in list_slips(flow, "wave")[:1]:
        value = 0.0 if each.value is None else float(each.value)
        yield make_note("fast_waves", value, word_wave(each), [each.module])


def _find_small_steps(flow: GradientFlow) -> Iterator[Note]:
    step = measure_metric(flow, "small_step")
    if step is None or RULES["small_step"].is_beyond(step):
        return
    if 0.0 < step < OBSERVATIONS["small_steps"].threshold:
        yield make_note("small_steps", step, word_step(flow, step), [])


def _find_foreign_rate(flow: GradientFlow) -> Iterator[Note]:
    """Find rates far from the usual one of an optimizer whose steps are not known otherwise."""
    optimizer = flow.optimizer
    if optimizer is None or optimizer.steps != "other" or optimizer.name in FIND_THEIR_OWN:
        return
    rates = [rate for rate in list_planned(flow) if rate]
    usual = optimizer.default_rate
    if not rates or not usual:
        return
    far = max(rates, key=lambda rate: abs(math.log(rate) - math.log(usual)))
    factor = max(far / usual, usual / far)
    if factor > OBSERVATIONS["foreign_rate"].threshold:
        yield make_note(
            "foreign_rate",
            factor,
            f"{optimizer.name} has a learning rate of {format_number(far)}, where "
            f"{format_number(usual)} is its own: {format_number(factor)} times "
            f"{'more' if far > usual else 'less'}",
            [],
        )


def _find_rate_of_zero(flow: GradientFlow) -> Iterator[Note]:
    """Find rates of 0: all of them, where a schedule leads elsewhere, or those of some groups."""
    optimizer = flow.optimizer
    if optimizer is None:
        return
    still, held = count_still(flow)
    rates = [rate for rate in optimizer.rates if rate is not None]
    if rates and not any(rates) and still < held:
        shown = format_number(max(rate for rate in list_planned(flow) if rate is not None))
        yield make_note(
            "rate_of_zero",
            0.0,
            f"the learning rate of {optimizer.name} is 0 now, and {shown} is what its schedule "
            "starts from",
            [],
        )
    if 0 < still < held:
        names = [
            parameter.name
            for parameter, rate in zip(flow.parameters, list_planned(flow), strict=True)
            if rate == 0.0 and parameter.status == "measured"
        ]
        yield make_note(
            "still_group",
            still,
            f"{optimizer.name} holds {still} of {held} trained parameters at a learning rate of 0, "
            f"such as {names[0]!r}",
            names,
        )


def _find_rounded(flow: GradientFlow) -> Iterator[Note]:
    share = measure_rounded(flow)
    if share is not None and share > OBSERVATIONS["rounded_steps"].threshold:
        yield make_note(
            "rounded_steps",
            share,
            word_rounded(flow),
            [each.name for each, own in list_rounded(flow) if own > 0.5],
        )


def _find_decay(flow: GradientFlow) -> Iterator[Note]:
    pull = measure_metric(flow, "strong_decay")
    if pull is None or RULES["strong_decay"].finds(flow):
        return
    if pull > OBSERVATIONS["some_decay"].threshold:
        yield make_note("some_decay", pull, word_decay(flow, pull), [])


def _find_dropout(flow: GradientFlow) -> Iterator[Note]:
    found = [each for each in list_slips(flow, "dropout") if each.value is not None]
    if found:
        worst = max(found, key=lambda each: float(each.value or 0.0))
        yield make_note(
            "heavy_dropout",
            float(worst.value or 0.0),
            f"{worst.operation} leaves out {format_share(worst.value or 0.0)} of the values"
            f"{word_place(worst)}",
            [each.module for each in found],
        )


LEARNING_NOTES: tuple[Callable[[GradientFlow], Iterator[Note]], ...] = (
    _find_unnamed,
    _find_tiny_gradients,
    _find_unusual_rate,
    _find_reach,
    _find_one_sided,
    _find_alike_targets,
    _find_same_numbers,
    _find_same_views,
    _find_one_number,
    _find_slow_start,
    _find_linear,
    _find_slips,
    _find_small_steps,
    _find_rate_of_zero,
    _find_rounded,
    _find_foreign_rate,
    _find_decay,
    _find_dropout,
)
"""What finds them, in the order in which notes are given."""
