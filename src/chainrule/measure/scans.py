"""Loops over time that are written by hand: what reads a sequence step by step, found in the graph.

A loop leaves a mark for each step: a slice of a tensor that was computed for the whole sequence
(`h[:, t]`, `h.unbind(1)`), or a product of the same weights with another part of the data
(`x[:, t] @ w`, `linear(cat([x[:, t], h], 1))`). It is a recurrence where each mark lies one or more
operations further from the loss than the next: marks that are used side by side are equally far.
Additions do not count, nor does what only adds up the loss, with weights: a sum over all steps,
taken in a loop, is no recurrence (`loss = loss + decay**t * error`).
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from chainrule.flow.quantity import Quantity
from chainrule.flow.time import TimeFlow
from chainrule.measure._torch_internals import (
    read_saved,
    read_sequence_number,
    read_version,
)
from chainrule.measure.autograd_graph import Edge, is_leaf, list_views
from chainrule.measure.loss import adds_up
from chainrule.measure.recording import Call, Recorder
from chainrule.measure.sequences import SHORTEST
from chainrule.measure.statistics import Table
from chainrule.measure.ties import measure_chances, stack_steps
from chainrule.measure.time import Scan, choose_steps

FEWEST = 8
"""Steps from which on marks are taken for a loop over time."""

_PRODUCTS = {"MmBackward0": "self", "AddmmBackward0": "mat1"}
"""Products of data with weights, and under which name they keep the data."""


@dataclass(frozen=True, slots=True)
class TimedScan:
    """A loop over time in numbers: norms of gradients and chances of ties by step."""

    name: str
    kind: str
    length: int
    gradients: Tensor
    chances: Tensor
    of: Literal["output", "position"] = "output"


def note_scans(nodes: Sequence[Any], recorder: Recorder) -> None:
    """Find loops over time, and ask for the gradients at their steps; before the backward pass."""
    groups, stepwise = _group_marks(nodes, recorder), _list_stepwise(recorder)
    if not groups and not stepwise:
        return
    depths = _measure_depths(nodes)
    for calls, marks in stepwise:
        if not _is_recurrent(marks, nodes, depths):
            for call in calls:
                call.is_apart = True
    timed = {  # known by their calls
        call.subject.name
        for call in recorder.calls
        if call.number and (call.step is not None or call.subject.recurrent)
    }
    for scan in groups:
        order = sorted(range(len(scan.marks)), key=lambda at: -depths.get(scan.marks[at][0], 0))
        if scan.places and scan.marks[0][0] is scan.marks[-1][0]:  # outputs of one node
            order = _order_outputs(scan, nodes, depths)
        scan.marks = [scan.marks[at] for at in order]
        scan.places = tuple(scan.places[at] for at in order) if scan.places else ()
        if scan.name in timed and not scan.places:
            continue
        if order and _is_recurrent(scan.marks, nodes, depths):
            kept = [_keep(scan.marks[at], recorder) for at in choose_steps(len(scan.marks))]
            scan.edges = tuple(edge for edge in kept if edge is not None)
            if len(scan.edges) == len(kept):
                recorder.scans.append(scan)
                _keep_read(scan, recorder)


def _list_stepwise(recorder: Recorder) -> list[tuple[list[Call], list[Edge]]]:
    """Return the calls of modules that may read a sequence step by step, and where they put out.

    Cells read a state by themselves, and are not among them.
    """
    by_name: dict[str, list[Call]] = defaultdict(list)
    for call in recorder.calls:
        if call.step is not None and not call.is_cell:
            by_name[call.subject.name].append(call)
    found = []
    for calls in by_name.values():
        edges = [call.outputs[0].edge for call in calls if len(call.outputs) == 1]
        ends = [recorder.targets[edge] for edge in edges if edge is not None]
        marks = [(end.node, end.output_nr) for end in ends if isinstance(end, GradientEdge)]
        if len(marks) == len(calls) >= SHORTEST:
            found.append((calls, marks))
    return found


def _keep(edge: Edge, recorder: Recorder) -> int | None:
    """Have the gradient kept on an edge, as a call's own if it is one; `None` if it is large."""
    known = recorder.find_edge(*edge)
    if known is None:
        return recorder.keep_edge(*edge)
    return None if known in recorder.large else known


def _keep_read(scan: Scan, recorder: Recorder) -> None:
    """Keep what the products read, which is gone afterwards, and ask for the width of the state.

    Where it is joined with the data, its gradient tells how wide it is.
    """
    if scan.places:
        return
    read = [read_saved(node, _PRODUCTS[type(node).__name__]) for node, _ in scan.marks]
    scan.read = tuple(each.detach() for each in read if isinstance(each, Tensor))
    for node, _ in scan.marks[1:2]:
        joined = _find_data(node)
        if joined is not None and joined[0] is not None:
            parts = joined[0].next_functions
            scan.data_first = parts[0][0] is None
            scan.state = _keep(parts[1 if scan.data_first else 0], recorder)
            if scan.state is None:
                scan.read = ()


