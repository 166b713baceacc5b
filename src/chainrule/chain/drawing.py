"""`draw_graph`: the computational graph of a scalar chain as a standalone SVG.

Forward values stand above the nodes, cumulative gradients below, local derivatives on the edges.
Colours are from the Okabe-Ito palette, darkened or lightened until text of them reads on its paper.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from html import escape

from chainrule._utils.numbers import MINUS
from chainrule.chain.layout import MARGIN, MAX_LAYERS_SHOWN, Folded, Layout, Place, arrange
from chainrule.chain.network import Edge, Factor, Graph
from chainrule.chain.notation import format_equal, render_text, write_name
from chainrule.chain.terms import NAMES, Apply, Partial, Product, Symbol, Term
from chainrule.chain.wide_float import LONGEST_POWER, WideFloat
from chainrule.errors import SpecError

RADIUS = 21.0
PILL = (30.0, 19.0)
_FOLD = (62.0, 24.0)
ARROW = 9.0
HEADER = 56.0
_LEGEND = (
    ("shrinks", "shrinks the gradient"),
    ("keeps", "keeps it"),
    ("grows", "grows it"),
    ("blocks", "stops it (0)"),
)


def draw_graph(
    chain: Graph,
    wrt: str = "w1",
    *,
    identifier: str = "chain",
    max_layers: int = MAX_LAYERS_SHOWN,
    one_row: bool = False,
) -> str:
    """Return the computational graph as an SVG document.

    An edge is the thicker, the larger its local derivative on a log scale, and its colour says
    whether that shrinks, keeps, grows or stops the gradient. What does not lie on the way from p
    to `wrt` is paler. Colours follow `prefers-color-scheme`; a page can set the variables
    `--chain-ink`, `--chain-muted`, `--chain-paper`, `--chain-node`, `--chain-outline`,
    `--chain-gradient`, `--chain-shrinks`, `--chain-keeps` and `--chain-grows` instead.

    Nodes carry `data-node`, edges `data-edge`, and both `data-factor` with the ids of the factors
    of the derivation that they stand for, separated by spaces. The class "lit" lights either.

    Args:
        chain: The chain.
        wrt: The variable whose gradient is marked.
        identifier: Begins every id of the document, so that several fit on a page.
        max_layers: Longer chains have their middle layers folded into one node.
        one_row: Whether all layers stand in one long row, to be scrolled sideways.

    Raises:
        SpecError: If there is no such variable, or the identifier cannot begin an id.

    Example:
        >>> from chainrule.chain import ScalarChain
        >>> draw_graph(ScalarChain(1.0, [0.5])).count("data-node")
        5
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", identifier):
        raise SpecError(
            f"identifier: must be a letter followed by letters, digits, - or _; got {identifier!r}."
        )
    factors = chain.factors(wrt)
    chain = chain.show(wrt)
    layout = arrange(chain, factors[-1].layer, max_layers=max_layers, one_row=one_row)
    marked = frozenset(factor.id for factor in factors)
    on_path = {
        name
        for edge in layout.edges
        if not marked.isdisjoint(edge.factors)
        for name in (edge.source, edge.target)
    }
    starts: dict[str, list[str]] = {}  # the factors whose value a node's operation gives
    for factor in factors:
        starts.setdefault(factor.id.split("-")[0], []).append(factor.id)
    subject = Partial(Symbol("p"), factors[-1].partial.by)
    title = f"{render_text(subject)} {format_equal(chain.gradient(wrt))}"
    kinds = {classify(edge.value) for edge in layout.edges if edge.target != "p"}
    legend, legend_height, legend_width = draw_legend(kinds, layout.width)
    width = max(layout.width, legend_width)
    height = HEADER + layout.height + legend_height
    body = [
        f'<rect class="paper" width="{width:.0f}" height="{height:.0f}" rx="12"/>',
        _draw_header(chain, subject, chain.gradient(wrt)),
        f'<g transform="translate(0 {HEADER:.0f})">',
        *(_draw_edge(edge, layout, identifier, marked) for edge in layout.edges),
        *(
            _draw_node(place, chain, identifier, name in on_path, starts.get(name, ()))
            for name, place in layout.places.items()
        ),
        "</g>",
        f'<g transform="translate(0 {HEADER + layout.height:.0f})">{legend}</g>',
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chain-graph" id="{identifier}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        f'role="group" aria-labelledby="{identifier}-title {identifier}-desc">\n'
        f'<title id="{identifier}-title">Computational graph: {escape(title)}</title>\n'
        f'<desc id="{identifier}-desc">{escape(_describe(chain, factors))}</desc>\n'
        f"<style>{STYLE}</style>\n{draw_markers(identifier)}\n" + "\n".join(body) + "\n</svg>\n"
    )


