"""`draw_expression`: the graph of any scalar expression as a standalone SVG.

As in the drawing of a chain, forward values stand above the nodes, gradients below, and local
derivatives on the edges; where the gradients of several uses meet, a node has a second ring.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from itertools import product
from typing import Protocol

from chainrule.chain.drawing import (
    ARROW,
    HEADER,
    RADIUS,
    STYLE,
    classify,
    compute_thickness,
    draw_legend,
    draw_markers,
    draw_pill,
    measure_text,
    set_term,
    set_text,
    shorten,
)
from chainrule.chain.graph_layout import Arrangement, Spot, arrange_graph
from chainrule.chain.layout import MARGIN
from chainrule.chain.network import Edge, Factor, Node
from chainrule.chain.notation import format_equal, render_text, write_name
from chainrule.chain.operations import OPERATIONS
from chainrule.chain.terms import Symbol, Total
from chainrule.chain.wide_float import WideFloat
from chainrule.errors import SpecError

_TOP, _BOTTOM = 72.0, 66.0
"""Space above and below the outermost centres."""

_LINE = 15.0
_PORT = 9.0
"""Distance of the points at which edges meet one node."""

_SHARES = (0.5, 0.42, 0.58, 0.34, 0.66, 0.26, 0.74)
"""Where on an edge its label is tried."""

_LONGEST = 130.0
"""Wider formulas do not stand above their node."""

Box = tuple[float, float, float, float]


class Drawable(Protocol):
    """What can be drawn: any graph with a gradient at every node."""

    @property
    def variables(self) -> tuple[str, ...]:
        """The names that the output can be differentiated by."""

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes, operands before results."""

    @property
    def edges(self) -> tuple[Edge, ...]:
        """The edges that gradients pass."""

    @property
    def root(self) -> Node:
        """The node of the result."""

    def list_operands(self, name: str) -> tuple[str, ...]:
        """Return the ids of the operands of a node."""

    def describe(self, name: str) -> str:
        """Return what a node is, in plain text: u₁ = w · x."""

    def gradient(self, wrt: str) -> WideFloat:
        """Return the derivative of the output by a variable."""

    def factors(self, wrt: str) -> tuple[Factor, ...]:
        """Return the local derivatives on all paths to a variable."""


