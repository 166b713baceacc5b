"""Notes on a measurement: attention, residual streams, loss, inputs, time, precision, unused parts.

A note never changes the verdict: nothing need be wrong. It reports a metric that people ask about,
and what was found when the claim that goes with it was put to the test.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from chainrule._utils.numbers import format_number, format_share
from chainrule.diagnosis.call_notes import CALL_NOTES
from chainrule.diagnosis.causes import list_untouched, word_untouched
from chainrule.diagnosis.evidence import list_saturable
from chainrule.diagnosis.input_rules import (
    ENOUGH,
    count_possible,
    list_constant,
    list_large,
    word_constant,
)
from chainrule.diagnosis.learning_notes import LEARNING_NOTES
from chainrule.diagnosis.loss_rules import (
    is_applied_twice,
    word_activations,
    word_short,
)
from chainrule.diagnosis.note import Note, make_note
from chainrule.diagnosis.observations import OBSERVATIONS
from chainrule.diagnosis.overflow import count_non_finite, locate_overflow
from chainrule.diagnosis.reach import describe_unreached, read_unreached
from chainrule.diagnosis.rules import RULES, measure_metric
from chainrule.diagnosis.shape_rules import word_broadcast
from chainrule.diagnosis.structure import (
    list_normalizations,
    list_streams,
)
from chainrule.diagnosis.symmetry_rules import count_copies, list_symmetric
from chainrule.diagnosis.term_notes import TERM_NOTES
from chainrule.diagnosis.time_rules import (
    LONG,
    UNGATED,
    describe_lost,
    describe_untold,
    is_left_to_adam,
    is_untested,
    is_untold,
    list_cut,
    measure_heard,
    measure_lost,
)
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.precision import FORMATS
from chainrule.flow.records import (
    NEAR_ONE_HOT,
    NEAR_UNIFORM,
    AttentionFlow,
    ResidualFlow,
    read_saturation,
)
from chainrule.flow.time import LOST

_LONG = 4
"""Sums from which on a residual stream is worth a note of its own."""


def list_notes(flow: GradientFlow) -> tuple[Note, ...]:
    """Return what is worth knowing of attention, residual connections, loss, inputs and more.

    What is grave enough to be a finding of the diagnosis is left to it.
    """
    return tuple(note for find in _FINDERS for note in find(flow))


def _find_stopped(flow: GradientFlow) -> Iterator[Note]:
    if flow.is_finite or not flow.has_finite_gradients:
        return
    total, places, _ = count_non_finite(flow)
    if flow.origin is not None:
        sentence = flow.origin.sentence.removesuffix(".")
        evidence = f"{sentence[0].lower()}{sentence[1:]}"
    else:
        start = locate_overflow(flow)
        evidence = f"{format_number(total)} numbers are infinite or undefined: {start}"
    if total > 0:
        yield make_note("stopped_non_finite", total, evidence, list(places))


def _find_one_hot(flow: GradientFlow) -> Iterator[Note]:
    found = [each for each in flow.attentions if each.entropy < NEAR_ONE_HOT]
    if found:
        least = min(found, key=lambda each: each.entropy)
        yield make_note(
            "one_hot_attention",
            least.entropy,
            f"attention is nearly one-hot in {_count(found, flow.attentions)}: its relative "
            f"entropy is {format_number(least.entropy)} at {least.label!r} (0 is one-hot, 1 is "
            "uniform)",
            [each.name for each in found],
        )


def _find_uniform(flow: GradientFlow) -> Iterator[Note]:
    found = [each for each in flow.attentions if each.entropy > NEAR_UNIFORM]
    if 2 * len(found) > len(flow.attentions):
        least = min(each.entropy for each in found)
        yield make_note(
            "uniform_attention",
            least,
            f"attention is nearly uniform in {_count(found, flow.attentions)}: its relative "
            f"entropy is at least {math.floor(1000 * least) / 1000:g} there (0 is one-hot, 1 is "
            "uniform)",
            [each.name for each in found],
        )


def _count(found: Sequence[AttentionFlow], every: Sequence[AttentionFlow]) -> str:
    return f"{len(found)} of {len(every)} computation{'' if len(every) == 1 else 's'}"


def _find_large_branches(flow: GradientFlow) -> Iterator[Note]:
    bound = OBSERVATIONS["large_branch"].threshold
    shares = [(share, each) for each in flow.residuals if (share := each.share) is not None]
    found = [(share, each) for share, each in shares if share > bound]
    if found:
        share, worst = max(found, key=lambda pair: pair[0])
        yield make_note(
            "large_branch",
            share,
            f"{len(found)} of {len(shares)} branches add more than {bound:g} times the size of "
            f"their residual stream; {_name(flow, worst)!r} adds {format_number(share)} times",
            [_name(flow, each) for _, each in found],
        )


def _find_tiny_branches(flow: GradientFlow) -> Iterator[Note]:
    shares = [(share, each) for each in flow.residuals if (share := each.share) is not None]
    if not shares:
        return
    median = statistics.median(float(share) for share, _ in shares)
    if median < OBSERVATIONS["tiny_branch"].threshold:
        yield make_note(
            "tiny_branch",
            median,
            "the branches add nothing yet"
            if max(share for share, _ in shares) == 0.0
            else f"the median branch adds {format_number(median)} times the size of its residual "
            "stream",
            [_name(flow, each) for _, each in shares],
        )


def _find_growing(flow: GradientFlow) -> Iterator[Note]:
    for stream in _list_long(flow, "before"):
        start = stream[0].after if stream[0].before is None else stream[0].before
        growth = stream[-1].after / start if start > 0.0 else 0.0
        if growth <= OBSERVATIONS["growing_pre_norm"].threshold:
            continue
        shares = [share for each in stream if (share := each.share) is not None]
        half = len(shares) // 2
        falls = ""
        if half:  # a sum of several branches has no share of one
            parts = (shares[:half], shares[-half:])
            early, late = (statistics.median(map(float, part)) for part in parts)
            falls = (
                f"; the median branch adds {format_number(early)} times its size in the first half "
                f"and {format_number(late)} times in the second"
            )
        first, last = stream[0].gradient, stream[-1].gradient
        reaches = (
            f"; its gradient at the first sum is {format_number(first / last)} times that at the "
            "last"
            if first is not None and last
            else ""
        )
        yield make_note(
            "growing_pre_norm",
            growth,
            f"the pre-norm residual stream grows by a factor of {format_number(growth)} over its "
            f"{len(stream)} sums{falls}{reaches}",
            [_name(flow, each) for each in stream],
        )


def _find_fading(flow: GradientFlow) -> Iterator[Note]:
    for stream in _list_long(flow, "after"):
        first, last = stream[0].gradient, stream[-1].gradient
        if first is None or not last:
            continue
        ratio = first / last
        if RULES["fading_stream"].threshold <= ratio < OBSERVATIONS["fading_post_norm"].threshold:
            yield make_note(
                "fading_post_norm",
                ratio,
                f"the gradient at the first of {len(stream)} sums of the post-norm residual stream "
                f"is {format_number(ratio)} times that at the last",
                [_name(flow, each) for each in stream],
            )


def _find_deep_post_norm(flow: GradientFlow) -> Iterator[Note]:
    for stream in _list_long(flow, "after"):
        if len(stream) > OBSERVATIONS["deep_post_norm"].threshold:
            yield make_note(
                "deep_post_norm",
                len(stream),
                f"each of {len(stream)} sums of the residual stream is normalized again "
                "(post-norm)",
                [_name(flow, each) for each in stream],
            )


def _find_starved_branches(flow: GradientFlow) -> Iterator[Note]:
    rule = RULES["starved_normalization"]
    places = list_normalizations(flow)
    found = [place for place in places if place.value < rule.threshold]
    wrong = any(each.value is not None and rule.is_beyond(each.value) for each in rule.read(flow))
    if found and not wrong:
        least = min(found, key=lambda place: place.value)
        yield make_note(
            "starved_branch",
            least.value,
            f"{len(found)} of {len(places)} normalizations put out less than {rule.threshold:g} "
            f"times the spread that they should; {least.name!r} puts out "
            f"{format_number(least.value)} times",
            [place.module for place in found],
        )


def _find_untouched(flow: GradientFlow) -> Iterator[Note]:
    names = list_untouched(flow)
    if names:
        yield make_note("untouched_statistics", len(names), word_untouched(flow), names)


def _find_unused(flow: GradientFlow) -> Iterator[Note]:
    unreached = read_unreached(flow)
    if unreached.names and not unreached.cut:
        yield make_note(
            "unused_weights",
            len(unreached.names),
            describe_unreached(unreached),
            unreached.names,
        )


def _find_idle(flow: GradientFlow) -> Iterator[Note]:
    share = None if flow.loss_facts is None else flow.loss_facts.zero_examples
    bound = OBSERVATIONS["idle_examples"].threshold
    if share is not None and bound < share <= RULES["idle_examples"].threshold:
        yield make_note(
            "idle_examples",
            share,
            f"{format_share(share)} of the examples send no gradient back through the output",
            [flow.layers[position].name for position in flow.loss_facts.outputs]
            if flow.loss_facts
            else [],
        )


def _find_constant_inputs(flow: GradientFlow) -> Iterator[Note]:
    if not RULES["constant_inputs"].finds(flow):
        for each in list_constant(flow):
            yield make_note("constant_input", each.examples, word_constant(each), [each.reader])


def _find_large_start(flow: GradientFlow) -> Iterator[Note]:
    excess = measure_metric(flow, "large_loss")
    if excess is None or any(RULES[name].finds(flow) for name in _large(flow)):
        return
    if excess > OBSERVATIONS["large_start"].threshold:
        yield make_note(
            "large_start", excess, f"the loss is {format_number(excess)} times that of guessing", []
        )


def _find_large_inputs(flow: GradientFlow) -> Iterator[Note]:
    found = list_large(flow)
    if found and not RULES["large_inputs"].finds(flow):
        worst = max(found, key=lambda each: each.size)
        note = make_note(
            "large_inputs",
            worst.size,
            f"the input of {worst.reader or '(model)'!r} has a root mean square of "
            f"{format_number(worst.size)}; its values lie between {format_number(worst.min)} and "
            f"{format_number(worst.max)}",
            [each.reader for each in found],
        )
        yield note if flow.is_finite else replace(note, meaning=_LARGE_BESIDE_OVERFLOW)


_LARGE_BESIDE_OVERFLOW = (
    "All values behind it grow with the input, so it may be what makes numbers too large here. "
    "Inputs of mean 0 and standard deviation 1 tell."
)


def _large(flow: GradientFlow) -> Sequence[str]:
    tied = measure_metric(flow, "large_tied_loss")
    return ("large_loss",) if tied is None else ("large_loss", "large_tied_loss")


def _find_all_pairs(flow: GradientFlow) -> Iterator[Note]:
    for each in flow.loss_facts.broadcasts if flow.loss_facts else ():
        if not each.by_mistake:
            count = math.prod(each.result) // max(1, math.prod(each.output))
            yield make_note("all_pairs", count, word_broadcast(each), [])


def _find_swamped(flow: GradientFlow) -> Iterator[Note]:
    """Find terms with targets of their own whose gradient is small beside that of another term."""
    terms = flow.loss_facts.terms if flow.loss_facts else ()
    norms = [{each.parameter: float(each.norm) for each in term.gradients or ()} for term in terms]
    for small, own in zip(terms, norms, strict=True):
        found = []
        for large, its in zip(terms, norms, strict=True):
            shared = [at for at in own if at in its and flow.parameters[at].is_weight]
            sizes = [math.hypot(*(part[at] for at in shared)) for part in (its, own)]
            if large is not small and shared and sizes[1] > 0.0 and math.isfinite(sizes[0]):
                place = max(
                    (at for at in shared if own[at] > 0.0), key=lambda at: its[at] / own[at]
                )
                found.append((sizes[0] / sizes[1], large.name, place, its[place] / own[place]))
        factor, name, place, most = max(found, default=(0.0, "", 0, 0.0))
        if small.guessing is not None and factor > OBSERVATIONS["swamped_term"].threshold:
            parameter = flow.parameters[place].name
            yield make_note(
                "swamped_term",
                factor,
                f"the gradient of the term {name!r} is {format_number(factor)} times that of "
                f"{small.name!r} over the weights that both reach; at {parameter!r} it is "
                f"{format_number(most)} times",
                [parameter],
            )


def _find_short_sequences(flow: GradientFlow) -> Iterator[Note]:
    share = measure_metric(flow, "short_sequences")
    if share and not RULES["short_sequences"].is_beyond(share):
        yield make_note("short_sequences", share, word_short(flow), [])


def _find_probabilities(flow: GradientFlow) -> Iterator[Note]:
    parts = flow.loss_facts.parts if flow.loss_facts else ()
    divided = measure_metric(flow, "unsuited_output")
    if divided is None or RULES["unsuited_output"].is_beyond(divided):
        return
    if any(is_applied_twice(part) for part in parts):
        names = [flow.layers[at].name for part in parts for at in part.outputs]
        yield make_note("probabilities", 1.0, "; ".join(word_activations(flow)), names)


def _find_log_softmax(flow: GradientFlow) -> Iterator[Note]:
    for part in flow.loss_facts.parts if flow.loss_facts else ():
        if (part.kind, part.activation) == ("cross_entropy", "log_softmax"):
            names = [flow.layers[position].name for position in part.outputs]
            yield make_note(
                "log_softmax_twice",
                1.0,
                "cross_entropy receives logarithms of probabilities",
                names,
            )


def _find_detached(flow: GradientFlow) -> Iterator[Note]:
    facts = flow.loss_facts
    if facts is None or any(term.is_detached for term in facts.terms):  # it has a name
        return
    value = facts.detached
    if value:
        yield make_note(
            "detached_constant",
            abs(value),
            "a summand of the loss was computed by the model and detached; it amounts to "
            f"{format_number(value)} here",
            [],
        )


def _find_constant_columns(flow: GradientFlow) -> Iterator[Note]:
    for each in flow.inputs:
        share = each.constant_columns / each.columns
        if each.min == each.max:  # a note of its own
            continue
        if each.examples >= ENOUGH and share > OBSERVATIONS["constant_columns"].threshold:
            yield make_note(
                "constant_columns",
                share,
                f"{each.constant_columns:.0f} of {each.columns:,} columns of the input of "
                f"{each.reader or '(model)'!r} have one value in all {each.examples:,} examples",
                [each.reader],
            )


def _find_repeated(flow: GradientFlow) -> Iterator[Note]:
    """Find examples that are there twice, in all that the model reads of them.

    What has a single value is a state to start from, or a time; no data. Where there are fewer
    different examples than the batch has, as in a small world of states, some have to repeat.
    """
    bound = OBSERVATIONS["repeated_examples"].threshold
    data = [each for each in flow.inputs if each.min < each.max]
    different = {each.examples for each in data if each.repeated <= bound}
    for each in data:
        if each.examples in different or each.is_part or not 0.0 <= each.repeated <= 1.0:
            continue
        distinct = round((1.0 - each.repeated) * each.examples)
        if distinct > 1 and count_possible(each) < each.examples:
            continue
        if each.examples >= ENOUGH and each.repeated > bound:
            yield make_note(
                "repeated_examples",
                each.repeated,
                f"{each.repeated * each.examples:.0f} of {each.examples:,} examples of the input "
                f"of {each.reader or '(model)'!r} repeat an earlier one",
                [each.reader],
            )


def _find_unheard(flow: GradientFlow) -> Iterator[Note]:
    """Find positions that the loss does not hear, and that nothing tells of: else it is found."""
    for each in flow.times:
        share, heard = measure_lost(each), measure_heard(each)
        if each.of == "position" and share and (heard is None or heard >= LOST):
            yield make_note("unheard_positions", share, describe_lost(each), [each.name])


def _find_fading_time(flow: GradientFlow) -> Iterator[Note]:
    bound = RULES["vanishing_time"].threshold
    found = [e for e in flow.times if e.of != "position" and (measure_lost(e) or 0.0) > 0.0]
    is_named = any(list_cut(flow, each) and not is_untested(each) for each in found)
    for each in found:
        share, cut = measure_lost(each) or 0.0, list_cut(flow, each)
        if (share > bound) is not is_untested(each):
            continue
        if not cut:
            yield make_note("fading_time", share, describe_lost(each), [each.name])
        elif not is_named:  # what cuts one module off cuts off what it reads, too
            is_named = True
            yield make_note("cut_time", share, describe_lost(each, cut), [each.name])


def _find_untold(flow: GradientFlow) -> Iterator[Note]:
    for each in flow.times:
        is_but_a_note = each.kind not in UNGATED or is_left_to_adam(flow, each)
        if is_but_a_note and each.length > LONG and is_untold(each):
            yield make_note("untold_steps", each.length, describe_untold(each), [each.name])


def _find_copied_units(flow: GradientFlow) -> Iterator[Note]:
    low, high = OBSERVATIONS["copied_units"].threshold, RULES["symmetric_units"].threshold
    for each, share in list_symmetric(flow):
        if low < share <= high:
            yield make_note(
                "copied_units",
                share,
                f"{count_copies(flow, each):.0f} of {each.units:,} units of {each.parameter!r} "
                "have the same weights and gradients as an earlier one",
                [each.parameter],
            )


def _find_partly_saturated(flow: GradientFlow) -> Iterator[Note]:
    low, high = OBSERVATIONS["partly_saturated"].threshold, RULES["saturated"].threshold
    judged = {layer.layer for layer in list_saturable(flow)}
    shares = [
        (share, layer)
        for layer in flow.weight_layers
        if (share := read_saturation(layer)) is not None
        and low < share
        and (share <= high or layer.layer not in judged)
    ]
    if shares:
        share, worst = max(shares, key=lambda pair: pair[0])
        yield make_note(
            "partly_saturated",
            share,
            f"{format_share(share)} of the activations behind layer {worst.layer} are saturated"
            f"{f'; {len(shares)} layers are above 50 %' if len(shares) > 1 else ''}",
            [layer.name for _, layer in shares],
        )


def _find_near_overflow(flow: GradientFlow) -> Iterator[Note]:
    found = [
        (max(abs(each.statistics.min), abs(each.statistics.max)), each)
        for each in flow.layers
        if each.dtype == "float16" and each.statistics is not None
    ]
    limit = FORMATS["float16"].largest
    bound = OBSERVATIONS["near_overflow"].threshold
    beyond = [(size / limit, each) for size, each in found if not size / limit <= bound]
    if beyond:
        share, first = beyond[0]
        reach = f"reach {format_share(share)} of" if math.isfinite(share) else "are beyond"
        yield make_note(
            "near_overflow",
            share,
            f"values of {first.label!r} {reach} the largest number of float16",
            [each.name for _, each in beyond],
        )


def _list_long(flow: GradientFlow, normalization: str) -> Iterator[tuple[ResidualFlow, ...]]:
    for stream in list_streams(flow):
        styles = {each.normalization for each in stream}
        if len(stream) >= _LONG and styles == {normalization}:
            yield stream


def _name(flow: GradientFlow, residual: ResidualFlow) -> str:
    return "" if residual.branch is None else flow.layers[residual.branch].name


_FINDERS: tuple[Callable[[GradientFlow], Iterator[Note]], ...] = (
    _find_stopped,
    _find_one_hot,
    _find_uniform,
    _find_large_branches,
    _find_tiny_branches,
    _find_growing,
    _find_fading,
    _find_deep_post_norm,
    _find_starved_branches,
    _find_untouched,
    _find_unused,
    _find_idle,
    _find_large_start,
    _find_large_inputs,
    _find_constant_inputs,
    _find_swamped,
    *TERM_NOTES,
    _find_short_sequences,
    _find_all_pairs,
    _find_probabilities,
    _find_log_softmax,
    _find_detached,
    _find_constant_columns,
    _find_repeated,
    _find_unheard,
    _find_fading_time,
    _find_untold,
    *CALL_NOTES,
    _find_copied_units,
    _find_partly_saturated,
    _find_near_overflow,
    *LEARNING_NOTES,
)