def classify(value: WideFloat) -> str:
    """Return what a local derivative does to a gradient: shrinks, keeps, grows or blocks.

    Args:
        value: The local derivative; within 5 % of ±1 it keeps the gradient.
    """
    if not value.sign:
        return "blocks"
    if abs(value.log10) < 0.0212:
        return "keeps"
    return "shrinks" if value.log10 < 0 else "grows"


def compute_thickness(value: WideFloat) -> float:
    """Return the thickness of an edge in pixels: 1 from |0.01| down, 4 at 1, 7 from 100 up."""
    return 4.0 + 1.5 * max(-2.0, min(2.0, value.log10))


def _describe(chain: Graph, factors: tuple[Factor, ...]) -> str:
    names = dict.fromkeys(layer.activation.label for layer in chain.layers)
    shown = factors if len(factors) <= 24 else factors[:3]
    product = " · ".join(f"{write_name(f.prime)} {format_equal(f.exact)}" for f in shown)
    more = "" if len(shown) == len(factors) else f" and {len(factors) - 3} more"
    layers = f"{chain.depth} layer{'s' if chain.depth > 1 else ''}"
    return f"{layers}, {' or '.join(names)}. Factors from output to input: {product}{more}."


def _draw_header(chain: Graph, subject: Term, value: WideFloat) -> str:
    names = dict.fromkeys(NAMES[layer.activation.name] for layer in chain.layers)
    words = f"{chain.depth} layer{'s' if chain.depth > 1 else ''}, {', '.join(names)}"
    note = ""
    if value.range != "normal":
        seen = "0" if value.range == "underflow" else "∞"
        note = f"  ({value.range}s float64, which shows {seen})"
    text, width = set_term(subject, MARGIN, 36, "headline", anchor="start", size=19)
    result = format_equal(value)
    after = MARGIN + width + 8
    text += set_text(result, after, 36, "headline gradient", anchor="start")
    return text + set_text(
        words + note, after + 18 + measure_text(result, 19), 36, "words", anchor="start"
    )


def _draw_edge(edge: Edge, layout: Layout, identifier: str, marked: frozenset[str]) -> str:
    source, target = layout.places[edge.source], layout.places[edge.target]
    kind = classify(edge.value)
    vertical = source.x == target.x and source.y != target.y
    if vertical:
        top, bottom = source.y + PILL[1], target.y - _reach(target) - ARROW
        line = f"M{source.x:.1f} {top:.1f}V{bottom:.1f}"
        x, y, anchor = source.x - 10, (top + bottom) / 2 + 2, "end"
        marks = ((x, y - 4), (x, y + 13))
    else:
        start, end = source.x + _reach(source), target.x - _reach(target) - ARROW
        if source.row == target.row:
            line = f"M{start:.1f} {source.y:.1f}H{end:.1f}"
            x = (start + end + ARROW) / 2
        else:
            line = _wrap_line(start, source.y, end, target.y, layout.width)
            x = end - 30
        anchor = "middle"
        marks = ((x, target.y - 9), (x, target.y + 17))
    symbol, _ = set_term(edge.derivative, *marks[1], "words local", anchor=anchor)
    plain = edge.target == "p" or not edge.factors
    number = shorten(edge.value)
    labels = "" if plain else set_text(number, *marks[0], "local number", anchor=anchor)
    derivative = write_name(edge.derivative)
    if not plain and derivative != number:
        labels += symbol
    name = f"local derivative {derivative} {format_equal(edge.value)}"
    state = "off-path" if marked.isdisjoint(edge.factors) else "on-path"
    return (
        f'<g class="edge {kind} {state}" id="{identifier}-edge-{edge.id}" data-edge="{edge.id}" '
        f'data-factor="{" ".join(edge.factors)}"><title>{escape(name)}</title>'
        f'<path class="reach" d="{line}"/>'
        f'<path class="line" d="{line}" stroke-width="{compute_thickness(edge.value):.2f}" '
        f'marker-end="url(#{identifier}-arrow-{kind})"/>{labels}</g>'
    )


