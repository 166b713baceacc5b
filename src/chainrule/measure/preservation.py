"""Leaving no trace: a model and the process's random state are put back as they were."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from operator import is_
from typing import Any, cast

import torch
from torch import Tensor

from chainrule.errors import InspectionError
from chainrule.measure._torch_internals import list_non_persistent
from chainrule.measure.checksums import ParameterWatch, is_plain, put_memory_back
from chainrule.measure.interrupts import HoldInterrupts
from chainrule.measure.modules import Inventory
from chainrule.measure.sharing import (
    claim,
    forbid_optimizer_steps,
    preserve_random_state,
    run_all,
)

__all__ = ["preserve", "preserve_random_state", "restore"]

NESTED = 4
"""How deep lists and dictionaries in an attribute of a module are put back."""

MOST_ITEMS = 10_000
"""Larger lists and dictionaries, such as a vocabulary or a data set, are not looked through."""

_CONTAINERS = frozenset({dict, OrderedDict, list, tuple})


@contextmanager
def preserve(inventory: Inventory) -> Iterator[None]:
    """As `restore`, where parts of the model may be inspected inside; Ctrl-C cannot cut it short.

    Raises:
        InspectionError: As `restore` does.
    """
    with (
        HoldInterrupts() as interrupts,
        restore(inventory, exclusive=False),
        interrupts.let_through(),
    ):
        yield


@contextmanager
def restore(inventory: Inventory, *, exclusive: bool = True) -> Iterator[None]:
    """Put back a model's state and all random states on leaving, also after an error.

    Restored: train/eval mode of every submodule, `requires_grad` and `.grad` of every parameter
    (these read as `None` inside, so nothing can be added to them), the objects, shapes and values
    of buffers, all other attributes of modules (also what is in lists and dictionaries there), and
    the random states of PyTorch (CPU and the model's accelerators), `random` and NumPy. A parameter
    whose `.data` was replaced gets its own back. Parameter values of large models are watched
    instead of copied: a copy would double the memory. If one thing cannot be put back, everything
    else is.

    Args:
        inventory: The model's.
        exclusive: Whether also this thread must not inspect a part of the model inside.

    Raises:
        InspectionError: If a parameter's values were changed in place inside, also through `.data`,
            as an optimizer step does (in models of up to `COPIED` numbers that is undone first); if
            something cannot be put back; or if a part of the model is being inspected already.
    """
    with claim(inventory, exclusive=exclusive):
        snapshot = _Snapshot(inventory)
        parameters = [parameter.tensor for parameter in inventory.parameters]
        with (
            preserve_random_state({tensor.device for tensor in parameters}),
            forbid_optimizer_steps({id(tensor) for tensor in parameters}),
        ):
            try:
                snapshot.put_gradients_aside()
                yield
            finally:
                snapshot.put_back()
        if snapshot.changed:
            changed = [inventory.parameters[at].names[0] for at in snapshot.changed]
            others = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise InspectionError(
                "compute_loss must only compute the loss, but it changed the values of parameter "
                f"{changed[0]!r}{others} in place. Take the optimizer step (or other update, "
                "such as p.data.clamp_()) out of it; if forward() sets weights up at its first "
                "run, run the model once before. The change was "
                f"{'' if snapshot.watch.has_copies else 'not '}undone."
            )


class _Snapshot:
    """The state of a model's modules, parameters and buffers at one moment.

    Attributes:
        watch: The values of parameters.
        changed: Positions of parameters whose values `put_back` found changed in place.
    """

    def __init__(self, inventory: Inventory) -> None:
        modules = inventory.modules
        self.inventory = inventory
        self.changed: tuple[int, ...] = ()
        self._modes = [(module, module.training) for _, module in modules]
        self._parameters = [
            (p.tensor, p.tensor.grad, p.tensor.requires_grad) for p in inventory.parameters
        ]
        self.watch = ParameterWatch([tensor for tensor, _, _ in self._parameters])
        self._non_persistent = [
            (names, set(names)) for _, module in modules for names in (list_non_persistent(module),)
        ]
        self._buffers = [
            _Buffer(name, key, buffer)
            for name, module in modules
            if module._buffers
            for key, buffer in module._buffers.items()
            if buffer is not None
        ]
        # Registries of other kinds than `_list_containers` looks into are put back all the same.
        self._registries: list[tuple[dict[str, Any], dict[str, Any]]] = [
            (registry, dict(registry))
            for _, module in modules
            for registry in (cast("Any", module._buffers), cast("Any", module._parameters))
            if type(registry) not in _CONTAINERS
        ]
        self._attributes: list[tuple[str, Any, Any]] = []
        self._empty: list[Any] = []
        for name, module in modules:
            _list_containers(vars(module), name, self._attributes, self._empty)

    def put_gradients_aside(self) -> None:
        """Leave every parameter without a gradient."""
        for tensor, gradient, _ in self._parameters:
            if gradient is not None:
                tensor.grad = None

    def put_back(self) -> None:
        """Make everything as it was.

        Raises:
            InspectionError: If something could not be put back; the rest was.
        """
        failures: dict[str, Exception] = {}
        steps = (
            self._put_registries_back,
            self._put_buffers_back,
            self._put_values_back,
            self._put_gradients_back,
            self._put_attributes_back,
            self._put_modes_back,
        )
        for failure in run_all(partial(step, failures) for step in steps):
            failures.setdefault("its state", failure)
        if failures:
            what = ", ".join(
                f"{name} ({type(error).__name__}: {error})" for name, error in failures.items()
            )
            raise InspectionError(
                "compute_loss must leave the model in a state that can be restored, but this could "
                f"not be restored: {what}. Everything else is as before. Build the model again, or "
                "load its state, before you use it."
            ) from next(iter(failures.values()))

    def _put_registries_back(self, failures: dict[str, Exception]) -> None:
        for registry, contents in self._registries:
            if list(registry) != list(contents) or not _is_same(registry, contents):
                try:
                    registry.clear()
                    registry.update(contents)
                except Exception as error:
                    failures[f"the tensors {', '.join(contents)}"] = error
        for names, old_names in self._non_persistent:
            if names != old_names:
                names.clear()
                names.update(old_names)

    def _put_buffers_back(self, failures: dict[str, Exception]) -> None:
        with torch.no_grad():
            for buffer in self._buffers:
                try:
                    buffer.put_back()
                except Exception as error:
                    failures[f"buffer {buffer.name!r}"] = error

    def _put_values_back(self, failures: dict[str, Exception]) -> None:
        failed: dict[int, Exception] = {}
        self.changed = self.watch.put_back(failed)
        for at, error in failed.items():
            failures[f"parameter {self.inventory.parameters[at].names[0]!r}"] = error

    def _put_gradients_back(self, failures: dict[str, Exception]) -> None:
        for at, (tensor, gradient, requires_grad) in enumerate(self._parameters):
            try:
                if tensor.requires_grad != requires_grad:
                    tensor.requires_grad_(requires_grad)
                if tensor.grad is not gradient:
                    tensor.grad = gradient
            except Exception as error:
                name = self.inventory.parameters[at].names[0]
                failures[f"the gradient of parameter {name!r}"] = error

    def _put_attributes_back(self, failures: dict[str, Exception]) -> None:
        for name, container, contents in self._attributes:
            try:
                _restore_contents(container, contents)
            except Exception as error:
                failures[f"an attribute of {_quote(name)}"] = error
        for container in self._empty:
            if container:
                container.clear()

    def _put_modes_back(self, failures: dict[str, Exception]) -> None:
        for at, (module, training) in enumerate(self._modes):
            try:
                if module.training is not training:
                    module.training = training
            except Exception as error:
                name = self.inventory.modules[at][0]
                failures[f"the train/eval mode of {_quote(name)}"] = error


class _Buffer:
    """A buffer, and what it was.

    Values are compared, because batch normalization changes its buffers without counting a new
    version; and they are written through `.data`, because putting them back must not count one
    either.
    """

    __slots__ = ("_held", "_size", "_tensor", "_values", "name")

    def __init__(self, owner: str, key: str, tensor: Tensor) -> None:
        self.name = f"{owner}.{key}" if owner else key
        self._tensor = tensor
        self._values = tensor.detach().clone()
        self._held: Tensor | None = None
        if is_plain(tensor):
            self._held = tensor.detach()
            self._size = tensor.untyped_storage().nbytes()

    def put_back(self) -> None:
        """Give it back its memory, shape and values."""
        tensor, held, values = self._tensor, self._held, self._values
        if tensor.is_meta:
            return
        if held is None:
            if tensor.layout != torch.strided:
                if not torch.equal(tensor.to_dense(), values.to_dense()):
                    tensor.data = values
            elif not torch.equal(tensor, values):
                tensor.data.copy_(values)
            return
        storage = held.untyped_storage()
        if storage.nbytes() < self._size:
            storage.resize_(self._size)
        put_memory_back(tensor, held)
        if not torch.equal(tensor, values):
            tensor.data.copy_(values)


def _list_containers(
    held: Any, name: str, found: list[tuple[str, Any, Any]], empty: list[Any], depth: int = NESTED
) -> None:
    """Append dictionaries and lists to `found`, from the outermost inward, or to `empty`.

    Only plain ones and ordered dictionaries: others may do something when they are changed.

    Args:
        held: A dictionary, list or tuple with something in it.
        name: Whose it is.
        found: Receives (name, container, copy of its contents).
        empty: Receives containers without contents.
        depth: How deep to look into it.
    """
    if len(held) > MOST_ITEMS:
        return
    if type(held) is not tuple:
        found.append((name, held, held.copy()))
    if not depth:
        return
    for item in held.values() if isinstance(held, dict) else held:
        kind = type(item)
        if kind in _CONTAINERS:
            if item:
                _list_containers(item, name, found, empty, depth - 1)
            elif kind is not tuple:
                empty.append(item)


def _restore_contents(container: Any, contents: Any) -> None:
    if isinstance(contents, list):
        if len(container) != len(contents) or not all(map(is_, container, contents)):
            container[:] = contents
    elif list(container) != list(contents) or not _is_same(container, contents):
        container.clear()
        container.update(contents)


def _is_same(registry: dict[str, Any], contents: dict[str, Any]) -> bool:
    """Whether a dictionary holds the same objects under the same keys, in the same order."""
    return len(registry) == len(contents) and all(map(is_, registry.values(), contents.values()))


def _quote(name: str) -> str:
    return repr(name) if name else "the model"
