"""Hooks of a model's tensors, carried over to a copy of it.

`copy.deepcopy` makes tensors without the hooks that were registered on them. A copy without a hook
that clamps or masks gradients is another model.
"""

import copy
import types
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from chainrule.errors import InspectionError
from chainrule.measure._torch_internals import list_accumulation_hooks, list_gradient_hooks

_NESTED = 4
"""How deep closures, lists and dictionaries are looked through."""

_OWN = __name__.partition(".")[0]

_CONTAINERS = (list, tuple, set, frozenset, Mapping)


def carry_hooks(model: nn.Module, twins: Mapping[int, Any]) -> None:
    """Register on the tensors of a copy what is registered on those of the model.

    A hook that uses the model's modules or tensors uses those of the copy there. Hooks on
    accumulated gradients that take steps of an optimizer are left out, those of chainrule, too.

    Args:
        model: The model; its hooks stay as they are.
        twins: What its copy holds in place of each of its modules and tensors, by `id`; all that
            `copy.deepcopy` has copied may be there.

    Raises:
        InspectionError: If a hook cannot be carried over.
    """
    memo = {id(part): twins[id(part)] for part in _list_parts(model) if id(part) in twins}
    for name, tensor, hook, is_late in list(_list_hooks(model)):
        twin = memo.get(id(tensor), tensor)
        if twin is tensor:
            continue
        if obstacle := _find_obstacle(hook, memo):
            if is_late and _holds_optimizer(hook):
                continue
            raise InspectionError(_word(name, obstacle))
        needs = twin.requires_grad
        twin.requires_grad_()
        carried = _rebind(hook, memo)
        if is_late:
            twin.register_post_accumulate_grad_hook(carried)
        else:
            twin.register_hook(carried)
        twin.requires_grad_(needs)


def find_uncarried(model: nn.Module) -> str:
    """Return which hook of a tensor a copy that is trained could not have; "" if none."""
    memo = {id(part): part for part in _list_parts(model)}
    for name, _, hook, _ in _list_hooks(model):
        if obstacle := _find_obstacle(hook, memo):
            return _word(name, obstacle)
    return ""


def _word(name: str, obstacle: str) -> str:
    return f"a hook of parameter {name!r} {obstacle}, so a copy cannot have it"


def _list_parts(model: nn.Module) -> Iterator[Any]:
    yield from model.modules()
    yield from model.parameters()
    yield from model.buffers()


def _list_hooks(model: nn.Module) -> Iterator[tuple[str, Tensor, Any, bool]]:
    """Yield the name, the tensor, the hook, and whether it runs on accumulated gradients."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if not tensor.is_leaf:
            continue
        for late, hooks in (
            (False, list_gradient_hooks(tensor)),
            (True, list_accumulation_hooks(tensor)),
        ):
            yield from ((name, tensor, hook, late) for hook in hooks.values() if not _is_own(hook))


def _is_own(hook: Any) -> bool:
    """Whether a hook is one that chainrule has registered, as `watch` does."""
    while isinstance(hook, partial):
        hook = hook.func
    return str(getattr(hook, "__module__", "")).partition(".")[0] == _OWN


def _list_held(held: Any, depth: int = _NESTED) -> Iterator[Any]:
    """Yield what a hook can reach: itself, its closure, the globals that it names, its object."""
    yield held
    if not depth or isinstance(held, (nn.Module, Tensor, torch.optim.Optimizer)):
        return
    inner: list[Any] = []
    if isinstance(held, types.FunctionType):
        inner += _read_cells(held).values()
        inner += held.__defaults__ or ()
        inner += (held.__kwdefaults__ or {}).values()
        inner += _read_globals(held).values()
    elif isinstance(held, types.MethodType):
        inner += [held.__self__, held.__func__]
    elif isinstance(held, partial):
        inner += [held.func, *held.args, *held.keywords.values()]
    elif isinstance(held, Mapping):
        inner += [*held.keys(), *held.values()]
    elif isinstance(held, _CONTAINERS):
        inner += held
    elif callable(held) or depth == _NESTED - 1:  # an object with a method that is the hook
        inner += getattr(held, "__dict__", {}).values() if not isinstance(held, type) else ()
    for each in inner:
        yield from _list_held(each, depth - 1)


def _read_cells(function: types.FunctionType) -> dict[str, Any]:
    """Return what a function keeps of where it was defined, by name."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not set yet
            continue
    return found


def _read_globals(function: types.FunctionType) -> dict[str, Any]:
    """Return the global values that a function names, if they may belong to a model."""
    kinds = (nn.Module, Tensor, torch.optim.Optimizer, *_CONTAINERS)
    known = function.__globals__
    return {
        name: known[name]
        for name in function.__code__.co_names
        if isinstance(known.get(name), kinds)
    }


def _holds_optimizer(hook: Any) -> bool:
    return any(isinstance(each, torch.optim.Optimizer) for each in _list_held(hook))


def _find_obstacle(hook: Any, memo: Mapping[int, Any]) -> str:
    """Return why a hook cannot run on a copy as it does on the model; "" if it can."""
    for held in _list_held(hook):
        if isinstance(held, torch.optim.Optimizer):
            return "takes steps of an optimizer"
        is_foreign = isinstance(held, nn.Module) and id(held) not in memo
        if is_foreign and any(id(part) in memo for part in _list_parts(held)):
            return "uses a module that holds the model"
    return ""


def _rebind(held: Any, memo: dict[int, Any]) -> Any:
    """Return a hook, or what it reaches, with the parts of the copy in place of the model's.

    What holds no part of the model stays the same object: the loss may read what a hook writes.
    """
    if id(held) in memo:
        return memo[id(held)]
    if not any(id(each) in memo for each in _list_held(held)):
        return held
    if isinstance(held, types.FunctionType):
        return _rebind_function(held, memo)
    if isinstance(held, types.MethodType):
        return types.MethodType(_rebind(held.__func__, memo), _rebind(held.__self__, memo))
    if isinstance(held, partial):
        keywords = {name: _rebind(each, memo) for name, each in held.keywords.items()}
        return partial(_rebind(held.func, memo), *(_rebind(e, memo) for e in held.args), **keywords)
    return copy.deepcopy(held, dict(memo))


def _rebind_function(function: types.FunctionType, memo: dict[int, Any]) -> Callable[..., Any]:
    cells = {name: _rebind(each, memo) for name, each in _read_cells(function).items()}
    names = function.__code__.co_freevars
    closure = tuple(
        types.CellType(cells[name]) if name in cells else cell
        for name, cell in zip(names, function.__closure__ or (), strict=True)
    )
    known = {name: _rebind(each, memo) for name, each in _read_globals(function).items()}
    same = all(each is function.__globals__[name] for name, each in known.items())
    made = types.FunctionType(
        function.__code__,
        function.__globals__ if same else {**function.__globals__, **known},
        function.__name__,
        tuple(_rebind(each, memo) for each in function.__defaults__ or ()) or None,
        closure or None,
    )
    made.__kwdefaults__ = {
        name: _rebind(each, memo) for name, each in (function.__kwdefaults__ or {}).items()
    } or None
    made.__dict__.update(function.__dict__)
    return made