def shorten(value: WideFloat) -> str:
    """Return a number for a label: of one whose power of ten is a power itself, only which way.

    Args:
        value: The number.
    """
    if not value.sign or abs(value.log10) <= LONGEST_POWER:
        return str(value)
    return f"{MINUS if value.sign < 0 else ''}{'tiny' if value.log10 < 0 else 'huge'}"


def _wrap_line(start: float, y: float, end: float, below: float, width: float) -> str:
    """Return the path from the end of one row to the start of the next."""
    right, left, middle, bend = width - MARGIN, MARGIN, y + 84, 12
    return (
        f"M{start:.1f} {y:.1f}H{right - bend:.1f}q{bend} 0 {bend} {bend}V{middle - bend:.1f}"
        f"q0 {bend} {-bend} {bend}H{left + bend:.1f}q{-bend} 0 {-bend} {bend}"
        f"V{below - bend:.1f}q0 {bend} {bend} {bend}H{end:.1f}"
    )


def _reach(place: Place) -> float:
    """Return how far a node extends from its centre."""
    if isinstance(place.item, Folded):
        return _FOLD[0]
    return PILL[0] if place.item.kind in ("input", "output") else RADIUS


def _draw_node(
    place: Place, chain: Graph, identifier: str, lit: bool, factors: Sequence[str]
) -> str:
    item, x, y = place.item, place.x, place.y
    node = item.node if isinstance(item, Folded) else item
    kind = "fold" if isinstance(item, Folded) else node.kind
    value, gradient = shorten(node.value), shorten(node.gradient)
    operand = kind in ("weight", "bias")
    if isinstance(item, Folded):
        count = item.last - item.first + 1
        shape = draw_pill(x, y, *_FOLD) + set_text(f"⋯ {count} layers", x, y + 5, "words strong")
    elif kind in ("multiply", "add", "activation"):
        sign = {"multiply": "×", "add": "+"}.get(kind) or NAMES[
            chain.layers[node.layer - 1].activation.name
        ]
        size = "operation" if len(sign) == 1 else "operation long"
        drop = 7 if len(sign) == 1 else 4
        shape = f'<circle class="shape" cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS}"/>' + set_text(
            sign, x, y + drop, size
        )
    else:
        shape = draw_pill(x, y, *PILL)
        shape += set_term(node.symbol, x, y + 5, "symbol", size=17)[0]
    aside = kind in ("multiply", "add")
    above = (x + 14, "start") if aside else (x, "middle")  # clear of the edge from the weight
    height = {"weight": PILL[1], "bias": PILL[1], "fold": _FOLD[1]}.get(kind, RADIUS)
    labels = set_text(value, above[0], y - height - 7, "value", anchor=above[1])
    if kind in ("multiply", "add", "activation", "fold"):
        labels += set_term(node.symbol, above[0], y - height - 24, "words", anchor=above[1])[0]
    below = (x + 10, "start") if operand else (x, "middle")
    top = y + height + 17
    if kind == "output":
        labels += set_text("start", below[0], top, "words subject", anchor=below[1])
    elif isinstance(node.symbol, (Symbol, Product)):
        subject = Partial(Symbol("p"), node.symbol)
        labels += set_term(subject, below[0], top, "words subject", anchor=below[1])[0]
    labels += set_text(gradient, below[0], top + 17, "gradient", anchor=below[1])
    name = f"{write_name(node.symbol)} {format_equal(node.value)}; "
    name += f"gradient {format_equal(node.gradient)}"
    state = "on-path" if lit else "off-path"
    return (
        f'<g class="node {kind} {state}" id="{identifier}-node-{item.id}" data-node="{item.id}" '
        f'data-factor="{" ".join(factors)}"><title>{escape(name)}</title>{shape}{labels}</g>'
    )


def draw_pill(x: float, y: float, half_width: float, half_height: float) -> str:
    """Return a box with round ends about its centre."""
    return (
        f'<rect class="shape" x="{x - half_width:.1f}" y="{y - half_height:.1f}" '
        f'width="{2 * half_width:.1f}" height="{2 * half_height:.1f}" rx="{half_height:.0f}"/>'
    )


def draw_markers(identifier: str) -> str:
    """Return the arrowheads of a document whose ids begin with `identifier`."""
    markers = (
        f'<marker id="{identifier}-arrow-{kind}" class="arrow {kind}" viewBox="0 0 10 10" '
        f'refX="1" refY="5" markerWidth="11" markerHeight="11" markerUnits="userSpaceOnUse" '
        f'orient="auto"><path d="M0 0.5L10 5L0 9.5Z"/></marker>'
        for kind, _ in _LEGEND
    )
    return f"<defs>{''.join(markers)}</defs>"


