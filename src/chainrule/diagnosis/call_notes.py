"""Notes on what is done with data and weights: overwritten, mixed, smoothed away, frozen."""

import math
from collections.abc import Callable, Iterator

from chainrule._utils.numbers import format_number, format_share
from chainrule.diagnosis.note import Note, make_note
from chainrule.diagnosis.observations import OBSERVATIONS
from chainrule.diagnosis.places import word_names
from chainrule.diagnosis.slip_rules import (
    list_alike,
    list_slips,
    word_alike,
    word_mixed,
    word_place,
)
from chainrule.flow.gradient_flow import GradientFlow


def _find_overwritten(flow: GradientFlow) -> Iterator[Note]:
    for each in list_slips(flow, "overwritten"):
        share = float(each.value or 0.0)
        yield make_note(
            "overwritten_input",
            share,
            f"{each.operation} changes, in place, about {format_share(share)} of the values of a "
            f"tensor of shape {each.shape} that was given to the model, and that is still there "
            f"after the pass{word_place(each)}",
            [each.module],
        )


def _find_mixed(flow: GradientFlow) -> Iterator[Note]:
    for each in list_slips(flow, "maybe_mixed"):
        yield make_note("mixed_rows", each.shape[1], word_mixed(each), [each.module])


def _find_smoothed(flow: GradientFlow) -> Iterator[Note]:
    for each in list_slips(flow, "smoothed"):
        value = float(each.value or 0.0)
        if value < 1.0:
            yield make_note(
                "smoothed_targets",
                value,
                f"{each.operation} has a label smoothing of {format_number(value)}, so "
                f"{format_share(1.0 - value)} of what it asks comes from the targets"
                f"{word_place(each)}",
                [],
            )


def _find_alike(flow: GradientFlow) -> Iterator[Note]:
    graver = list_alike(flow)
    for each in list_slips(flow, "alike"):
        if each not in graver:
            yield make_note("frozen_constant", each.shape[0], word_alike(each), [each.module])


def _find_little_trained(flow: GradientFlow) -> Iterator[Note]:
    """Find models of which hardly anything is trained: no matrix, and few of the numbers."""
    if not any(each.status == "frozen" for each in flow.parameters):
        return
    sizes = [(each, math.prod(each.shape)) for each in flow.parameters]
    trained = [(each, size) for each, size in sizes if each.status == "measured"]
    count, every = sum(size for _, size in trained), sum(size for _, size in sizes)
    share = count / every if every else 1.0
    has_matrix = any(each.is_weight for each, _ in trained)
    if trained and not has_matrix and share < OBSERVATIONS["little_trained"].threshold:
        names = [each.name for each, _ in trained]
        yield make_note(
            "little_trained",
            share,
            f"{len(trained)} of {len(sizes)} parameters {'is' if len(trained) == 1 else 'are'} "
            f"trained ({word_names(names)}): "
            f"{count:,} of {every:,} numbers; all others are frozen",
            names,
        )


CALL_NOTES: tuple[Callable[[GradientFlow], Iterator[Note]], ...] = (
    _find_overwritten,
    _find_mixed,
    _find_smoothed,
    _find_alike,
    _find_little_trained,
)
"""What finds them, in the order in which notes are given."""
