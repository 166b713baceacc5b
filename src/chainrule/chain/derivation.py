"""`derive`: the gradient of a scalar chain worked out line by line, as in a textbook.

The lines are (i) the derivative to expand, (ii…) one more intermediate variable in each, until
(iii) the product of all local derivatives; (iv) their formulas; (v) their numbers; (vi) the value.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from textwrap import wrap
from typing import Literal, Protocol, TypeVar

from chainrule.chain.network import Factor
from chainrule.chain.notation import (
    NUMERIC,
    Piece,
    align_latex,
    align_mathml,
    format_equal,
    render_latex,
    render_mathml,
    render_text,
    split_text,
    wrap_mathml,
    wrap_pieces,
    write_math,
    write_name,
)
from chainrule.chain.scalar_chain import ScalarChain
from chainrule.chain.terms import NAMES, NOTES, Fold, Mark, Number, Partial, Product, Term
from chainrule.chain.wide_float import LONGEST_POWER, WideFloat, multiply
from chainrule.errors import SpecError

MAX_FACTORS = 8
"""A longer product shows only its ends."""

KEPT_FACTORS = 3
"""Factors that stay at each end of a folded product."""

MAX_EXPANSIONS = 6
"""With more lines of expansion than this, only the first ones are shown."""

KEPT_EXPANSIONS = 3

MAX_LAYERS_LISTED = 12
"""Of a longer forward pass only both ends are listed."""

Order = Literal["backward", "forward"]
Relation = Literal["", "=", "≈"]
LineKind = Literal["derivative", "expansion", "product", "formulas", "numbers", "value"]


class Hideable(Protocol):
    """A line that a long derivation may leave out."""

    @property
    def hidden(self) -> bool:
        """Whether it is one of these."""


AnyLine = TypeVar("AnyLine", bound=Hideable)


def skip_hidden(lines: Sequence[AnyLine], *, fold: bool) -> Iterator[AnyLine | None]:
    """Yield lines without the hidden ones, and `None` for each run of these that others follow."""
    skipped = False
    for line in lines:
        if fold and line.hidden:
            skipped = True
            continue
        if skipped:
            yield None
        skipped = False
        yield line


@dataclass(frozen=True, kw_only=True, repr=False)
class Line:
    """One line of a derivation.

    Attributes:
        number: Its number, from 1.
        kind: Which step it is.
        relation: The sign between the line before and this one; empty for the first.
        note: What the step does, in words.
        hidden: Whether it is left out of the folded derivation.

    Example:
        >>> derive(ScalarChain(1.0, [0.5])).lines[1]
        Line(2, product: = ∂p/∂z₁ · ∂z₁/∂w₁)
    """

    number: int
    kind: LineKind
    relation: Relation
    note: str
    hidden: bool = False
    _build: Callable[[], tuple[Mark, ...]] = field(compare=False)

    def __repr__(self) -> str:
        return f"Line({self.number}, {self.kind}: {self.to_text()})"

    @property
    def count(self) -> int:
        """How many factors are written in full."""
        return len(self._marks)

    @cached_property
    def _marks(self) -> tuple[Mark, ...]:
        return self._build()

    @property
    def folds(self) -> bool:
        """Whether its folded form differs from its full one."""
        return self.count > MAX_FACTORS

    @property
    def full(self) -> Term:
        """The line with every factor."""
        marks = self._marks
        return marks[0] if len(marks) == 1 else Product(marks)

    @property
    def folded(self) -> Term:
        """The line with the middle of a long product folded into "⋯ k factors ⋯"."""
        return self.fold(KEPT_FACTORS) if self.folds else self.full

    def fold(self, kept: int) -> Term:
        """Return the line with only some factors at each end, the others folded.

        Args:
            kept: Factors at each end that stay.
        """
        marks = self._marks
        middle = marks[kept:-kept]
        if not middle:
            return self.full
        numbers = [mark.term.value for mark in middle if isinstance(mark.term, Number)]
        value = multiply(numbers) if len(numbers) == len(middle) else None
        return Product((*marks[:kept], Fold(middle, value), *marks[-kept:]))

    def get_term(self, *, fold: bool = True) -> Term:
        """Return the folded or the full line.

        Args:
            fold: Whether to fold the middle of a long product.
        """
        return self.folded if fold else self.full

    def to_text(self, *, fold: bool = True) -> str:
        """Return the line in Unicode plain text, relation sign first.

        Args:
            fold: Whether to fold the middle of a long product.
        """
        write = write_name if self._stays(fold=fold) else render_text
        return f"{self.relation} {write(self.get_term(fold=fold))}".lstrip()

    def to_latex(self, *, fold: bool = True) -> str:
        """Return the line in LaTeX, without the relation sign.

        Args:
            fold: Whether to fold the middle of a long product.
        """
        return render_latex(self.get_term(fold=fold))

    def to_mathml(self, *, fold: bool = True) -> str:
        """Return the line as a math element, relation sign first.

        Every factor is an element of class "factor" with its id in the attribute `data-factor`.

        Args:
            fold: Whether to fold the middle of a long product.
        """
        sign = f"<mo>{escape(self.relation)}</mo>" if self.relation else ""
        write = write_math if self._stays(fold=fold) else render_mathml
        return wrap_mathml(sign, write(self.get_term(fold=fold)))

    def _stays(self, *, fold: bool) -> bool:
        """Whether its text is short and holds no numbers, so that it is worth remembering."""
        return self.kind not in NUMERIC and (fold or not self.folds)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a derivation in plain text.

    Attributes:
        start: The left-hand side and the relation sign, or as many spaces.
        pieces: The factors that follow, each with the sign before it.
    """

    start: str
    pieces: tuple[Piece, ...]

    def __str__(self) -> str:
        return f"{self.start} {' '.join(piece.text for piece in self.pieces)}"


