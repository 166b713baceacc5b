"""Which of the calls that were seen are slips: by the gradient, or by what the loss compares."""

from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from chainrule._utils.user_code import read_line
from chainrule.flow.quantity import Quantity
from chainrule.flow.slips import FAST, SlipFlow
from chainrule.measure.alike import find_alike
from chainrule.measure.loss import Loss
from chainrule.measure.recording import Recorder
from chainrule.measure.slips import Place, Slip
from chainrule.measure.statistics import Table

_ROUNDING = 1e-3
"""Largest logarithm of a probability that rounding may make, and largest part of a gradient that it
may let through."""


def prepare_slips(found: Sequence[Slip], recorder: Recorder, facts: Loss) -> list[Slip]:
    """Ask for the gradients that decide, and look at modules; before the backward pass.

    Args:
        found: What may be a slip.
        recorder: The forward pass.
        facts: The loss.

    Returns:
        What still may be one.
    """
    answers = _count_answers(facts)
    sizes = {
        output.shape[0]
        for call in recorder.calls
        for output in call.outputs
        if output.edge in facts.outputs
    }
    kept = [slip for slip in found if slip.kind != "over_examples" or _is_over(slip, sizes)]
    kept = list(_judge_reshapes(kept, recorder, sizes, answers))
    kept = _drop_one_of_several(kept, facts)
    for slip in kept:
        if slip.kind == "not_logarithms":
            read, slip.tensors = slip.tensors[0].detach(), ()
            slip.value = read.amax()
            if slip.operation == "kl_div":
                slip.sums_to_one = _are_probabilities(read)
            continue
        known = len(recorder.targets)
        slip.edges = tuple(map(recorder.note_edge, slip.tensors))
        recorder.kept |= {edge for edge in slip.edges if edge is not None and edge >= known}
        slip.tensors = ()
    alike = find_alike(recorder, sizes)
    return [*kept, *_list_timed_examples(recorder, answers), *alike, *_list_untouched(recorder)]


def conclude_slips(
    found: Sequence[Slip], gradients: Mapping[int, Tensor | Table]
) -> tuple[SlipFlow, ...]:
    """Return what was found; after the backward pass.

    Args:
        found: What `prepare_slips` gave.
        gradients: By recorded edge.
    """
    return tuple(dict.fromkeys(_conclude(found, gradients)))


def _conclude(found: Sequence[Slip], gradients: Mapping[int, Tensor | Table]) -> Iterator[SlipFlow]:
    def find(edge: int | None) -> Tensor | Table | None:
        return None if edge is None else gradients.get(edge)

    for slip in found:
        value = None if slip.value is None else float(slip.value)
        if slip.kind == "flat" and not _is_stopped(*map(find, slip.edges)):
            continue
        is_one = slip.sums_to_one is not None and bool(slip.sums_to_one)
        is_beyond = is_one or value is None or value > _ROUNDING
        if slip.kind == "not_logarithms" and not is_beyond:
            continue
        if slip.kind == "wave" and not (value is not None and value > FAST):
            continue
        yield SlipFlow(
            kind="probabilities" if is_one else slip.kind,
            operation=slip.operation,
            module=slip.place.module,
            shape=slip.shape,
            result=slip.result,
            value=None if value is None else Quantity([value]),
            is_in_loss=slip.place.is_in_loss,
            file=slip.place.file[-1000:],
            line=slip.place.line,
            code=read_line(slip.place.file, slip.place.line),
        )


def _are_probabilities(read: Tensor) -> Tensor:
    """Return whether no value is below 0, and all along the last or second dimension sum to 1."""
    is_one = read.new_zeros((), dtype=torch.bool)
    for dim in {read.dim() - 1, 1} if read.dim() > 1 else {0}:
        if read.shape[dim] > 1:
            is_one = is_one | ((read.sum(dim) - 1.0).abs() <= _ROUNDING).all()
    return is_one & (read >= 0).all()


def _count_answers(facts: Loss) -> dict[int, tuple[int, ...]]:
    """Return how many answers the loss compares with targets → all sizes of these targets."""
    found: dict[int, tuple[int, ...]] = {}
    for part in facts.parts:
        target = part.saved.get("target")
        if not isinstance(target, Tensor) or target.dim() == 0:
            continue
        if not target.is_floating_point():
            found[target.numel()] = tuple(target.shape)
        elif target.dim() < 3:
            found[target.shape[0]] = tuple(target.shape)
    return found


def _is_over(slip: Slip, examples: Collection[int]) -> bool:
    """Whether a call goes over the first dimension that is as long as the answers of the loss."""
    dim = int(slip.value or 0)
    return slip.shape[dim] in examples and not any(size in examples for size in slip.shape[:dim])


