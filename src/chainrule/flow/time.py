"""Gradients along time: how much of the loss' gradient reaches every step of a recurrent module."""

from dataclasses import dataclass
from reprlib import repr as shorten
from typing import Annotated, Literal

from pydantic import FailFast, Field, with_config

from chainrule._utils.numbers import format_number
from chainrule.flow.quantity import Quantity, divide_members
from chainrule.flow.records import CLOSED, Magnitude, Position, PositiveSize, Share, Text

LOST = 1e-6
"""Gradient at a step ÷ the largest of all steps, below which nothing is learned from it."""

MAX_STEPS = 64
"""Most time steps of one module that are kept: of longer sequences evenly spaced ones."""


@with_config(CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True)
class TimeFlow:
    """The gradient of the loss at the time steps of a recurrent module.

    A module that reads a whole sequence (`nn.RNN`, `nn.LSTM`, `nn.GRU`) has its gradients at the
    input, ∂loss/∂x_t: what is known at step t reaches the loss through the recurrence, and this
    is how much of it does. The gradient at its outputs, ∂loss/∂h_t, holds only what the loss reads
    at that step directly. A cell that is called once per step (`nn.LSTMCell`) has the gradients of
    its state, which hold all later steps. A module with weights that reads one step of an input
    from outside at every call has the gradients of its outputs. So has a loop of your own: what it
    reads step by step is a slice of a module's output, or a product of the same weights with other
    data at each step. Its steps are counted in the order in which they are read; its name is that
    of the module that made the sequence, or that owns the weights. Without a recurrence, the first
    output of the shape [examples, positions, features] has its gradients at each position, if
    several in a row receive nothing and a later one does.

    Attributes:
        name: Qualified name of the module.
        kind: Class name of the module.
        call: 0 for the module's first call, 1 for its second, and so on; 0 for a cell.
        of: What the gradients are of: "input", "state", "output" or "position".
        length: Number of time steps.
        steps: The steps that were kept, counted from 0: all up to 64, else evenly spaced ones, the
            first and the last among them.
        gradients: ‖∂loss/∂x_t‖, or that of what `of` says, at each of these steps, of
            all examples together.
        read: ‖∂loss/∂h_t‖ at each of these steps: what the loss, or the next module, reads of the
            output directly. Zero where it reads nothing; empty if that was not measured: for
            states, and where the output gets no gradient.
        chances: For each of these steps, the probability that the targets go with what the module
            reads there as closely as they do by accident alone: near 0 where the step tells
            something of the answer, and 0 if the examples differ at that step alone. Only simple
            ties are seen: with the values, their squares, and their products with the step before.
            Empty if that was not measured: it takes 16 examples and a loss that compares each with
            a target of its own.
        state_chance: The same of what the loss, or the next module, hears of the whole: the output
            at the step that it reads, and the means over all steps, weighted by their gradients.
            `None` if it reads more than one step, or it was not measured.

    Example:
        >>> TimeFlow(
        ...     name="lstm",
        ...     kind="LSTM",
        ...     call=0,
        ...     of="input",
        ...     length=2,
        ...     steps=(0, 1),
        ...     gradients=(Quantity([0.5]), Quantity([2.0])),
        ... ).shares
        (0.25, 1.0)
    """

    name: Text
    kind: Text
    call: Position
    of: Literal["input", "state", "output", "position"]
    length: PositiveSize
    steps: Annotated[tuple[Position, ...], FailFast(), Field(min_length=1, max_length=MAX_STEPS)]
    gradients: Annotated[
        tuple[Magnitude, ...], FailFast(), Field(min_length=1, max_length=MAX_STEPS)
    ]
    read: Annotated[tuple[Magnitude, ...], FailFast(), Field(max_length=MAX_STEPS)] = ()
    chances: Annotated[tuple[Share, ...], FailFast(), Field(max_length=MAX_STEPS)] = ()
    state_chance: Share | None = None

    def __repr__(self) -> str:
        return (
            f"TimeFlow({shorten(self.name)}, {shorten(self.kind)}, {self.length:,} {self.unit}s, "
            f"gradient of the {self.of}: {format_number(self.gradients[0])} at the first, "
            f"{format_number(self.gradients[-1])} at the last)"
        )

    @property
    def unit(self) -> str:
        """What one place of the sequence is called: a step in time, or a mere position."""
        return "position" if self.of == "position" else "step"

    @property
    def shares(self) -> tuple[Quantity, ...]:
        """The gradient at each kept step ÷ the largest of them; undefined if all are zero."""
        largest = Quantity(map(max, zip(*(each.values for each in self.gradients), strict=True)))
        return tuple(divide_members(each, largest) for each in self.gradients)
