"""A derivation in a terminal: as wide as the terminal, its factors coloured by what they do.

A long product is folded to as many factors as fit; what still does not fit goes on below, under the
sign "=".
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from chainrule.chain.derivation import KEPT_FACTORS, MAX_LAYERS_LISTED, Derivation, Line
from chainrule.chain.drawing import classify
from chainrule.chain.notation import format_equal, render_text
from chainrule.chain.recurrence import Recurrence
from chainrule.chain.terms import Fold, Mark, Product, Term

STYLES: Mapping[str, str] = MappingProxyType(
    {"shrinks": "bright_blue", "grows": "yellow", "blocks": "red"}
)
"""Colours by effect, as the bars of a layer table have them; what keeps a gradient has none."""

_DOT = " · "


def print_equation(
    console: Console,
    derivation: Derivation,
    recurrence: Recurrence | None = None,
    *,
    fold: bool = True,
) -> None:
    """Print what the symbols mean, the forward pass, and the derivation line by line.

    Args:
        console: Where to print; its width is kept.
        derivation: The derivation.
        recurrence: With a tied weight, the recurrent network whose product is printed, too.
        fold: Whether to leave out the middle of what is long.

    Example:
        >>> from chainrule.chain import ScalarChain, derive
        >>> derivation = derive(ScalarChain(1.0, [2.0, 0.5], "identity"), "w2")
        >>> print_equation(Console(width=50, color_system=None), derivation)
        h₀ = x,  zₗ = wₗhₗ₋₁,  hₗ = id(zₗ),  p = h₂
        <BLANKLINE>
        x = 1
        w₁ = 2     z₁ = 2   h₁ = 2   id′(z₁) = 1
        w₂ = 0.5   z₂ = 1   h₂ = 1   id′(z₂) = 1
        <BLANKLINE>
        ∂p/∂w₂ = ∂p/∂z₂ · ∂z₂/∂w₂
               = 1 · h₁
               = 1 · 2
               = 2
    """
    width = console.width
    for line in derivation.describe_symbols():
        for row in join_cells(line.split("  "), width, "  "):
            console.print(Text(row))
    console.print()
    for row in _lay_out_layers(derivation, width, fold):
        console.print(Text(row))
    console.print()
    for text in _lay_out_lines(derivation, width, fold):
        console.print(text, soft_wrap=True)
    if console.color_system and not console.no_color:
        console.print(explain_colours({classify(f.exact) for f in derivation.factors}))
    note = derivation.describe_range()
    if note:
        console.print()
        console.print(Text(note))
    if recurrence is not None:
        console.print()
        _print_recurrence(console, recurrence)


def _lay_out_layers(derivation: Derivation, width: int, fold: bool) -> Iterator[str]:
    """Yield the values of the forward pass in columns, as many beside each other as fit."""
    chain = derivation.chain
    rows: list[tuple[str, ...]] = [
        tuple(
            f"{name} {format_equal(value)}"
            for name, value in layer.list_values(biased=chain.biases is not None)
        )
        for layer in chain.layers
    ]
    half = MAX_LAYERS_LISTED // 4
    if fold and len(rows) > MAX_LAYERS_LISTED:
        rows[half:-half] = [(f"⋯ {len(rows) - 2 * half} layers ⋯",)]
    rows.insert(0, (f"x {format_equal(chain.layers[0].input)}",))
    filled = [row for row in rows if len(row) > 1]
    sizes = [max(map(cell_len, column)) for column in zip(*filled, strict=True)]
    gap = 3 if sum(sizes) + 3 * (len(sizes) - 1) <= width else 2
    for row in rows:
        if len(row) == 1:
            yield row[0]
            continue
        cells = [
            text + " " * (size - cell_len(text)) for text, size in zip(row, sizes, strict=True)
        ]
        yield from join_cells(cells, width, " " * gap)


def join_cells(cells: Sequence[str], width: int, gap: str) -> Iterator[str]:
    """Yield cells beside each other in rows that fit; rows after the first are indented.

    Args:
        cells: The cells.
        width: Columns of the terminal.
        gap: What stands between two of them.
    """
    row = ""
    for cell in cells:
        if row and cell_len(row) + len(gap) + cell_len(cell.rstrip()) > width:
            yield row.rstrip()
            row = f"  {cell}"
        else:
            row = f"{row}{gap}{cell}" if row else cell
    yield row.rstrip()


def _lay_out_lines(derivation: Derivation, width: int, fold: bool) -> Iterator[Text]:
    """Yield the lines of a derivation, each as one text that may hold line breaks."""
    effects = {factor.id: classify(factor.exact) for factor in derivation.factors}
    left = render_text(derivation.subject)
    margin = " " * cell_len(left)
    hidden, first = 0, True
    for line in derivation.lines[1:]:
        if fold and line.hidden:
            hidden += 1
            continue
        if hidden:
            more = "1 more line" if hidden == 1 else f"{hidden} more lines, each"
            yield Text(f"{margin} ⋮ {more} with one variable more", style="dim")
            hidden = 0
        head = f"{left if first else margin} {line.relation} "
        first = False
        yield _hang(head, _choose(line, width - cell_len(head), fold), width, effects)


def _choose(line: Line, width: int, fold: bool) -> Term:
    """Return the line with as many of its factors as fit; a short one is whole at any width."""
    if not fold or not line.folds:
        return line.full
    terms = [line.fold(kept) for kept in range(KEPT_FACTORS, 0, -1)]
    return next((term for term in terms if cell_len(render_text(term)) <= width), terms[-1])


def _hang(head: str, term: Term, width: int, effects: Mapping[str, str]) -> Text:
    """Return a line of which what does not fit goes on below, each row with a factor's dot."""
    text = Text(head)
    used, indent = cell_len(head), cell_len(head)
    factors = term.factors if isinstance(term, Product) and not term.tight else (term,)
    for number, factor in enumerate(factors):
        shown = render_text(Product((factor,))) if len(factors) > 1 else render_text(factor)
        size = cell_len(shown)
        if number and used + len(_DOT) + size > width:
            text.append(f"\n{' ' * (indent - 2)}· ")
            used = indent
        elif number:
            text.append(_DOT)
            used += len(_DOT)
        text.append(shown, style=_get_style(factor, effects))
        used += size
    return text


