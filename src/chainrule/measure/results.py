"""The tensors in what a module takes or returns, whatever they are nested in."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def flatten_nested(tensor: Tensor) -> Tensor:
    """Return the examples of a nested tensor one after another; any other tensor itself.

    A jagged tensor of B sequences of n_b steps becomes one of Σ n_b steps.
    """
    if not tensor.is_nested:
        return tensor
    if tensor.layout == torch.jagged:
        return tensor.values()
    return torch.cat([each.reshape(-1, each.shape[-1]) for each in tensor.unbind()])


def find_tensors(
    value: Any, path: str = "", around: tuple[int, ...] = ()
) -> list[tuple[str, Tensor]]:
    """Return (path, tensor) for every tensor in any nesting of sequences, mappings, dataclasses.

    Args:
        value: What to look through.
        path: Where it sits.
        around: The `id` of everything that it is nested in; what contains itself ends there.
    """
    if isinstance(value, Tensor):
        return [(path, value)]
    if id(value) in around:
        return []
    if isinstance(value, (tuple, list)):
        entries = [(str(index), entry) for index, entry in enumerate(value)]
    elif isinstance(value, Mapping):
        entries = [(str(key), entry) for key, entry in value.items()]
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [entry.name for entry in dataclasses.fields(value)]
        entries = [(name, getattr(value, name, None)) for name in names]
    else:
        return []
    return [
        found
        for name, entry in entries
        for found in find_tensors(entry, f"{path}.{name}" if path else name, (*around, id(value)))
    ]
