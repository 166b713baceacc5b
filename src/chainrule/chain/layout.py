"""Where the parts of a computational graph stand: rows of layers, long chains folded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chainrule.chain.network import Edge, Graph, Node
from chainrule.chain.terms import Partial, Symbol
from chainrule.chain.wide_float import WideFloat, multiply

MAX_LAYERS_SHOWN = 12
"""Longer chains are folded."""

KEPT_LAYERS = 3
"""Layers that stay at each end of a folded graph."""

STEP = 116.0
"""Distance of neighbouring nodes."""

MARGIN = 28.0
OPERAND_HEIGHT = 132.0
"""How far weights and biases stand above their row."""

ROW_TOP, ROW_BOTTOM = 182.0, 72.0
"""Space above and below the middle of a row."""

ROW_GAP = 34.0
FOLD_CELLS = 1.75
MAX_CELLS = 9
"""Nodes in a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """Layers drawn as one node.

    Attributes:
        first: The first folded layer.
        last: The last folded layer.
        derivative: ∂h_last/∂h_{first−1} as a term.
        value: Its value.
        factors: Ids of the factors that it stands for, input to output.
        node: The node of its last activation.
    """

    first: int
    last: int
    derivative: Partial
    value: WideFloat
    factors: tuple[str, ...]
    node: Node

    @property
    def id(self) -> str:
        """Id of the drawn node."""
        return f"fold{self.first}-{self.last}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One drawn node: what it is and where its centre is."""

    item: Node | Folded
    x: float
    y: float
    row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A graph ready to be drawn.

    Attributes:
        places: Every drawn node by id.
        edges: The edges whose two ends are drawn, and those into a fold.
        width: In pixels.
        height: In pixels.
    """

    places: dict[str, Place]
    edges: tuple[Edge, ...]
    width: float
    height: float


def arrange(
    chain: Graph,
    layer: int,
    *,
    max_layers: int = MAX_LAYERS_SHOWN,
    one_row: bool = False,
) -> Layout:
    """Return where each node of a chain stands.

    Args:
        chain: The chain.
        layer: A layer that must not be folded.
        max_layers: Chains with more layers than this are folded.
        one_row: Whether everything stands in one long row.
    """
    cells_per_layer = 2 if chain.biases is None else 3
    units = list(_fold(chain, layer, max_layers))
    rows = [units] if one_row else _break(units, cells_per_layer)
    nodes = {node.id: node for node in chain.nodes}
    places: dict[str, Place] = {}
    width = 0.0
    for number, row in enumerate(rows):
        y = ROW_TOP + number * (ROW_TOP + ROW_BOTTOM + ROW_GAP)
        x = MARGIN + STEP * (0.35 if number == 0 else 1.0)
        if number == 0:
            places["x"] = Place(item=nodes["x"], x=x, y=y, row=number)
            x += STEP
        for unit in row:
            for item, shift, lift in _list_items(unit, nodes):
                place = Place(item=item, x=x + shift * STEP, y=y - lift, row=number)
                places[item.id] = place
            x += STEP * (FOLD_CELLS if isinstance(unit, Folded) else cells_per_layer)
        if number == len(rows) - 1:
            places["p"] = Place(item=nodes["p"], x=x, y=y, row=number)
            x += STEP
        width = max(width, x - STEP * (0.6 if number == len(rows) - 1 else 0.35) + MARGIN)
    height = len(rows) * (ROW_TOP + ROW_BOTTOM + ROW_GAP) - ROW_GAP
    return Layout(places=places, edges=_list_edges(chain, units), width=width, height=height)


def _fold(chain: Graph, layer: int, max_layers: int) -> Iterator[int | Folded]:
    """Yield the layers to draw, and one fold in place of each run of the others."""
    depth = chain.depth
    shown = set(range(1, depth + 1))
    if depth > max_layers:
        ends = (*range(1, KEPT_LAYERS + 1), *range(depth - KEPT_LAYERS + 1, depth + 1))
        shown = {n for n in (*ends, layer) if 1 <= n <= depth}
        shown |= {n for n in range(1, depth + 1) if n - 1 in shown and n + 1 in shown}
    n = 1
    while n <= depth:
        if n in shown:
            yield n
            n += 1
            continue
        last = n
        while last + 1 not in shown:
            last += 1
        yield _build_fold(chain, n, last)
        n = last + 1


def _build_fold(chain: Graph, first: int, last: int) -> Folded:
    hidden = chain.layers[first - 1 : last]
    factors = [name for n in range(first, last + 1) for name in (f"h{n - 1}-z{n}", f"z{n}-h{n}")]
    if first == 1:
        factors[0] = "x-z1"
    node = next(node for node in chain.nodes if node.id == f"h{last}")
    return Folded(
        first=first,
        last=last,
        derivative=Partial(Symbol("h", last), Symbol("h", first - 1) if first > 1 else Symbol("x")),
        value=multiply(value for each in reversed(hidden) for value in (each.slope, each.weight)),
        factors=tuple(factors),
        node=node,
    )


def _break(units: Sequence[int | Folded], cells_per_layer: int) -> list[list[int | Folded]]:
    """Return the units in as few rows as fit, of nearly equal length."""

    def pack(limit: float) -> list[list[int | Folded]]:
        rows: list[list[int | Folded]] = [[]]
        used = 0.0
        for unit in units:
            size = FOLD_CELLS if isinstance(unit, Folded) else float(cells_per_layer)
            if rows[-1] and used + size > limit:
                rows.append([])
                used = 0.0
            rows[-1].append(unit)
            used += size
        return rows

    rows = pack(MAX_CELLS)
    limit: float = MAX_CELLS
    while limit > cells_per_layer and len(pack(limit - 0.25)) == len(rows):
        limit -= 0.25
    return pack(limit)


def _list_items(
    unit: int | Folded, nodes: dict[str, Node]
) -> Iterator[tuple[Node | Folded, float, float]]:
    """Yield the nodes of a layer with their shift in cells and their lift in pixels."""
    if isinstance(unit, Folded):
        yield unit, 0.5, 0.0
        return
    names = (
        [f"m{unit}", f"z{unit}", f"h{unit}"] if f"m{unit}" in nodes else [f"z{unit}", f"h{unit}"]
    )
    for shift, name in enumerate(names):
        yield nodes[name], float(shift), 0.0
    yield nodes[f"w{unit}"], 0.0, OPERAND_HEIGHT
    if f"b{unit}" in nodes:
        yield nodes[f"b{unit}"], 1.0, OPERAND_HEIGHT


def _list_edges(chain: Graph, units: Sequence[int | Folded]) -> tuple[Edge, ...]:
    folds = [unit for unit in units if isinstance(unit, Folded)]
    renamed = {f"h{fold.last}": fold.id for fold in folds}
    layers = {unit for unit in units if isinstance(unit, int)}
    edges = [
        edge
        if edge.source not in renamed
        else Edge(
            id=edge.id,
            source=renamed[edge.source],
            target=edge.target,
            layer=edge.layer,
            derivative=edge.derivative,
            value=edge.value,
            factors=edge.factors,
        )
        for edge in chain.edges
        if edge.layer in layers
    ]
    for fold in folds:
        source = f"h{fold.first - 1}" if fold.first > 1 else "x"
        edges.append(
            Edge(
                id=f"{source}-{fold.id}",
                source=source,
                target=fold.id,
                layer=fold.last,
                derivative=fold.derivative,
                value=fold.value,
                factors=fold.factors,
            )
        )
    return tuple(edges)