def _judge_reshapes(
    found: Sequence[Slip],
    recorder: Recorder,
    sizes: Collection[int],
    answers: Mapping[int, tuple[int, ...]],
) -> Iterator[Slip]:
    """Yield all, but of reshapes that may mix examples those of which the loss has an answer each.

    What a module that takes time first returned has the examples in its second dimension. Where a
    reshape of as many steps and examples makes rows of it, and the loss has as many answers as
    there are rows, each is made of several examples.
    """
    timed = {shape[:2] for shape in _list_time_first(recorder)}
    for slip in found:
        before, after = slip.shape, slip.result
        if slip.kind in ("maybe_mixed", "scrambled") and len(before) > 2 and after:
            rows = after[0]
            is_second = rows == before[1] and rows != before[0]
            if is_second and rows in answers and rows in sizes and before[:2] in timed:
                slip.kind = "mixed"
            elif slip.kind == "maybe_mixed" and (rows not in sizes or slip.place.line is None):
                continue
        yield slip


def _list_time_first(recorder: Recorder) -> Iterator[tuple[int, ...]]:
    """Yield the shapes of outputs that have the examples in their second dimension.

    A recurrent module does so with its last states, whatever comes first in its sequences.
    """
    for call in recorder.calls:
        module = call.subject.module
        if not isinstance(module, nn.RNNBase | nn.MultiheadAttention):
            continue
        is_recurrent = isinstance(module, nn.RNNBase)
        for output in call.outputs:
            is_state = is_recurrent and output.path != "0"
            is_sequence = output.path == "0" and not module.batch_first
            if len(output.shape) == 3 and (is_state or is_sequence):
                yield output.shape


def _drop_one_of_several(found: Sequence[Slip], facts: Loss) -> list[Slip]:
    """Leave out losses that hardly depend on targets, where the loss has other parts as well.

    One that asks for equal answers is a term of its own in some trainings.
    """
    kinds = ("smoothed", "one_target")
    parts = sum(part.kind != "penalty" for part in facts.parts)
    is_all = sum(slip.kind in kinds for slip in found) >= parts
    return [slip for slip in found if is_all or slip.kind not in kinds]


def _list_timed_examples(
    recorder: Recorder, answers: Mapping[int, tuple[int, ...]]
) -> Iterator[Slip]:
    """Yield modules that take the examples for time steps: the loss has an answer for each step.

    What a module takes for examples, it would answer for each of them.
    """
    for call in recorder.calls:
        module = call.subject.module
        if not isinstance(module, nn.RNNBase | nn.MultiheadAttention) or not call.outputs:
            continue
        shape = call.outputs[0].shape
        if module.batch_first or len(shape) != 3 or min(shape[:2]) < 2 or shape[0] == shape[1]:
            continue
        targets = answers.get(shape[0])
        if targets is not None and shape[1] not in targets[1:]:
            place = Place(call.subject.name, "", None)
            yield Slip("examples_as_steps", call.subject.kind, place, shape, shape)


def _list_untouched(recorder: Recorder) -> Iterator[Slip]:
    """Yield normalizations in eval mode that a gradient comes through, and have counted no batch.

    Statistics of a pretrained network have counted some; those of frozen layers without a trained
    one before them receive no gradient.
    """
    for call in recorder.calls:
        module = call.subject.module
        if not isinstance(module, _NormBase) or module.training or call.number > 0:
            continue
        counted, mean, variance = (
            module.num_batches_tracked,
            module.running_mean,
            module.running_var,
        )
        if counted is None or mean is None or variance is None or counted.is_meta:
            continue
        if not call.outputs or all(output.edge is None for output in call.outputs):
            continue
        if int(counted) == 0 and not bool(mean.any()) and bool((variance == 1).all()):
            shape = call.outputs[0].shape
            place = Place(call.subject.name, "", None)
            yield Slip("untouched", call.subject.kind, place, shape, shape)


def _is_stopped(inward: Tensor | Table | None, outward: Tensor | Table | None) -> bool:
    """Whether next to nothing of a gradient comes past a function.

    What a normalization of single values lets through is rounding.
    """
    if inward is None or outward is None:
        return False
    return bool(_measure(inward) <= _ROUNDING * _measure(outward))


def _measure(gradient: Tensor | Table) -> Tensor:
    if isinstance(gradient, Tensor):
        return torch.linalg.vector_norm(gradient.to_dense() if gradient.is_sparse else gradient)
    return gradient["norm"].reshape(())
