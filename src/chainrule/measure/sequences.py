"""Gradients at the time steps of recurrent modules, of one backward pass."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from chainrule.flow.quantity import Quantity, combine_norms
from chainrule.flow.records import GradientStatistics, LayerFlow
from chainrule.flow.time import TimeFlow
from chainrule.measure._torch_internals import read_version
from chainrule.measure.recording import Call, Recorder
from chainrule.measure.statistics import Table
from chainrule.measure.ties import measure_chances, stack_steps
from chainrule.measure.time import choose_steps, measure_steps

MAX_CALLS = 16
"""Most calls of one module whose sequences are kept."""

SHORTEST = 4
"""Steps from which on calls one after the other are taken as a sequence."""


@dataclass(frozen=True, slots=True)
class TimedCall:
    """A call of a module that reads a whole sequence, and where its norms will be found.

    Attributes:
        name: The module.
        kind: Its class.
        number: Which of its calls.
        length: Time steps.
        gradients: Norms at the input's steps.
        read: Norms at the output's steps, or `None`.
        chances: `TimeFlow.chances`, and `TimeFlow.state_chance` behind them; or fewer, if there are
            none.
    """

    name: str
    kind: str
    number: int
    length: int
    gradients: Tensor
    read: Tensor | None
    chances: Tensor


def take_times(
    recorder: Recorder, edge_gradients: Mapping[int, Tensor | Table], targets: Tensor | None
) -> list[TimedCall]:
    """Return the gradients of what recurrent modules read and returned, by step.

    Args:
        recorder: The forward pass.
        edge_gradients: What arrived at its edges.
        targets: What the loss compares the examples with, [examples, numbers].
    """
    if not recorder.timed:
        return []

    def measure(edge: int | None) -> Tensor | None:
        if edge is None or edge not in recorder.timed:
            return None
        gradient = edge_gradients.get(edge)
        if isinstance(gradient, Tensor):
            return measure_steps(gradient, recorder.timed[edge])
        return recorder.steps.get(edge)

    found = []
    for call in recorder.calls:
        sequence = call.sequence
        gradients = measure(sequence)
        if gradients is None or sequence is None or call.number >= MAX_CALLS:
            continue
        read = measure(call.outputs[0].edge) if call.outputs else None
        output = call.outputs[0].shape if call.outputs else ()
        length = output[recorder.timed[sequence]] if output else len(gradients)
        chances: Tensor | None = None
        if targets is not None and length > 1:
            reads_end = any(output.edge in edge_gradients for output in call.outputs[1:])
            chances = _measure_ties(recorder, call, targets, gradients, read, reads_end=reads_end)
        found.append(
            TimedCall(
                call.subject.name,
                call.subject.kind,
                call.number,
                length,
                gradients,
                read,
                gradients[:0] if chances is None else chances,
            )
        )
    return found


def _measure_ties(
    recorder: Recorder,
    call: Call,
    targets: Tensor,
    gradients: Tensor,
    read: Tensor | None,
    *,
    reads_end: bool,
) -> Tensor | None:
    """Return the chances of ties with the targets, by step; that of what the loss hears last."""
    inward = _look_at(recorder, call.sequence)
    if inward is None:
        return None
    outward = _look_at(recorder, call.outputs[0].edge) if call.outputs else None
    steps, state = choose_steps(len(inward)), None
    if outward is not None and len(outward) == len(inward):
        last = len(steps) - 1
        if read is None or not bool(read.any()):
            at = [last] if reads_end else []
        else:
            at = read.nonzero().flatten().tolist()
            at = [] if reads_end and at != [last] else at
        state = outward[steps[at[0]]] if len(at) == 1 else None
    return measure_chances(inward, targets, steps, state, gradients)


def _look_at(recorder: Recorder, edge: int | None) -> Tensor | None:
    """Return a sequence with time first, [length, examples, features], if it is unchanged."""
    if edge is None or edge not in recorder.sequences:
        return None
    sequence, version = recorder.sequences[edge]
    if sequence.dim() != 3 or version is None or read_version(sequence) != version:
        return None
    return sequence.movedim(recorder.timed[edge], 0)


def take_stepwise(calls: Sequence[Call], targets: Tensor | None) -> dict[str, Tensor]:
    """Return the chances of ties with the targets at the calls of modules that read step by step.

    Args:
        calls: All calls.
        targets: What the loss compares the examples with, [examples, numbers].

    Returns:
        By module: of the calls that are kept, [steps].
    """
    if targets is None:
        return {}
    found: dict[str, Tensor] = {}
    for name, own in _group(calls).items():
        if len(own) < SHORTEST or any(call.step is None for call in own):
            continue
        stacked = stack_steps([read_unchanged(call) for call in own])
        if stacked is not None:
            chances = measure_chances(stacked, targets, choose_steps(len(own)))
            if chances is not None:
                found[name] = chances
    return found


def read_unchanged(call: Call) -> Tensor | None:
    """Return what a call read that may be one step, or all of them, if nothing overwrote it."""
    tensor, version = call.step or (None, None)
    unchanged = tensor is not None and version is not None and read_version(tensor) == version
    return tensor if unchanged else None


def _group(calls: Sequence[Call]) -> dict[str, list[Call]]:
    by_name: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        by_name[call.subject.name].append(call)
    return by_name


def assemble_times(
    timed: Sequence[tuple[TimedCall, list[float], list[float], list[float]]],
    stepwise: Mapping[str, list[float]],
    calls: Sequence[Call],
    gradients: Mapping[int, GradientStatistics],
    layers: Sequence[LayerFlow],
) -> Iterator[TimeFlow]:
    """Yield the gradients along time of sequences, then those of modules called step by step.

    Args:
        timed: Calls that read a whole sequence, with the norms at its input and its output, and
            the chances of ties.
        stepwise: Those of modules called step by step, by name.
        calls: All calls.
        gradients: Their edges' gradients.
        layers: What they were assembled to.
    """
    for call, inward, read, chances in timed:
        if call.length > 1:
            ties = _write_chances(chances)
            yield TimeFlow(
                name=call.name,
                kind=call.kind,
                call=call.number,
                of="input",
                length=call.length,
                steps=tuple(choose_steps(call.length)),
                gradients=_write(inward),
                read=_write(read),
                chances=ties[: len(inward)],
                state_chance=ties[len(inward)] if len(ties) > len(inward) else None,
            )
    yield from _assemble_steps(stepwise, calls, gradients, layers)


def _assemble_steps(
    stepwise: Mapping[str, list[float]],
    calls: Sequence[Call],
    gradients: Mapping[int, GradientStatistics],
    layers: Sequence[LayerFlow],
) -> Iterator[TimeFlow]:
    outputs: dict[str, list[LayerFlow]] = defaultdict(list)
    for layer in layers:
        outputs[layer.name].append(layer)
    for name, own in _group(calls).items():
        length = len(own)
        if length < SHORTEST or own[0].subject.role != "weight":
            continue
        if own[0].is_cell:
            of: Literal["state", "output"] = "state"
        elif _reads_steps(own, outputs[name]):
            of = "output"
        else:
            continue
        norms = [
            combine_norms(
                gradients[output.edge].norm
                for output in own[step].outputs
                if output.edge is not None and output.edge in gradients
            )
            or Quantity([0.0])
            for step in choose_steps(length)
        ]
        yield TimeFlow(
            name=name,
            kind=own[0].subject.kind,
            call=0,
            of=of,
            length=length,
            steps=tuple(choose_steps(length)),
            gradients=tuple(norms),
            chances=_write_chances(stepwise.get(name, [])),
        )


def _reads_steps(calls: Sequence[Call], outputs: Sequence[LayerFlow]) -> bool:
    """Whether a module reads another part of an input from outside at each of its calls.

    What reads the same at every call, as a solver that goes on until nothing changes, is no
    sequence: of its calls nothing that is new can be lost. Nor are calls whose results are only
    added up, as those of a network that is trained on several levels of noise at once.
    """
    if any(call.input_edges or len(call.outputs) != 1 or call.is_apart for call in calls):
        return False
    sizes = {float(out.statistics.std) for out in outputs if out.statistics is not None}
    return 2 * len(sizes) > len(calls)


def _write_chances(chances: Sequence[float]) -> tuple[Quantity, ...]:
    return () if any(map(math.isnan, chances)) else _write(chances)


def _write(norms: Sequence[float]) -> tuple[Quantity, ...]:
    return tuple(Quantity([norm]) for norm in norms)