@dataclass(frozen=True, repr=False)
class Derivation:
    """The derivation of one gradient of a scalar chain.

    Attributes:
        chain: The chain.
        wrt: The variable that p is differentiated by.
        order: "backward" writes factors from output to input, "forward" from input to output.

    Example:
        >>> derive(ScalarChain(1.0, [0.5, -2.0]))
        Derivation(∂p/∂w₁ ≈ −0.0816, 4 factors, backward)
    """

    chain: ScalarChain
    wrt: str
    order: Order

    def __repr__(self) -> str:
        value = f"{render_text(self.subject)} {format_equal(self.value)}"
        return f"Derivation({value}, {len(self.factors)} factors, {self.order})"

    def _repr_latex_(self) -> str:
        """What a notebook shows."""
        return f"$$\n{self.to_latex()}\n$$"

    @cached_property
    def factors(self) -> tuple[Factor, ...]:
        """The factors in the order in which they are written."""
        factors = self.chain.factors(self.wrt)
        return factors if self.order == "backward" else factors[::-1]

    @cached_property
    def value(self) -> WideFloat:
        """∂p/∂wrt, whatever its size."""
        return self.chain.gradient(self.wrt)

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """All lines; those of a long expansion are marked as hidden."""
        return tuple(self._iterate_lines())

    @cached_property
    def subject(self) -> Partial:
        """∂p/∂wrt as a term."""
        first, last = self.factors[:: len(self.factors) - 1][:2]
        if self.order == "forward":
            first, last = last, first
        return Partial(first.partial.of, last.partial.by)

    def to_text(self, *, fold: bool = True, width: int | None = None) -> str:
        """Return the derivation in Unicode plain text.

        Args:
            fold: Whether to leave out the middle of long products and long expansions.
            width: Columns of the terminal, `None` for lines of any length.

        Example:
            >>> print(derive(ScalarChain(2.0, [3.0], "relu")).to_text())
            ∂p/∂w₁ = ∂p/∂z₁ · ∂z₁/∂w₁
                   = [z₁ > 0] · x
                   = 1 · 2
                   = 2
        """
        return "\n".join(map(str, self.write_rows(fold=fold, width=width)))

    def write_rows(self, *, fold: bool = True, width: int | None = None) -> tuple[Row, ...]:
        """Return the derivation in plain text row by row, its factors marked with their ids.

        What does not fit goes on below, under the first factor.

        Args:
            fold: Whether to leave out the middle of long products and long expansions.
            width: Columns of the terminal, `None` for rows of any length.
        """
        left = render_text(self.subject)
        margin = " " * len(left)
        rows: list[Row] = []
        hidden = 0
        room = None if width is None else width - len(left) - 3
        for line in self.lines[1:]:
            if fold and line.hidden:
                hidden += 1
                continue
            if hidden:
                note = f"{hidden} more lines, each with one variable more"
                rows.append(Row(f"{margin} ⋮", (Piece(note),)))
                hidden = 0
            start = f"{margin if rows else left} {line.relation}"
            for pieces in wrap_pieces(split_text(line.get_term(fold=fold)), room):
                rows.append(Row(start, pieces))
                start = f"{margin}  "
        return tuple(rows)

    def to_latex(self, *, fold: bool = True) -> str:
        """Return the derivation as one aligned environment; `fold` leaves out the middle."""
        left = render_latex(self.subject)
        return align_latex(left, [*self._render(render_latex, r"\;\vdots", fold)])

    def to_mathml(self, *, fold: bool = True) -> str:
        """Return the derivation as one math element with a row per line, factors marked.

        Args:
            fold: Whether to leave out the middle of long products and long expansions.
        """
        left = render_mathml(self.lines[0].full)
        return align_mathml(left, [*self._render(render_mathml, "<mo>⋮</mo>", fold)])

    def describe_symbols(self) -> tuple[str, ...]:
        """Return what the symbols mean, one line of plain text each."""
        biased = self.chain.biases is not None or self.wrt.startswith("b")
        activations = dict.fromkeys(layer.activation.name for layer in self.chain.layers)
        names = " or ".join(f"{NAMES[name]}(zₗ)" for name in activations)
        last = render_text(self.chain.nodes[-2].symbol)
        lines = [
            f"h₀ = x,  zₗ = wₗhₗ₋₁{' + bₗ' if biased else ''},  hₗ = {names},  p = {last}",
            *(NOTES[name] for name in activations if name in NOTES),
        ]
        return tuple(lines)

    def describe_range(self) -> str | None:
        """Return what to know where the value is zero or beyond float64, else `None`."""
        name = render_text(self.subject)
        if not self.value:
            stops = [render_text(f.prime) for f in self.factors if not f.exact]
            return f"{name} is exactly 0, because {stops[0]} = 0."
        if self.value.range != "normal":
            return describe_beyond(name, self.value)
        beyond = [factor for factor in self.factors if factor.exact.range != "normal"]
        if not beyond:
            return None
        return describe_beyond(render_text(beyond[0].prime), beyond[0].exact)

    def _render(
        self, render: Callable[[Term], str], dots: str, fold: bool
    ) -> Iterator[tuple[str, str]]:
        for line in skip_hidden(self.lines[1:], fold=fold):
            yield ("=", dots) if line is None else (line.relation, render(line.get_term(fold=fold)))

    def _iterate_lines(self) -> Iterator[Line]:
        factors = self.factors
        name = render_text(self.subject.by)
        yield self._write("derivative", "", "The derivative to expand.", lambda: self._expand(0), 1)
        count = len(factors) - 2
        for expanded in range(1, count + 1):
            yield Line(
                number=expanded + 1,
                kind="expansion",
                relation="=",
                note=self._explain_expansion(expanded, name),
                hidden=count > MAX_EXPANSIONS and expanded > KEPT_EXPANSIONS,
                _build=lambda expanded=expanded: self._expand(expanded),  # type: ignore[misc]
            )
        exact = all(factor.exact.reads_exactly for factor in factors)
        steps: tuple[tuple[LineKind, bool, str, Callable[[], tuple[Mark, ...]]], ...] = (
            (
                "product",
                True,
                "Every factor is a local derivative now: nothing is left to expand.",
                lambda: self._expand(len(factors) - 1),
            ),
            (
                "formulas",
                True,
                "Each local derivative by its formula.",
                lambda: tuple(Mark((f.id,), f.formula) for f in factors),
            ),
            (
                "numbers",
                exact,
                "The numbers of this network.",
                lambda: tuple(Mark((f.id,), Number(f.exact)) for f in factors),
            ),
            (
                "value",
                exact and self.value.reads_exactly,
                "The gradient.",
                lambda: (Mark(tuple(f.id for f in factors), Number(self.value)),),
            ),
        )
        for offset, (kind, equal, note, build) in enumerate(steps):
            sign: Relation = "=" if equal else "≈"
            yield self._write(kind, sign, note, build, count + 2 + offset)

    def _write(
        self,
        kind: LineKind,
        relation: Relation,
        note: str,
        build: Callable[[], tuple[Mark, ...]],
        number: int,
    ) -> Line:
        return Line(number=number, kind=kind, relation=relation, note=note, _build=build)

    def _expand(self, expanded: int) -> tuple[Mark, ...]:
        """Return the first factors as local derivatives and the rest as one derivative."""
        marks = [Mark((factor.id,), factor.partial) for factor in self.factors[:expanded]]
        rest = self.factors[expanded:]
        subject = self.subject
        pending = (
            Partial(rest[0].partial.of, subject.by)
            if self.order == "backward"
            else Partial(subject.of, rest[0].partial.by)
        )
        return (*marks, Mark(tuple(factor.id for factor in rest), pending))

    def _explain_expansion(self, expanded: int, name: str) -> str:
        before = self.factors[expanded - 1].partial
        if self.order == "backward":
            return f"{write_name(before.of)} depends on {name} through {write_name(before.by)}."
        return f"{write_name(before.by)} reaches p through {write_name(before.of)}."


