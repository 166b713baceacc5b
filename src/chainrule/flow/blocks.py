"""Modules by block, as their names say: calls in blocks, a tree, repeated blocks side by side.

A block is a part of the model whose name ends with a number: "encoder.layers.3". `_locate` reads
that from a name; the rest of the module groups by it.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.quantity import Quantity
from chainrule.flow.records import LayerFlow, WeightLayer

_NUMBER = re.compile(r"\d+(?=\.|$)")
_TRAILING = re.compile(r"\d+$")

MANY = 24
"""A model with more weight layers than this is shown by block, unless a specification built it."""

LONG = 12
"""Blocks with more weight layers than this are split at the next number in the names, if that..."""

FULL = 0.5
"""... leaves at least this share of cells filled."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a module is, read from its name.

    Attributes:
        block: Name of the block that contains it, for example "encoder.layers.3"; "" if none does.
        pattern: The block's name with `*` for its numbers: blocks of one pattern repeat.
        numbers: What stands in place of each `*`.
        rest: The module's name below the block.
    """

    block: str
    pattern: str
    numbers: tuple[int, ...]
    rest: str


def _locate(name: str, deep: int = 1) -> _Place:
    """Return the block that a module is in.

    The block ends with the `deep`-th part that is a number; before the first of these, numbers at
    the end of parts count as well ("layer1.0.conv1" is "conv1" in block 1, 0 of "layer*.*").
    """
    parts = name.split(".")
    pattern: list[str] = []
    numbers: list[int] = []
    last = 0
    for at, part in enumerate(parts[:-1], 1):
        if part.isdecimal():
            pattern.append("*")
            numbers.append(int(part))
            last = at
            deep -= 1
            if not deep:
                break
        elif (found := _TRAILING.search(part)) and "*" not in pattern:
            pattern.append(f"{part[: found.start()]}*")
            numbers.append(int(found.group()))
            last = at
        else:
            pattern.append(part)
    return _Place(
        block=".".join(parts[:last]),
        pattern=".".join(pattern[:last]),
        numbers=tuple(numbers),
        rest=".".join(parts[last:]),
    )


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
            part is not None and part.non_finite > 0
            for call in self.calls
            for part in (call.statistics, call.gradient)
        )

    def _norms(self) -> list[float]:
        return [
            call.gradient.norm
            for call in self.calls
            if call.gradient is not None and not math.isnan(call.gradient.norm)
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


def group_blocks(blocks: Sequence[Block]) -> tuple[tuple[str, tuple[Block, ...]], ...]:
    """Return blocks by the pattern of their names, in the order in which patterns are first met.

    A block that repeats no other stands alone, with its own name for a pattern.
    """
    patterns: dict[str, list[Block]] = {}
    for block in blocks:
        patterns.setdefault(_NUMBER.sub("*", block.name), []).append(block)
    return tuple(
        (pattern if len(members) > 1 else members[0].name, tuple(members))
        for pattern, members in patterns.items()
    )


def group_calls(flow: GradientFlow) -> tuple[Block, ...]:
    """Return a flow's module calls by block, in the order in which blocks are first called.

    "encoder.layers.3.linear1" is in "encoder.layers.3"; modules outside of such blocks belong to
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
    return _locate(name).block or name.rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """What sits at the same place in every block.

    Attributes:
        name: Name below the block; of a module that does not repeat, its whole name.
        layers: One weight layer per block, input to output; `None` where a block has none there.
    """

    name: str
    layers: tuple[WeightLayer | None, ...]

    @property
    def norms(self) -> tuple[Quantity | None, ...]:
        """‖∂loss/∂W‖ in every block; `None` where there is no layer or no gradient."""
        return tuple(None if each is None else each.weight_gradient_norm for each in self.layers)


@dataclass(frozen=True, slots=True)
class Stack:
    """Blocks that repeat, or modules that do not.

    Attributes:
        name: What the blocks' names share, with `*` for the number ("encoder.layers.*"); "" for
            modules that do not repeat.
        labels: The numbers of the blocks, as text; a single "" for modules that do not repeat.
        rows: One for each place in a block, in forward order.
        stream: ‖∂loss/∂sum‖ at the last residual sum of every block; empty if blocks have none.
    """

    name: str
    labels: tuple[str, ...]
    rows: tuple[ProfileRow, ...]
    stream: tuple[Quantity | None, ...] = ()

    @property
    def repeats(self) -> bool:
        """Whether these are repeated blocks."""
        return bool(self.name)

    @property
    def title(self) -> str:
        """Name, number and numbers of the blocks: "encoder.layers.*, 12 blocks, 0 to 11"."""
        ends = f"{self.labels[0]} to {self.labels[-1]}"
        return f"{self.name}, {len(self.labels)} blocks, {ends}"


