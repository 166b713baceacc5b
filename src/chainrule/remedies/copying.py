"""Copying a model with all that its modules hold, and saying what stands in the way."""

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

NESTED = 4
"""How deep lists and dictionaries in an attribute are looked through."""

LONGEST = 300
"""Most characters of somebody else's error that are quoted."""

_REGISTRIES = ("_modules", "_parameters", "_buffers")


def copy_model(model: nn.Module) -> nn.Module:
    """Return a deep copy of a model.

    Tensors with a graph, which PyTorch does not copy, may be kept in attributes of modules (an
    auxiliary loss, a last output) and in lists and dictionaries there. The copy holds their values
    without the graph.

    Args:
        model: The model; it is not changed.

    Raises:
        Exception: Whatever an attribute raises that cannot be copied.
    """
    return copy.deepcopy(model, _detach_kept(model))


def _detach_kept(model: nn.Module) -> dict[int, Any]:
    """Return what `deepcopy` shall take for tensors with a graph, by `id`."""
    return {
        id(tensor): tensor.detach().clone()
        for module in model.modules()
        for held in vars(module).values()
        for tensor in list_tensors(held)
        if not tensor.is_leaf
    }


def list_tensors(held: object, depth: int = NESTED) -> Iterator[Tensor]:
    """Yield the tensors in a value: itself, or those in lists, tuples, sets and dictionaries."""
    if isinstance(held, Tensor):
        yield held
    elif depth and isinstance(held, (list, tuple, set, frozenset, Mapping)):
        for item in held.values() if isinstance(held, Mapping) else held:
            yield from list_tensors(item, depth - 1)


def describe_uncopied(model: nn.Module, error: Exception) -> str:
    """Return which attribute of a model cannot be copied, why, and what to do, in sentences.

    Args:
        model: The model.
        error: What copying it raised.
    """
    place, shown = "the model", ""
    for name, module in model.named_modules():
        for key, held in vars(module).items():
            if key in _REGISTRIES:
                continue
            try:
                copy.deepcopy(held, _detach_kept(model))
            except Exception as raised:
                error = raised
                place = f"attribute {f'{name}.{key}' if name else key!r} of the model"
                shown = f" (of type {type(held).__name__})"
                break
        if shown:
            break
    return (
        f"Nothing was tried: changes are tried on a copy, but {place}{shown} cannot be copied. "
        f"Copying raised {quote_error(error)}. Set it to None while you look for remedies, or "
        "give its class a __deepcopy__ method. What follows is advice only."
    )


def quote_error(error: BaseException) -> str:
    """Return the kind of an error and the first sentence of what it says, without its full stop."""
    text = " ".join(str(error).split())
    text = re.split(r"(?<=[.!?]) (?=[A-Z])", text, maxsplit=1)[0].rstrip(".")
    if len(text) > LONGEST:
        text = f"{text[:LONGEST].rpartition(' ')[0]} …"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
