"""Terms as plain text, LaTeX and MathML: one tree, three renderers."""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from typing import Literal

from chainrule._utils.numbers import MINUS, to_subscript, to_superscript
from chainrule.chain.terms import (
    Apply,
    Condition,
    Fold,
    Gain,
    Mark,
    Negative,
    Number,
    Omitted,
    Partial,
    Power,
    Product,
    Quotient,
    Sum,
    Symbol,
    Term,
    Total,
)
from chainrule.chain.wide_float import LONGEST_POWER, WideFloat

MATHML = "http://www.w3.org/1998/Math/MathML"

_LATEX_SYMBOLS = {
    "σ": r"\sigma",
    "Φ": r"\Phi",
    "φ": r"\varphi",
    "λ": r"\lambda",
    "α": r"\alpha",
    "min": r"\min",
    "max": r"\max",
    "tanh": r"\tanh",
    "exp": r"\exp",
    "log": r"\log",
}
_PLACES = ("", "⁽¹⁾", "⁽²⁾")
"""Marks of the first and the second of two equal operands."""

_REMEMBERED = {"names": 2048, "math": 512}
"""How many terms' text and MathML is remembered; the longest of a page takes 60 KB."""

NUMERIC = frozenset({"numbers", "products", "value"})
"""Kinds of lines that change with every number, so that nothing of them is remembered."""

_LATEX_RELATIONS = {">": ">", "≤": r"\le", "≈": r"\approx", "=": "="}


def _needs_brackets(term: Term) -> bool:
    """Return whether a term must stand in brackets inside a product."""
    match term:
        case Mark(_, inner):
            return _needs_brackets(inner)
        case Sum() | Negative():
            return True
        case Number(value):
            return value.sign < 0
        case _:
            return False


def _needs_brackets_below(term: Term) -> bool:
    """Return whether a term must stand in brackets below a slanted line."""
    return isinstance(term, (Product, Quotient)) or _needs_brackets(term)


def _needs_brackets_as_base(term: Term) -> bool:
    """Return whether a term must stand in brackets under an exponent."""
    return isinstance(term, Power) or _needs_brackets_below(term)


def _is_long_number(term: Term) -> bool:
    return isinstance(term, Number) and (term.value.sign < 0 or term.value.split()[1] is not None)


def describe_fold(fold: Fold) -> str:
    """Return how many factors are folded, in words."""
    count = len(fold.hidden)
    return f"{count} factor{'s' if count > 1 else ''}"


def describe_omitted(omitted: Omitted) -> str:
    """Return how many paths are left out, in words."""
    if omitted.count > 10**15:  # nobody reads more digits
        return f"{WideFloat.from_ratio(omitted.count)} more paths"
    return f"{omitted.count} more path{'s' if omitted.count > 1 else ''}"


# ------------------------------------------------------------------ plain text


def format_equal(value: WideFloat) -> str:
    """Return a number after its sign: "= 0.25", or "≈ 0.235" where the digits are not all of it."""
    return f"{name_relation(value)} {value}"


def name_relation(value: WideFloat) -> Literal["=", "≈"]:
    """Return the sign between a number and the digits that people read."""
    return "=" if value.reads_exactly else "≈"


@lru_cache(maxsize=_REMEMBERED["names"])
def write_name(term: Term) -> str:
    """Return a term without numbers of its own in plain text; it is remembered.

    A name, a derivative or a formula stays the same while the numbers of a page change, and is
    written several times. What holds numbers is better written anew, with `render_text`.
    """
    return render_text(term)


