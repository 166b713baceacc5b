"""Leaving no trace: a model and the process's random state are put back as they were."""

import random
import sys
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence, Sized
from contextlib import contextmanager
from operator import is_
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from chainrule.errors import InspectionError
from chainrule.measure.checksums import ParameterWatch
from chainrule.measure.modules import Inventory

NESTED = 4
"""How deep lists and dictionaries in an attribute of a module are put back."""

MOST_ITEMS = 10_000
"""Larger lists and dictionaries, such as a vocabulary or a data set, are not looked through."""

_CONTAINERS = frozenset({dict, OrderedDict, list, tuple})
_NOTHING: tuple[()] = ()


@contextmanager
def preserve(inventory: Inventory) -> Iterator[None]:
    """Put back a model's state and all random states on leaving, also after an error.

    Restored: train/eval mode of every submodule, `requires_grad` and `.grad` of every parameter
    (these read as `None` inside, so nothing can be added to them), the objects and values of
    buffers, all other attributes of modules (also what is in lists and dictionaries there), and the
    random states of PyTorch (CPU and the model's accelerators), `random` and NumPy. A parameter
    whose `.data` was replaced gets its own back. Parameter values of large models are watched
    instead of copied: a copy would double the memory.

    Raises:
        InspectionError: If a parameter's values were changed in place inside, also through `.data`,
            as an optimizer step does. In models of up to `COPIED` numbers that is undone first.
    """
    modes = [(module, module.training) for _, module in inventory.modules]
    registries = [
        (registry, dict(registry) if registry else {})
        for _, module in inventory.modules
        for registry in (module._buffers, module._parameters)
    ]
    parameters = [(p.tensor, p.tensor.grad, p.tensor.requires_grad) for p in inventory.parameters]
    watch = ParameterWatch([tensor for tensor, _, _ in parameters])
    non_persistent = [
        (module._non_persistent_buffers_set, set(module._non_persistent_buffers_set))
        for _, module in inventory.modules
    ]
    buffers = [
        (buffer, buffer.detach().clone())
        for _, module in inventory.modules
        for buffer in module._buffers.values()
        if buffer is not None
    ]
    attributes = [
        (container, contents)
        for _, module in inventory.modules
        for container, contents in _list_containers(vars(module))
    ]
    with (
        preserve_random_state({tensor.device for tensor, _, _ in parameters}),
        _forbid_optimizer_steps({id(tensor) for tensor, _, _ in parameters}),
    ):
        for tensor, gradient, _ in parameters:
            if gradient is not None:
                tensor.grad = None
        try:
            yield
        finally:
            _restore_buffers(registries, buffers)
            for names, old_names in non_persistent:
                if names != old_names:
                    names.clear()
                    names.update(old_names)
            changed = watch.put_back()
            for tensor, gradient, requires_grad in parameters:
                if tensor.requires_grad != requires_grad:
                    tensor.requires_grad_(requires_grad)
                if tensor.grad is not gradient:
                    tensor.grad = gradient
            for container, contents in attributes:
                _restore_contents(container, contents)
            for module, training in modes:
                module.training = training
    if changed:
        changed_names = [inventory.parameters[at].names[0] for at in changed]
        others = f" and {len(changed_names) - 1} more" if len(changed_names) > 1 else ""
        raise InspectionError(
            "compute_loss must only compute the loss, but it changed the values of parameter "
            f"{changed_names[0]!r}{others} in place. Take the optimizer step (or other update, "
            "such as p.data.clamp_()) out of it; if forward() sets weights up at its first run, "
            f"run the model once before. The change was {'' if watch.has_copies else 'not '}undone."
        )


def _list_containers(held: object, depth: int = NESTED) -> Iterator[tuple[Any, Any]]:
    """Yield dictionaries and lists, from the outermost inward, each with a copy of its contents.

    Only plain ones and ordered dictionaries: others may do something when they are changed.
    """
    if len(cast("Sized", held)) > MOST_ITEMS:
        return
    if not isinstance(held, tuple):
        yield held, cast("Any", held).copy()
    if depth:
        items: Any = held.values() if isinstance(held, dict) else held
        for item in items:
            if type(item) in _CONTAINERS and item:
                yield from _list_containers(item, depth - 1)
            elif type(item) in _CONTAINERS and type(item) is not tuple:
                yield item, _NOTHING


def _restore_contents(container: Any, contents: Any) -> None:
    if not container and not contents:
        return
    if not contents:
        container.clear()
    elif isinstance(contents, list):
        if len(container) != len(contents) or not all(map(is_, container, contents)):
            container[:] = contents
    elif list(container) != list(contents) or not _is_same(container, contents):
        container.clear()
        container.update(contents)


def _restore_buffers(
    registries: Sequence[tuple[dict[str, Any], dict[str, Any]]],
    buffers: Sequence[tuple[Tensor, Tensor]],
) -> None:
    for registry, contents in registries:
        if not _is_same(registry, contents):
            registry.clear()
            registry.update(contents)
    with torch.no_grad():
        for buffer, values in buffers:
            # By value: batch normalization changes its buffers without counting a new version.
            # Through `.data`: putting them back must not count one either.
            if buffer.layout != torch.strided:
                if not torch.equal(buffer.to_dense(), values.to_dense()):
                    buffer.data = values
            elif not torch.equal(buffer, values):
                buffer.data.copy_(values)


def _is_same(registry: dict[str, Any], contents: dict[str, Any]) -> bool:
    return registry.keys() == contents.keys() and all(
        registry[name] is value for name, value in contents.items()
    )


@contextmanager
def _forbid_optimizer_steps(parameters: set[int]) -> Iterator[None]:
    """Raise before an optimizer of this thread steps on one of the parameters (given by `id`)."""
    thread = threading.get_ident()

    def refuse(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if threading.get_ident() == thread and any(
            id(parameter) in parameters
            for group in optimizer.param_groups
            for parameter in group["params"]
        ):
            raise InspectionError(
                "compute_loss must only compute the loss, but it makes an optimizer "
                f"({type(optimizer).__name__}) step. Take the step out of it. No parameter was "
                "changed."
            )

    handle = register_optimizer_step_pre_hook(refuse)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def preserve_random_state(devices: Collection[torch.device]) -> Iterator[None]:
    """Put back the random states of PyTorch (CPU and these devices), `random` and NumPy."""
    accelerators = [device for device in devices if device.type not in ("cpu", "meta")]
    cpu_state = torch.get_rng_state()
    states = [
        (device, torch.get_device_module(device).get_rng_state(device)) for device in accelerators
    ]
    python_state = random.getstate()
    numpy: Any = sys.modules.get("numpy")
    numpy_state = numpy.random.get_state() if numpy else None
    try:
        yield
    finally:
        torch.set_rng_state(cpu_state)
        for device, state in states:
            torch.get_device_module(device).set_rng_state(state, device)
        random.setstate(python_state)
        if numpy:
            numpy.random.set_state(numpy_state)
