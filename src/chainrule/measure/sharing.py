"""What inspections in several threads have in common: settings of the process, and models.

A setting is changed by the first inspection that needs it and put back by the last one that leaves.
A model, or a part that two models share, belongs to one inspection at a time.
"""

import os
import random
import sys
import threading
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from chainrule.errors import InspectionError
from chainrule.measure._torch_internals import start_running_eagerly
from chainrule.measure.modules import Inventory

Undo = Callable[[], None]


def run_all(steps: Iterable[Undo]) -> list[Exception]:
    """Run every step, also if others fail; return what they raised.

    A step that is interrupted (`KeyboardInterrupt`) is run once more, so it must be one that can be
    repeated; the interrupt goes on after the last step.
    """
    failures: list[Exception] = []
    interrupt: BaseException | None = None
    for step in steps:
        try:
            step()
        except Exception as error:
            failures.append(error)
        except BaseException as error:
            interrupt = error
            try:
                step()
            except Exception as again:
                failures.append(again)
    if interrupt is not None:
        raise interrupt
    return failures


def finish_all(steps: Iterable[Undo]) -> None:
    """Run every step as `run_all` does, and then raise what failed first."""
    for failure in run_all(steps):
        raise failure


@dataclass(slots=True, eq=False)
class _Setting:
    """A setting that was changed: for how many, and what changes it back."""

    holders: int
    undo: Undo


@dataclass(slots=True, eq=False)
class _Draws:
    """Random states as a `preserve_random_state` found them, by source."""

    thread: int
    states: dict[Hashable, Undo]


@dataclass(frozen=True, slots=True, eq=False)
class _Claim:
    """Who holds a part of a model, and whether only once."""

    thread: int
    exclusive: bool


