"""Where infinite and undefined numbers come from: the operation that makes the first of them."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, FailFast, Field, with_config

from chainrule._utils.numbers import format_number
from chainrule.flow.quantity import Quantity
from chainrule.flow.records import CLOSED, PositiveSize, Shape, Size, Text, get_file_name

SHOWN = 3
"""How many elements and parameters are kept, the first ones."""


def _require_one(quantity: Quantity) -> Quantity:
    if len(quantity.values) != 1:
        raise ValueError("must be one number")
    return quantity


Single = Annotated[Quantity, AfterValidator(_require_one)]
"""A number of one network; it may be infinite or undefined."""


@with_config(CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True)
class NonFiniteElement:
    """One element that is infinite or undefined, with what it was computed from.

    Attributes:
        index: Its place in the tensor.
        value: Its value.
        inputs: What went into the operation at that place, in the order of its arguments. Of an
            argument that the operation mixes (a matrix product, a softmax), the entry of largest
            size. On the way back these are values of the forward pass.
        gradient: On the way back, the gradient that came in; `None` in the forward pass.
        results: On the way back, what came out of the operation in the forward pass, where nothing
            else is kept of it (exp, tanh, softmax); empty in older files.

    Example:
        >>> NonFiniteElement(
        ...     index=(2,), value=Quantity([float("-inf")]), inputs=(Quantity([0.0]),)
        ... ).inputs
        (0.0,)
    """

    index: Shape
    value: Single
    inputs: Annotated[tuple[Single, ...], FailFast(), Field(max_length=8)] = ()
    gradient: Single | None = None
    results: Annotated[tuple[Single, ...], FailFast(), Field(max_length=8)] = ()


@with_config(CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True)
class NonFiniteOrigin:
    """What makes the first infinite or undefined number that does harm, and where.

    Attributes:
        source: "operation" if an operation makes it from finite numbers; "constant" if the code
            writes it; "input", "parameter" or "buffer" if it was there before.
        op: The operation in plain words ("acos", "division"), or the name of the parameter or
            buffer; of an input, the operation that reads it.
        function: The same as PyTorch calls it ("aten.acos.default", "AcosBackward0").
        direction: Where it appears: in the forward pass, or on the way back.
        module: Qualified name of the innermost module of the model in which the operation was
            called, "" for the model itself; `None` outside of the model, in the loss.
        dtype: Data type of the numbers.
        overflow: Whether the result is finite when it is computed in float32: it is only too large
            for half precision.
        shape: Shape of the tensor in which they appear; of one on the way back, of the gradient
            that goes out.
        count: How many of its elements are meant: those that are undefined if some are, else those
            that are infinite. Minus infinity that was there before (a mask) does not count.
        elements: The first of them.
        file: The file of your code (not PyTorch's) that calls the operation; "" if unknown.
        line: Its line there, from 1; `None` if unknown.
        code: What that line says.
        loss: The loss.
        parameters: Names of the first parameters whose gradients are infinite or undefined.
        parameter_count: How many there are of these.
        detail: What else was seen of the call, in a clause: the lengths that a CTC loss was given,
            the sign of a determinant.
        zeroed_by: What makes zeros of infinity later in the forward pass, in a clause (1 ÷ ∞ = 0);
            "" if nothing does, and in older files.

    Example:
        >>> NonFiniteOrigin(
        ...     op="acos", function="AcosBackward0", direction="backward", module=None,
        ...     dtype="float32", shape=(4,), count=1, loss=Quantity([0.5]),
        ... ).place
        'the loss'
    """

    source: Literal["operation", "constant", "input", "parameter", "buffer"] = "operation"
    op: Text
    function: Text
    direction: Literal["forward", "backward"]
    module: Text | None
    dtype: Text
    overflow: bool = False
    shape: Shape
    count: PositiveSize
    elements: Annotated[tuple[NonFiniteElement, ...], FailFast(), Field(max_length=SHOWN)] = ()
    file: Text = ""
    line: PositiveSize | None = None
    code: Text = ""
    loss: Single
    parameters: Annotated[tuple[Text, ...], FailFast(), Field(max_length=SHOWN)] = ()
    parameter_count: Size = 0
    detail: Text = ""
    zeroed_by: Text = ""

    @property
    def is_harmless(self) -> bool:
        """Whether it reaches neither the loss nor the gradient of a parameter, even as zeros."""
        return math.isfinite(self.loss) and not self.parameter_count and not self.zeroed_by

    @property
    def place(self) -> str:
        """The module in words, or "the loss"."""
        if self.module is None:
            return "the loss"
        return f"module {self.module!r}" if self.module else "the model itself"

    @property
    def position(self) -> str:
        """The line of code, as "file.py:12"; "" if unknown."""
        return "" if self.line is None else f"{get_file_name(self.file)}:{self.line}"

    @property
    def sentence(self) -> str:
        """What happens, where, with which values, and what it reaches; three or four sentences."""
        detail = f"{self.detail[:1].upper()}{self.detail[1:]}." if self.detail else ""
        return " ".join(filter(None, (self.cause, self.evidence, detail, self.reach)))

    @property
    def cause(self) -> str:
        """What makes the first such number, and where, in one sentence."""
        where = f"in {self.place}"
        if self.position:
            where += f" ({self.position}{f': {self.code}' if self.code else ''})"
        if self.source == "input":
            return f"The input already holds {self._values}; it is read {where} by {self.op}."
        if self.source in ("parameter", "buffer"):
            return (
                f"The {self.source} {self.op!r} already holds {self._values}; it is used {where}."
            )
        if self.source == "constant":
            return f"The code itself writes {self._values}, by {self.op} {where}."
        if self.overflow:
            way = "forward" if self.direction == "forward" else "on the way back"
            return (
                f"Overflow of half precision: {way}, the result of {self.op} {where} is too large "
                f"for {self.dtype}."
            )
        if self.direction == "forward":
            return f"In the forward pass, {self.op} {where} gives {self._values}."
        return f"On the way back, the derivative of {self.op} {where} gives {self._values}."

    @property
    def reach(self) -> str:
        """What the number reaches, in one sentence."""
        if self.is_harmless:
            return "It reaches neither the loss nor the gradient of a parameter."
        count = self.parameter_count
        gradients = f"the gradient{'' if count == 1 else 's'} of {count} "
        gradients += f"parameter{'' if count == 1 else 's'}" if count else ""
        reached = [] if math.isfinite(self.loss) else [f"the loss ({format_number(self.loss)})"]
        reached += [gradients] * bool(count)
        if self.zeroed_by:
            start = f"{self.zeroed_by[0].upper()}{self.zeroed_by[1:]}"
            later = f", and what comes of them reaches {' and '.join(reached)}" if reached else ""
            return f"{start}. What follows is computed from these zeros{later}."
        return f"It reaches {' and '.join(reached)}."

    @property
    def _values(self) -> str:
        value = self.elements[0].value if self.elements else math.nan
        word = _name_bad(value)
        total = math.prod(self.shape)
        if total <= 1:
            return word
        return f"{word} in {self.count:,} of {total:,} places" if self.count > 1 else word

    @property
    def evidence(self) -> str:
        """The first of them with the values that it was computed from; "" if not known."""
        if not self.elements:
            return ""
        first = self.elements[0]
        place = f"At index {list(first.index)}" if first.index else "There"
        values = ", ".join(map(format_number, first.inputs))
        noun = "value" if len(first.inputs) == 1 else "values"
        if self.direction == "backward":
            parts = [f"{noun} {values} went in forward"] * bool(first.inputs)
            if first.results:
                results = ", ".join(map(format_number, first.results))
                parts.append(f"{results} came out forward")
            if first.gradient is not None:
                parts.append(f"gradient {format_number(first.gradient)} came in")
            given = ", ".join(parts)
            return f"{place}, {given}, and {_name_bad(first.value)} went out." if given else ""
        if not first.inputs or self.source != "operation":
            return f"{place}." if first.index else ""
        return f"{place}, {noun} {values} went in, and {_name_bad(first.value)} came out."

    def __repr__(self) -> str:
        return f"NonFiniteOrigin({self.sentence})"


def _name_bad(value: float) -> str:
    return "NaN" if math.isnan(value) else "infinity" if value > 0 else "minus infinity"