def draw_expression(
    graph: Drawable, wrt: str | None = None, *, identifier: str = "expression"
) -> str:
    """Return the graph of an expression as an SVG document.

    Colours, thickness and classes are those of `draw_graph`: nodes carry `data-node`, edges
    `data-edge`, and both `data-factor`. What lies on no path from the output to `wrt` is paler.

    Args:
        graph: The graph.
        wrt: The variable whose gradient is marked; `None` for the first one.
        identifier: Begins every id of the document, so that several fit on a page.

    Raises:
        SpecError: If there is no such variable, or the identifier cannot begin an id.

    Example:
        >>> from chainrule.chain import ScalarGraph
        >>> draw_expression(ScalarGraph.parse("x*x", {"x": 3})).count("data-edge")
        2
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", identifier):
        raise SpecError(
            f"identifier: must be a letter followed by letters, digits, - or _; got {identifier!r}."
        )
    name = graph.variables[0] if wrt is None else wrt
    marked = frozenset(factor.id for factor in graph.factors(name))
    lines = {edge.id: (edge.source, edge.target) for edge in graph.edges}
    silent = {  # from numbers no gradient comes back, but they are operands
        f"{source}-{node.id}": (source, node.id)
        for node in graph.nodes
        for source in graph.list_operands(node.id)
        if (source, node.id) not in lines.values()
    }
    nodes = {node.id: _Shape(node, graph.describe(node.id)) for node in graph.nodes}
    labels = [_Label(edge) for edge in graph.edges]
    layout = arrange_graph(
        {each: (2 * shape.half[0], shape.width) for each, shape in nodes.items()},
        lines | silent,
        {label.edge.id: label.width for label in labels},
    )
    output = graph.root.symbol
    side = max(shape.width for shape in nodes.values()) / 2 + MARGIN
    kinds = {classify(edge.value) for edge in graph.edges}
    legend, legend_height, legend_width = draw_legend(
        kinds, layout.width + 2 * side, render_text(output)
    )
    subject = Total(_as_symbol(output), _as_symbol(nodes[name].node.symbol))
    header, header_width = _draw_header(graph, subject, graph.gradient(name))
    width = max(layout.width + 2 * side, legend_width, header_width)
    height = HEADER + _TOP + layout.height + _BOTTOM + legend_height
    curves = _list_curves(lines | silent, layout, nodes)
    taken = [shape.measure(*layout.places[each]) for each, shape in nodes.items()]
    spots = _place_labels(labels, curves, taken)
    uses = [edge.source for edge in graph.edges if edge.id in marked]
    body = [
        f'<rect class="paper" width="{width:.0f}" height="{height:.0f}" rx="12"/>',
        header,
        f'<g transform="translate({(width - layout.width) / 2:.1f} {HEADER + _TOP:.0f})">',
        *(f'<path class="operand" d="{_write_curve(curves[each])}"/>' for each in silent),
        *(
            _draw_edge(label, curves[label.edge.id], spots[label.edge.id], identifier, marked)
            for label in labels
        ),
        *(
            _draw_node(
                shape, layout.places[each], output, identifier, uses.count(each), each == name
            )
            for each, shape in nodes.items()
        ),
        "</g>",
        f'<g transform="translate(0 {height - legend_height:.0f})">{legend}</g>',
    ]
    title = f"{render_text(subject)} {format_equal(graph.gradient(name))}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chain-graph" id="{identifier}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        f'role="group" aria-labelledby="{identifier}-title {identifier}-desc">\n'
        f'<title id="{identifier}-title">Computational graph: {escape(title)}</title>\n'
        f'<desc id="{identifier}-desc">{escape(_describe(graph, marked))}</desc>\n'
        f"<style>{STYLE}{_STYLE}</style>\n{draw_markers(identifier)}\n"
        + "\n".join(body)
        + "\n</svg>\n"
    )


@dataclass(frozen=True)
class _Shape:
    """A node as it is drawn, about its own centre.

    Attributes:
        node: The node.
        formula: What it is, in plain text.
    """

    node: Node
    formula: str

    @cached_property
    def sign(self) -> str | None:
        """The sign of an operation, `None` for a variable or a number."""
        operation = OPERATIONS.get(self.node.kind)
        return operation.sign if operation else None

    @cached_property
    def name(self) -> str:
        """What stands above an operation: its formula, or its symbol alone if that is too long."""
        long = measure_text(self.formula, 13) > _LONGEST
        return write_name(self.node.symbol) if long else self.formula

    @cached_property
    def half(self) -> tuple[float, float]:
        """Half the width and half the height of its outline."""
        if self.sign:
            return RADIUS, RADIUS
        if self.node.kind == "number":
            return max(measure_text(render_text(self.node.symbol), 13) / 2 + 9, 15.0), 15.0
        return max(measure_text(render_text(self.node.symbol), 19) / 2 + 9, 19.0), 19.0

    @cached_property
    def width(self) -> float:
        """The width of all of it."""
        texts = [shorten(self.node.value), shorten(self.node.gradient)]
        texts += [self.name] if self.sign else []
        if self.node.kind == "number":
            texts = []
        return max(2 * self.half[0], *(measure_text(text, 13) for text in texts), 0.0)

    def measure(self, x: float, y: float) -> Box:
        """Return the box of all of it about a centre: left, top, right, bottom."""
        high, low = (0.0, 0.0) if self.node.kind == "number" else (22.0, 36.0)
        if self.sign:
            high += 17.0
        half = self.width / 2
        return x - half, y - self.half[1] - high, x + half, y + self.half[1] + low

    def find_edge(self, shift: float) -> float:
        """Return how far its outline is from its centre, that far above or below the middle."""
        half_width, half_height = self.half
        return half_width - half_height + math.sqrt(max(half_height**2 - shift**2, 0.0))


@dataclass(frozen=True)
class _Label:
    """The label of an edge: its local derivative, and the formula of that.

    Attributes:
        edge: The edge.
    """

    edge: Edge

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """Its lines: the number, and the formula unless that says the same."""
        number = shorten(self.edge.value)
        formula = write_name(self.edge.derivative)
        long = measure_text(formula, 13) > _LONGEST
        return (number,) if formula == number or long else (number, formula)

    @cached_property
    def width(self) -> float:
        """The width of its longest line."""
        return max(measure_text(text, 13) for text in self.texts)

    def measure(self, spot: Spot) -> Box:
        """Return its box about a centre: left, top, right, bottom."""
        x, y = spot
        high = _LINE * len(self.texts) / 2
        return x - self.width / 2 - 1, y - high, x + self.width / 2 + 1, y + high + 2


def _as_symbol(term: object) -> Symbol:
    assert isinstance(term, Symbol)
    return term


def _list_curves(
    edges: Mapping[str, tuple[str, str]], layout: Arrangement, shapes: Mapping[str, _Shape]
) -> dict[str, tuple[Spot, ...]]:
    """Return the points of every edge: where it leaves, passes and arrives."""
    stops = {
        name: (layout.places[source], *layout.routes[name], layout.places[target])
        for name, (source, target) in edges.items()
    }
    leaves: dict[str, list[str]] = {}
    arrives: dict[str, list[str]] = {}
    for name, (source, target) in edges.items():
        leaves.setdefault(source, []).append(name)
        arrives.setdefault(target, []).append(name)
    starts, ends = {}, {}
    for node, names in leaves.items():
        for name, shift in _spread(sorted(names, key=lambda each: stops[each][1][1])):
            x, y = layout.places[node]
            starts[name] = (x + shapes[node].find_edge(shift), y + shift)
    for node, names in arrives.items():
        for name, shift in _spread(sorted(names, key=lambda each: stops[each][-2][1])):
            x, y = layout.places[node]
            ends[name] = (x - shapes[node].find_edge(shift) - ARROW, y + shift)
    return {name: (starts[name], *points[1:-1], ends[name]) for name, points in stops.items()}


def _spread(names: Sequence[str]) -> list[tuple[str, float]]:
    """Return how far above or below a node's middle each of several edges meets it."""
    step = min(_PORT, 26.0 / max(len(names) - 1, 1))
    return [(name, (i - (len(names) - 1) / 2) * step) for i, name in enumerate(names)]