def render_text(term: Term) -> str:  # noqa: PLR0911, PLR0912  (one return per kind of term)
    """Return a term in Unicode plain text."""
    match term:
        case Number(value):
            return str(value)
        case Symbol(name, index):
            return name if index is None else name + to_subscript(index)
        case Partial(of, by):
            below = render_text(by)
            below = below if isinstance(by, Symbol) else f"({below})"
            return f"∂{render_text(of)}/∂{below}{_PLACES[term.place]}"
        case Total(of, by):
            return f"d{render_text(of)}/d{render_text(by)}"
        case Gain(above, below):
            return "/".join(f"‖∂𝓛/∂{render_text(by)}‖" for by in (above, below))
        case Product(factors, tight):
            texts = [_bracket_text(factor) for factor in factors]
            return ("" if tight else " · ").join(texts)
        case Sum(left, sign, right):
            return f"{render_text(left)} {sign} {_bracket_text(right)}"
        case Negative(inner):
            return f"{MINUS}{_bracket_text(inner)}"
        case Quotient(above, low):
            return f"{_bracket_text(above)}/{_bracket_text_below(low)}"
        case Power(base, Number(value)) if value.split()[1] is None and float(value).is_integer():
            return f"{_bracket_text_base(base)}{to_superscript(int(float(value)))}"
        case Power(base, exponent):
            text = render_text(exponent)
            simple = isinstance(exponent, (Symbol, Condition)) or text.replace(".", "").isdigit()
            return f"{_bracket_text_base(base)}^{text if simple else f'({text})'}"
        case Apply(function, arguments):
            return f"{function}({', '.join(map(render_text, arguments))})"
        case Condition(left, relation, right):
            return f"[{render_text(left)} {relation} {render_text(right)}]"
        case Mark(_, inner):
            return render_text(inner)
        case Fold(_, value):
            known = "" if value is None else f" {format_equal(value)}"
            return f"⋯ {describe_fold(term)}{known} ⋯"
        case Omitted(_, value):
            known = "" if value is None else f" {format_equal(value)}"
            return f"⋯ {describe_omitted(term)}{known} ⋯"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a line of plain text that is not broken: a factor with the sign before it.

    Attributes:
        text: The text.
        factors: Ids of the factors that it stands for.
    """

    text: str
    factors: tuple[str, ...] = ()


def split_text(term: Term) -> tuple[Piece, ...]:
    """Return a line in plain text in pieces; joined by spaces they are `render_text(term)`."""
    match term:
        case Product(factors, False):
            return tuple(
                Piece(
                    f"{'· ' if i else ''}{_bracket_text(factor)}",
                    factor.factors if isinstance(factor, (Mark, Fold)) else (),
                )
                for i, factor in enumerate(factors)
            )
        case Sum(left, sign, right):
            first, *rest = (
                split_text(right)
                if isinstance(right, Product)
                else (
                    Piece(_bracket_text(right), right.factors if isinstance(right, Mark) else ()),
                )
            )
            return (*split_text(left), Piece(f"{sign} {first.text}", first.factors), *rest)
        case _:
            return (Piece(render_text(term), term.factors if isinstance(term, Mark) else ()),)


def wrap_pieces(pieces: Sequence[Piece], width: int | None) -> Iterator[tuple[Piece, ...]]:
    """Yield the pieces row by row.

    Args:
        pieces: The pieces of a line.
        width: The most characters of a row, `None` for a single row. A longer piece has its own.
    """
    row: list[Piece] = []
    used = 0
    for piece in pieces:
        if row and width is not None and used + 1 + len(piece.text) > width:
            yield tuple(row)
            row, used = [], 0
        row.append(piece)
        used += len(piece.text) + (len(row) > 1)
    yield tuple(row)


def wrap_groups(
    pieces: Sequence[Piece], width: int | None, signs: Sequence[tuple[str, ...]]
) -> Iterator[tuple[Piece, ...]]:
    """Yield the pieces row by row, broken where it reads best: before certain signs.

    Args:
        pieces: The pieces of a line.
        width: The most characters of a row, `None` for a single row.
        signs: What begins a part that stays together: the largest parts first, as = before +.
    """
    if not signs or width is None:
        yield from wrap_pieces(pieces, width)
        return
    groups: list[list[Piece]] = []
    for piece in pieces:
        if not groups or piece.text.startswith(signs[0]):
            groups.append([])
        groups[-1].append(piece)
    row: list[Piece] = []
    for group in groups:
        if row and _measure([*row, *group]) > width:
            yield tuple(row)
            row = []
        if _measure(group) > width:
            yield from wrap_groups(group, width, signs[1:])
        else:
            row += group
    if row:
        yield tuple(row)


def _measure(pieces: Sequence[Piece]) -> int:
    return sum(len(piece.text) + 1 for piece in pieces) - 1


def _bracket_text(term: Term) -> str:
    text = render_text(term)
    return f"({text})" if _needs_brackets(term) else text


def _bracket_text_below(term: Term) -> str:
    text = render_text(term)
    return f"({text})" if _needs_brackets_below(term) else text


def _bracket_text_base(term: Term) -> str:
    text = render_text(term)
    return f"({text})" if _needs_brackets_as_base(term) else text


# ----------------------------------------------------------------------- LaTeX


def _latex_number(value: WideFloat) -> str:
    digits, power = value.split()
    if power is not None and abs(power) > LONGEST_POWER:
        sign = "-" if value.sign < 0 else ""
        return rf"{sign}10^{{{_latex_number(WideFloat.from_ratio(power))}}}"
    digits = digits.replace(MINUS, "-")
    return digits if power is None else rf"{digits} \cdot 10^{{{power}}}"


def _latex_name(name: str) -> str:
    stem, prime = (name[:-1], "'") if name.endswith("′") else (name, "")
    if known := _LATEX_SYMBOLS.get(stem):
        return known + prime
    if len(stem) > 1:
        escaped = stem.replace("_", r"\_")
        return rf"\mathrm{{{escaped}}}{prime}"
    if "α" <= stem <= "ω":
        return "\\" + unicodedata.name(stem).rpartition(" ")[2].lower() + prime
    return stem + prime


def _latex_index(index: int) -> str:
    return f"_{index}" if 0 <= index < 10 else f"_{{{index}}}"


def render_latex(term: Term) -> str:  # noqa: PLR0911, PLR0912  (one return per kind of term)
    """Return a term in LaTeX."""
    match term:
        case Number(value):
            return _latex_number(value)
        case Symbol(name, index):
            return _latex_name(name) + ("" if index is None else _latex_index(index))
        case Partial(of, by):
            below = render_latex(by) if isinstance(by, Symbol) else f"({render_latex(by)})"
            place = rf"^{{({term.place})}}" if term.place else ""
            return rf"\frac{{\partial {render_latex(of)}}}{{\partial {below}{place}}}"
        case Total(of, by):
            return rf"\frac{{\mathrm{{d}} {render_latex(of)}}}{{\mathrm{{d}} {render_latex(by)}}}"
        case Gain(above, below):
            return rf"\frac{{{_latex_norm(above)}}}{{{_latex_norm(below)}}}"
        case Product(factors, tight):
            texts = [_bracket_latex(factor) for factor in factors]
            return (r"\," if tight else r" \cdot ").join(texts)
        case Sum(left, sign, right):
            mark = "-" if sign == MINUS else sign
            return f"{render_latex(left)} {mark} {_bracket_latex(right)}"
        case Negative(inner):
            return f"-{_bracket_latex(inner)}"
        case Quotient(above, low):
            return rf"\frac{{{render_latex(above)}}}{{{render_latex(low)}}}"
        case Power(base, exponent):
            long = _is_long_number(base) or _needs_brackets_as_base(base)
            text = rf"\left({render_latex(base)}\right)" if long else render_latex(base)
            return f"{text}^{{{render_latex(exponent)}}}"
        case Apply(function, arguments):
            return f"{_latex_name(function)}({', '.join(map(render_latex, arguments))})"
        case Condition(left, relation, right):
            return f"[{render_latex(left)} {_LATEX_RELATIONS[relation]} {render_latex(right)}]"
        case Mark(_, inner):
            return render_latex(inner)
        case Fold(_, value):
            known = ""
            if value is not None:
                equal = _LATEX_RELATIONS[name_relation(value)]
                known = rf"\;{equal}\;{_latex_number(value)}"
            words = rf"\text{{{describe_fold(term)}}}{known}"
            return rf"\underbrace{{\cdots}}_{{{words}}}"
        case Omitted(_, value):
            known = ""
            if value is not None:
                equal = _LATEX_RELATIONS[name_relation(value)]
                known = rf"\;{equal}\;{_latex_number(value)}"
            return rf"\underbrace{{\cdots}}_{{\text{{{describe_omitted(term)}}}{known}}}"


def _latex_norm(by: Symbol) -> str:
    return rf"\lVert\partial\mathcal{{L}}/\partial {render_latex(by)}\rVert"


def _bracket_latex(term: Term) -> str:
    text = render_latex(term)
    return f"({text})" if _needs_brackets(term) else text


def align_latex(left: str, rows: Sequence[tuple[str, str]]) -> str:
    """Return an aligned environment.

    Args:
        left: LaTeX of the left-hand side, written once.
        rows: Relation sign and LaTeX of the right-hand side of each line.
    """
    return stack_latex([("" if i else left, *row) for i, row in enumerate(rows)])


def join_latex(left: str, sides: Sequence[tuple[str, str]]) -> str:
    """Return an equation in one line.

    Args:
        left: LaTeX of its left-hand side.
        sides: Relation sign and LaTeX of each side that follows.
    """
    return " ".join((left, *(f"{_LATEX_RELATIONS[sign]} {latex}" for sign, latex in sides)))


def stack_latex(rows: Sequence[tuple[str, str, str]]) -> str:
    """Return an aligned environment of equations.

    Args:
        rows: Left-hand side, relation sign, and right-hand side of each, in LaTeX but for the sign.
    """
    body = " \\\\\n".join(
        f"  {f'{left} ' if left else ''}&{_LATEX_RELATIONS[sign]} {latex}"
        for left, sign, latex in rows
    )
    return f"\\begin{{aligned}}\n{body}\n\\end{{aligned}}"


# ---------------------------------------------------------------------- MathML


def _mrow(*parts: str, attributes: str = "") -> str:
    return f"<mrow{attributes}>{''.join(parts)}</mrow>"


def _mo(sign: str, attributes: str = "") -> str:
    return f"<mo{attributes}>{escape(sign)}</mo>"


def _mathml_number(value: WideFloat) -> str:
    digits, power = value.split()
    if power is not None and abs(power) > LONGEST_POWER:
        inner = _mathml_number(WideFloat.from_ratio(power))
        minus = _mo(MINUS, ' form="prefix"') if value.sign < 0 else ""
        return f"{minus}<msup><mn>10</mn>{_mrow(inner)}</msup>"
    negative = digits.startswith(MINUS)
    text = f"<mn>{digits.removeprefix(MINUS)}</mn>"
    if power is not None:
        sign = _mo(MINUS, ' form="prefix"') if power < 0 else ""
        raised = f"<msup><mn>10</mn>{_mrow(sign, f'<mn>{abs(power)}</mn>')}</msup>"
        text = f"{text}{_mo('·')}{raised}"
    prefix = _mo(MINUS, ' form="prefix"') if negative else ""
    return _mrow(prefix, text) if negative or power is not None else text


def _mathml_name(name: str) -> str:
    stem = name.removesuffix("′")
    text = f"<mi>{stem}</mi>"
    return f"<msup>{text}<mo>′</mo></msup>" if stem != name else text


def _data(factors: tuple[str, ...]) -> str:
    return f' data-factor="{escape(" ".join(factors))}"'


@lru_cache(maxsize=_REMEMBERED["math"])
def write_math(term: Term) -> str:
    """Return a term without numbers of its own as MathML; it is remembered, as by `write_name`."""
    return render_mathml(term)


def render_mathml(term: Term) -> str:  # noqa: PLR0911, PLR0912  (one return per kind of term)
    """Return a term as MathML elements, without the enclosing math element.

    Every mark becomes an element of class "factor" with its factor's id in the attribute
    `data-factor`; what stands for several has the class "factors", or "fold" where it hides them,
    and their ids separated by spaces.
    """
    match term:
        case Number(value):
            return _mathml_number(value)
        case Symbol(name, index):
            text = _mathml_name(name)
            return text if index is None else f"<msub>{text}<mn>{index}</mn></msub>"
        case Partial(of, by):
            under = render_mathml(by) if isinstance(by, Symbol) else _wrap(render_mathml(by))
            if term.place:
                under = f"<msup>{_mrow(under)}{_wrap(f'<mn>{term.place}</mn>')}</msup>"
            rows = [_mrow("<mi>∂</mi>", text) for text in (render_mathml(of), under)]
            return f"<mfrac>{''.join(rows)}</mfrac>"
        case Total(of, by):
            rows = [_mrow("<mi>d</mi>", render_mathml(each)) for each in (of, by)]
            return f"<mfrac>{''.join(rows)}</mfrac>"
        case Gain(above, low):
            return f"<mfrac>{_mathml_norm(above)}{_mathml_norm(low)}</mfrac>"
        case Product(factors, tight):
            return _mrow(_mo("\u2062" if tight else "·").join(map(_bracket_mathml, factors)))
        case Sum(left, sign, right):
            return _mrow(render_mathml(left), _mo(sign), _bracket_mathml(right))
        case Negative(negated):
            return _mrow(_mo(MINUS, ' form="prefix"'), _bracket_mathml(negated))
        case Quotient(above, low):
            return f"<mfrac>{_mrow(render_mathml(above))}{_mrow(render_mathml(low))}</mfrac>"
        case Power(base, exponent):
            long = _is_long_number(base) or _needs_brackets_as_base(base)
            text = _wrap(render_mathml(base)) if long else render_mathml(base)
            return f"<msup>{text}{_mrow(render_mathml(exponent))}</msup>"
        case Apply(function, arguments):
            inner = _mo(",").join(map(render_mathml, arguments))
            return _mrow(_mathml_name(function), _mo("\u2061"), _wrap(inner))
        case Condition(left, relation, right):
            inner = _mrow(render_mathml(left), _mo(relation), render_mathml(right))
            return _wrap(inner, "[", "]")
        case Mark(names, inner):
            kind = "factor" if len(names) == 1 else "factors"
            return _mrow(render_mathml(inner), attributes=f' class="{kind}"{_data(names)}')
        case Fold(_, value):
            parts = [_mo("⋯"), f"<mtext>{describe_fold(term)}</mtext>"]
            if value is not None:
                parts += [_mo(name_relation(value)), _mathml_number(value)]
            attributes = f' class="fold"{_data(term.factors)}'
            return _mrow(*parts, _mo("⋯"), attributes=attributes)
        case Omitted(_, value):
            parts = [_mo("⋯"), f"<mtext>{describe_omitted(term)}</mtext>"]
            if value is not None:
                parts += [_mo(name_relation(value)), _mathml_number(value)]
            return _mrow(*parts, _mo("⋯"), attributes=' class="omitted"')


def _wrap(inner: str, left: str = "(", right: str = ")") -> str:
    fences = [_mo(sign, ' stretchy="false"') for sign in (left, right)]
    return _mrow(fences[0], inner, fences[1])


def _mathml_norm(by: Symbol) -> str:
    bar = _mo("‖", ' stretchy="false"')
    inner = _mrow("<mi>∂</mi><mi>𝓛</mi>", _mo("/"), "<mi>∂</mi>", render_mathml(by))
    return _mrow(bar, inner, bar)


def _bracket_mathml(term: Term) -> str:
    """Return a term in brackets where a product needs them, inside its mark if it has one."""
    if not _needs_brackets(term):
        return render_mathml(term)
    if isinstance(term, Mark):
        kind = "factor" if len(term.factors) == 1 else "factors"
        inner = _wrap(render_mathml(term.term))
        return _mrow(inner, attributes=f' class="{kind}"{_data(term.factors)}')
    return _wrap(render_mathml(term))


def wrap_mathml(*elements: str) -> str:
    """Return elements in a math element of display style."""
    return f'<math xmlns="{MATHML}" display="block">{_mrow(*elements)}</math>'


def align_mathml(left: str, rows: Sequence[tuple[str, str]]) -> str:
    """Return a math element with one table row per line, relation signs below each other.

    Args:
        left: MathML of the left-hand side, written once.
        rows: Relation sign and MathML of the right-hand side of each line.
    """
    cell: Callable[[str, str], str] = lambda text, side: (  # noqa: E731
        f'<mtd style="text-align: {side}">{text}</mtd>'
    )
    body = "".join(
        f"<mtr>{cell('' if i else left, 'right')}{cell(_mo(sign), 'center')}"
        f"{cell(_mrow(text), 'left')}</mtr>"
        for i, (sign, text) in enumerate(rows)
    )
    return (
        f'<math xmlns="{MATHML}" display="block"><mtable displaystyle="true">{body}</mtable></math>'
    )
