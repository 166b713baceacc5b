"""Whether the gradients of one step are still there when the next one's are added to them.

`.grad` adds up until somebody sets it to zero. Just before a backward pass adds to it, it is looked
at: if it is, number for number, the gradient that the last step used, nobody did. One small
parameter of each optimizer tells. Several backward passes for one step are no such case: before the
first of them the gradient is gone.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from chainrule.measure.statistics import is_cheap_to_read
from chainrule.watch.gradients import Lagged, is_spread

EVERY = 8
"""It is looked at in one of so many steps, in the first ones, and after a step that kept them."""

_FIRST = 5


def is_due(step: int) -> bool:
    """Whether a step is one in which it is looked at."""
    return step <= _FIRST or step % EVERY == 0


@dataclass(frozen=True, slots=True)
class _Sight:
    """What `.grad` was when a backward pass was about to add to it."""

    flags: tuple[bool, bool] | Lagged  # equal to the last step's, all zero

    def read(self) -> tuple[bool, bool]:
        if isinstance(self.flags, Lagged):
            equal, zero = self.flags.read()
            return bool(equal), bool(zero)
        return self.flags


_GONE = _Sight((False, True))


@dataclass(slots=True, eq=False)
class _Probe:
    """What is seen of one parameter from one step to the next."""

    parameter: Tensor
    before: Tensor
    node: Any
    handle: Any = None
    sights: list[_Sight] = field(default_factory=list)
    mark: int | None = None


class Leftovers:
    """Looks at the gradient of one parameter of each optimizer where one is due."""

    def __init__(self, report: Callable[[Exception], None]) -> None:
        self._report = report
        self._probes: dict[int, _Probe] = {}

    def arm(self, optimizer: int, parameters: Sequence[Tensor]) -> None:
        """Look from now on, after a step, until the next one of this optimizer.

        Args:
            optimizer: The optimizer's `id`.
            parameters: What it holds.
        """
        self.drop(optimizer)
        ready = [
            each
            for each in parameters
            if each.requires_grad
            and each.grad is not None
            and each.grad.layout == torch.strided
            and not is_spread(each)
        ]
        if not ready:
            return
        smallest = min(reversed(ready), key=Tensor.numel)
        gradient: Any = smallest.grad
        probe = _Probe(smallest, gradient.detach().clone(), get_gradient_edge(smallest).node)

        def look(_: object) -> None:
            try:
                probe.sights.append(_look(probe))
            except Exception as error:
                self._report(error)

        probe.handle = probe.node.register_prehook(look)
        self._probes[optimizer] = probe

    def mark(self, stepped: Collection[int]) -> None:
        """Note that an optimizer stepped: what arrives at others from now on is of another loss.

        Args:
            stepped: The `id`s of those that have taken part in this step.
        """
        for key, probe in self._probes.items():
            if key not in stepped and probe.mark is None:
                probe.mark = len(probe.sights)

    def finish(self, optimizer: int) -> tuple[Callable[[], bool | None], bool] | None:
        """Look no more; `None` if it was not looked at.

        Returns:
            A function that says whether the gradient of the last step is part of this one's, and
            `None` if that cannot be told; and whether a backward pass came after another optimizer
            had stepped.
        """
        probe = self._probes.get(optimizer)
        if probe is None:
            return None
        self.drop(optimizer)
        sights = probe.sights
        is_other = probe.mark is not None and len(sights) > probe.mark
        before = probe.before
        cheap = is_cheap_to_read(before.device)
        has_any: bool | Lagged = bool(before.any()) if cheap else Lagged(before.any().reshape(1))
        return (lambda: _judge(sights, has_any)), is_other

    def drop(self, optimizer: int | None = None) -> None:
        """Look no more at one optimizer, or at any."""
        for key in [optimizer] if optimizer is not None else list(self._probes):
            probe = self._probes.pop(key, None)
            if probe is not None and probe.handle is not None:
                probe.handle.remove()


def _look(probe: _Probe) -> _Sight:
    gradient, before = probe.parameter.grad, probe.before
    if gradient is None:
        return _GONE
    if gradient.shape != before.shape or gradient.dtype != before.dtype:
        return _Sight((False, False))
    with torch.no_grad():
        if is_cheap_to_read(gradient.device):
            return _Sight((torch.equal(gradient, before), not bool(gradient.any())))
        return _Sight(Lagged(torch.stack([(gradient == before).all(), (gradient == 0).all()])))


def _judge(sights: Sequence[_Sight], has_any: bool | Lagged) -> bool | None:
    """Return whether the old gradient was there at first, and was not set to zero later on."""
    seen = [each.read() for each in sights]
    had = bool(has_any.read()[0]) if isinstance(has_any, Lagged) else has_any
    if not seen or not had:
        return None
    if any(zero for _, zero in seen):
        return False
    return True if seen[0][0] else None
