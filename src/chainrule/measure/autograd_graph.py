"""Sums in the graph of a forward pass: which nodes add two tensors, also behind views.

A view (another shape, another order of dimensions), a copy, and a change of precision hold the same
values as what they are made from, so a sum is looked for, and compared, behind them.
"""

from typing import Any

from torch import Tensor

Edge = tuple[Any, int]
"""A node of the graph and the number of its output."""

_VIEWED_BY = (
    "View0 UnsafeView0 ReshapeAlias0 Alias0 Transpose0 T0 Permute0 Unsqueeze0 Squeeze0 Squeeze1 "
    "Squeeze2 Expand0 Clone0 ToCopy0 AsStrided0"
)
_VIEWS = frozenset(f"{each[:-1]}Backward{each[-1]}" for each in _VIEWED_BY.split())
"""Nodes whose output holds the values of their input, every one of them. (`AsStridedBackward0` is
what overwriting a view in place leaves; written by hand it may pick single values.)"""


def list_views(node: Any, output_nr: int) -> list[Edge]:
    """Return an edge and all that it holds the values of, the first one of them last."""
    found = [(node, output_nr)]
    while node.name() in _VIEWS and len(node.next_functions) == 1 and node.next_functions[0][0]:
        node, output_nr = node.next_functions[0]
        found.append((node, output_nr))
    return found


def find_sum(tensor: Tensor, overwritten: set[Any]) -> Edge | None:
    """Return the edge where the sum was made that a tensor holds the values of.

    Args:
        tensor: What a module reads.
        overwritten: Nodes that are known to be additions in place to a whole tensor behind a view:
            the graph does not tell these from other operations in place.
    """
    if tensor.grad_fn is None:
        return None
    edge = list_views(tensor.grad_fn, tensor.output_nr)[-1]
    return edge if edge[0] in overwritten or _list_inputs(edge[0]) else None


def list_terms(node: Any, overwritten: set[Any]) -> list[Edge]:
    """Return what is added at a node, without what needs no gradient."""
    inputs = node.next_functions if node in overwritten else _list_inputs(node)
    return [(term, output_nr) for term, output_nr in inputs if term is not None]


def find_overwritten(result: Any) -> Any:
    """Return the node that an addition in place has left behind a view, or `None`."""
    if not isinstance(result, Tensor) or not result.requires_grad or not result._is_view():
        return None
    base = result._base
    if base is None or base.numel() != result.numel() or result.grad_fn is None:
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
            dims = {dim % (1 << 64) for dim in node._saved_dim}
            if dims == {stack._saved_dim % (1 << 64)}:
                return tuple(stack.next_functions)
    return ()
