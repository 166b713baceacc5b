"""Sequences that are too short for their labels, where a CTC loss is computed.

An alignment gives every label a time step of its own, and two equal labels in a row a blank in
between. Where there are fewer steps, the target has probability 0: its loss is infinite, or left
out with `zero_infinity=True` (Graves et al. 2006).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor

from chainrule.flow.loss import AlignmentFlow
from chainrule.flow.quantity import Quantity


def find_short(args: Sequence[Any]) -> AlignmentFlow | None:
    """Return what is too short in a call of `ctc_loss`; `None` if nothing can be said.

    Args:
        args: Log-probabilities [T, N, C] or [T, C], targets [N, S] or [Σ S], lengths of both.
    """
    if len(args) < 4 or not isinstance(args[0], Tensor) or not isinstance(args[1], Tensor):
        return None
    targets, steps, labels = args[1].detach().cpu(), _list_whole(args[2]), _list_whole(args[3])
    if not steps or len(steps) != len(labels):
        return None
    rows: list[list[int]] = []
    start = 0
    for at, length in enumerate(labels):
        row = targets[at, :length] if targets.dim() > 1 else targets[start : start + length]
        rows.append([int(each) for each in row.tolist()])
        start += length
    repeats = [sum(a == b for a, b in pairwise(row)) for row in rows]
    short = [at for at, length in enumerate(labels) if steps[at] < length + repeats[at]]
    worst = short[0] if short else 0
    return AlignmentFlow(
        examples=len(steps),
        short=Quantity([len(short)]),
        example=worst,
        steps=steps[worst],
        labels=labels[worst],
        repeats=repeats[worst],
    )


def _list_whole(lengths: Any) -> list[int]:
    if isinstance(lengths, Tensor):
        lengths = lengths.detach().cpu().flatten().tolist()
    return [int(each) for each in (lengths if isinstance(lengths, (list, tuple)) else [lengths])]
