"""Copying a model with all that its modules hold, and finding what cannot be copied."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from chainrule.measure.tensor_hooks import carry_hooks

NESTED = 4
"""How deep lists and dictionaries in an attribute are looked through."""

_REGISTRIES = ("_modules", "_parameters", "_buffers")


def copy_model(model: nn.Module) -> nn.Module:
    """Return a deep copy of a model.

    Tensors with a graph, which PyTorch does not copy, may be kept in attributes of modules (an
    auxiliary loss, a last output) and in lists and dictionaries there. The copy holds their values
    without the graph. Hooks of parameters are carried over, which PyTorch does not do.

    Args:
        model: The model; it is not changed.

    Raises:
        Exception: Whatever an attribute raises that cannot be copied.
        InspectionError: If a hook of a parameter cannot be carried over.
    """
    memo = _detach_kept(model)
    copied = copy.deepcopy(model, memo)
    carry_hooks(model, memo)
    return copied


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


@dataclass(frozen=True, slots=True)
class Uncopied:
    """What of a model cannot be copied.

    Attributes:
        place: The attribute, in words.
        kind: The class of what it holds; "" if it is no single attribute.
        error: What copying it raised.
    """

    place: str
    kind: str
    error: Exception


def find_uncopied(model: nn.Module, error: Exception) -> Uncopied:
    """Return which attribute of a model cannot be copied.

    Args:
        model: The model.
        error: What copying all of it raised.
    """
    for name, module in model.named_modules():
        for key, held in vars(module).items():
            if key in _REGISTRIES:
                continue
            try:
                copy.deepcopy(held, _detach_kept(model))
            except Exception as raised:
                place = f"attribute {f'{name}.{key}' if name else key!r} of the model"
                return Uncopied(place, type(held).__name__, raised)
    return Uncopied("the model", "", error)


def measure_size(model: nn.Module) -> int:
    """Return the bytes of a model's parameters and buffers: what a copy of it takes."""
    tensors = {id(t): t for t in (*model.parameters(), *model.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the entries of a parameter are: their addresses in bytes, from `start` to `end`."""

    name: str
    device: str
    start: int
    end: int
    tensor: Tensor


def find_shared_memory(model: nn.Module) -> tuple[str, str] | None:
    """Return the names of two parameters that are different objects in the same memory.

    A copy gives each its own memory, so a change measured there is not the change made here. (One
    parameter with several names stays one in a copy.) Parameters may take turns in one memory, as
    the columns of a matrix do, if no entry is in two of them.
    """
    places = sorted(_list_places(model), key=lambda each: (each.device, each.start))
    together: list[_Place] = []
    end = 0
    for place in places:
        if together and (place.device != together[0].device or place.start >= end):
            if found := _find_clash(together):
                return found
            together = []
        end = max(end, place.end) if together else place.end
        together.append(place)
    return _find_clash(together)


def _list_places(model: nn.Module) -> Iterator[_Place]:
    for name, tensor in model.named_parameters():
        if isinstance(tensor, UninitializedParameter) or type(tensor.data) is not Tensor:
            continue
        if tensor.layout == torch.strided and tensor.data_ptr():
            start = tensor.data_ptr()
            extent = 1 + sum(
                (size - 1) * stride
                for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
            )
            end = start + extent * tensor.element_size()
            yield _Place(name, str(tensor.device), start, end, tensor)


def _find_clash(places: Sequence[_Place]) -> tuple[str, str] | None:
    """Return two of these that have an entry in common.

    Args:
        places: On one device; sorted by where they start.
    """
    if len(places) < 2:
        return None
    start, end = places[0].start, max(place.end for place in places)
    unit = math.gcd(
        *(place.start - start for place in places),
        *(place.tensor.element_size() for place in places),
    )
    owners = torch.zeros((end - start) // unit, dtype=torch.int32, device="cpu")
    for number, place in enumerate(places, start=1):
        parts = place.tensor.element_size() // unit
        held = owners.as_strided(
            (*place.tensor.shape, parts),
            (*(stride * parts for stride in place.tensor.stride()), 1),
            (place.start - start) // unit,
        )
        owned = held[held > 0]
        if owned.numel():
            return places[int(owned.min()) - 1].name, place.name
        held.fill_(number)
    return None