def build_profile(flow: GradientFlow) -> tuple[Stack, ...]:
    """Return a flow's weight layers by repeated blocks, in forward order.

    Args:
        flow: The measurement.
    """
    groups: dict[str, list[WeightLayer]] = {}
    for layer in flow.weight_layers:
        groups.setdefault(_locate(layer.name).pattern, []).append(layer)
    stacks: list[Stack] = []
    for members in groups.values():
        found = _stack(members, 1)
        if any(len(stack.rows) > LONG for stack in found if stack.repeats):
            deeper = _stack(members, 2)
            if all(_measure_fill(stack) >= FULL for stack in deeper):
                found = deeper
        stacks += found
    stacks.sort(key=_find_start)
    names = {stack.name for stack in stacks}
    stacks = [
        stack
        if any(name.startswith(f"{stack.name}.") for name in names) or not stack.repeats
        else _add_stream(stack, flow)
        for stack in stacks
    ]
    return tuple(_join_singles(stacks))


def is_profiled(flow: GradientFlow) -> bool:
    """Whether a model is so large, and so regular, that a profile shows it better than a list."""
    if flow.spec is not None or len(flow.weight_layers) <= MANY:
        return False
    profile = build_profile(flow)
    rows = sum(len(stack.rows) + stack.repeats for stack in profile)
    return any(stack.repeats for stack in profile) and rows <= len(flow.weight_layers) / 2


def _stack(members: Iterable[WeightLayer], deep: int) -> list[Stack]:
    """Return layers by block, one stack for every pattern of names."""
    patterns: dict[str, list[tuple[_Place, WeightLayer]]] = {}
    for layer in members:
        place = _locate(layer.name, deep)
        patterns.setdefault(place.pattern, []).append((place, layer))
    return [stack for pattern, entries in patterns.items() for stack in _lay_out(pattern, entries)]


def _lay_out(pattern: str, entries: Sequence[tuple[_Place, WeightLayer]]) -> list[Stack]:
    """Return one stack of the blocks, or one for each layer if they do not repeat."""
    blocks = tuple(dict.fromkeys(place.numbers for place, _ in entries))
    if not pattern or len(blocks) < 2:
        return [Stack("", ("",), (ProfileRow(layer.name, (layer,)),)) for _, layer in entries]
    cells: dict[str, dict[tuple[int, ...], WeightLayer]] = {}
    for place, layer in entries:
        cells.setdefault(place.rest, {})[place.numbers] = layer
    rows = tuple(
        ProfileRow(name, tuple(row.get(numbers) for numbers in blocks))
        for name, row in cells.items()
    )
    return [Stack(pattern, tuple(map(_join, blocks)), rows)]


def _join(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


def _find_start(stack: Stack) -> int:
    return min(layer.layer for row in stack.rows for layer in row.layers if layer is not None)


def _measure_fill(stack: Stack) -> float:
    filled = sum(layer is not None for row in stack.rows for layer in row.layers)
    return filled / (len(stack.rows) * len(stack.labels))


def _add_stream(stack: Stack, flow: GradientFlow) -> Stack:
    """Return the stack with the residual stream's gradient, if most blocks end in a sum."""
    deep = max(1, stack.name.split(".").count("*"))
    sums: dict[str, Quantity | None] = {}
    for each in flow.residuals:
        if each.branch is not None:
            place = _locate(flow.layers[each.branch].name, deep)
            if place.pattern == stack.name:
                sums[_join(place.numbers)] = each.gradient
    if len(sums) * 2 < len(stack.labels):
        return stack
    return replace(stack, stream=tuple(sums.get(label) for label in stack.labels))


def _join_singles(stacks: Sequence[Stack]) -> list[Stack]:
    """Return the stacks with neighbouring modules that do not repeat put together."""
    joined: list[Stack] = []
    for stack in stacks:
        if joined and not stack.repeats and not joined[-1].repeats:
            joined[-1] = replace(stack, rows=(*joined[-1].rows, *stack.rows))
        else:
            joined.append(stack)
    return joined
