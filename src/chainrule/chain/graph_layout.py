"""Where the nodes of any graph stand: in columns, from operands to results, with few crossings.

References:
    Sugiyama, Tagawa & Toda 1981 (IEEE SMC 11), for columns, stand-ins and barycentres; Brandes &
    Köpf 2001 compare ways of placing them. Heights are the least squares of Barlow et al. 1972.
"""

from bisect import bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TypeVar

COLUMN = 108.0
"""Least distance of neighbouring columns."""

_AIR = 18.0
"""Least space beside the label of an edge between two columns."""

NODE_GAP, ROUTE_GAP = 134.0, 62.0
"""Least distance of two nodes, and of two edges that pass between nodes, in one column."""

_SWEEPS = 12

T = TypeVar("T")
Ends = tuple[str, str]
Spot = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Arrangement:
    """A graph ready to be drawn.

    Attributes:
        places: The centre of every node.
        routes: Of every edge the points on its way between its ends.
        width: In pixels, from the first to the last centre.
        height: In pixels, from the highest to the lowest.
    """

    places: dict[str, Spot]
    routes: dict[str, tuple[Spot, ...]]
    width: float
    height: float


def arrange_graph(
    nodes: Mapping[str, Spot], edges: Mapping[str, Ends], labels: Mapping[str, float]
) -> Arrangement:
    """Return where everything stands.

    Args:
        nodes: By id, operands before results: the width of its outline, and of all its text.
        edges: Source and target of each edge by its id.
        labels: The width of an edge's label by its id, where it has one.
    """
    columns, routes, heights = _arrange_ends(tuple(nodes), tuple(edges.items()))
    top, bottom = min(heights.values()), max(heights.values())
    across = _space(columns, nodes, edges, labels)
    spots = {name: (across[columns[name]], heights[name] - top) for name in columns}
    return Arrangement(
        places={name: spots[name] for name in nodes},
        routes={name: tuple(spots[stop] for stop in stops) for name, stops in routes.items()},
        width=across[-1],
        height=bottom - top,
    )


@lru_cache(maxsize=32)
def _arrange_ends(
    nodes: tuple[str, ...], ends: tuple[tuple[str, Ends], ...]
) -> tuple[Mapping[str, int], Mapping[str, Sequence[str]], Mapping[str, float]]:
    """Return columns, the stops of the edges, and heights: what does not depend on any number.

    It is remembered, for pages whose numbers change while the graph stays.
    """
    edges = dict(ends)
    columns = _assign_columns(nodes, edges)
    routes = {
        name: [f"{name}|{number}" for number in range(columns[source] + 1, columns[target])]
        for name, (source, target) in edges.items()
    }
    steps = [
        step
        for name, (source, target) in edges.items()
        for step in _pair([source, *routes[name], target])
    ]
    for stops in routes.values():
        columns |= {stop: int(stop.rpartition("|")[2]) for stop in stops}
    below, above = _list_neighbours(steps)
    rows = _order(columns, below, above)
    return columns, routes, _place(rows, below, above, set(nodes))


def _pair(names: Sequence[T]) -> Iterable[tuple[T, T]]:
    return pairwise(names)


def _assign_columns(nodes: Iterable[str], edges: Mapping[str, Ends]) -> dict[str, int]:
    """Return the column of every node: as early as possible, but leaves just before their use.

    Two edges between the same nodes need a column between, to be told apart.
    """
    ends = list(edges.values())
    length = {pair: 2 if ends.count(pair) > 1 else 1 for pair in ends}
    incoming: dict[str, list[str]] = {name: [] for name in nodes}
    outgoing: dict[str, list[str]] = {name: [] for name in nodes}
    for source, target in length:
        incoming[target].append(source)
        outgoing[source].append(target)
    columns: dict[str, int] = {}
    for name in nodes:
        columns[name] = max(
            (columns[each] + length[each, name] for each in incoming[name]), default=0
        )
    for name in nodes:
        if not incoming[name] and outgoing[name]:
            columns[name] = min(columns[each] - length[name, each] for each in outgoing[name])
    return columns


def _space(
    columns: Mapping[str, int],
    nodes: Mapping[str, Spot],
    edges: Mapping[str, Ends],
    labels: Mapping[str, float],
) -> list[float]:
    """Return where each column stands: its outlines and texts clear of those of the next."""
    count = max(columns.values()) + 1
    outline, text, label = [0.0] * count, [0.0] * count, [0.0] * count
    for name, (inner, outer) in nodes.items():
        outline[columns[name]] = max(outline[columns[name]], inner)
        text[columns[name]] = max(text[columns[name]], outer)
    for name, (source, target) in edges.items():
        if columns[target] == columns[source] + 1:
            label[columns[target]] = max(label[columns[target]], labels.get(name, 0.0))
    across = [0.0]
    for left, right in _pair(range(count)):
        lines = (outline[left] + outline[right]) / 2 + label[right] + 2 * _AIR
        across.append(across[-1] + max(lines, (text[left] + text[right]) / 2 + 8, COLUMN))
    return across


