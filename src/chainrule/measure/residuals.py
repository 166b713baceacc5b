"""Residual connections: which sums of a forward pass they are, and what is known of them.

A sum is one if a term (the branch) was computed from another (the residual stream). Of three and
more terms, such as `x + attention + mlp`, any number may be branches, and they are added in any
order.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from chainrule.flow.quantity import Quantity
from chainrule.flow.records import GradientStatistics, LayerFlow, ResidualFlow
from chainrule.measure.autograd_graph import (
    Edge,
    find_scaled,
    list_parameters_between,
    list_terms,
    list_views,
)
from chainrule.measure.recording import Call, Recorder, Sum


@dataclass(frozen=True, slots=True)
class Residual:
    """A sum in which a term (the branch) was computed from another (the residual stream).

    Both are edges; terms that are no module's output and no other sum are `None`, and so is the
    branch where there are several. Of sums, sizes are known. `parameters` are those (by `id`) that
    the branches are computed with.
    """

    sum: Sum
    stream: int | None
    branch: int | None
    stream_sum: Sum | None
    parameters: frozenset[int] = frozenset()


def find_residuals(recorder: Recorder) -> list[Residual]:
    """Return the sums that are residual connections; the graph must still be there."""
    viewed = {base: view for view, base in recorder.replaced.items()}

    def find_edge(edge: Edge) -> int | None:
        """Return where a module's tensor was that this one, or what it is a view of, comes from."""
        for each in list_views(*edge):
            found = recorder.find_edge(*each)
            if found is not None:
                return viewed.get(found, found)
        return None

    found = []
    for total in recorder.sums.values():
        terms = list_terms(total.node, recorder.overwritten)
        split = _split(terms) if len(terms) == 2 else None
        if split is None:
            split = _split(_list_all_terms(terms, recorder))
        if split is None:
            continue
        stream, branches, parameters = split
        found.append(
            Residual(
                total,
                find_edge(stream),
                find_edge(branches[0]) if len(branches) == 1 else None,
                recorder.sums.get(find_scaled(stream)),
                parameters,
            )
        )
    return found


_MOST_TERMS = 16
"""Terms of one sum that are looked at: every pair of them is a walk through the graph."""


def _list_all_terms(terms: Sequence[Edge], recorder: Recorder) -> list[Edge]:
    """Return what is added in all, where terms are sums themselves that no module reads."""
    found: list[Edge] = []
    pending = list(terms)
    while pending and len(found) + len(pending) <= _MOST_TERMS:
        term = pending.pop(0)
        origin = list_views(*term)[-1]
        inner = [] if origin in recorder.sums else list_terms(origin[0], recorder.overwritten)
        if inner:
            pending = inner + pending
        else:
            found.append(term)
    return found + pending


def _split(terms: Sequence[Edge]) -> tuple[Edge, list[Edge], frozenset[int]] | None:
    """Return the residual stream among some terms, its branches, and their parameters (by `id`).

    The residual stream is the term that most others are made from, itself or a multiple of it;
    `None` if none is.
    """
    best: tuple[Edge, list[Edge], frozenset[int]] | None = None
    for stream in terms:
        origin = find_scaled(stream)
        made = {
            term: parameters
            for term in terms
            if term is not stream
            and (parameters := list_parameters_between(list_views(*term)[-1], origin)) is not None
        }
        if made and (best is None or len(made) > len(best[1])):
            best = stream, list(made), frozenset().union(*made.values())
    return best


@dataclass(frozen=True, slots=True)
class Connection:
    """A residual connection by edges of the graph, without the graph."""

    sum_edge: int
    stream: int
    stream_edge: int | None
    stream_sum: int | None
    branch_edge: int | None
    normalization: Literal["before", "after", "none"]
    parameters: frozenset[int]


def describe_residuals(
    residuals: Sequence[Residual],
    calls: Sequence[Call],
    read: Sequence[tuple[int, int | None, bool]] = (),
) -> tuple[Connection, ...]:
    """Return residual connections as edges, each with the number of its residual stream.

    Two connections share a residual stream if the second starts at the sum of the first, or at what
    an activation or normalization makes of that sum.
    """
    normalized = {
        edge for c in calls if c.subject.role == "normalization" for edge in c.input_edges
    } | {edge for edge, _, is_normalization in read if is_normalization}
    passed_on = {
        output.edge: call.input_edges[0]
        for call in calls
        if call.subject.role in ("normalization", "activation") and call.input_edges
        for output in call.outputs
        if output.edge is not None
    } | {made: edge for edge, made, _ in read if made is not None}
    streams: dict[int, int] = {}
    found = []
    for each in residuals:
        start = each.stream_sum.edge if each.stream_sum else each.stream
        number = None
        if start is not None:
            number = streams.get(start)
            if number is None:
                number = streams.get(passed_on.get(start, -1))
        if number is None:
            number = len(set(streams.values()))
        streams[each.sum.edge] = number
        found.append(
            Connection(
                sum_edge=each.sum.edge,
                stream=number,
                stream_edge=each.stream,
                stream_sum=each.stream_sum.edge if each.stream_sum else None,
                branch_edge=each.branch,
                normalization="before"
                if start in normalized
                else "after"
                if each.sum.edge in normalized
                else "none",
                parameters=each.parameters,
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
    numbers: Mapping[int, int],
) -> tuple[ResidualFlow, ...]:
    """Return the residual connections in numbers.

    Args:
        connections: What they are.
        layers: The flow's entries.
        places: Where among them the tensor on an edge is.
        sizes: Root mean squares of sums, by edge.
        gradients: By edge.
        numbers: Positions of parameters among the flow's, by `id`.
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
                stream=each.stream,
                branch=None if each.branch_edge is None else places.get(each.branch_edge),
                normalization=each.normalization,
                before=measure(each.stream_edge)
                if each.stream_sum is None
                else sizes.get(each.stream_sum),
                added=measure(each.branch_edge),
                after=sizes[each.sum_edge],
                gradient=gradient.norm if gradient else None,
                parameters=tuple(
                    sorted(numbers[each_id] for each_id in each.parameters if each_id in numbers)
                ),
            )
        )
    return tuple(found)
