"""Gradients at the time steps of recurrent modules, of one backward pass."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from chainrule.flow.quantity import Quantity, combine_norms
from chainrule.flow.records import GradientStatistics, LayerFlow
from chainrule.flow.time import TimeFlow
from chainrule.measure.recording import Call, Recorder
from chainrule.measure.statistics import Table
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
    """

    name: str
    kind: str
    number: int
    length: int
    gradients: Tensor
    read: Tensor | None


def take_times(recorder: Recorder, edge_gradients: Mapping[int, Tensor | Table]) -> list[TimedCall]:
    """Return the gradients of what recurrent modules read and returned, by step."""
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
        found.append(
            TimedCall(call.subject.name, call.subject.kind, call.number, length, gradients, read)
        )
    return found


def assemble_times(
    timed: Sequence[tuple[TimedCall, list[float], list[float]]],
    calls: Sequence[Call],
    gradients: Mapping[int, GradientStatistics],
    layers: Sequence[LayerFlow],
) -> Iterator[TimeFlow]:
    """Yield the gradients along time of sequences, then those of modules called step by step.

    Args:
        timed: Calls that read a whole sequence, with the norms at its input and its output.
        calls: All calls.
        gradients: Their edges' gradients.
        layers: What they were assembled to.
    """
    for call, inward, read in timed:
        if call.length > 1:
            yield TimeFlow(
                name=call.name,
                kind=call.kind,
                call=call.number,
                of="input",
                length=call.length,
                steps=tuple(choose_steps(call.length)),
                gradients=_write(inward),
                read=_write(read),
            )
    yield from _assemble_steps(calls, gradients, layers)


def _assemble_steps(
    calls: Sequence[Call],
    gradients: Mapping[int, GradientStatistics],
    layers: Sequence[LayerFlow],
) -> Iterator[TimeFlow]:
    by_name: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        by_name[call.subject.name].append(call)
    outputs: dict[str, list[LayerFlow]] = defaultdict(list)
    for layer in layers:
        outputs[layer.name].append(layer)
    for name, own in by_name.items():
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
        )


def _reads_steps(calls: Sequence[Call], outputs: Sequence[LayerFlow]) -> bool:
    """Whether a module reads another part of an input from outside at each of its calls.

    What reads the same at every call, as a solver that goes on until nothing changes, is no
    sequence: of its calls nothing that is new can be lost.
    """
    if any(call.input_edges or len(call.outputs) != 1 for call in calls):
        return False
    sizes = {float(out.statistics.std) for out in outputs if out.statistics is not None}
    return 2 * len(sizes) > len(calls)


def _write(norms: Sequence[float]) -> tuple[Quantity, ...]:
    return tuple(Quantity([norm]) for norm in norms)
