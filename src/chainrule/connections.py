"""Residual connections: which sums of a forward pass they are, and what is known of them.

A sum of two tensors is one if a term (the branch) was computed from the other (the trunk).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from chainrule.measurement import GradientStatistics, LayerFlow, ResidualFlow
from chainrule.quantity import Quantity
from chainrule.recording import Call, Recorder, Sum


@dataclass(frozen=True, slots=True)
class Residual:
    """A sum in which one term (the branch) was computed from the other (the trunk), by edges.

    Terms that are no module's output and no other sum are `None`. Of sums, `sizes` are known.
    """

    sum: Sum
    trunk: int | None
    branch: int | None
    trunk_sum: Sum | None


def find_residuals(recorder: Recorder) -> list[Residual]:
    """Return the sums that are residual connections; the graph must still be there."""
    found = []
    for total in recorder.sums.values():
        terms = [term for term in total.node.next_functions if term[0] is not None]
        if len(terms) != 2:
            continue
        for trunk, branch in (terms, terms[::-1]):
            if _is_made_from(branch[0], trunk[0]):
                found.append(
                    Residual(
                        total,
                        recorder.find_edge(*trunk),
                        recorder.find_edge(*branch),
                        recorder.sums.get(trunk),
                    )
                )
                break
    return found


def _is_made_from(node: Any, origin: Any) -> bool:
    """Whether `origin` lies on a path of the graph from `node` to the inputs.

    Nodes count up as they are made, so nothing older than `origin` can lead to it; leaves count as
    the newest, but lead nowhere.
    """
    if node is origin:
        return False
    is_leaf_origin = hasattr(origin, "variable")
    oldest = -1 if is_leaf_origin else origin._sequence_nr()
    seen = {node}
    pending = [node]
    while pending:
        for following, _ in pending.pop().next_functions:
            if following is origin:
                return True
            if following is None or following in seen or hasattr(following, "variable"):
                continue
            if following._sequence_nr() > oldest:
                seen.add(following)
                pending.append(following)
    return False


@dataclass(frozen=True, slots=True)
class Connection:
    """A residual connection by edges of the graph, without the graph."""

    sum_edge: int
    trunk: int
    trunk_edge: int | None
    trunk_sum: int | None
    branch_edge: int | None
    normalization: Literal["before", "after", "none"]


def describe_residuals(
    residuals: Sequence[Residual], calls: Sequence[Call]
) -> tuple[Connection, ...]:
    """Return residual connections as edges, each with the number of the trunk that it is on.

    Two connections share a trunk if the second starts at the sum of the first, or at what an
    activation or normalization makes of that sum.
    """
    normalized = {
        edge for c in calls if c.subject.role == "normalization" for edge in c.input_edges
    }
    passed_on = {
        output.edge: call.input_edges[0]
        for call in calls
        if call.subject.role in ("normalization", "activation") and call.input_edges
        for output in call.outputs
        if output.edge is not None
    }
    trunks: dict[int, int] = {}
    found = []
    for each in residuals:
        start = each.trunk_sum.edge if each.trunk_sum else each.trunk
        number = None
        if start is not None:
            number = trunks.get(start)
            if number is None:
                number = trunks.get(passed_on.get(start, -1))
        if number is None:
            number = len(set(trunks.values()))
        trunks[each.sum.edge] = number
        found.append(
            Connection(
                sum_edge=each.sum.edge,
                trunk=number,
                trunk_edge=each.trunk,
                trunk_sum=each.trunk_sum.edge if each.trunk_sum else None,
                branch_edge=each.branch,
                normalization="before"
                if start in normalized
                else "after"
                if each.sum.edge in normalized
                else "none",
            )
        )
    return tuple(found)


def place_edges(calls: Sequence[Call]) -> dict[int, int]:
    """Return where in `GradientFlow.layers` the tensor on an edge was first returned."""
    places: dict[int, int] = {}
    outputs = (output for call in calls for output in call.outputs)
    for position, output in enumerate(outputs):
        if output.edge is not None:
            places.setdefault(output.edge, position)
    return places


def assemble_residuals(
    connections: Sequence[Connection],
    layers: Sequence[LayerFlow],
    places: Mapping[int, int],
    sizes: Mapping[int, Quantity],
    gradients: Mapping[int, GradientStatistics],
) -> tuple[ResidualFlow, ...]:
    """Return the residual connections in numbers.

    Args:
        connections: What they are.
        layers: The flow's entries.
        places: Where among them the tensor on an edge is.
        sizes: Root mean squares of sums, by edge.
        gradients: By edge.
    """

    def measure(edge: int | None) -> Quantity | None:
        place = None if edge is None else places.get(edge)
        statistics = None if place is None else layers[place].statistics
        if statistics is None:
            return None
        return Quantity(map(math.hypot, statistics.mean.values, statistics.std.values))

    found = []
    for each in connections:
        gradient = gradients.get(each.sum_edge)
        found.append(
            ResidualFlow(
                trunk=each.trunk,
                branch=None if each.branch_edge is None else places.get(each.branch_edge),
                normalization=each.normalization,
                before=measure(each.trunk_edge)
                if each.trunk_sum is None
                else sizes.get(each.trunk_sum),
                added=measure(each.branch_edge),
                after=sizes[each.sum_edge],
                gradient=gradient.norm if gradient else None,
            )
        )
    return tuple(found)
