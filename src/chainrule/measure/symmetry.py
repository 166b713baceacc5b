"""Units of one weight that have the same weights and the same gradients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from chainrule.measure.modules import PARAMETRIZATIONS, Inventory, find_owner

MAX_UNITS, MAX_ENTRIES = 4096, 1024
"""Of larger weights the first units, and evenly spaced entries of each, are compared."""

ALIKE = 1e-5
"""Difference of gradients, relative to the largest, up to which they are the same: float32 adds up
identical units in another order."""

_UNITS_FIRST = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
)
_UNITS_SECOND = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True, slots=True)
class Symmetry:
    """A weight with units that are copies: its position in the inventory, and how many."""

    position: int
    units: int
    copies: int
    idle: int


def find_symmetries(
    inventory: Inventory, gradients: Mapping[int, Tensor], suspects: Sequence[int]
) -> list[Symmetry]:
    """Return the weights of which some units are copies of others.

    Args:
        inventory: The model's modules and parameters.
        gradients: Gradients by position in the inventory.
        suspects: Positions of what is compared: parameters in which one entry of some units is the
            same.
    """
    found = []
    modules = dict(inventory.modules) if suspects else {}
    biases = {p.names[0]: p.tensor.detach() for p in inventory.parameters} if suspects else {}
    for position in suspects:
        parameter, gradient = inventory.parameters[position], gradients.get(position)
        name = parameter.names[0]
        owner = modules.get(find_owner(name))
        is_second = isinstance(owner, _UNITS_SECOND)
        if (
            gradient is not None
            and gradient.layout == torch.strided
            and (is_second or isinstance(owner, _UNITS_FIRST))
            and PARAMETRIZATIONS not in name
        ):
            weight = parameter.tensor.detach()
            head, dot, own = name.rpartition(".")
            bias = biases.get(f"{head}{dot}{own.replace('weight', 'bias')}")
            symmetry = _compare(position, weight, gradient, bias, 1 if is_second else 0)
            found += [symmetry] if symmetry else []
    return found


def _compare(
    position: int, weight: Tensor, gradient: Tensor, bias: Tensor | None, dim: int
) -> Symmetry | None:
    """Return how many units are copies; other biases make them other units."""
    weights, changes = _list_units(weight, dim), _list_units(gradient, dim)
    if bias is not None and bias.dim() == 1 and len(bias) == weight.shape[dim]:
        weights = torch.cat([weights, bias[:MAX_UNITS, None].to(weights)], dim=1)
    if not bool(torch.isfinite(changes).all()) or not bool(torch.isfinite(weights).all()):
        return None
    units = len(weights)
    kinds = _group(weights, 0.0) * units + _group(changes, ALIKE)
    still = (changes == 0).all(1)
    moving = len(torch.unique(kinds[~still]))
    resting = len(torch.unique(kinds[still]))
    idle = int(still.sum()) - resting
    copies = units - int(still.sum()) - moving
    return Symmetry(position, units, copies, idle) if copies or idle else None


def _list_units(tensor: Tensor, dim: int) -> Tensor:
    """Return [units, entries] in float64, or what the device has."""
    units = tensor.movedim(dim, 0)[:MAX_UNITS].flatten(1)
    units = units[:, :: max(1, -(-units.shape[1] // MAX_ENTRIES))]
    if units.is_complex():
        units = torch.view_as_real(units.resolve_conj()).flatten(1)
    return units.to(torch.float32 if units.device.type == "mps" else torch.float64)


def _group(units: Tensor, tolerance: float) -> Tensor:
    """Return a number for each unit: the same one for units that are the same.

    Units are told apart by their distance along a few fixed directions, one after the other, of
    which all must agree.
    """
    numbers = torch.zeros(len(units), dtype=torch.int64, device=units.device)
    at = torch.arange(1, units.shape[1] + 1, dtype=units.dtype, device=units.device)
    largest = torch.linalg.vector_norm(units, dim=1).max()
    # A product of a row with a vector may be added up in another order for another row.
    bound = (tolerance or 1e-12) * largest
    for frequency in (1.0, 2.0**0.5):
        keys = (units * torch.cos(frequency * at * at)).sum(1)
        ordered, order = keys.sort()
        steps = torch.zeros_like(numbers)
        steps[1:] = (ordered.diff() > bound).to(numbers.dtype)
        group = torch.empty_like(numbers)
        group[order] = steps.cumsum(0)
        numbers = torch.unique(numbers * len(units) + group, return_inverse=True)[1]
    return numbers
