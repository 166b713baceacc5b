"""A large model's module calls, grouped by the block they belong to."""

from dataclasses import dataclass

from chainrule.flow import GradientFlow
from chainrule.measurement import LayerFlow


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
