"""Losses in which every answer is compared with the targets of all examples, by broadcasting.

(N, 1) − (N,) is (N, N): each prediction minus every target. Where such a matrix is made, and then
reduced to the loss entry by entry, no example has a target of its own, so training can only find
the best constant. The same is meant where a distance between two sets is computed: then the matrix
is written with `[:, None]`, or goes through a softmax, a mask or an exponential before it is summed
up. So what becomes of it is followed as far as the number that the loss adds up.
"""

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from chainrule._utils.user_code import read_line
from chainrule.flow.loss import BroadcastFlow
from chainrule.measure._torch_internals import read_sequence_number
from chainrule.measure.autograd_graph import is_leaf
from chainrule.measure.source_lines import find_line

_OPERATIONS = {
    **dict.fromkeys(("sub", "__sub__", "subtract", "rsub", "__rsub__"), "subtraction"),
    **dict.fromkeys(("mul", "__mul__", "__rmul__", "multiply"), "multiplication"),
    **dict.fromkeys(("div", "__truediv__", "true_divide", "divide"), "division"),
}
_LOSSES = frozenset(
    (
        "mse_loss",
        "l1_loss",
        "smooth_l1_loss",
        "huber_loss",
        "gaussian_nll_loss",
        "poisson_nll_loss",
        "soft_margin_loss",
        "kl_div",
    )
)
"""Losses of PyTorch that broadcast."""
COMPARES = _LOSSES | _OPERATIONS.keys()
"""Functions that may make such a matrix."""

_PLAIN_BY = (
    "pow __pow__ square abs __abs__ absolute neg __neg__ mul __mul__ __rmul__ multiply div "
    "__truediv__ true_divide divide add __add__ __radd__ sub __sub__ rsub __rsub__ sqrt to float "
    "half double bfloat16 type view reshape flatten squeeze unsqueeze contiguous clone"
)
_PLAIN = frozenset(_PLAIN_BY.split())
_BENT_BY = (
    "clamp clamp_min clamp_max relu softplus logsigmoid sigmoid tanh log log1p cosh where max "
    "maximum min minimum gt lt ge le __gt__ __lt__ __ge__ __le__"
)
_ENTRYWISE = _PLAIN | frozenset(_BENT_BY.split())
"""Functions that treat every entry by itself, as a loss does. An exponential is none of them: there
the matrix is one of similarities."""
_REDUCTIONS = frozenset(("mean", "sum", "nanmean", "nansum"))

_COMPARED = frozenset(
    (
        "MseLossBackward0",
        "SmoothL1LossBackward0",
        "HuberLossBackward0",
        "BinaryCrossEntropyBackward0",
        "BinaryCrossEntropyWithLogitsBackward0",
        "NllLossBackward0",
        "NllLoss2DBackward0",
        "SubBackward0",
    )
)
"""Nodes behind which there is a loss, or a difference from a target."""

_MOST, _MOST_FOLLOWED, _MOST_STEPS, _MOST_NODES = 8, 64, 12, 10_000


@dataclass(slots=True, eq=False)
class _Broadcast:
    """A matrix of comparisons, and what became of it so far.

    Attributes:
        is_written_out: Whether its dimensions were made on purpose.
        is_plain: Whether it went through nothing that could favour one side of the difference.
        reduced: Node of the number that it was reduced to.
    """

    operation: str
    output: tuple[int, ...]
    target: tuple[int, ...]
    result: tuple[int, ...]
    place: tuple[str, int | None]
    is_written_out: bool
    is_plain: bool = True
    is_weighting: bool = False
    reduced: Any = None