def draw_legend(kinds: set[str], width: float, output: str = "p") -> tuple[str, float, float]:
    """Return the legend with its height and the least width that it takes.

    Args:
        kinds: What the edges do, as `classify` says it.
        width: That of the graph.
        output: What the gradients are of.
    """
    items: tuple[tuple[str, str], ...] = (
        *((kind, words) for kind, words in _LEGEND if kind in kinds),
        ("value", "forward value"),
        ("gradient", f"gradient of {output}"),
    )
    parts = []
    limit = max(width - MARGIN, 420.0)
    x, y, widest = MARGIN, 18.0, 0.0
    for kind, words in items:
        size = 40 + measure_text(words, 13)
        if x > MARGIN and x + size > limit:
            x, y = MARGIN, y + 24
        if kind in ("value", "gradient"):
            sample = set_text("0.5", x, y + 4, kind, anchor="start")
        else:
            thickness = {"shrinks": 2.5, "keeps": 4.0, "grows": 5.5, "blocks": 2.0}[kind]
            sample = (
                f'<g class="edge {kind}"><path class="line" d="M{x:.0f} {y:.0f}h28" '
                f'stroke-width="{thickness}"/></g>'
            )
        parts.append(sample + set_text(words, x + 36, y + 4, "words", anchor="start"))
        x += size + 22
        widest = max(widest, x - 22)
    return "".join(parts), y + 22, widest + MARGIN


# -------------------------------------------------------------- text and style

_LIGHT = {
    "ink": "#1f2328",
    "muted": "#57606a",
    "paper": "#ffffff",
    "node": "#f3f5f8",
    "outline": "#8a94a0",
    "gradient": "#00735a",
    "shrinks": "#0067a8",
    "keeps": "#6b7580",
    "grows": "#b84e00",
}
_DARK = {
    "ink": "#eef2f6",
    "muted": "#a3adb8",
    "paper": "#16191d",
    "node": "#252b33",
    "outline": "#78838f",
    "gradient": "#3ecf9f",
    "shrinks": "#5cb0f2",
    "keeps": "#97a2ad",
    "grows": "#ff9c4d",
}


def _declare(palette: dict[str, str]) -> str:
    return "".join(f"--{name}:var(--chain-{name},{colour});" for name, colour in palette.items())


_KINDS = "".join(
    f".chain-graph .{kind} .line{{stroke:var(--{colour})}}"
    f".chain-graph .arrow.{kind} path{{fill:var(--{colour})}}"
    f".chain-graph .{kind} .number{{fill:var(--{colour})}}"
    for kind, colour in (
        ("shrinks", "shrinks"),
        ("keeps", "keeps"),
        ("grows", "grows"),
        ("blocks", "muted"),
    )
)

STYLE = (
    f".chain-graph{{{_declare(_LIGHT)}"
    "font:13px system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',sans-serif;"
    "font-variant-numeric:tabular-nums;color-scheme:light dark}"
    f"@media (prefers-color-scheme:dark){{.chain-graph{{{_declare(_DARK)}}}}}"
    ".chain-graph .paper{fill:var(--paper)}"
    ".chain-graph text{fill:var(--ink)}"
    ".chain-graph .words{fill:var(--muted)}"
    ".chain-graph .strong{font-weight:600;fill:var(--ink)}"
    ".chain-graph .value{font-weight:600}"
    ".chain-graph .gradient{font-weight:600;fill:var(--gradient)}"
    ".chain-graph .headline{font-size:19px}"
    ".chain-graph .number{font-weight:600}"
    ".chain-graph .symbol{font-size:17px}"
    ".chain-graph .operation{font-size:21px}"
    ".chain-graph .operation.long{font-size:12px;font-weight:600}"
    ".chain-graph .v{font-family:'STIX Two Text','Cambria Math',Cambria,Georgia,'DejaVu Serif',"
    "serif;font-style:italic;font-size:1.08em}"
    ".chain-graph .i{font-size:.76em}"
    ".chain-graph .shape{fill:var(--node);stroke:var(--outline);stroke-width:1.5}"
    ".chain-graph .fold .shape{stroke-dasharray:5 4}"
    ".chain-graph .on-path .shape{stroke:var(--ink)}"
    ".chain-graph .line{fill:none}"
    ".chain-graph .reach{fill:none;stroke:transparent;stroke-width:18px}"
    ".chain-graph .blocks .line{stroke-dasharray:3 5}"
    f"{_KINDS}"
    ".chain-graph .off-path text{opacity:.8}"
    ".chain-graph .off-path .line,.chain-graph .off-path .shape{opacity:.45}"
    ".chain-graph .lit .line,.chain-graph .lit .shape,.chain-graph .lit text{opacity:1}"
    ".chain-graph .lit .shape{stroke:var(--gradient);stroke-width:3}"
    ".chain-graph .edge.lit .line{stroke:var(--gradient);filter:drop-shadow(0 0 3px currentColor)}"
    ".chain-graph .edge:focus-visible{outline:2px solid var(--gradient);outline-offset:4px}"
)
"""The style sheet of a graph."""


