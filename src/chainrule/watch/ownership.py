"""Which optimizer holds which parameters, while a run goes on."""

import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chainrule.measure.statistics import is_cheap_to_read
from chainrule.watch.gradients import is_spread
from chainrule.watch.notices import Notices
from chainrule.watch.parts import Part, split_by_device
from chainrule.watch.standing import Flags, Standing
from chainrule.watch.subject import Watched

_MOST_VECTORS = 65_536
"""Entries of biases that are looked at for units without a gradient."""


_FOREIGN_STEPS = 5
"""Steps of others, without any of a watched optimizer, on parameters of the model."""


class Ownership:
    """Which optimizer holds which parameters, as it was found last.

    Attributes:
        held: Positions of the parameters of each watched optimizer, by its `id`.
        parts: Parameters to be measured when an optimizer steps, by its `id` and whether it is the
            first one of the step, which brings along those that no optimizer holds.
        vectors: Small parameters of one dimension and their positions, by `id` of the optimizer.
        is_held: Whether an optimizer holds a parameter; all count as held if it holds none.
    """

    def __init__(self, watched: Watched, notices: Notices) -> None:
        self._watched = watched
        self._notices = notices
        self._others: dict[int, weakref.ref[torch.optim.Optimizer]] = {}
        self._mine = {id(each) for each in watched.optimizers}
        self._foreign = 0
        self.read()

    def read(self) -> None:
        """Find out which optimizer holds which parameters, and on which devices they are."""
        watched = self._watched
        self.held = {id(each): watched.list_held(each) for each in watched.optimizers}
        self._counts = {id(each): _count(each) for each in watched.optimizers}
        held = {at for positions in self.held.values() for at in positions}
        count = len(watched.parameters)
        self.is_held: Flags = np.array([at in held or not held for at in range(count)], bool)
        loose = [at for at in range(count) if at not in held]
        self.parts: dict[tuple[int, bool], list[Part]] = {
            (key, is_first): split_by_device(
                [*positions, *(loose if is_first else ())], watched.parameters
            )
            for key, positions in self.held.items()
            for is_first in (True, False)
        }
        self.vectors = {
            key: list(_choose_vectors(positions, watched.parameters))
            for key, positions in self.held.items()
        }
        unknown = sum(watched.count_unknown(each) for each in watched.optimizers)
        if unknown and not held:
            self._notices.say(
                "other model",
                f"None of the {unknown} parameter{'' if unknown == 1 else 's'} that the optimizer "
                f"holds is one of this {type(watched.model).__name__}'s: its steps do not train "
                "this model. It was built for another model, or before this one was copied or its "
                "layers were replaced.",
            )
        if sum(map(len, self.held.values())) > len(held):
            names = [watched.inventory.parameters[at].names[0] for at in sorted(held)]
            twice = [
                name
                for at, name in zip(sorted(held), names, strict=True)
                if self._count_holders(at) > 1
            ]
            self._notices.say(
                "held twice",
                f"{len(twice)} parameter{'' if len(twice) == 1 else 's'}, {twice[0]!r} first, "
                "are in more than one place of the optimizers: each step moves them several "
                "times. Leave them out of all but one.",
            )
        if unknown and held:
            self._notices.say(
                "unknown parameters",
                f"{unknown} parameter{'' if unknown == 1 else 's'} of the optimizer are not among "
                "those that the model had when the run began. They train, but are not measured; "
                "start a new run to have them measured.",
            )

    def _count_holders(self, position: int) -> int:
        return sum(positions.count(position) for positions in self.held.values())

    def has_grown(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether an optimizer holds more or fewer parameters than it did."""
        return _count(optimizer) != self._counts.get(id(optimizer))

    def is_valid(self) -> bool:
        """Whether the optimizers still hold the parameters that they did."""
        return all(
            self._watched.list_held(optimizer) == self.held[id(optimizer)]
            for optimizer in self._watched.optimizers
        )

    def note_other(self, optimizer: torch.optim.Optimizer) -> bool:
        """Note an optimizer that steps and is not watched; return whether it trains other weights.

        Args:
            optimizer: Any optimizer of the process.
        """
        key = id(optimizer)
        if key in self._mine:
            self._foreign = 0
            return False
        if key not in self._others or self._others[key]() is not optimizer:
            self._others[key] = weakref.ref(optimizer)
        positions = self._watched.positions
        if all(id(parameter) not in positions for parameter in _list_parameters([optimizer])):
            return True
        self._foreign += 1
        if self._foreign == _FOREIGN_STEPS:
            self._notices.say(
                "foreign steps",
                f"An optimizer that is not watched ({type(optimizer).__name__}) has stepped "
                f"{_FOREIGN_STEPS} times on parameters of this model, and none that is watched "
                "has. Was it made anew? Such steps are not recorded: give watch the optimizer that "
                "steps, and make it once, before the loop.",
            )
        return False

    def make_standing(self) -> Standing:
        """Return how the parameters stand now; best asked between a backward pass and a step."""
        watched = self._watched
        positions = watched.positions
        count = len(watched.parameters)
        held, groups, number = np.zeros(count, bool), np.full(count, -1), 0
        for optimizer in watched.optimizers:
            for group in optimizer.param_groups:
                at = [positions[id(each)] for each in group["params"] if id(each) in positions]
                held[at] = True
                groups[at] = number
                number += 1
        elsewhere = np.zeros(count, bool)
        others = self._list_others()
        elsewhere[[positions[id(p)] for p in _list_parameters(others) if id(p) in positions]] = True
        return Standing(
            asked=np.array([each.requires_grad for each in watched.parameters], bool),
            held=held,
            elsewhere=elsewhere,
            groups=groups,
            unused=self._count_unused(),
            strays=self.list_strays(),
        )

    def list_strays(self) -> tuple[str, ...]:
        """Return the names of new parameters with gradients that no optimizer holds."""
        positions = self._watched.positions
        fresh = [
            parameter
            for module in self._watched.model.modules()
            for parameter in module.parameters(recurse=False)
            if id(parameter) not in positions
            and parameter.requires_grad
            and parameter.grad is not None
        ]
        if not fresh:
            return ()
        holders = [*self._watched.optimizers, *self._list_others()]
        lost = {id(each) for each in fresh} - {id(each) for each in _list_parameters(holders)}
        named = self._watched.model.named_parameters()
        return tuple(name for name, parameter in named if id(parameter) in lost)

    def _list_others(self) -> list[torch.optim.Optimizer]:
        found = [each() for each in self._others.values()]
        return [each for each in found if each is not None]

    def _count_unused(self) -> int:
        positions = self._watched.positions
        strangers = [
            each for each in _list_parameters(self._watched.optimizers) if id(each) not in positions
        ]
        if not strangers:
            return 0
        now = {id(each) for each in self._watched.model.parameters()}
        return sum(id(each) not in now and _has_no_gradient(each) for each in strangers)


def _list_parameters(optimizers: Iterable[torch.optim.Optimizer]) -> Iterator[Tensor]:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            yield from group["params"]


def _count(optimizer: torch.optim.Optimizer) -> int:
    return sum(len(group["params"]) for group in optimizer.param_groups)


def _has_no_gradient(tensor: Any) -> bool:
    gradient = tensor.grad
    if gradient is None:
        return True
    if gradient.layout != torch.strided or not is_cheap_to_read(gradient.device):
        return False
    return not bool(gradient.any())


def _choose_vectors(
    positions: Sequence[int], parameters: Sequence[Tensor]
) -> Iterator[tuple[int, Tensor]]:
    """Yield parameters with one entry per unit, as biases are, while they are few numbers."""
    total = 0
    for at in positions:
        parameter = parameters[at]
        if parameter.dim() == 1 and parameter.numel() >= 2 and not is_spread(parameter):
            total += parameter.numel()
            if total > _MOST_VECTORS:
                return
            yield at, parameter
