"""Frozen modules that give the same for all examples, and whether something tells them apart."""

from collections.abc import Collection, Iterator

from torch import Tensor, nn

from chainrule.measure.recording import Call, Recorder
from chainrule.measure.slips import Place, Slip
from chainrule.measure.statistics import is_cheap_to_read

ENOUGH = 8
"""Examples from which on it says something that all are alike."""

_ROUNDING = 1e-5
"""Largest difference between equal examples, relative to the largest value: the order of sums."""


def find_alike(recorder: Recorder, sizes: Collection[int]) -> Iterator[Slip]:
    """Yield frozen modules whose output is the same for all examples; before the backward pass.

    Their value is 1 if nothing else tells the examples apart: all outputs are the same for all of
    them, none of the inputs that are seen differs, and no embedding that learns is read.

    Args:
        recorder: The forward pass.
        sizes: Of the first dimension of what the loss reads.
    """
    counts = {size for size in sizes if size >= ENOUGH}
    found = [call for call in recorder.calls if _is_frozen(call) and _is_alike(call, counts)]
    if not found:
        return
    names = {call.subject.name for call in found}
    judged = [_is_alike(call, counts) for call in recorder.calls]
    differs = False in judged or any(map(_may_learn_to_tell, recorder.calls))
    differs = differs or any(
        each.reader not in names and bool((each.sample != each.sample[:1]).any())
        for each in recorder.entering
    )
    for call in found:
        if differs and _is_read_alike(call):
            continue
        shape = call.outputs[0].shape
        place = Place(call.subject.name, "", None)
        yield Slip("alike", call.subject.kind, place, shape, shape, float(not differs))


def _is_frozen(call: Call) -> bool:
    """Whether a module has weights, none of them is trained, and nothing before it is."""
    module = call.subject.module
    if module is None or not call.outputs or call.outputs[0].edge is not None:
        return False
    own = [each for each in module._parameters.values() if each is not None]
    return bool(own) and not any(each.requires_grad for each in own)


def _may_learn_to_tell(call: Call) -> bool:
    """Whether an embedding that learns has one row for all now, so that its numbers may differ."""
    module = call.subject.module
    if not isinstance(module, nn.Embedding | nn.EmbeddingBag) or not call.outputs:
        return False
    if not module.weight.requires_grad:
        return False
    values = call.outputs[0].values
    return values is None or values.dim() < 2 or _are_equal(values.flatten(0, -2), 0)


def _is_read_alike(call: Call) -> bool:
    """Whether an embedding has rows that differ, and so is read at the same places: a position."""
    module = call.subject.module
    if not isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return False
    return not _are_equal(module.weight.detach(), 0)


def _is_alike(call: Call, counts: Collection[int]) -> bool | None:
    """Whether all examples get the same; `None` where no dimension is theirs.

    Of a large output the values are gone: it is taken to differ.
    """
    answers = []
    for output in call.outputs:
        dim = next((at for at, size in enumerate(output.shape[:2]) if size in counts), None)
        if dim is not None:
            answers.append(output.values is not None and _are_equal(output.values, dim))
    return all(answers) if answers else None


def _are_equal(values: Tensor, dim: int) -> bool:
    if values.is_nested or not values.is_floating_point() or not is_cheap_to_read(values.device):
        return False
    if not values.numel():
        return True
    rows = values.movedim(dim, 0).reshape(values.shape[dim], -1)
    for some in (rows[:2], rows):  # two that differ say it all
        if not bool(((some - some[:1]).abs() <= _ROUNDING * some.abs().amax()).all()):
            return False
    return True
