"""The graph of a forward pass: where it ends, what lies between two places, where it adds.

A view (another shape, another order of dimensions), a copy, and a change of precision hold the same
values as what they are made from, so a sum is looked for, and compared, behind them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import GradientEdge, get_gradient_edge

from chainrule.measure._torch_internals import (
    find_base,
    read_saved_dim,
    read_sequence_number,
)

Edge = tuple[Any, int]
"""A node of the graph and the number of its output."""

Target = Tensor | GradientEdge
"""What autograd can be asked for the gradient of: a leaf, or a place in the graph."""

_DIMS = 1 << 64
"""The graph keeps dimensions as whole numbers without a sign: −1 as 2⁶⁴ − 1."""

_VIEWED_BY = (
    "View0 UnsafeView0 ReshapeAlias0 Alias0 Transpose0 T0 Permute0 Unsqueeze0 Squeeze0 Squeeze1 "
    "Squeeze2 Expand0 Clone0 ToCopy0 AsStrided0"
)
_VIEWS = frozenset(f"{each[:-1]}Backward{each[-1]}" for each in _VIEWED_BY.split())
"""Nodes whose output holds the values of their input, every one of them. (`AsStridedBackward0` is
what overwriting a view in place leaves; written by hand it may pick single values.)"""


_NEITHER_BY = (
    "Addmm0 Mm0 Bmm0 Baddbmm0 Convolution0 Relu0 Sigmoid0 Tanh0 Gelu0 Silu0 Elu0 LeakyRelu0 "
    "NativeLayerNorm0 NativeBatchNorm0 NativeGroupNorm0 Embedding0 NativeDropout0 Softmax0 Mul0"
)
_NEITHER = frozenset(f"{each[:-1]}Backward{each[-1]}" for each in _NEITHER_BY.split())
"""Classes of nodes that are neither views nor sums. Asking for the class is quicker than for the
name, which is written anew each time."""


@dataclass(frozen=True, slots=True)
class Graph:
    """What a walk through a whole graph finds.

    Attributes:
        leaves: The tensors it ends in.
        nodes: The nodes that stand for operations.
        has_checkpoint: Whether a reentrant checkpoint of PyTorch lies on it.
        has_own_functions: Whether a `torch.autograd.Function` written in Python lies on it.
    """

    leaves: tuple[Tensor, ...]
    nodes: tuple[Any, ...]
    has_checkpoint: bool
    has_own_functions: bool


def walk(end: Tensor) -> Graph:
    """Go through all of the graph that a tensor was computed with."""
    has_checkpoint = has_own_functions = False
    leaves: list[Tensor] = []
    nodes: list[Any] = []
    seen: set[Any] = {None}
    leads_on: dict[type, bool] = {}  # by class, for asking each node takes longer
    pending: list[Any] = [end.grad_fn]
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        kind = type(node)
        if kind not in leads_on:
            is_own = issubclass(kind, BackwardCFunction)
            has_own_functions |= is_own
            has_checkpoint |= is_own and kind.__name__ == "CheckpointFunctionBackward"
            leads_on[kind] = is_own or not is_leaf(node)
        if not leads_on[kind]:
            leaves.append(node.variable)
            continue
        nodes.append(node)
        for following, _ in node.next_functions:
            pending.append(following)
    return Graph(tuple(leaves), tuple(nodes), has_checkpoint, has_own_functions)


def list_parameters_between(end: Edge, origin: Edge) -> frozenset[int] | None:
    """Return the leaves (by `id`) that `end` is made from `origin` with; `None` if it is not.

    Two outputs of one node (`chunk`, `split`, `unbind`) are not made from each other. Nodes count
    up as they are made, so nothing older than `origin` can lead to it; leaves count as the newest,
    but lead nowhere.
    """
    node = end[0]
    if node is origin[0]:
        return None
    oldest = None if is_leaf(origin[0]) else read_sequence_number(origin[0])
    is_made_from = False
    parameters = set()
    seen = {node}
    pending = [node]
    while pending:
        for following, output_nr in pending.pop().next_functions:
            if following is None:
                continue
            if following is origin[0]:
                is_made_from = is_made_from or output_nr == origin[1]
            elif is_leaf(following):
                parameters.add(id(following.variable))
            elif following not in seen and (
                oldest is None or (read_sequence_number(following) or 0) > oldest
            ):
                seen.add(following)
                pending.append(following)
    return frozenset(parameters) if is_made_from else None


def is_leaf(node: Any) -> bool:
    """Whether a node stands for a tensor that was not computed; it is `node.variable`."""
    return hasattr(node, "variable")


def make_edge(tensor: Tensor) -> Target:
    """Return where a tensor sits in the graph now, to ask for its gradient later."""
    node = tensor.grad_fn
    if node is None:
        return tensor
    if isinstance(node, BackwardCFunction):  # these must be kept alive, which takes longer
        return get_gradient_edge(tensor)
    return GradientEdge(node, tensor.output_nr)


def identify_edge(node: Any, output_nr: int) -> tuple[Any, int]:
    """Return a key for the place where a node puts out; for a leaf it is the tensor's."""
    return (id(node.variable), -1) if is_leaf(node) else (node, output_nr)


