"""The derivation of an expression's gradient in a terminal: along all paths, and factored."""

from collections.abc import Iterator, Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from chainrule._utils.numbers import format_share
from chainrule.chain.drawing import classify
from chainrule.chain.graph_derivation import PLUS, Equation, GraphDerivation
from chainrule.chain.notation import (
    Piece,
    format_equal,
    render_text,
    wrap_groups,
    wrap_pieces,
)
from chainrule.chain.paths import Path
from chainrule.display.equation import STYLES, explain_colours, join_cells

MOST_EQUATIONS, MOST_PATHS = 24, 8
"""Of more equations both ends are printed, of more paths the largest, unless all are asked for."""

Rows = Iterator[tuple[str, Sequence[Piece]]]


def print_expression(
    console: Console, derivation: GraphDerivation, *, everything: bool = False
) -> None:
    """Print definitions, the sum over paths line by line, each path's share, and reverse mode.

    Args:
        console: Where to print; its width is kept.
        derivation: The derivation.
        everything: Whether to print every equation and all listed paths, however many.

    Example:
        >>> from chainrule.chain import ScalarGraph, derive_expression
        >>> graph = ScalarGraph.parse("x + 3*x", {"x": 2})
        >>> console = Console(width=60, color_system=None)
        >>> print_expression(console, derive_expression(graph, "x"))
        p = x + 3 · x
        d is the whole derivative, along all paths; ∂ is that of one
          operation alone
        <BLANKLINE>
        x = 2
        u₁ = 3 · x = 6
        p  = x + u₁ = 8
        <BLANKLINE>
        dp/dx = ∂p/∂x + ∂p/∂u₁ · du₁/dx
              = ∂p/∂x + ∂p/∂u₁ · ∂u₁/∂x
              = 1 + 1 · 3
              = 1 + 1 · 3
              = 1 + 3
              = 4
        <BLANKLINE>
        2 paths.
        75 %   3   p ← u₁ ← x
        25 %   1   p ← x
        <BLANKLINE>
        Backwards, each node once:
        dp/dp  = 1
        dp/du₁ = dp/dp · ∂p/∂u₁ = dp/dp · 1 = 1 · 1 = 1
        dp/dx  = dp/du₁ · ∂u₁/∂x + dp/dp · ∂p/∂x
               = dp/du₁ · 3 + dp/dp · 1 = 1 · 3 + 1 · 1 = 4
        Multiplications: 1 path by path, as many with each node
          once.
    """
    width = console.width
    graph = derivation.graph
    effects = {name: classify(factor.exact) for name, factor in graph.derivatives.items()}
    for name, term in graph.program.statements:
        _print_rows(console, _wrap(Piece(f"{render_text(name)} = {render_text(term)}"), width), {})
    for note in derivation.notes:
        _print_lines(console, note, " ", width)
    console.print()
    values = [each for each in derivation.definitions if len(each.lines) == 1]
    _print_lines(console, "   ".join(map(repr, values)), "   ", width)
    formulas = [each for each in derivation.definitions if len(each.lines) > 1]
    for row in _list_equations(formulas, width, everything):
        _print_rows(console, row, {})
    console.print()
    _print_rows(console, derivation.write_rows(fold=not everything, width=width), effects)
    console.print()
    _print_lines(console, derivation.describe_paths(), " ", width)
    if derivation.paths.count > 1:
        _print_rows(console, _list_paths(derivation, width, everything), {})
    console.print()
    console.print(Text("Backwards, each node once:"))
    for row in _list_equations(derivation.backward, width, everything):
        _print_rows(console, row, effects)
    _print_lines(console, derivation.describe_cost(), " ", width)
    if console.color_system and not console.no_color:
        on_way = {effects[factor.id] for factor in graph.factors(derivation.wrt)}
        console.print(explain_colours(on_way))
    for said in (*graph.kinks, derivation.describe_range()):
        if said:
            console.print()
            console.print(Text(said))


def _print_lines(console: Console, text: str, gap: str, width: int) -> None:
    """Print parts of a text beside each other, each row as wide as fits."""
    for row in join_cells(text.split(gap), width, gap):
        console.print(Text(row), soft_wrap=True)


def _print_rows(console: Console, rows: Rows, effects: Mapping[str, str]) -> None:
    """Print rows of pieces, those that stand for one factor in the colour of what it does."""
    for start, pieces in rows:
        text = Text(start)
        for piece in pieces:
            name = piece.factors[0] if len(piece.factors) == 1 else ""
            text.append(" " if text else "")
            text.append(piece.text, style=STYLES.get(effects.get(name, ""), ""))
        console.print(text, soft_wrap=True)


def _wrap(piece: Piece, width: int) -> Rows:
    """Yield a text in rows that fit, broken at its spaces."""
    words = [Piece(word) for word in piece.text.split(" ")]
    for number, row in enumerate(wrap_pieces(words, width - 2)):
        yield (" " if number else ""), row


def _list_equations(equations: Sequence[Equation], width: int, everything: bool) -> Iterator[Rows]:
    """Yield equations, the signs of all below each other; of many only those at both ends."""
    names = {id(each): render_text(each.subject) for each in equations}
    size = max(map(cell_len, names.values()), default=0)
    half = MOST_EQUATIONS // 2
    folds = not everything and len(equations) > MOST_EQUATIONS
    shown = [*equations[:half], *equations[-half:]] if folds else equations
    for number, equation in enumerate(shown):
        if folds and number == half:
            yield iter([(f"⋯ {len(equations) - len(shown)} more ⋯", ())])
        yield _hang(equation, names[id(equation)], size, width)


def _hang(equation: Equation, name: str, size: int, width: int) -> Rows:
    """Yield an equation in rows; where it is too long, it goes on below its first sign."""
    start = name + " " * (size - cell_len(name))
    for row in wrap_groups(equation.pieces, width - size - 1, (("= ", "≈ "), PLUS)):
        yield start, row
        start = " " * size


def _list_paths(derivation: GraphDerivation, width: int, everything: bool) -> Rows:
    """Yield a row per path: its share, its product and its nodes."""
    paths = derivation.paths
    shown = paths.paths if everything else paths.paths[:MOST_PATHS]
    left, share = paths.rest, paths.rest_share
    for path in paths.paths[len(shown) :]:
        left, share = left + path.product, share + path.share
    products = [str(path.product) for path in shown]
    size = max(map(cell_len, products))
    for path, product in zip(shown, products, strict=True):
        head = f"{_format_share(path.share)}   {' ' * (size - cell_len(product))}{product}  "
        for row in wrap_pieces(_list_stops(path), width - cell_len(head) - 1):
            yield head, row
            head = " " * cell_len(head)
    if hidden := paths.count - len(shown):
        words = f"{hidden if hidden < 10**15 else 'all'} other paths, together {format_equal(left)}"
        yield _format_share(share), (Piece(f"  {words}"),)


def _list_stops(path: Path) -> list[Piece]:
    first, *rest = path.way.split(" ← ")
    return [Piece(first), *(Piece(f"← {each}") for each in rest)]


def _format_share(share: float) -> str:
    """Return a share in percent, four characters wide."""
    return "<1 %" if 0 < share < 0.005 else f"{format_share(share):>4}"
