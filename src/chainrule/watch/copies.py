"""Copies of the weights that somebody keeps, such as a target network.

A loss whose targets are made by a copy of the weights jumps whenever the copy is made anew. That is
no trouble, so where a loss jumps it is looked for tensors of the process that are what the weights
were just before, and that stay so: an average of the weights follows them, an older checkpoint is
further away. What a tensor held already when the run began is no copy of its weights: those of the
same run, tried before with the same seed, are as near.
"""

import gc
import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from chainrule.watch.history import History
from chainrule.watch.loss_rules import is_high

_COMPARED = 4
"""So many weights are compared, the largest ones."""

_LEAST = 16
"""Entries of a weight below which equal numbers say little."""

_PAUSE = 10
"""Steps after a search in vain until the next one, of all objects of the process; each time twice
as many."""

_STAYS = 2
"""Steps after which a copy must still hold what it did."""

_FEW = 3.0
"""Updates by which a copy that was just made may differ from the weights: there was one since."""

_HALF = 0.5
"""Distance ÷ ‖W‖ above which nothing is a copy."""

_MOST_GROWN = 10.0
"""By how much at most an update counts as larger where the gradient is larger."""

_TYPES = (Tensor, nn.Parameter)


@dataclass(frozen=True, slots=True, eq=False)
class _Copy:
    """A tensor that was near a weight, and some of its entries."""

    tensor: "weakref.ref[Tensor]"
    entries: Tensor

    def has_stayed(self) -> bool:
        tensor = self.tensor()
        return tensor is not None and torch.equal(_take_entries(tensor), self.entries)


class CopySearch:
    """Looks for copies of the weights where the loss jumps."""

    def __init__(self, parameters: Sequence[Tensor], report: Callable[[Exception], None]) -> None:
        """Choose the weights to compare.

        Args:
            parameters: All parameters of the run.
            report: Says what fails.
        """
        self._report = report
        self._parameters = parameters
        self._pause, self._next = _PAUSE, 0
        self._known: list[weakref.ref[Tensor]] = []
        self._found: list[_Copy] = []
        self._step = 0
        self._older: dict[int, _Copy] = {}
        try:
            self._older = _note_tensors(parameters)
        except Exception as error:
            report(error)

    def look(self, history: History) -> bool:
        """Look for copies after a step; return whether the history was told of one.

        Args:
            history: It has that step already.
        """
        if not self._found and not (history.jumps and history.jumps[-1] == history.count):
            return False
        try:
            return self._look(history)
        except Exception as error:
            self._found = []
            self._report(error)
            return False

    def describe(self, step: int) -> str:
        """Return in words what was found, at a step soon after."""
        return (
            f"At step {step - _STAYS} the loss jumped, and tensors of this process hold a copy of "
            "the weights that was made just before. So this counts as new targets (a target "
            "network), and levels of the loss are not compared with earlier ones."
        )

    def _look(self, history: History) -> bool:
        if self._found:
            if history.count < self._step + _STAYS:
                return False
            found, self._found = self._found, []
            if not all(each.has_stayed() for each in found):
                return False
            history.note_copy(self._step)
            return True
        if not is_high(history):
            return False
        weights = self._choose(history)
        near = _find_near([each() for each in self._known], weights, self._older)
        if near is None and history.count >= self._next:
            near = _find_near(_list_tensors(), weights, self._older)
            self._pause = 2 * self._pause if near is None else _PAUSE
            self._next = history.count + self._pause if near is None else 0
        if near is not None:
            self._found, self._step = near, history.count
            self._known = [each.tensor for each in near]
        return False

    def _choose(self, history: History) -> list[tuple[Tensor, float]]:
        """Return the largest weights that move, and how far a copy may be from each."""
        if not history.samples:
            return []
        moved = history.samples[-1].update_norms
        totals = history.get_totals()
        usual = float(np.median(totals[:-1])) if len(totals) > 1 else math.nan
        grown = float(totals[-1]) / usual if usual > 0.0 else math.nan
        grown = min(max(grown, 1.0), _MOST_GROWN) if math.isfinite(grown) else 1.0
        trained = history.is_weight & history.is_trained & history.is_held & (moved > 0.0)
        large = [at for at in np.flatnonzero(trained).tolist() if history.sizes[at] >= _LEAST]
        large = sorted(large, key=lambda at: -history.sizes[at])[:_COMPARED]
        bound = _FEW * grown * float(np.linalg.norm(moved[large]))
        chosen = [self._parameters[at].detach() for at in large]
        sizes = [float(weight.norm()) for weight in chosen]  # now: a sample may be old
        if not all(sizes):
            return []  # every tensor of zeros would be a copy
        return [
            (weight, min(bound, _HALF * size)) for weight, size in zip(chosen, sizes, strict=True)
        ]


def _list_tensors() -> Iterator[Tensor]:
    """Yield the tensors that Python code of this process holds, apart from those of a subclass."""
    for each in gc.get_objects():
        if type(each) in _TYPES:
            yield each


def _note_tensors(parameters: Sequence[Tensor]) -> dict[int, _Copy]:
    """Return by `id` what tensors hold now that could be taken for copies of a weight later."""
    weights = [each for each in parameters if each.dim() > 1 and each.numel() >= _LEAST]
    shapes = {(each.shape, each.dtype, each.device) for each in weights}
    places = {each.data_ptr() for each in weights}
    return {
        id(each): _Copy(weakref.ref(each), _take_entries(each))
        for each in (_list_tensors() if shapes else ())
        if each.layout == torch.strided
        and (each.shape, each.dtype, each.device) in shapes
        and each.data_ptr() not in places
    }


def _find_near(
    tensors: "Iterator[Tensor] | Sequence[Tensor | None]",
    weights: Sequence[tuple[Tensor, float]],
    older: Mapping[int, _Copy],
) -> list[_Copy] | None:
    """Return a tensor near each of the weights; `None` if one of them has none.

    Args:
        tensors: The tensors.
        weights: Each with the distance up to which a tensor is near.
        older: What was held when the run began, by `id`; it does not count while it stays so.
    """
    if not weights:
        return None
    alike: dict[Any, list[int]] = {}
    for at, (weight, _) in enumerate(weights):
        alike.setdefault((weight.shape, weight.dtype, weight.device), []).append(at)
    places = {weight.data_ptr() for weight, _ in weights}
    found: dict[int, _Copy] = {}
    for tensor in tensors:
        if tensor is None or tensor.layout != torch.strided or tensor.dim() < 2:
            continue
        numbers = alike.get((tensor.shape, tensor.dtype, tensor.device))
        if numbers is None or tensor.data_ptr() in places:
            continue
        with torch.no_grad():
            for at in numbers:
                weight, bound = weights[at]
                if at in found or not float((tensor - weight).norm()) <= bound:
                    continue
                before = older.get(id(tensor))
                if before is None or before.tensor() is not tensor or not before.has_stayed():
                    found[at] = _Copy(weakref.ref(tensor), _take_entries(tensor))
    return list(found.values()) if len(found) == len(weights) else None


def _take_entries(tensor: Tensor) -> Tensor:
    flat = tensor.detach().reshape(-1)
    return flat[:: max(1, len(flat) // 64)].clone()