def _write_curve(points: Sequence[Spot]) -> str:
    """Return a path through points that is level at each of them."""
    (x, y), *rest = points
    parts = [f"M{x:.1f} {y:.1f}"]
    for end_x, end_y in rest:
        bend = (end_x - x) / 2
        parts.append(
            f"C{x + bend:.1f} {y:.1f} {end_x - bend:.1f} {end_y:.1f} {end_x:.1f} {end_y:.1f}"
        )
        x, y = end_x, end_y
    return "".join(parts)


def _find_spot(points: Sequence[Spot], share: float) -> Spot:
    """Return a point of the path of `_write_curve`, after a share of its parts."""
    number = min(int(share * (len(points) - 1)), len(points) - 2)
    t = share * (len(points) - 1) - number
    (x, y), (end_x, end_y) = points[number : number + 2]
    along = 1.5 * t * (1 - t) + t**3  # a Bézier curve whose handles reach to the middle
    across = 3 * t**2 * (1 - t) + t**3
    return x + (end_x - x) * along, y + (end_y - y) * across


def _place_labels(
    labels: Sequence[_Label], curves: Mapping[str, Sequence[Spot]], taken: list[Box]
) -> dict[str, Spot]:
    """Return the centre of every label: on its edge, and on nothing else if that is possible."""
    spots = {}
    for label in labels:
        points = curves[label.edge.id]
        best, least = points[0], math.inf
        for shift, share in product((0.0, -14.0, 14.0, -24.0, 24.0), _SHARES):
            x, y = _find_spot(points, share)
            overlap = _sum_overlap(label.measure((x, y + shift)), taken)
            if overlap < least:
                best, least = (x, y + shift), overlap
            if not overlap:
                break
        spots[label.edge.id] = best
        taken.append(label.measure(best))
    return spots


def _sum_overlap(box: Box, others: Sequence[Box]) -> float:
    left, top, right, bottom = box
    return sum(
        (min(right, other[2]) - max(left, other[0])) * (min(bottom, other[3]) - max(top, other[1]))
        for other in others
        if left < other[2] and other[0] < right and top < other[3] and other[1] < bottom
    )


def _draw_edge(
    label: _Label, points: Sequence[Spot], spot: Spot, identifier: str, marked: frozenset[str]
) -> str:
    edge = label.edge
    kind = classify(edge.value)
    path = _write_curve(points)
    x, y = spot
    y -= _LINE * (len(label.texts) - 1) / 2 - 4
    left, top, right, bottom = label.measure(spot)
    texts = (
        f'<rect class="plate" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
        f'height="{bottom - top:.1f}" rx="6"/>'
    )
    texts += set_text(label.texts[0], x, y, "local number")
    if len(label.texts) > 1:
        texts += set_term(edge.derivative, x, y + _LINE, "words local")[0]
    name = f"local derivative {write_name(edge.derivative)} {format_equal(edge.value)}"
    state = "on-path" if edge.id in marked else "off-path"
    return (
        f'<g class="edge {kind} {state}" id="{identifier}-edge-{edge.id}" data-edge="{edge.id}" '
        f'data-factor="{" ".join(edge.factors)}"><title>{escape(name)}</title>'
        f'<path class="reach" d="{path}"/>'
        f'<path class="line" d="{path}" stroke-width="{compute_thickness(edge.value):.2f}" '
        f'marker-end="url(#{identifier}-arrow-{kind})"/>{texts}</g>'
    )