class Broadcasts:
    """Follows such matrices while a loss is computed."""

    def __init__(self) -> None:
        self._found: list[_Broadcast] = []
        self._followed: dict[int, tuple[weakref.ref[Tensor], _Broadcast]] = {}

    @property
    def are_followed(self) -> bool:
        """Whether there is such a matrix whose way is followed."""
        return bool(self._followed)

    def note(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        """After a function of PyTorch: whether it makes such a matrix, or goes on with one."""
        if self._followed and self._carry(name, args, kwargs, result):
            return
        if name not in COMPARES or not isinstance(result, Tensor) or not result.requires_grad:
            return
        operands = [x for x in (*args[:2], *_list_named(kwargs)) if isinstance(x, Tensor)]
        if len(operands) == 2 and len(self._found) < _MOST:
            self._look(name, operands[0], operands[1], result)

    def _look(self, name: str, one: Tensor, other: Tensor, result: Tensor) -> None:
        is_loss = name in _LOSSES
        if one.shape == other.shape:
            return
        crossed = _find_crossed(tuple(one.shape), tuple(other.shape))
        if crossed is None or not (is_loss or one.requires_grad != other.requires_grad):
            return
        output, target = (one, other) if one.requires_grad else (other, one)
        operation = name if is_loss else _OPERATIONS[name]
        found = _Broadcast(
            operation,
            tuple(output.shape),
            tuple(target.shape),
            crossed,
            find_line(),
            is_written_out=not is_loss and (output.dim() == target.dim() or _is_unsqueezed(output)),
            is_weighting=operation == "multiplication" and _is_compared(output),
        )
        self._found.append(found)
        self._follow(result, found)

    def _carry(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any
    ) -> bool:
        """Follow a matrix to what is made of it; return whether there was one among the inputs."""
        tensors = [x for x in _flatten((*args, *kwargs.values())) if isinstance(x, Tensor)]
        found = [(each, known) for each in tensors if (known := self._find(each)) is not None]
        if not found:
            return False
        matrix, broadcast = found[0]
        if not isinstance(result, Tensor):
            return True
        if name in _REDUCTIONS:
            self._follow(result, broadcast)
        elif name in _ENTRYWISE:
            others = [each for each in tensors if self._find(each) is None]
            # Something of its own for every pair: a mask, a target, as only pairs have it.
            of_pairs = any(each.numel() >= matrix.numel() > 1 for each in others)
            if not of_pairs and result.numel() >= matrix.numel():
                broadcast.is_plain &= name in _PLAIN
                self._follow(result, broadcast)
        return True

    def _find(self, tensor: Tensor) -> _Broadcast | None:
        entry = self._followed.get(id(tensor))
        return entry[1] if entry is not None and entry[0]() is tensor else None

    def _follow(self, tensor: Tensor, broadcast: _Broadcast) -> None:
        if tensor.numel() == 1:
            broadcast.reduced = broadcast.reduced or tensor.grad_fn
            return
        if len(self._followed) >= _MOST_FOLLOWED:
            del self._followed[next(iter(self._followed))]
        self._followed[id(tensor)] = weakref.ref(tensor), broadcast

    def conclude(self, loss: Tensor, *, several: bool) -> tuple[BroadcastFlow, ...]:
        """Return the matrices that a loss is made of; the graph must still be there.

        Args:
            loss: The loss.
            several: Whether it has several summands that read the model.
        """
        found = [each for each in self._found if each.reduced is not None]
        self._followed.clear()
        self._found = []
        if not found or loss.grad_fn is None:
            return ()
        reached = _list_newer(loss.grad_fn, [each.reduced for each in found])
        concluded = (
            BroadcastFlow(
                operation=each.operation,
                output=each.output,
                target=each.target,
                result=each.result,
                by_mistake=not each.is_weighting
                and (not each.is_written_out or (each.is_plain and not several)),
                file=each.place[0][-1000:],
                line=each.place[1],
                code=read_line(*each.place),
            )
            for each in found
            if each.reduced in reached
        )
        return tuple(dict.fromkeys(concluded))


def _find_crossed(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the shape of two tensors that are broadcast along each other's examples, else `None`.

    Each has as many examples as the other along one dimension of the result, where the other is
    repeated; at least for one of the two it is its first dimension.
    """
    rank = max(len(one), len(other))
    first, second = ((1,) * (rank - len(shape)) + shape for shape in (one, other))
    if any(a != b and 1 not in (a, b) for a, b in zip(first, second, strict=True)):
        return None
    own = [at for at, (a, b) in enumerate(zip(first, second, strict=True)) if a > 1 and b == 1]
    its = [at for at, (a, b) in enumerate(zip(first, second, strict=True)) if b > 1 and a == 1]
    if len(own) != 1 or len(its) != 1 or first[own[0]] != second[its[0]]:
        return None
    starts = own[0] == rank - len(one), its[0] == rank - len(other)
    if not (all(starts) if len(one) != len(other) else any(starts)):
        return None
    return tuple(map(max, first, second))


def _list_named(kwargs: Mapping[str, Any]) -> Iterator[Any]:
    """Yield what was given by the names that losses and operations have for their operands."""
    return (kwargs[name] for name in ("input", "target", "other") if name in kwargs)


def _is_unsqueezed(tensor: Tensor) -> bool:
    """Whether a dimension was put in on purpose, by `[:, None]` or `unsqueeze`."""
    node = tensor.grad_fn
    return node is not None and node.name() == "UnsqueezeBackward0"


def _is_compared(tensor: Tensor) -> bool:
    """Whether it was compared with targets before, so that what it is multiplied by are weights."""
    node = tensor.grad_fn
    for _ in range(_MOST_STEPS):
        if node is None or is_leaf(node):
            return False
        live = [each for each, _ in node.next_functions if each is not None]
        if node.name() in _COMPARED:
            return node.name() != "SubBackward0" or len(live) == 1
        if len(live) != 1:
            return False
        node = live[0]
    return False


def _list_newer(start: Any, wanted: Sequence[Any]) -> set[Any]:
    """Return the nodes that a node is computed from, as far back as the oldest of some others."""
    numbers = [read_sequence_number(node) for node in wanted]
    oldest = min((n for n in numbers if n is not None), default=0) if None not in numbers else 0
    seen: set[Any] = set()
    pending = [start]
    while pending and len(seen) < _MOST_NODES:
        node = pending.pop()
        if node is None or node in seen or is_leaf(node):
            continue
        number = read_sequence_number(node)
        if number is None or number >= oldest:
            seen.add(node)
            pending += [each for each, _ in node.next_functions]
    return seen


def _flatten(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from value
        else:
            yield value