def _group_marks(nodes: Sequence[Any], recorder: Recorder) -> list[Scan]:
    """Return what may be loops: enough marks of the same kind."""
    slices, products = _list_marks(nodes)
    if all(len(each) < FEWEST for each in (*slices.values(), *products.values())):
        return []
    own, recurrent = _list_weights(recorder)
    found = []
    for (source, dim), marks in slices.items():
        if len(marks) >= FEWEST and not _is_of_weights(source, own, recurrent):
            edge = recorder.find_edge(*source)
            name, kind = _name_output(edge, recorder)
            places = tuple(marks)
            found.append(
                Scan(name, kind, list(marks.values()), source=edge, dim=dim, places=places)
            )
    for identity, edges in products.items():
        if len(edges) >= FEWEST and identity in own and identity not in recurrent:
            found.append(Scan(*own[identity], edges))
    return found


def _list_marks(
    nodes: Sequence[Any],
) -> tuple[dict[tuple[Edge, int], dict[int, Edge]], dict[int, list[Edge]]]:
    """Return slices by tensor, dimension and place; products with data by weights."""
    slices: dict[tuple[Edge, int], dict[int, Edge]] = defaultdict(dict)
    products: dict[int, list[Edge]] = defaultdict(list)
    unbound = set()
    for node in nodes:
        name = type(node).__name__
        if name == "SelectBackward0":
            at, dim = read_saved(node, "index"), read_saved(node, "dim")
            if isinstance(at, int) and isinstance(dim, int):
                slices[node.next_functions[0], dim][at] = (node, 0)
        elif name == "UnbindBackward0":
            unbound.add(node)
        elif name in _PRODUCTS:
            weights = _find_weights(node)
            if weights is not None and _find_data(node) is not None:
                products[id(weights)].append((node, 0))
    for node in nodes if unbound else ():
        for following, output_nr in node.next_functions:
            if following in unbound:
                key = following.next_functions[0], read_saved(following, "dim") or 0
                slices[key][output_nr] = (following, output_nr)
    return slices, products


def _find_weights(node: Any) -> Tensor | None:
    """Return the leaf that a product multiplies data with, if it is one."""
    end = node.next_functions[-1]
    if end[0] is None:
        return None
    last = list_views(*end)[-1][0]
    return last.variable if is_leaf(last) else None


def _find_data(node: Any) -> tuple[Any, ...] | None:
    """Return what joins data with a state before a product; (None,) for data alone.

    `None` if no data from outside are read there.
    """
    read = node.next_functions[-2]
    if read[0] is None:
        return (None,)
    joined = list_views(*read)[-1][0]
    parts = joined.next_functions
    is_joined = joined.name() == "CatBackward0" and len(parts) == 2
    return (joined,) if is_joined and sum(each is None for each, _ in parts) == 1 else None


def _list_weights(recorder: Recorder) -> tuple[dict[int, tuple[str, str]], frozenset[int]]:
    """Return the owners of all parameters, and which are of recurrent modules, by identity."""
    own: dict[int, tuple[str, str]] = {}
    recurrent = set()
    for module, subject in recorder.subjects.items():
        for tensor in module.parameters(recurse=False):
            own[id(tensor)] = (subject.name, subject.kind)
            if isinstance(module, nn.RNNBase | nn.RNNCellBase):
                recurrent.add(id(tensor))
    return own, frozenset(recurrent)


def _is_of_weights(source: Edge, own: Mapping[int, Any], recurrent: frozenset[int]) -> bool:
    """Whether a sequence is a parameter (layers of a stack), or inside a recurrent module."""
    node = list_views(*source)[-1][0]
    if is_leaf(node):
        return id(node.variable) in own
    for edge in node.next_functions:
        if edge[0] is not None:
            end = list_views(*edge)[-1][0]
            nearest = [end, *(each for each, _ in end.next_functions if each is not None)]
            for each in nearest:
                last = list_views(each, 0)[-1][0]
                if is_leaf(last) and id(last.variable) in recurrent:
                    return True
    return False


def _name_output(edge: int | None, recorder: Recorder) -> tuple[str, str]:
    for call in recorder.calls:
        if edge is not None and any(output.edge == edge for output in call.outputs):
            return call.subject.name, call.subject.kind
    return "", "loop"


def _measure_depths(nodes: Iterable[Any]) -> dict[Any, int]:
    """Return by how many operations each node is away from the loss at most; additions are none."""
    numbered = [(number, node) for node in nodes if (number := read_sequence_number(node))]
    numbered.sort(key=lambda pair: -pair[0])
    depths: dict[Any, int] = {}
    summands: set[Any] = {node for _, node in numbered[:1]}  # of the loss
    for _, node in numbered:
        is_sum = node in summands and adds_up(node)
        if is_sum:
            summands.update(following for following, _ in node.next_functions)
        depth = depths.setdefault(node, 0) + (not is_sum and not _is_addition(node))
        for following, _ in node.next_functions:
            if following is not None and depths.get(following, 0) < depth:
                depths[following] = depth
    return depths