def _list_neighbours(
    steps: Sequence[Ends],
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return the neighbours of everything in the column before, and in the one after."""
    below: dict[str, list[str]] = {}
    above: dict[str, list[str]] = {}
    for source, target in steps:
        below.setdefault(target, []).append(source)
        above.setdefault(source, []).append(target)
    return below, above


def _order(
    columns: dict[str, int], below: dict[str, list[str]], above: dict[str, list[str]]
) -> list[list[str]]:
    """Return the columns, each ordered by where its neighbours are: the best of some sweeps."""
    rows: list[list[str]] = [[] for _ in range(max(columns.values()) + 1)]
    for name in _walk_down(columns, below):
        rows[columns[name]].append(name)
    best, fewest = rows, _count_crossings(rows, above)
    for sweep in range(_SWEEPS):
        neighbours = below if sweep % 2 == 0 else above
        numbers = range(len(rows)) if sweep % 2 == 0 else range(len(rows) - 1, -1, -1)
        rows = [list(row) for row in rows]
        step = -1 if sweep % 2 == 0 else 1
        for number in numbers:
            near = [rows[number]]
            if 0 <= number + step < len(rows):
                near.append(rows[number + step])
            places = {name: place for row in near for place, name in enumerate(row)}
            rows[number].sort(key=lambda name: _average(name, neighbours, places))
        crossings = _count_crossings(rows, above)
        if crossings < fewest:
            best, fewest = rows, crossings
        if not fewest:
            break
    return best


def _walk_down(columns: dict[str, int], below: dict[str, list[str]]) -> list[str]:
    """Return everything from the output downwards, first operands first."""
    found: dict[str, None] = {}
    waiting = [max(columns, key=lambda name: columns[name])]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = None
            waiting += reversed(below.get(name, []))
    return [*found, *(name for name in columns if name not in found)]


def _average(name: str, neighbours: dict[str, list[str]], places: dict[str, int]) -> float:
    """Return the mean place of a name's neighbours; its own where it has none."""
    found = [places[each] for each in neighbours.get(name, [])]
    return sum(found) / len(found) if found else float(places[name])


def _count_crossings(rows: Sequence[Sequence[str]], above: dict[str, list[str]]) -> int:
    """Return how many pairs of edges between neighbouring columns cross."""
    crossings = 0
    for row, following in pairwise(rows):
        places = {name: place for place, name in enumerate(following)}
        ends: list[int] = []
        for name in row:
            targets = sorted(places[each] for each in above.get(name, []))
            crossings += sum(len(ends) - bisect_right(ends, target) for target in targets)
            for target in targets:
                insort(ends, target)
    return crossings


def _place(
    rows: Sequence[Sequence[str]],
    below: dict[str, list[str]],
    above: dict[str, list[str]],
    real: set[str],
) -> dict[str, float]:
    """Return the height of everything: near its neighbours, in order, and far enough apart.

    A leaf that is used once comes to its use, which hardly moves for it.
    """
    heights: dict[str, float] = {}
    for row in rows:
        offsets = _list_offsets(row, real)
        heights |= {
            name: offset - offsets[-1] / 2 for name, offset in zip(row, offsets, strict=True)
        }
    pulls = {
        name: 1.0 if name in below or len(above.get(name, [])) > 1 else 0.02 for name in heights
    }
    for sweep in range(_SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wanted = []
            for name in row:
                near = [*below.get(name, []), *above.get(name, [])] or [name]
                total = sum(heights[each] * pulls[each] for each in near)
                wanted.append(total / sum(pulls[each] for each in near))
            offsets = _list_offsets(row, real)
            free = _fit_growing(
                [each - off for each, off in zip(wanted, offsets, strict=True)],
                [pulls[name] for name in row],
            )
            heights |= {
                name: each + off for name, each, off in zip(row, free, offsets, strict=True)
            }
    return heights


def _list_offsets(row: Sequence[str], real: set[str]) -> list[float]:
    """Return how far below the first of a column each one stands at least."""
    offsets = [0.0]
    for one, other in _pair(row):
        sides = (one in real) + (other in real)
        gap = (ROUTE_GAP, (NODE_GAP + ROUTE_GAP) / 2, NODE_GAP)[sides]
        offsets.append(offsets[-1] + gap)
    return offsets


def _fit_growing(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Return the numbers nearest to some that never fall: pools of neighbours take their mean."""
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        pool = (value, weight, 1)
        while pools and pools[-1][0] > pool[0]:
            mean, size, count = pools.pop()
            total = size + pool[1]
            pool = ((mean * size + pool[0] * pool[1]) / total, total, count + pool[2])
        pools.append(pool)
    return [mean for mean, _, count in pools for _ in range(count)]