def _get_style(term: Term, effects: Mapping[str, str]) -> str:
    match term:
        case Fold():
            return "dim"
        case Mark(names, _) if len(names) == 1:
            return STYLES.get(effects.get(names[0], ""), "")
        case _:
            return ""


def explain_colours(effects: Collection[str]) -> Text:
    """Return what the colours mean that occur.

    Args:
        effects: What the factors do, as `classify` says it.
    """
    words = {
        "shrinks": "shrinks the gradient",
        "grows": "grows the gradient",
        "blocks": "stops the gradient",
    }
    shown = [(text, STYLES[effect]) for effect, text in words.items() if effect in effects]
    return Text(", ").join(Text(text, style=style) for text, style in shown)


def _print_recurrence(console: Console, recurrence: Recurrence) -> None:
    """Print the product through time with its weight taken out, and what clipping does."""
    left = render_text(recurrence.subject)
    product, numbers, _ = recurrence.write_lines()
    last = recurrence.steps[-1]
    signs = recurrence.list_signs()
    margin = " " * cell_len(left)
    console.print(Text("The same weight in every step, w₁ = w₂ = … = w:"))
    for head, term in ((f"{left} = ", product), (f"{margin} {signs[0]} ", numbers)):
        console.print(_hang(head, term, console.width, {}), soft_wrap=True)
    console.print(Text(f"{margin} {signs[1]} {last.product}"))
    console.print(Text(f"∂p/∂w, the sum over all steps, is {recurrence.gradient}."))
    if recurrence.clip is not None:
        factor = str(recurrence.clip_factor)
        clipped = f"Clipped to {recurrence.clipped_gradient} (× {factor}). "
        console.print(Text(f"{clipped if factor != '1' else ''}{recurrence.clipping}"))
