"""What is watched: the parameters of a model, which optimizer holds them, and their facts."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from chainrule._utils.version import read_version
from chainrule.errors import WatchError
from chainrule.measure._torch_internals import unwrap_compiled
from chainrule.measure.modules import Inventory, find_owner, take_inventory
from chainrule.watch.records import OptimizerFacts, ParameterFacts, RunFacts


@dataclass(frozen=True, slots=True, eq=False)
class Watched:
    """A model and its optimizers, as they were when the run began.

    Attributes:
        model: The model, without what wraps it for compilation or several processes.
        inventory: Its modules and parameters.
        optimizers: The optimizers.
        parameters: The parameters, each once.
        positions: Position of each parameter, by `id`.
        is_compiled: Whether all of the model was compiled by `torch.compile`.
        called: Whose hooks run when the model is called: of a compiled model, what `torch.compile`
            returned, since hooks of the module inside are no part of the compiled code.
    """

    model: nn.Module
    inventory: Inventory
    optimizers: tuple[torch.optim.Optimizer, ...]
    parameters: tuple[Tensor, ...]
    positions: Mapping[int, int]
    is_compiled: bool
    called: nn.Module

    def list_held(self, optimizer: torch.optim.Optimizer) -> list[int]:
        """Return the positions of the parameters that an optimizer holds now."""
        positions = self.positions
        return [
            positions[id(parameter)]
            for group in optimizer.param_groups
            for parameter in group["params"]
            if id(parameter) in positions
        ]

    def count_unknown(self, optimizer: torch.optim.Optimizer) -> int:
        """Return how many parameters an optimizer holds that the model did not have."""
        return sum(
            id(parameter) not in self.positions
            for group in optimizer.param_groups
            for parameter in group["params"]
        )


def find_watched(model: Any, optimizers: Any) -> Watched:
    """Return what is watched, checked.

    Args:
        model: A module.
        optimizers: An optimizer, or several in any sequence.

    Raises:
        WatchError: If there is nothing to watch.
    """
    if not isinstance(model, nn.Module):
        raise WatchError(
            f"model must be a torch.nn.Module; got {type(model).__name__}. Call it as "
            "watch(model, optimizer)."
        )
    found = [optimizers] if isinstance(optimizers, torch.optim.Optimizer) else optimizers
    if not isinstance(found, (list, tuple)) or not found:
        raise WatchError(
            "optimizer must be a torch.optim.Optimizer or a list of them; got "
            f"{type(optimizers).__name__ if found else 'none'}. Call it as watch(model, optimizer)."
        )
    found = [_unwrap_optimizer(each) for each in found]
    for each in found:
        if not isinstance(each, torch.optim.Optimizer):
            raise WatchError(
                "optimizer must be a torch.optim.Optimizer or a list of them; got a list with a "
                f"{type(each).__name__}. Of a wrapper, give the optimizer inside."
            )
    for at, each in enumerate(found):
        if any(each is before for before in found[:at]):
            raise WatchError(
                "Each optimizer must be given once; got a list in which optimizer "
                f"{at} ({type(each).__name__}) is there twice. Leave it out of the list."
            )
    unwrapped, compiled = unwrap_model(model)
    inventory = take_inventory(unwrapped)
    if not inventory.parameters:
        raise WatchError(
            f"A model must have parameters to be watched; {type(unwrapped).__name__} has none. "
            "Give the model that trains."
        )
    for parameter in inventory.parameters:
        if isinstance(parameter.tensor, UninitializedParameter):
            raise WatchError(
                f"All parameters must have a shape, but {parameter.names[0]!r} is still lazy. Run "
                "the model once on an example before it is watched."
            )
    tensors = tuple(each.tensor for each in inventory.parameters)
    return Watched(
        unwrapped,
        inventory,
        tuple(found),
        tensors,
        MappingProxyType({id(tensor): at for at, tensor in enumerate(tensors)}),
        compiled is not None,
        unwrapped if compiled is None else compiled,
    )


def _unwrap_optimizer(optimizer: Any) -> Any:
    """Return the optimizer that steps, of a wrapper that has no hooks of its own (Accelerate's)."""
    inner = getattr(optimizer, "optimizer", None)
    if isinstance(inner, torch.optim.Optimizer) and not hasattr(
        optimizer, "_optimizer_step_pre_hooks"
    ):
        return _unwrap_optimizer(inner)
    return optimizer


def unwrap_model(model: nn.Module) -> tuple[nn.Module, nn.Module | None]:
    """Return the module without wrappers for compilation and processes, and the compiled one.

    The second is what `torch.compile` made of it; `None` if it was not compiled.
    """
    compiled = None
    while True:
        inner = unwrap_compiled(model)
        compiled = compiled if inner is model else model
        if isinstance(inner, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            inner = inner.module
        if inner is model:
            return model, compiled
        model = inner


def describe_run(watched: Watched, *, name: str, every: int, world_size: int) -> RunFacts:
    """Return what is known of a run before its first step."""
    kinds = {name: type(module).__name__ for name, module in watched.inventory.modules}
    held: dict[int, tuple[int, int]] = {}
    for number, optimizer in enumerate(watched.optimizers):
        for group_number, group in enumerate(optimizer.param_groups):
            for parameter in group["params"]:
                held.setdefault(id(parameter), (number, group_number))
    parameters = []
    for named in watched.inventory.parameters:
        owner = find_owner(named.names[0])
        optimizer_number, group_number_of = held.get(id(named.tensor), (None, None))
        parameters.append(
            ParameterFacts(
                name=named.names[0],
                layer=owner,
                kind=kinds.get(owner, "").removeprefix("Parametrized"),
                shape=tuple(named.tensor.shape),
                dtype=str(named.tensor.dtype).removeprefix("torch."),
                trained=named.tensor.requires_grad,
                optimizer=optimizer_number,
                group=group_number_of,
            )
        )
    return RunFacts(
        name=name,
        model=type(watched.model).__name__,
        parameters=tuple(parameters),
        optimizers=tuple(
            OptimizerFacts(
                kind=type(optimizer).__name__,
                groups=tuple(_read_settings(group) for group in optimizer.param_groups),
            )
            for optimizer in watched.optimizers
        ),
        every=every,
        created=time.time(),
        device=str(watched.parameters[0].device),
        world_size=world_size,
        torch_version=torch.__version__,
        chainrule_version=read_version(),
    )


def _read_settings(group: Mapping[str, Any]) -> Mapping[str, float]:
    """Return what of an optimizer's group is a number or flag; pairs get a number each."""
    found: dict[str, float] = {}
    for name, value in group.items():
        if name == "params":
            continue
        parts: Sequence[Any] = value if isinstance(value, (tuple, list)) else [value]
        for at, part in enumerate(parts):
            is_one = isinstance(part, Tensor) and part.numel() == 1
            if is_one or isinstance(part, (bool, int, float)):
                found[f"{name}.{at}" if len(parts) > 1 else name] = float(part)
    return found