def write_out_style(svg: str) -> str:
    """Return a drawing with its light colours written out and in one font.

    For programs that know no variables of style sheets, and have few fonts.

    Args:
        svg: A drawing by `draw_graph` or `draw_expression`.
    """
    start, end = svg.index("<style>"), svg.index("</style>")
    style = re.sub(r"@media[^{]*\{[^{}]*\{[^{}]*\}\}", "", svg[start:end])
    style = re.sub(r"\.chain-graph \.v\{[^}]*\}", "", style)  # italics
    style = re.sub(r"--[a-z]+:var\([^()]*\);", "", style)
    style = re.sub(r"var\(--([a-z]+)\)", lambda found: _LIGHT[found[1]], style)
    return svg[:start] + style + svg[end:]


_WIDE = 7
"""Longer numbers stay small where a page writes the others larger."""

_SHIFT = 3.5
"""How far an index is lowered, in pixels at 13 px."""


def set_text(x_text: str, x: float, y: float, style: str, *, anchor: str = "middle") -> str:
    """Return a line of text; a number that takes much room has the class "wide".

    Args:
        x_text: The text.
        x: Where it is anchored.
        y: Its baseline.
        style: Its classes.
        anchor: "start", "middle" or "end".
    """
    wide = " wide" if len(x_text) > _WIDE and "words" not in style else ""
    return (
        f'<text class="{style}{wide}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escape(x_text)}</text>"
    )


def set_term(
    term: Term, x: float, y: float, style: str, *, anchor: str = "middle", size: float = 13.0
) -> tuple[str, float]:
    """Return a term as a line of text, variables in italics and indices lowered, and its width.

    Args:
        term: A symbol, a derivative, a product of symbols, a function, or a number.
        x: Where it is anchored.
        y: Its baseline.
        style: Its classes.
        anchor: "start", "middle" or "end".
        size: Its font size in pixels.
    """
    spans, width = _write_spans(term, size)
    return (
        f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{spans}</text>',
        width,
    )


@lru_cache(maxsize=2048)
def _write_spans(term: Term, size: float) -> tuple[str, float]:
    """Return the inside of a term's text and its width."""
    spans = []
    level = 0.0
    tokens = _split(term)
    for text, kind in tokens:
        target = _SHIFT * size / 13.0 if kind == "i" else 0.0
        move = f' dy="{target - level:.1f}"' if target != level else ""
        spans.append(f'<tspan class="{kind}"{move}>{escape(text)}</tspan>')
        level = target
    width = sum(measure_text(text, size * (0.76 if kind == "i" else 1.0)) for text, kind in tokens)
    return "".join(spans), width


def measure_text(text: str, size: float) -> float:
    """Return about how wide a text is in pixels.

    Args:
        text: The text.
        size: Its font size in pixels.
    """
    narrow = sum(character in " .,il|()′·⁻" for character in text)
    return size * (0.6 * len(text) - 0.28 * narrow)


def _split(term: Term) -> list[tuple[str, str]]:
    """Return the parts of a term: v for variables, i for indices, o for everything else."""
    match term:
        case Symbol(name, index):
            return [(name, "v")] + ([] if index is None else [(str(index), "i")])
        case Partial(of, by):
            below = _split(by)
            if isinstance(by, Product):
                below = [("(", "o"), *below, (")", "o")]
            return [("∂", "o"), *_split(of), ("/∂", "o"), *below]
        case Product(factors):
            parts = [part for factor in factors for part in (("·", "o"), *_split(factor))]
            return parts[1:]
        case Apply(function, (argument,)):
            return [(function, "o"), ("(", "o"), *_split(argument), (")", "o")]
        case _:
            return [(render_text(term), "o")]
