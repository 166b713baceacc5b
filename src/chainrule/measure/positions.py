"""Gradients by position: which places of a sequence the loss hears.

No recurrence need be known for it: a scan that forgets (a state-space model), a mask the wrong way
round or a receptive field that ends too soon all leave the gradient at early places at zero. So the
first output of the shape [examples, positions, features] is looked at. A record of it is kept only
where several places in a row receive next to nothing, and a later one does.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from chainrule.flow.time import LOST
from chainrule.measure.loss import Loss
from chainrule.measure.recording import Call, Output, Recorder
from chainrule.measure.scans import FEWEST, TimedScan
from chainrule.measure.sequences import read_unchanged
from chainrule.measure.statistics import Table, is_cheap_to_read
from chainrule.measure.ties import measure_chances
from chainrule.measure.time import choose_steps, measure_steps

_EXAMPLES = 4
"""Examples from which on a place that none of them hears counts: a maximum picks a few places."""

SHORTEST_GAP = 4
"""Places in a row that receive nothing, from which on it is no accident."""

GAP = 0.2
"""Their share of all places up to the last that receives something."""


def note_positions(recorder: Recorder, facts: Loss | None) -> None:
    """Ask for the gradient by position of the first tensor that has some; before a backward pass.

    What recurrent modules and loops over time read is looked at there.

    Args:
        recorder: The forward pass.
        facts: The loss.
    """
    if any(call.subject.recurrent for call in recorder.calls):
        return
    found = [
        (call, output, _find_dim(output, facts))
        for call in recorder.calls
        for output in call.outputs
        if len(output.shape) == 3 and output.edge is not None
    ]
    if not found:
        return
    first, output, dim = found[0]
    length, examples = output.shape[dim], output.shape[0 if dim else 1]
    if length < FEWEST or examples < _EXAMPLES:
        return
    for call, each, its in found:
        alike = each.shape[its] == length and each.shape[0 if its else 1] == examples
        if alike and call.input_edges == first.input_edges and each.edge is not None:
            recorder.spread.append((call, each, its))
            recorder.timed[each.edge] = its


def _find_dim(output: Output, facts: Loss | None) -> int:
    """Return the dimension of the positions: channels of a convolution stand in the second one."""
    answers = {
        len(target)
        for part in (() if facts is None else facts.parts)
        if isinstance(target := part.saved.get("target"), Tensor) and target.dim()
    }
    first, second, _ = output.shape
    if output.unit_dim == 1:
        return 2
    return 0 if second in answers and first not in answers else 1


def take_positions(
    recorder: Recorder, edge_gradients: Mapping[int, Tensor | Table], targets: Tensor | None
) -> Iterator[TimedScan]:
    """Yield the gradient by position, if places in a row receive nothing; after a backward pass.

    Args:
        recorder: The forward pass.
        edge_gradients: What arrived at its edges.
        targets: What the loss compares the examples with, [examples, numbers].
    """
    if not recorder.spread or recorder.scans:
        return
    norms = _measure(recorder, edge_gradients)
    if norms is None or not is_cheap_to_read(norms.device) or not has_gap(norms.tolist()):
        return
    call, output, dim = recorder.spread[0]
    chances, values = None, _read_values(call, output, dim)
    if values is not None and targets is not None and not _is_read_elsewhere(recorder):
        chances = measure_chances(values, targets, choose_steps(output.shape[dim]))
    yield TimedScan(
        call.subject.name,
        call.subject.kind,
        output.shape[dim],
        norms,
        norms[:0] if chances is None else chances,
        of="position",
    )


def _measure(recorder: Recorder, edge_gradients: Mapping[int, Tensor | Table]) -> Tensor | None:
    """Return the norms by position, of all that reads the same: the query may be of one alone."""
    total: Tensor | None = None
    for _, output, dim in recorder.spread:
        if output.edge is None:
            continue
        gradient = edge_gradients.get(output.edge)
        norms = (
            measure_steps(gradient, dim)
            if isinstance(gradient, Tensor)
            else recorder.steps.get(output.edge)
        )
        if norms is not None:
            total = norms if total is None else torch.hypot(total, norms.to(total))
    return total


def _is_read_elsewhere(recorder: Recorder) -> bool:
    """Whether a module reads something from outside in another way, or joined to other values."""
    known = {id(call) for call, _, _ in recorder.spread}
    others = [
        call
        for call in recorder.calls
        if not call.input_edges and call.subject.is_leaf and id(call) not in known
    ]
    return bool(others) or any(each.is_part for each in recorder.entering)


def has_gap(norms: Sequence[float]) -> bool:
    """Return whether several places in a row receive next to nothing, and all others something.

    Places behind the last with a gradient do not count (padding), nor does one that has none here
    and there, as behind a maximum over all places.

    Example:
        >>> has_gap([0.0] * 6 + [1.0, 1.0]), has_gap([0.0, 1.0] * 4), has_gap([1.0] + [0.0] * 7)
        (True, False, False)
    """
    bound = LOST * max(norms, default=0.0)
    heard = [at for at, norm in enumerate(norms) if norm >= bound and norm > 0.0]
    if not heard:
        return False
    lost = [at for at in range(heard[-1]) if norms[at] < bound]
    is_one_gap = bool(lost) and lost[-1] - lost[0] + 1 == len(lost)
    return is_one_gap and len(lost) >= max(SHORTEST_GAP, GAP * (heard[-1] + 1))


def _read_values(call: Call, output: Output, dim: int) -> Tensor | None:
    """Return the values by position, [positions, examples, features]; of a large one, what it read.

    That is what a module reads that keeps all dimensions but the last, as a linear layer does.
    """
    if output.values is not None:
        values = output.values
    else:
        read = read_unchanged(call)
        if read is None or tuple(read.shape[:-1]) != output.shape[:-1] or dim == 2:
            return None
        values = read
    return values.permute(2, 0, 1) if dim == 2 else values.movedim(dim, 0)