class _Shared:
    """All that the threads of this process share while they measure; guarded by `lock`."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.settings: dict[str, _Setting] = {}
        self.draws: list[_Draws] = []
        self.first_states: dict[Hashable, Undo] = {}
        self.claims: dict[int, _Claim] = {}
        self.guarded: dict[object, tuple[int, set[int]]] = {}

    def forget_other_threads(self) -> None:
        """In a forked process only this thread lives on."""
        self.lock = threading.RLock()
        thread = threading.get_ident()
        self.draws = [each for each in self.draws if each.thread == thread]
        self.claims = {key: each for key, each in self.claims.items() if each.thread == thread}
        self.guarded = {key: each for key, each in self.guarded.items() if each[0] == thread}
        if not self.draws:
            self.first_states.clear()
        own = len(self.guarded)  # each inspection holds every setting once
        for name, setting in list(self.settings.items()):
            setting.holders = min(setting.holders, own)
            if setting.holders == 0:
                del self.settings[name]
                setting.undo()


_SHARED = _Shared()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_SHARED.forget_other_threads)


# --- Settings -------------------------------------------------------------------------------------


@contextmanager
def _hold(name: str, change: Callable[[], Undo | None]) -> Iterator[None]:
    """Keep a setting changed; `change` is called if nobody holds it, and returns its undoing."""
    with _SHARED.lock:
        setting = _SHARED.settings.get(name)
        if setting is None and (undo := change()) is not None:
            setting = _SHARED.settings[name] = _Setting(0, undo)
        if setting is not None:
            setting.holders += 1
    try:
        yield
    finally:
        if setting is not None:
            with _SHARED.lock:
                setting.holders -= 1
                if setting.holders == 0 and _SHARED.settings.pop(name, None) is not None:
                    setting.undo()


@contextmanager
def run_modules_one_by_one() -> Iterator[None]:
    """Have every module run by itself: no fused encoder layers, no compiled parts."""
    with _hold("fused attention", _disable_fast_path), _hold("compiler", start_running_eagerly):
        yield


def _disable_fast_path() -> Undo:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    return partial(torch.backends.mha.set_fastpath_enabled, before)


@contextmanager
def forbid_optimizer_steps(parameters: set[int]) -> Iterator[None]:
    """Raise before an optimizer of this thread steps on one of the parameters (given by `id`)."""
    key = object()
    with _SHARED.lock:
        _SHARED.guarded[key] = threading.get_ident(), parameters
    try:
        with _hold("optimizer steps", lambda: register_optimizer_step_pre_hook(_refuse).remove):
            yield
    finally:
        with _SHARED.lock:
            _SHARED.guarded.pop(key, None)


def _refuse(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    thread = threading.get_ident()
    with _SHARED.lock:
        guarded = [ids for owner, ids in _SHARED.guarded.values() if owner == thread]
    if not guarded:
        return
    stepped = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    if any(not ids.isdisjoint(stepped) for ids in guarded):
        raise InspectionError(
            "compute_loss must only compute the loss, but it takes a step of an optimizer "
            f"({type(optimizer).__name__}). Take the step out of it. No parameter was "
            "changed."
        )


# --- Random states --------------------------------------------------------------------------------


@contextmanager
def preserve_random_state(devices: Collection[torch.device]) -> Iterator[None]:
    """Put back the random states of PyTorch (CPU and these devices), `random` and NumPy.

    They belong to the whole process. While several threads are inside, the last one that leaves
    puts back what the first one found; one thread that enters twice gets back what it found each
    time.
    """
    with _SHARED.lock:
        draws = _Draws(threading.get_ident(), _read_random_states(devices))
        _SHARED.draws.append(draws)
        for source, undo in draws.states.items():
            _SHARED.first_states.setdefault(source, undo)
    try:
        yield
    finally:
        finish_all([partial(_put_random_states_back, draws)])


def _put_random_states_back(draws: _Draws) -> None:
    failures: list[Exception] = []
    with _SHARED.lock:
        others = [each for each in _SHARED.draws if each is not draws]
        if not others:
            failures = run_all(_SHARED.first_states.values())
            _SHARED.first_states.clear()
        elif all(each.thread == draws.thread for each in others):
            failures = run_all(draws.states.values())
            for source in draws.states:
                if not any(source in each.states for each in others):
                    _SHARED.first_states.pop(source, None)
        _SHARED.draws[:] = others
    for failure in failures:
        raise failure


def _read_random_states(devices: Collection[torch.device]) -> dict[Hashable, Undo]:
    states: dict[Hashable, Undo] = {
        "cpu": partial(torch.set_rng_state, torch.get_rng_state()),
        "random": partial(random.setstate, random.getstate()),
    }
    for device in devices:
        if device.type not in ("cpu", "meta"):
            module = torch.get_device_module(device)
            states[device] = partial(module.set_rng_state, module.get_rng_state(device), device)
    numpy: Any = sys.modules.get("numpy")
    if numpy:
        states["numpy"] = partial(numpy.random.set_state, numpy.random.get_state())
    return states


# --- Models ---------------------------------------------------------------------------------------


@contextmanager
def claim(inventory: Inventory, *, exclusive: bool) -> Iterator[None]:
    """Have a model's modules, parameters and buffers for this thread alone.

    Args:
        inventory: The model's.
        exclusive: Whether also this thread may not claim a part of it again inside.

    Raises:
        InspectionError: If a part of it is claimed already.
    """
    parts = [id(module) for _, module in inventory.modules]
    parts += [id(parameter.tensor) for parameter in inventory.parameters]
    parts += [
        id(buffer)
        for _, module in inventory.modules
        if module._buffers
        for buffer in module._buffers.values()
        if buffer is not None
    ]
    own = _Claim(threading.get_ident(), exclusive)
    with _SHARED.lock:
        claims = _SHARED.claims
        before = {part: claims[part] for part in parts if part in claims} if claims else {}
        for part, held in before.items():
            if held.exclusive or held.thread != own.thread:
                raise InspectionError(_describe_claimed(inventory, part, held, own))
        claims.update(dict.fromkeys(parts, own))
    try:
        yield
    finally:
        with _SHARED.lock:
            for part in parts:
                _SHARED.claims.pop(part, None)
            _SHARED.claims.update(before)


def _describe_claimed(inventory: Inventory, part: int, held: _Claim, own: _Claim) -> str:
    names = {id(module): name for name, module in inventory.modules}
    names |= {id(p.tensor): p.names[0] for p in inventory.parameters}
    name = names.get(part, "")
    what = f"its part {name!r}" if name else "it"
    where = "by another thread" if held.thread != own.thread else "around this call"
    return (
        f"A model must be inspected once at a time, but {what} is being inspected {where}. "
        "Wait until that is done, or inspect a copy: copy.deepcopy(model)."
    )