def _is_addition(node: Any) -> bool:
    name = type(node).__name__
    return name in ("AddBackward0", "SubBackward0") and read_saved(node, "alpha") == 1


def _order_outputs(scan: Scan, nodes: Sequence[Any], depths: Mapping[Any, int]) -> list[int]:
    """Return the order in which the outputs of one node are read."""
    read = _read_depths(scan.marks, nodes, depths)
    return sorted(range(len(scan.marks)), key=lambda at: -read[at])


def _read_depths(
    marks: Sequence[Edge], nodes: Sequence[Any], depths: Mapping[Any, int]
) -> list[int]:
    """Return how far from the loss each mark is read first."""
    places = {edge: at for at, edge in enumerate(marks)}
    read = [0] * len(marks)
    for node in nodes:
        for edge in node.next_functions:
            at = places.get(edge)
            if at is not None:
                read[at] = max(read[at], depths.get(node, 0))
    return read


def _is_recurrent(marks: Sequence[Edge], nodes: Sequence[Any], depths: Mapping[Any, int]) -> bool:
    """Whether each step lies further from the loss than the next one."""
    read = _read_depths(marks, nodes, depths)
    return all(before > after for before, after in pairwise(read))


def take_scans(
    scans: Sequence[Scan],
    recorder: Recorder,
    edge_gradients: Mapping[int, Tensor | Table],
    targets: Tensor | None,
) -> Iterator[TimedScan]:
    """Yield loops over time in numbers; after the backward pass.

    Args:
        scans: What `note_scans` found.
        recorder: The forward pass.
        edge_gradients: What arrived at its edges.
        targets: What the loss compares the examples with, [examples, numbers].
    """
    for scan in scans:
        arrived = [edge_gradients.get(edge) for edge in scan.edges]
        known = [each for each in arrived if isinstance(each, Tensor)]
        if not known:
            continue
        wide = known[0].new_zeros(len(arrived)).double()
        if known[0].device.type == "mps":
            wide = wide.float()
        for at, each in enumerate(arrived):
            if isinstance(each, Tensor):
                wide[at] = each.detach().to(wide.dtype).norm()
        chances, length = None, len(scan.marks)
        read = stack_steps(_read_steps(scan, recorder, edge_gradients))
        if read is not None and not scan.places and bool((read == read[:1]).all()):
            continue  # it goes on until nothing changes, and reads nothing new
        if read is not None and targets is not None:
            chances = measure_chances(read, targets, choose_steps(length))
        yield TimedScan(
            scan.name, scan.kind, length, wide, wide[:0] if chances is None else chances
        )


def _read_steps(
    scan: Scan, recorder: Recorder, edge_gradients: Mapping[int, Tensor | Table]
) -> list[Tensor | None]:
    """Return what is read at each step, [examples, features] each."""
    if scan.places:
        values = _find_values(scan, recorder)
        return [None if values is None else values.select(scan.dim, at) for at in scan.places]
    if len(scan.read) < len(scan.marks):
        return [None]
    if scan.state is None:
        return list(scan.read)
    state = edge_gradients.get(scan.state)
    if not isinstance(state, Tensor):
        return [None]
    width = state.shape[-1]
    return [
        each[..., : each.shape[-1] - width] if scan.data_first else each[..., width:]
        for each in scan.read
    ]


def _find_values(scan: Scan, recorder: Recorder) -> Tensor | None:
    """Return the sequence that is read in slices; of a large one, what it was computed from.

    That is what a module read that keeps all dimensions but the last, as a linear layer does.
    """
    for call in recorder.calls:
        for output in call.outputs:
            if scan.source is None or output.edge != scan.source:
                continue
            if output.values is not None:
                return output.values
            read, version = call.step or (None, None)
            is_same = read is not None and version is not None and read_version(read) == version
            if read is not None and is_same and tuple(read.shape[:-1]) == output.shape[:-1]:
                return read if scan.dim < read.dim() - 1 else None
    return None


def assemble_scans(
    scans: Iterable[tuple[TimedScan, Sequence[float], Sequence[float]]],
) -> Iterator[TimeFlow]:
    """Yield the gradients along time of loops, with their numbers: norms, then chances."""
    for scan, norms, chances in scans:
        yield TimeFlow(
            name=scan.name,
            kind=scan.kind,
            call=0,
            of=scan.of,
            length=scan.length,
            steps=tuple(choose_steps(scan.length)),
            gradients=tuple(Quantity([norm]) for norm in norms),
            chances=()
            if any(map(math.isnan, chances))
            else tuple(Quantity([chance]) for chance in chances),
        )
