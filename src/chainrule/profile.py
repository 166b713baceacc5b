"""The depth profile of a large model: its repeated blocks side by side.

Blocks repeat if their names differ in a number only ("encoder.layers.3" and "encoder.layers.4").
What sits at the same place in each of them makes one row, with a cell per block.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from chainrule.flow import GradientFlow
from chainrule.measurement import WeightLayer
from chainrule.quantity import Quantity

MANY = 24
"""A model of one's own with more weight layers than this is shown by block."""

LONG = 12
"""Blocks with more weight layers than this are split at the next number in the names, if that..."""

FULL = 0.5
"""... leaves at least this share of cells filled."""

_TRAILING = re.compile(r"\d+$")

Position = tuple[int, ...]


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


@dataclass(frozen=True)
class Stack:
    """Blocks that repeat, or modules that do not.

    Attributes:
        name: What the blocks' names share, with `*` for the number ("encoder.layers.*"); "" for
            modules that do not repeat.
        labels: The numbers of the blocks, as text; a single "" for modules that do not repeat.
        rows: One for each place in a block, in forward order.
        trunk: ‖∂loss/∂sum‖ at the last residual sum of every block; empty if blocks have none.
    """

    name: str
    labels: tuple[str, ...]
    rows: tuple[ProfileRow, ...]
    trunk: tuple[Quantity | None, ...] = ()

    @property
    def repeats(self) -> bool:
        """Whether these are repeated blocks."""
        return bool(self.name)

    @cached_property
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
        groups.setdefault(_split(layer.name, 1)[0], []).append(layer)
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
        else _add_trunk(stack, flow)
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


def _split(name: str, deep: int) -> tuple[str, Position, str]:
    """Return the pattern of the block that a module is in, its numbers, and the name below it.

    The block ends with the `deep`-th part that is a number; before the first of these, numbers at
    the end of parts count as well ("layer1.0.conv1" is "conv1" in block 1, 0 of "layer*.*").
    """
    parts = name.split(".")
    pattern: list[str] = []
    position: list[int] = []
    last = 0
    for at, part in enumerate(parts[:-1]):
        if part.isdecimal():
            pattern.append("*")
            position.append(int(part))
            last = at + 1
            deep -= 1
            if not deep:
                break
        elif (found := _TRAILING.search(part)) and "*" not in pattern:
            pattern.append(f"{part[: found.start()]}*")
            position.append(int(found.group()))
            last = at + 1
        else:
            pattern.append(part)
    return ".".join(pattern[:last]), tuple(position), ".".join(parts[last:])


def _stack(members: Iterable[WeightLayer], deep: int) -> list[Stack]:
    """Return layers by block, one stack for every pattern of names."""
    patterns: dict[str, list[tuple[Position, str, WeightLayer]]] = {}
    for layer in members:
        pattern, position, rest = _split(layer.name, deep)
        patterns.setdefault(pattern, []).append((position, rest, layer))
    return [stack for pattern, entries in patterns.items() for stack in _lay_out(pattern, entries)]


def _lay_out(pattern: str, entries: Sequence[tuple[Position, str, WeightLayer]]) -> list[Stack]:
    """Return one stack of the blocks, or one for each layer if they do not repeat."""
    positions = tuple(dict.fromkeys(position for position, _, _ in entries))
    if not pattern or len(positions) < 2:
        return [Stack("", ("",), (ProfileRow(layer.name, (layer,)),)) for _, _, layer in entries]
    cells: dict[str, dict[Position, WeightLayer]] = {}
    for position, rest, layer in entries:
        cells.setdefault(rest, {})[position] = layer
    blocks = Stack(
        name=pattern,
        labels=tuple(".".join(map(str, position)) for position in positions),
        rows=tuple(
            ProfileRow(name, tuple(row.get(position) for position in positions))
            for name, row in cells.items()
        ),
    )
    return [blocks]


def _find_start(stack: Stack) -> int:
    return min(layer.layer for row in stack.rows for layer in row.layers if layer is not None)


def _measure_fill(stack: Stack) -> float:
    filled = sum(layer is not None for row in stack.rows for layer in row.layers)
    return filled / (len(stack.rows) * len(stack.labels))


def _add_trunk(stack: Stack, flow: GradientFlow) -> Stack:
    """Return the stack with the gradient of the trunk, if most blocks end in a residual sum."""
    deep = max(1, stack.name.split(".").count("*"))
    sums: dict[str, Quantity | None] = {}
    for each in flow.residuals:
        if each.branch is not None:
            own, position, _ = _split(flow.layers[each.branch].name, deep)
            if own == stack.name:
                sums[".".join(map(str, position))] = each.gradient
    if len(sums) * 2 < len(stack.labels):
        return stack
    trunk = tuple(sums.get(label) for label in stack.labels)
    return Stack(stack.name, stack.labels, stack.rows, trunk)


def _join_singles(stacks: Sequence[Stack]) -> list[Stack]:
    """Return the stacks with neighbouring modules that do not repeat put together."""
    joined: list[Stack] = []
    for stack in stacks:
        if joined and not stack.repeats and not joined[-1].repeats:
            joined[-1] = Stack("", ("",), (*joined[-1].rows, *stack.rows))
        else:
            joined.append(stack)
    return joined