def _draw_node(
    shape: _Shape, spot: Spot, output: object, identifier: str, uses: int, asked: bool
) -> str:
    node, (x, y) = shape.node, spot
    half_width, half_height = shape.half
    if shape.sign:
        long = len(shape.sign) > 1
        outline = f'<circle class="shape" cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS}"/>'
        style = "operation long" if long else "operation"
        inside = set_text(shape.sign, x, y + (4 if long else 7), style)
    else:
        outline = draw_pill(x, y, half_width, half_height)
        number = node.kind == "number"
        inside = set_term(
            node.symbol, x, y + 5, "words" if number else "symbol", size=13 if number else 17
        )[0]
    kinds = [node.kind if node.kind != "number" else "constant"]
    if uses > 1:
        kinds.append("meets")
        ring = (
            f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS + 4}"/>'
            if shape.sign
            else draw_pill(x, y, half_width + 4, half_height + 4).replace("shape", "ring")
        )
        outline = ring + outline
    labels = ""
    if node.kind != "number":
        labels += set_text(shorten(node.value), x, y - half_height - 8, "value")
        if shape.sign:
            labels += set_text(shape.name, x, y - half_height - 25, "words")
        subject = Total(_as_symbol(output), _as_symbol(node.symbol))
        low = y + half_height + (20 if uses > 1 else 17)
        labels += set_term(subject, x, low, "words")[0]
        labels += set_text(shorten(node.gradient), x, low + 16, "gradient")
    name = f"{shape.formula} {format_equal(node.value)}"
    if node.kind != "number":
        name += f"; gradient {format_equal(node.gradient)}"
    if uses > 1:
        name += f", the sum of what comes back from {uses} uses"
    state = (
        "on-path" if uses or asked or (node.gradient == 1 and node.symbol == output) else "off-path"
    )
    return (
        f'<g class="node {" ".join(kinds)} {state}" id="{identifier}-node-{node.id}" '
        f'data-node="{node.id}" data-factor=""><title>{escape(name)}</title>'
        f"{outline}{inside}{labels}</g>"
    )


def _draw_header(graph: Drawable, subject: Total, value: WideFloat) -> tuple[str, float]:
    """Return the first line of the drawing and the width that it takes."""
    count = len(graph.nodes)
    words = f"{count} node{'s' if count > 1 else ''}"
    if value.range != "normal":
        seen = "0" if value.range == "underflow" else "∞"
        words += f"  ({value.range}s float64, which shows {seen})"
    text, width = set_term(subject, MARGIN, 36, "headline", anchor="start", size=19)
    result = format_equal(value)
    after = MARGIN + width + 8
    text += set_text(result, after, 36, "headline gradient", anchor="start")
    after += 18 + measure_text(result, 19)
    text += set_text(words, after, 36, "words", anchor="start")
    return text, after + measure_text(words, 13) + MARGIN


def _describe(graph: Drawable, marked: frozenset[str]) -> str:
    """Return the graph in words: its operations, and the derivatives on the way."""
    formulas = [graph.describe(node.id) for node in graph.nodes if node.kind in OPERATIONS]
    shown = formulas if len(formulas) <= 12 else [*formulas[:6], "…", *formulas[-3:]]
    edges = [edge for edge in graph.edges if edge.id in marked]
    return (
        f"{'; '.join(shown)}. {len(edges)} of {len(graph.edges)} edges lie on a path to the "
        "variable."
    )


_STYLE = (
    ".chain-graph .plate{fill:var(--paper);opacity:.88}"
    ".chain-graph .operand{fill:none;stroke:var(--outline);stroke-width:1.5;"
    "stroke-dasharray:2 3}"
    ".chain-graph .constant .shape{stroke-dasharray:2 3}"
    ".chain-graph .ring{fill:none;stroke:var(--gradient);stroke-width:2}"
    ".chain-graph .off-path .ring{opacity:.45}"
)
"""What the style sheet of graphs adds to that of chains."""