def derive(chain: ScalarChain, wrt: str = "w1", *, order: Order = "backward") -> Derivation:
    """Return the derivation of ∂p/∂wrt, line by line.

    Args:
        chain: The chain.
        wrt: A variable of the chain: "x", "w1" … or "b1" ….
        order: "backward" writes factors from output to input, as the backward pass multiplies
            them; "forward" from input to output.

    Raises:
        SpecError: If there is no such variable or order.

    Example:
        >>> derive(ScalarChain(1.0, [0.5, -2.0])).value
        −0.0816
    """
    if order not in ("backward", "forward"):
        raise SpecError(f"order: must be 'backward' or 'forward'; got {order!r}.")
    chain.factors(wrt)
    return Derivation(chain, wrt, order)


def summarize_derivation(
    derivation: Derivation, *, fold: bool = True, width: int | None = None
) -> str:
    """Return what the symbols mean, the forward pass, the derivation, and what became of its value.

    Args:
        derivation: The derivation.
        fold: Whether to leave out the middle of what is long.
        width: Columns of the terminal, `None` for lines of any length.

    Example:
        >>> print(summarize_derivation(derive(ScalarChain(2.0, [3.0], "relu"))).splitlines()[3])
        x = 2
    """
    note = derivation.describe_range()
    paragraphs = [
        [row for text in derivation.describe_symbols() for row in _fill(text, width)],
        list(_list_layers(derivation, fold, width)),
        [derivation.to_text(fold=fold, width=width)],
        *([_fill(note, width)] if note else []),
    ]
    return "\n\n".join("\n".join(rows) for rows in paragraphs)


