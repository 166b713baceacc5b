"""Training on several processes: who they are, and what they must agree on.

Steps are watched without waiting for other processes where that is possible. In which process a
gradient was not finite is left in the store through which processes have found each other: the
averaging of gradients in the next step is what they wait for each other at anyway.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from chainrule.errors import WatchError
from chainrule.measure._torch_internals import find_process_store
from chainrule.measure.results import find_tensors
from chainrule.watch.gradients import Lagged, Values, is_spread
from chainrule.watch.hooks import ModuleHook

ARRIVAL_SECONDS = 60.0
"""How long processes that must all watch wait for each other at the start."""

_LAST_SECONDS = 1.0
_ROOT = "chainrule/watch"


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes that train together.

    Attributes:
        rank: Number of this one.
        size: How many there are.
        store: Where they leave small values for each other; `None` if it is not to be had.
        prefix: What the names of this run's values begin with.
    """

    rank: int = 0
    size: int = 1
    store: Any = None
    prefix: str = ""

    def wait_for_all(self) -> None:
        """Wait until every process watches.

        Raises:
            WatchError: If one does not: the first thing they compute together would never end.
        """
        if self.size < 2 or self.store is None:
            return
        key, end = f"{self.prefix}/arrived", time.monotonic() + ARRIVAL_SECONDS
        count = self.store.add(key, 1)
        while count < self.size:
            if time.monotonic() > end:
                raise WatchError(
                    f"watch must be called in each of the {self.size} processes, as norms of "
                    f"parameters that are spread over them, and skipped steps, need all; only "
                    f"{count} did within {ARRIVAL_SECONDS:g} seconds. Call it outside of "
                    "`if rank == 0`."
                )
            time.sleep(0.01)
            count = self.store.add(key, 0)

    def mark_bad(self, step: int) -> None:
        """Say that a gradient of this process was not finite before it was averaged."""
        if self.store is not None:
            self.store.set(f"{self.prefix}/bad/{step}/{self.rank}", b"1")

    def find_bad(self, step: int, *, wait: bool) -> int | None:
        """Return the first process in which a gradient was not finite in a step, if one said so.

        Args:
            step: The step.
            wait: Whether others may not have got so far yet.
        """
        if self.store is None:
            return None
        end = time.monotonic() + (_LAST_SECONDS if wait else 0.0)
        while True:
            for rank in range(self.size):
                if self.store.check([f"{self.prefix}/bad/{step}/{rank}"]):
                    return rank
            if time.monotonic() >= end:
                return None
            time.sleep(0.01)

    def compare(self, step: int, norms: Values, *, wait: bool) -> float | None:
        """Return by how much norms of weights differ between processes, in the first of them.

        The others leave theirs. `None` elsewhere, and if they are not to be had in time.

        Args:
            step: The step.
            norms: Those of this process.
            wait: Whether others may not have got so far yet.
        """
        if self.store is None:
            return None
        key = f"{self.prefix}/norms/{step}"
        if self.rank > 0:
            self.store.set(f"{key}/{self.rank}", norms.tobytes())
            return None
        keys = [f"{key}/{rank}" for rank in range(1, self.size)]
        end = time.monotonic() + (_LAST_SECONDS if wait else 0.0)
        while not self.store.check(keys):
            if time.monotonic() > end:
                return None
            time.sleep(0.001)
        spread = 0.0
        for each in keys:
            other = np.frombuffer(self.store.get(each))
            if other.shape != norms.shape:
                return None
            known = np.isfinite(norms) & np.isfinite(other) & (norms > 0)
            if known.any():
                spread = max(
                    spread,
                    float(np.abs(other / norms - 1, where=known, out=np.zeros_like(norms)).max()),
                )
            self.store.delete_key(each)
        return spread

    def agree(self, flag: bool, device: torch.device) -> bool:
        """Return whether it holds in any process; all of them must ask."""
        if self.size < 2:
            return flag
        found = torch.tensor([float(flag)], device=device)
        torch.distributed.all_reduce(found, op=torch.distributed.ReduceOp.MAX)
        return bool(found.item() > 0)


def find_processes() -> Processes:
    """Return the processes that train together; one alone if there is no process group."""
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized():
        return Processes()
    rank, size = distributed.get_rank(), distributed.get_world_size()
    if size < 2:
        return Processes()
    store = find_process_store()
    number = 0 if store is None else store.add(f"{_ROOT}/runs/{rank}", 1)
    return Processes(rank, size, store, f"{_ROOT}/{number}")


def refuse_flat_shards(model: nn.Module) -> None:
    """Raise if parameters are parts of flat ones, whose norms nobody can tell apart.

    Raises:
        WatchError: If the model holds a `FullyShardedDataParallel`.
    """
    for _, module in model.named_modules():
        if any(each.__name__ == "FullyShardedDataParallel" for each in type(module).__mro__):
            raise WatchError(
                "Parameters must be whole or DTensors to have norms, but the model holds a "
                "FullyShardedDataParallel (FSDP1), which cuts flat parameters at places that "
                "follow no tensor. Use torch.distributed.fsdp.fully_shard (FSDP2)."
            )


class LocalFlags:
    """Whether what this process has computed by itself was finite, before it is averaged.

    Of whole parameters, gradients are looked at where they arrive. Of spread ones they never
    arrive whole; there the model's outputs and their gradients are looked at.
    """

    def __init__(self, model: nn.Module, parameters: Sequence[Tensor]) -> None:
        self._norms: list[Tensor] = []
        self._nodes: list[Any] = []
        self._handles: list[Any] = []
        whole = [each for each in parameters if each.requires_grad and not is_spread(each)]
        for parameter in whole:
            node = get_gradient_edge(parameter).node
            self._nodes.append(node)  # it lives as long as somebody holds it
            self._handles.append(node.register_prehook(self._note))
        if len(whole) < len(parameters):
            self._handles.append(model.register_forward_hook(ModuleHook(self._look)))

    def _note(self, gradients: Sequence[Tensor | None]) -> None:
        self._norms += [
            torch.linalg.vector_norm(each.detach())
            for each in gradients
            if each is not None and each.layout == torch.strided
        ]

    def _look(self, module: nn.Module, args: Any, result: Any) -> None:
        for _, tensor in find_tensors(result):
            if tensor.is_floating_point():
                self._note([tensor])
                if tensor.requires_grad:
                    tensor.register_hook(lambda gradient: self._note([gradient]))

    def take(self) -> Lagged | None:
        """Return what was seen since the last time: one number, not finite if something was not."""
        if not self._norms:
            return None
        device = self._norms[0].device
        total = torch.stack([each.to(device, torch.float32) for each in self._norms]).sum()
        self._norms = []
        return Lagged(total.reshape(1))

    def remove(self) -> None:
        """Look no more."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._nodes, self._norms = [], [], []
