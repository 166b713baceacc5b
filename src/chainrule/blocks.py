"""A large model's module calls, grouped by the block they belong to."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from chainrule.flow import GradientFlow
from chainrule.measurement import LayerFlow

_NUMBER = re.compile(r"\d+(?=\.|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Module calls that share a part of their name, in forward order.

    Attributes:
        name: That part, for example "encoder.layers.3"; "" for what belongs to no block.
        calls: Its entries of `GradientFlow.layers`.
    """

    name: str
    calls: tuple[LayerFlow, ...]

    @property
    def smallest_gradient(self) -> float | None:
        """The smallest ‖∂loss/∂output‖ in it; `None` if no gradient reaches any."""
        return min(self._norms(), default=None)

    @property
    def largest_gradient(self) -> float | None:
        """The largest ‖∂loss/∂output‖ in it."""
        return max(self._norms(), default=None)

    @property
    def non_finite(self) -> int:
        """Number of outputs and gradients in it with infinite or undefined entries."""
        return sum(
            figures is not None and figures.non_finite > 0
            for call in self.calls
            for figures in (call.statistics, call.gradient)
        )

    def _norms(self) -> list[float]:
        return [
            call.gradient.norm
            for call in self.calls
            if call.gradient is not None and call.gradient.norm == call.gradient.norm
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A module in the tree of a model, with what was measured of it and what it contains.

    Attributes:
        name: Its qualified name; "" for the model itself.
        label: Its name below the branch that contains it.
        calls: What was measured of the module itself, in forward order.
        branches: What it contains, in forward order.
    """

    name: str
    label: str
    calls: tuple[LayerFlow, ...]
    branches: tuple["Branch", ...]

    @property
    def size(self) -> int:
        """Number of outputs measured in it, its own included."""
        return len(self.calls) + sum(branch.size for branch in self.branches)


def grow_tree(flow: GradientFlow) -> Branch:
    """Return a flow's module calls as the tree that the modules' names make.

    A container whose parts are numbered has no branch of its own: they are "layers.0", "layers.1"
    and so on. So it is with one that contains a single module and was not measured itself.
    """
    own: dict[str, list[LayerFlow]] = {}
    children: dict[str, dict[str, None]] = {}
    for call in flow.layers:
        own.setdefault(call.name, []).append(call)
        parts = call.name.split(".") if call.name else []
        for depth in range(len(parts)):
            parent, child = ".".join(parts[:depth]), ".".join(parts[: depth + 1])
            children.setdefault(parent, {})[child] = None

    def grow(name: str, above: str) -> list[Branch]:
        below = list(children.get(name, ()))
        numbered = bool(below) and all(each.rpartition(".")[2].isdecimal() for each in below)
        if name and name not in own and (numbered or len(below) == 1):
            return [branch for each in below for branch in grow(each, above)]
        label = name[len(above) + 1 :] if above else name
        inner = tuple(branch for each in below for branch in grow(each, name))
        return [Branch(name=name, label=label, calls=tuple(own.get(name, ())), branches=inner)]

    return grow("", "")[0]


def _find_pattern(name: str) -> str:
    """Return a block's name with its numbers replaced by `*`: blocks of one pattern repeat."""
    return _NUMBER.sub("*", name)


def group_blocks(blocks: Sequence[Block]) -> tuple[tuple[str, tuple[Block, ...]], ...]:
    """Return blocks by the pattern of their names, in the order in which patterns are first met.

    A block that repeats no other stands alone, with its own name for a pattern.
    """
    patterns: dict[str, list[Block]] = {}
    for block in blocks:
        patterns.setdefault(_find_pattern(block.name), []).append(block)
    return tuple(
        (pattern if len(members) > 1 else members[0].name, tuple(members))
        for pattern, members in patterns.items()
    )


def group_calls(flow: GradientFlow) -> tuple[Block, ...]:
    """Return a flow's module calls by block, in the order in which blocks are first called.

    A block ends with the first number in a module's name that has something below it
    ("encoder.layers.3.linear1" is in "encoder.layers.3"); modules without such a number belong to
    the module that contains them.
    """
    names = {call.name for call in flow.layers}
    blocks = {_find_block(name) for name in names}
    members: dict[str, list[LayerFlow]] = {}
    for call in flow.layers:
        own = call.name if call.name in blocks else _find_block(call.name)
        members.setdefault(own, []).append(call)
    return tuple(Block(name=name, calls=tuple(calls)) for name, calls in members.items())


def _find_block(name: str) -> str:
    parts = name.split(".")
    for index, part in enumerate(parts[:-1]):
        if part.isdigit():
            return ".".join(parts[: index + 1])
    return ".".join(parts[:-1])