def _fill(text: str, width: int | None) -> list[str]:
    if width is None:
        return [text]
    return wrap(text, max(width, 20), subsequent_indent="  ", break_long_words=False)


def _list_layers(derivation: Derivation, fold: bool, width: int | None) -> Iterator[str]:
    layers = derivation.chain.layers
    yield f"x {format_equal(layers[0].input)}"
    half = MAX_LAYERS_LISTED // 4
    biased = derivation.chain.biases is not None
    rows = [
        [f"{name} {format_equal(value)}" for name, value in layer.list_values(biased=biased)]
        for layer in layers
    ]
    if fold and len(rows) > MAX_LAYERS_LISTED:
        rows[half:-half] = []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        if len(rows) < len(layers) and number == half:
            yield f"⋯ {len(layers) - len(rows)} layers ⋯"
        cells = [Piece(text.ljust(size + 2)) for text, size in zip(row, widths, strict=True)]
        for i, pieces in enumerate(wrap_pieces(cells, None if width is None else width - 2)):
            yield f"{'  ' if i else ''}{' '.join(piece.text for piece in pieces)}".rstrip()


def describe_beyond(name: str, value: WideFloat) -> str:
    """Return what float64 would show for a number beyond its range, and its real size.

    Args:
        name: What the number is.
        value: The number.
    """
    verb = {"underflow": "underflows", "overflow": "overflows"}[value.range]
    power = value.split()[1] or 0
    log = f"{value.log10:.1f}".replace("-", "−")
    if abs(power) >= LONGEST_POWER:
        log = str(WideFloat.from_ratio(power))
    return (
        f"{name} {verb} float64, which would show {format_seen(float(value))}. "
        f"Here it is kept: log₁₀|{name}| ≈ {log}."
    )


def format_seen(value: float) -> str:
    """Return what float64 shows in place of a number beyond its range: 0, ∞, −∞, 4.9·10⁻³²⁴."""
    if value in (float("inf"), float("-inf")):
        return "∞" if value > 0 else "−∞"
    return str(WideFloat.from_float(value))
