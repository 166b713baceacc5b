"""Taking stock of a model in one walk: its modules and parameters, with their names."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cache
from typing import cast

from torch import nn

from chainrule.activations import ACTIVATIONS, Activation
from chainrule.measurement import Role
from chainrule.networks import ResidualBlock


@dataclass(frozen=True, slots=True)
class NamedParameter:
    """A parameter with all its names; the first one tells its owner."""

    tensor: nn.Parameter
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Inventory:
    """The modules (by qualified name, in registration order) and parameters of a model."""

    modules: tuple[tuple[str, nn.Module], ...]
    parameters: tuple[NamedParameter, ...]


def take_inventory(model: nn.Module) -> Inventory:
    """Return what a model consists of. Names are without the wrappers `torch.compile` adds."""
    modules = []
    names: dict[int, list[str]] = {}
    tensors: dict[int, nn.Parameter] = {}
    for raw_name, module in model.named_modules():
        name = _clean(raw_name) if "_orig_mod" in raw_name else raw_name
        modules.append((name, module))
        for key, parameter in module._parameters.items():
            if parameter is not None:
                names.setdefault(id(parameter), []).append(f"{name}.{key}" if name else key)
                tensors[id(parameter)] = parameter
    return Inventory(
        tuple(modules),
        tuple(NamedParameter(tensor, tuple(names[key])) for key, tensor in tensors.items()),
    )


@dataclass(frozen=True, slots=True)
class ModuleClass:
    """What the class of a module says about it.

    Attributes:
        activation: The table's entry, for an activation of the table.
        role: Its role if it owns no weights.
        channels_first: Whether its outputs have their units on dimension 1 (convolutions), on the
            last dimension (`False`), or wherever its inputs had them (`None`).
    """

    activation: Activation | None
    role: Role
    channels_first: bool | None


def classify(module: nn.Module) -> ModuleClass:
    """Return what the class of a module says about it."""
    return _classify(cast("Hashable", type(module)))


@cache
def _classify(cls: Hashable) -> ModuleClass:
    assert isinstance(cls, type)
    activation = _ACTIVATION_CLASSES.get(cls)
    elementwise = cls.__module__ == nn.ReLU.__module__ or cls.__name__.endswith("Activation")
    role: Role = "other"
    if activation or (elementwise and cls.__name__ not in _NOT_ELEMENTWISE):
        role = "activation"
    elif issubclass(cls, ResidualBlock):
        role = "residual"
    elif "Norm" in cls.__name__:
        role = "normalization"
    last = False if issubclass(cls, _FEATURES_LAST) else None
    return ModuleClass(activation, role, True if issubclass(cls, _CHANNELS_FIRST) else last)


def has_weights(module: nn.Module) -> bool:
    """Whether a module itself owns a weight matrix or kernel."""
    return any(p is not None and p.dim() >= 2 for p in module._parameters.values())


def _clean(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


_ACTIVATION_CLASSES: dict[type[nn.Module], Activation] = {
    getattr(nn, entry.module): entry for entry in ACTIVATIONS.values()
}
_NOT_ELEMENTWISE = {"MultiheadAttention", "Softmax", "Softmin", "LogSoftmax", "Softmax2d"}
_CHANNELS_FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)
_FEATURES_LAST = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.RNNBase, nn.MultiheadAttention)