def find_viewed(tensor: Tensor) -> Tensor | None:
    """Return the computed tensor that this one is a view of, all of it; `None` if there is none."""
    base = find_base(tensor) if tensor.requires_grad else None
    return None if base is None or base.numel() != tensor.numel() else base


def list_views(node: Any, output_nr: int) -> list[Edge]:
    """Return an edge and all that it holds the values of, the first one of them last."""
    found = [(node, output_nr)]
    while node.name() in _VIEWS and len(node.next_functions) == 1 and node.next_functions[0][0]:
        node, output_nr = node.next_functions[0]
        found.append((node, output_nr))
    return found


def find_scaled(edge: Edge) -> Edge:
    """Return what an edge holds a multiple of, behind views and products with what is not computed.

    These are constants and parameters: `0.5 * x`, or a stream with a scale that is learned.
    """
    node, output_nr = list_views(*edge)[-1]
    while node.name() in ("MulBackward0", "DivBackward0"):
        computed = [each for each in node.next_functions if each[0] and not is_leaf(each[0])]
        if len(computed) != 1:
            break
        node, output_nr = list_views(*computed[0])[-1]
    return node, output_nr


def find_sum(tensor: Tensor, overwritten: set[Any]) -> Edge | None:
    """Return the edge where the sum was made that a tensor holds the values of.

    Args:
        tensor: What a module reads.
        overwritten: Nodes that are known to be additions in place to a whole tensor behind a view:
            the graph does not tell these from other operations in place.
    """
    node = tensor.grad_fn
    if node is None or (type(node).__name__ in _NEITHER and not overwritten):
        return None
    edge = list_views(node, tensor.output_nr)[-1]
    return edge if edge[0] in overwritten or _list_inputs(edge[0]) else None


def list_terms(node: Any, overwritten: set[Any]) -> list[Edge]:
    """Return what is added at a node, without what needs no gradient."""
    inputs = node.next_functions if node in overwritten else _list_inputs(node)
    return [(term, output_nr) for term, output_nr in inputs if term is not None]


def find_overwritten(result: Any) -> Any:
    """Return the node that an addition in place has left behind a view, or `None`."""
    if not isinstance(result, Tensor) or find_viewed(result) is None or result.grad_fn is None:
        return None
    node, _ = list_views(result.grad_fn, result.output_nr)[-1]
    return node if node.name().endswith("CopySlices") else None


def _list_inputs(node: Any) -> tuple[Edge, ...]:
    """Return the inputs of a node that adds: a sum, a weighted mean, a stack that is summed up."""
    name = node.name()
    if name == "AddBackward0":
        return tuple(node.next_functions)
    if name in ("LerpBackward0", "LerpBackward1"):
        return tuple(node.next_functions[:2])
    if name == "SumBackward1":
        stack, _ = node.next_functions[0]
        if stack is not None and stack.name() == "StackBackward0":
            summed, stacked = read_saved_dim(node), read_saved_dim(stack)
            if (
                isinstance(stacked, int)
                and isinstance(summed, Sequence)
                and {dim % _DIMS for dim in summed} == {stacked % _DIMS}
            ):
                return tuple(stack.next_functions)
    return ()
