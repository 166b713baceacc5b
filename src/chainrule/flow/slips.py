"""Calls of PyTorch whose effect is seldom meant: flat functions, mixed-up dimensions."""

from dataclasses import dataclass
from reprlib import repr as shorten
from typing import Annotated, Literal

from pydantic import Strict, with_config

from chainrule.flow.quantity import Quantity
from chainrule.flow.records import CLOSED, PositiveSize, Shape, Text, get_file_name

SlipKind = Literal[
    "flat",
    "scrambled",
    "over_examples",
    "examples_as_steps",
    "not_logarithms",
    "probabilities",
    "dropout",
    "off",
    "mixed",
    "maybe_mixed",
    "overwritten",
    "smoothed",
    "one_target",
    "alike",
    "wave",
    "untouched",
]

STEP_FUNCTIONS = frozenset(["round", "sign", "sgn", "floor", "ceil", "trunc", "fix"])
"""Functions whose derivative is zero wherever they have one."""

SMOOTH = 0.5
"""Label smoothing beyond which more is asked of the other classes than of the target."""

HEAVY = 0.8
"""Share of values beyond which dropout is noted."""

FAST = 100.0
"""Standard deviation of angles, in radians, beyond which a sine or a cosine is noted: 16 times
round."""


@with_config(CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True)
class SlipFlow:
    """A call whose effect is seldom meant.

    Attributes:
        kind: "flat": a function whose derivative is zero everywhere (rounding, a sign, a softmax or
            a normalization over a single value), and no gradient comes past it by another way.
            "scrambled": a reshape that puts the sizes of a tensor into another order, where the
            entries stay in theirs. "over_examples": a softmax or a normalization that goes over
            the examples of the batch. "examples_as_steps": a module that takes the first dimension
            for time, where it holds the examples. "not_logarithms": a loss that expects logarithms
            of probabilities and gets numbers above 0. "probabilities": a divergence that does so,
            where they are probabilities. "dropout": one that leaves most values out. "off": a
            rectifier or a clamp of which all values are at a flat end. "mixed": a reshape whose
            rows are made of several examples each, for these are the second dimension of what it
            reads; "maybe_mixed" if sizes alone say so. "overwritten": a function that changes, in
            place, a tensor that was given to the model and is still there afterwards. "smoothed": a
            cross-entropy with a label smoothing above one half. "one_target": a loss whose weights
            leave a single target that counts. "alike": a frozen module that gives the same for
            all examples. "wave": a sine or a cosine of angles that go round many times.
            "untouched": a normalization in eval mode whose statistics have counted no batch.
        operation: Name of the function or of the module's class.
        module: Qualified name of the module inside which it was called, or which it is; "" outside
            of all.
        shape: Shape of what went in.
        result: Shape of what came out.
        value: The largest number that went in, for "not_logarithms" and "probabilities"; the share
            that is left out, for "dropout"; the dimension that is gone over, for "over_examples"
            (the first one if it is missing); the share of values that changed, for "overwritten";
            the standard deviation of the angles over all examples and positions, in radians, for
            "wave"; the label smoothing, for "smoothed"; for "alike" 1 if nothing else tells the
            examples apart, and 0 if something may; else `None`.
        is_in_loss: Whether it is called outside of all modules.
        file: The file of your code that calls it; "" if unknown.
        line: Its line there, from 1; `None` if unknown.
        code: What that line says.

    Example:
        >>> SlipFlow(
        ...     kind="scrambled", operation="view", module="", shape=(8, 5, 3), result=(5, 8, 3)
        ... )
        SlipFlow(scrambled: view of (8, 5, 3) in '')
    """

    kind: SlipKind
    operation: Text
    module: Text
    shape: Shape
    result: Shape
    value: Quantity | None = None
    is_in_loss: Annotated[bool, Strict()] = False
    file: Text = ""
    line: PositiveSize | None = None
    code: Text = ""

    def __repr__(self) -> str:
        name = shorten(self.module)
        return f"SlipFlow({self.kind}: {self.operation} of {self.shape} in {name})"

    @property
    def position(self) -> str:
        """The line of code, as "file.py:12"; "" if unknown."""
        return "" if self.line is None else f"{get_file_name(self.file)}:{self.line}"
