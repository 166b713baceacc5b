"""Changes of a model's parameters as plain data: what to do with which tensor.

A remedy for somebody's own model is a list of these. They hold no tensors and draw from their own
seeds, so that applying them twice gives the same numbers.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from chainrule.errors import RemedyError
from chainrule.measure.modules import take_inventory

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


def apply_edits(model: nn.Module, edits: Sequence[Edit]) -> None:
    """Change the parameters that edits name, in place; random states stay as they are.

    Args:
        model: The model. Values change, the tensors stay the same objects.
        edits: What to change, in this order.

    Raises:
        RemedyError: If the model has no such parameter, or one of another shape; then nothing was
            changed.
    """
    found = check_edits(model, edits)
    with torch.no_grad():
        for edit in edits:
            _apply(found[edit.parameter], edit)


def check_edits(model: nn.Module, edits: Sequence[Edit]) -> dict[str, nn.Parameter]:
    """Return a model's parameters by all their names, if the edits fit it.

    Raises:
        RemedyError: If they do not.
    """
    inventory = take_inventory(getattr(model, "_orig_mod", model))
    found = {name: entry.tensor for entry in inventory.parameters for name in entry.names}
    for edit in edits:
        tensor = found.get(edit.parameter)
        if tensor is None:
            raise RemedyError(
                f"The model must be the one that was measured, but it has no parameter "
                f"{edit.parameter!r}. Nothing was changed; look for remedies for this model."
            )
        if tuple(tensor.shape) != edit.shape:
            raise RemedyError(
                f"The model must be the one that was measured, but {edit.parameter!r} has shape "
                f"{list(tensor.shape)} instead of {list(edit.shape)}. Nothing was changed; look "
                "for remedies for this model."
            )
    return found


def _apply(tensor: nn.Parameter, edit: Edit) -> None:
    if edit.action == "fill":
        (tensor if edit.rows is None else tensor[slice(*edit.rows)]).fill_(edit.value)
    elif edit.action == "scale":
        tensor.mul_(edit.value)
    elif edit.action == "shift":
        shift = torch.tensor(edit.values, dtype=torch.float64).to(tensor.device, tensor.dtype)
        tensor.add_(shift.reshape(-1, *(1,) * (tensor.dim() - 1)))
    else:
        tensor.copy_(_draw(edit))


def _draw(edit: Edit) -> Tensor:
    """Return a drawing, made on the CPU so that it is the same on every device."""
    generator = torch.Generator().manual_seed(edit.seed)
    if edit.action == "normal":
        return torch.randn(edit.shape, generator=generator) * edit.value
    rows = edit.shape[0] // edit.blocks
    columns = math.prod(edit.shape[1:])
    drawn = [
        nn.init.orthogonal_(torch.empty(rows, columns), gain=edit.value, generator=generator)
        for _ in range(edit.blocks)
    ]
    return torch.cat(drawn).reshape(edit.shape)


Respond = Callable[[nn.Module, Tensor], Tensor]


@contextmanager
def respond_once(modules: Sequence[nn.Module], respond: Respond) -> Iterator[None]:
    """Let a function change and replace what modules return, at their first call each."""
    seen: set[nn.Module] = set()

    def hook(module: nn.Module, args: Any, result: Any) -> Any:
        if module in seen or not isinstance(result, Tensor):
            return None
        seen.add(module)
        return respond(module, result)

    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
