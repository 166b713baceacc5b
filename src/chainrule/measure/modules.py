"""Taking stock of a model in one walk: its modules and parameters, with their names."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import nn

from chainrule.flow.records import Role
from chainrule.measure._torch_internals import COMPILED
from chainrule.measure.networks import ResidualBlock
from chainrule.spec.activations import ACTIVATIONS, Activation


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
    modules: dict[nn.Module, str] = {}
    names: dict[int, list[str]] = {}
    tensors: dict[int, nn.Parameter] = {}
    for raw_name, module in model.named_modules(remove_duplicate=False):
        name = _clean(raw_name) if COMPILED in raw_name else raw_name
        modules.setdefault(module, name)
        for key, parameter in module._parameters.items():
            if parameter is not None:
                names.setdefault(id(parameter), []).append(f"{name}.{key}" if name else key)
                tensors[id(parameter)] = parameter
    return Inventory(
        tuple((name, module) for module, name in modules.items()),
        tuple(NamedParameter(tensor, tuple(names[key])) for key, tensor in tensors.items()),
    )


@dataclass(frozen=True, slots=True)
class ModuleClass:
    """What the class of a module says about it.

    Attributes:
        kind: What it is called.
        is_known: Whether it is one of PyTorch's.
        activation: The table's entry, for an activation of the table.
        role: Its role if it owns no weights.
        unit_dim: Which dimension of its outputs counts the units, from the end: −3 for a
            two-dimensional convolution; `None` if it is wherever it was in the inputs.
        dims: Number of dimensions of outputs for which `unit_dim` holds, or `None` for any.
    """

    kind: str
    is_known: bool
    activation: Activation | None
    role: Role
    unit_dim: int | None
    dims: int | None


def classify(module: nn.Module) -> ModuleClass:
    """Return what the class of a module says about it."""
    kind: Any = type(module)
    return _classify(kind)


@cache
def _classify(cls: type) -> ModuleClass:
    activation = _ACTIVATION_CLASSES.get(cls)
    elementwise = cls.__module__ == nn.ReLU.__module__ or cls.__name__.endswith("Activation")
    role: Role = "other"
    if activation or (elementwise and cls.__name__ not in _NOT_ELEMENTWISE):
        role = "activation"
    elif issubclass(cls, ResidualBlock):
        role = "residual"
    elif "Norm" in cls.__name__:
        role = "normalization"
    unit_dim = dims = None
    digit = cls.__name__[-2:-1]
    if issubclass(cls, _FEATURES_LAST):
        unit_dim = -1
    elif issubclass(cls, _CHANNELS_FIRST) and digit in "123":
        unit_dim = -1 - int(digit)
        dims = None if issubclass(cls, _CONVOLUTIONS) else 2 + int(digit)
    return ModuleClass(
        kind=cls.__name__.removeprefix("Parametrized"),
        is_known=cls.__module__.startswith("torch.nn."),
        activation=activation,
        role=role,
        unit_dim=unit_dim,
        dims=dims,
    )


def has_weights(module: nn.Module) -> bool:
    """Whether a module itself owns a weight matrix or kernel, parametrized or not."""
    owned = list(module._parameters.values())
    if PARAMETRIZATIONS in module._modules:
        owned += getattr(module, PARAMETRIZATIONS).parameters()
    return any(p is not None and p.dim() >= 2 for p in owned)


def is_measured(name: str, module: nn.Module) -> bool:
    """Whether a module's outputs are measured.

    These are modules without submodules, modules that own parameters themselves (such as
    `nn.MultiheadAttention`), and `ResidualBlock`. What computes a parametrization (such as weight
    normalization) is part of the module that it belongs to.
    """
    if PARAMETRIZATIONS in name:
        return False
    return (
        is_leaf(module)
        or any(p is not None for p in module._parameters.values())
        or isinstance(module, ResidualBlock)
    )


def is_leaf(module: nn.Module) -> bool:
    """Whether a module has no submodules but the ones of its parametrizations."""
    return not module._modules or module._modules.keys() == {PARAMETRIZATIONS}


def find_owner(parameter_name: str) -> str:
    """Return the name of the module that owns a parameter, parametrized or not."""
    before, found, _ = parameter_name.partition(PARAMETRIZATIONS)
    return before.rstrip(".") if found else parameter_name.rpartition(".")[0]


PARAMETRIZATIONS = "parametrizations"
"""Where `torch.nn.utils.parametrize` keeps what computes a module's parameters."""


def _clean(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != COMPILED)


_ACTIVATION_CLASSES: dict[type[nn.Module], Activation] = {
    getattr(nn, entry.module): entry for entry in ACTIVATIONS.values()
}
_NOT_ELEMENTWISE = {"MultiheadAttention", "Softmax", "Softmin", "LogSoftmax", "Softmax2d"}
_CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
_CHANNELS_FIRST = (
    *_CONVOLUTIONS,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.SyncBatchNorm,
)
_FEATURES_LAST = (
    nn.Linear,
    nn.Flatten,
    nn.Embedding,
    nn.LayerNorm,
    nn.RNNBase,
    nn.MultiheadAttention,
)
