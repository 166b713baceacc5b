"""Changes of a model's parameters as plain data: what to do with which tensor.

A remedy for a model of yours is a list of these. They hold no tensors and draw from their own
seeds, so that applying them twice gives the same numbers.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from chainrule.errors import RemedyError, suggest
from chainrule.measure._torch_internals import unwrap_compiled
from chainrule.measure.modules import take_inventory

Action = Literal["normal", "orthogonal", "fill", "scale", "shift"]
_ACTIONS: tuple[str, ...] = get_args(Action)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
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

    Raises:
        RemedyError: If the action is unknown, or its numbers do not fit the shape.

    Example:
        >>> Edit(parameter="0.weight", shape=(64, 32), action="normal", value=0.25)
        Edit('0.weight' [64, 32]: normal 0.25)
    """

    parameter: str
    shape: tuple[int, ...]
    action: Action
    value: float = 0.0
    values: tuple[float, ...] = ()
    rows: tuple[int, int] | None = None
    blocks: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        rows = self.shape[0] if self.shape else 0
        if self.action not in _ACTIONS:
            raise RemedyError(f"action: unknown {self.action!r}. {suggest(self.action, _ACTIONS)}")
        if self.action == "shift" and len(self.values) != rows:
            raise RemedyError(
                f"values: must be one number for each of {rows} units of {self.parameter!r}; got "
                f"{len(self.values)}."
            )
        if self.rows is not None and not 0 <= self.rows[0] <= self.rows[1] <= rows:
            raise RemedyError(
                f"rows: must be a range within the {rows} of {self.parameter!r}; got {self.rows}."
            )
        if self.action == "orthogonal" and (self.blocks < 1 or not rows or rows % self.blocks):
            raise RemedyError(
                f"blocks: must divide the {rows} rows of {self.parameter!r}; got {self.blocks}."
            )

    def __repr__(self) -> str:
        amount = f"{len(self.values)} values" if self.action == "shift" else f"{self.value:.3g}"
        rows = "" if self.rows is None else f" in rows {self.rows[0]} to {self.rows[1]}"
        return f"Edit({self.parameter!r} {list(self.shape)}: {self.action} {amount}{rows})"


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
        RemedyError: If the model has no such parameter, one of another shape, or one that cannot
            be changed.
    """
    found = check_edits(model, edits)
    with torch.no_grad():
        for edit in edits:
            try:
                _apply(found[edit.parameter], edit)
            except RuntimeError as error:
                raise RemedyError(
                    f"Parameters must be writable in place, but changing {edit.parameter!r} raised "
                    f"{type(error).__name__}: {error}"
                ) from error


@contextmanager
def apply_or_undo(model: nn.Module, edits: Sequence[Edit]) -> Iterator[None]:
    """Change parameters, and change them back if that or the block raises.

    The parameters that are changed are kept as a second copy until the block ends.

    Args:
        model: The model.
        edits: What to change, in this order.

    Raises:
        RemedyError: If the edits do not fit the model; then nothing was changed.
    """
    found = check_edits(model, edits)
    tensors = {id(found[edit.parameter]): found[edit.parameter] for edit in edits}
    kept = [(tensor, tensor.detach().clone()) for tensor in tensors.values()]
    try:
        apply_edits(model, edits)
        yield
    except BaseException:
        with torch.no_grad():
            for tensor, values in kept:
                with suppress(RuntimeError):  # what cannot be written was not changed
                    tensor.copy_(values)
        raise


def check_edits(model: nn.Module, edits: Sequence[Edit]) -> dict[str, nn.Parameter]:
    """Return a model's parameters by all their names, if the edits fit it.

    Raises:
        RemedyError: If they do not.
    """
    inventory = take_inventory(unwrap_compiled(model))
    found = {name: entry.tensor for entry in inventory.parameters for name in entry.names}
    for edit in edits:
        tensor = found.get(edit.parameter)
        if tensor is None:
            problem = f"it has no parameter {edit.parameter!r}"
        elif isinstance(tensor, UninitializedParameter):
            problem = f"{edit.parameter!r} has no shape yet (run the model once)"
        elif tensor.is_meta:
            problem = f"{edit.parameter!r} has no values (it is on the meta device)"
        elif tuple(tensor.shape) != edit.shape:
            shapes = f"{list(tensor.shape)} instead of {list(edit.shape)}"
            problem = f"{edit.parameter!r} has shape {shapes}"
        elif tensor.is_complex() and edit.action in ("normal", "orthogonal"):
            problem = f"{edit.parameter!r} is complex, and drawings are real"
        else:
            continue
        raise RemedyError(
            f"The model must be the one that was measured, but {problem}. Nothing was changed; "
            "look for remedies for this model."
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
