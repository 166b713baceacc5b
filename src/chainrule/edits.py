"""Changes of a model's parameters as plain data: what to do with which tensor.

A remedy for somebody's own model is a list of these. They hold no tensors and draw from their own
seeds, so that applying them twice gives the same numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Action = Literal["normal", "orthogonal", "fill", "scale", "shift"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A change of one parameter.

    Attributes:
        parameter: Qualified name, as in `model.named_parameters()`.
        shape: The shape that it must have.
        action: "normal" draws N(0, value²), "orthogonal" draws matrices with orthonormal rows or
            columns times `value`, "fill" sets every entry to `value`, "scale" multiplies by it,
            "shift" adds `values` along the first dimension.
        value: What the action says.
        values: One number per unit, for "shift".
        rows: For "fill", which entries of the first dimension, from and up to; all if left out.
        blocks: For "orthogonal", how many matrices are stacked along the first dimension, as the
            gates of a recurrent layer are.
        seed: What a drawing starts from.
    """

    parameter: str
    shape: tuple[int, ...]
    action: Action
    value: float = 0.0
    values: tuple[float, ...] = ()
    rows: tuple[int, int] | None = None
    blocks: int = 1
    seed: int = 0


def describe_edits(edits: Sequence[Edit]) -> str:
    """Return how many parameters are changed, and which, in a few words."""
    names = list(dict.fromkeys(edit.parameter for edit in edits))
    if not names:
        return "no parameter"
    others = len(names) - 1
    rest = f" and {others} other{'s' if others > 1 else ''}" if others else ""
    return f"{names[0]}{rest}"
