"""`derive_expression`: one gradient of a scalar graph worked out, as a sum over paths and factored.

The sum over paths: the derivative to expand, then one more intermediate value in each line, until
there is one product of local derivatives for each path; their formulas; their numbers; each path's
product; the value. Factored, as reverse mode computes it: one equation per node, output first.

Whole derivatives are written with d, as dp/dx; local ones, of a single operation with its other
operands held fixed, with ∂.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape

from chainrule._utils.numbers import format_share
from chainrule.chain.derivation import (
    KEPT_EXPANSIONS,
    MAX_EXPANSIONS,
    Relation,
    describe_beyond,
    skip_hidden,
)
from chainrule.chain.network import Factor
from chainrule.chain.notation import (
    NUMERIC,
    Piece,
    align_mathml,
    format_equal,
    join_latex,
    name_relation,
    render_latex,
    render_mathml,
    render_text,
    split_text,
    stack_latex,
    wrap_groups,
    wrap_mathml,
    write_math,
    write_name,
)
from chainrule.chain.operations import OPERATIONS
from chainrule.chain.paths import MAX_PATHS, PathSum
from chainrule.chain.scalar_graph import ScalarGraph
from chainrule.chain.terms import (
    Mark,
    Number,
    Omitted,
    Product,
    Sum,
    Symbol,
    Term,
    Total,
)
from chainrule.chain.wide_float import ONE, WideFloat
from chainrule.errors import SpecError

PLUS = ("+ ", "− ")
"""How summands after the first begin in plain text."""

SHOWN_PATHS = 6
"""Paths that are written out in a derivation unless it is asked for more."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SumLine:
    """One line of a derivation: a sum, in which each summand is a product.

    Attributes:
        kind: Which step it is: "derivative", "expansion", "product", "formulas", "numbers",
            "products" or "value".
        relation: The sign between the line before and this one; empty for the first.
        note: What the step does, in words.
        term: The sum.
        hidden: Whether a long derivation leaves it out.

    Example:
        >>> derive_expression(ScalarGraph.parse("x*x", {"x": 3}), "x").lines[1]
        SumLine(product: = ∂p/∂x⁽¹⁾ + ∂p/∂x⁽²⁾)
    """

    kind: str
    relation: Relation
    note: str
    term: Term
    hidden: bool = False

    def __repr__(self) -> str:
        return f"SumLine({self.kind}: {self.to_text()})"

    def to_text(self) -> str:
        """Return the line in Unicode plain text, relation sign first."""
        write = render_text if self.kind in NUMERIC else write_name
        return f"{self.relation} {write(self.term)}".lstrip()

    def to_latex(self) -> str:
        """Return the line in LaTeX, without the relation sign."""
        return render_latex(self.term)

    def to_mathml(self) -> str:
        """Return the line as a math element, relation sign first; factors are marked with ids."""
        sign = f"<mo>{escape(self.relation)}</mo>" if self.relation else ""
        return wrap_mathml(sign, self.write_math())

    def write_math(self) -> str:
        """Return the right-hand side alone as MathML elements."""
        return render_mathml(self.term) if self.kind in NUMERIC else write_math(self.term)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Equation:
    """What one value is, line by line: a definition, or a node's gradient in reverse mode.

    Attributes:
        node: Id of the node.
        subject: The left-hand side.
        lines: The right-hand sides, each equal to the next.
        note: Why it is so, in words.

    Example:
        >>> derive_expression(ScalarGraph.parse("x*w", {"x": 3, "w": 2}), "x").backward[1]
        dp/dx = dp/dp · ∂p/∂x = dp/dp · w = 1 · 2 = 2
    """

    node: str
    subject: Term
    lines: tuple[SumLine, ...]
    note: str = ""

    def __repr__(self) -> str:
        return " ".join((write_name(self.subject), *(line.to_text() for line in self.lines)))

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The right-hand sides in plain text in pieces, each with the sign before it."""
        found = []
        for line in self.lines:
            first, *rest = split_text(line.term)
            found += [Piece(f"{line.relation} {first.text}", first.factors), *rest]
        return tuple(found)

    def to_latex(self) -> str:
        """Return it in LaTeX, in one line."""
        return join_latex(
            render_latex(self.subject), [(line.relation, line.to_latex()) for line in self.lines]
        )

    def to_mathml(self) -> str:
        """Return it as a math element, in one line."""
        sides = (f"<mo>{escape(line.relation)}</mo>{line.write_math()}" for line in self.lines)
        return wrap_mathml(write_math(self.subject), *sides)


@dataclass(frozen=True, repr=False)
class GraphDerivation:
    """The derivation of one gradient of a scalar graph.

    Attributes:
        graph: The graph.
        wrt: The variable that its output is differentiated by.
        limit: How many paths are written out; of more, half as many.

    Example:
        >>> derive_expression(ScalarGraph.parse("x + x*w", {"x": 3, "w": 2}), "x")
        GraphDerivation(dp/dx = 3, 2 paths)
    """

    graph: ScalarGraph
    wrt: str
    limit: int

    def __repr__(self) -> str:
        paths = "1 path" if self.paths.count == 1 else f"{_count(self.paths.count)} paths"
        return f"GraphDerivation({render_text(self.subject)} {format_equal(self.value)}, {paths})"

    def _repr_latex_(self) -> str:
        """What a notebook shows."""
        return f"$$\n{self.to_latex()}\n$$"

    @cached_property
    def paths(self) -> PathSum:
        """The gradient as a sum over paths, up to 64 of them listed."""
        return self.graph.find_paths(self.wrt, limit=max(self.limit, MAX_PATHS))

    @property
    def value(self) -> WideFloat:
        """The derivative, whatever its size."""
        return self.graph.gradient(self.wrt)

    @property
    def subject(self) -> Total:
        """The derivative as a term."""
        return Total(self.paths.output, self.paths.by)

    @cached_property
    def definitions(self) -> tuple[Equation, ...]:
        """What every node but the numbers is: variables first, then operations."""
        equations = []
        nodes = self.graph.nodes
        for node in nodes:
            formula = self.graph.define(node.id)
            if node.kind == "number":
                continue
            lines = [_write("value", name_relation(node.value), Number(node.value))]
            if formula is not None:
                lines.insert(0, _write("formulas", "=", formula))
            equations.append(Equation(node=node.id, subject=node.symbol, lines=tuple(lines)))
        return tuple(sorted(equations, key=lambda each: len(each.lines) > 1))

    @cached_property
    def lines(self) -> tuple[SumLine, ...]:
        """The sum over paths, line by line."""
        return (
            _write("derivative", "", self.subject, "The derivative to expand."),
            *self._expand(),
            *self._multiply(),
        )

    @cached_property
    def backward(self) -> tuple[Equation, ...]:
        """The same factored, as reverse mode computes it: every node on the way once."""
        nodes = {node.id: node for node in self.graph.nodes}
        output = self.graph.root
        one = _write("value", "=", Number(ONE))
        start = Total(self.paths.output, self.paths.output)
        equations = [Equation(node=output.id, subject=start, lines=(one,), note="The start.")]
        uses: dict[str, list[Factor]] = {}
        for factor in self.graph.factors(self.wrt):
            uses.setdefault(self._edges[factor.id][0], []).append(factor)
        order = [node.id for node in reversed(self.graph.nodes) if node.id in uses]
        for name in order:
            factors = uses[name][::-1]
            arriving = [nodes[self._edges[factor.id][1]] for factor in factors]
            equations.append(self._gather(name, factors, [each.gradient for each in arriving]))
        return tuple(equations)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What to know to read the formulas, one line of plain text each."""
        kinds = dict.fromkeys(node.kind for node in self.graph.nodes)
        found = [OPERATIONS[kind].note for kind in kinds if kind in OPERATIONS]
        first = "d is the whole derivative, along all paths; ∂ is that of one operation alone"
        doubled = [factor for factor in self.graph.derivatives.values() if factor.partial.place]
        marks = []
        if doubled:
            name = render_text(doubled[0].partial.by)
            marks = [f"{name}⁽¹⁾ and {name}⁽²⁾ are the two operands of one operation"]
        return (first, *marks, *dict.fromkeys(note for note in found if note))

    def describe_range(self) -> str | None:
        """Return what to know where the value is beyond float64, else `None`."""
        if self.value.range == "normal":
            return None
        return describe_beyond(render_text(self.subject), self.value)

    def describe_paths(self) -> str:
        """Return how many paths there are, how many are not listed, and whether they cancel."""
        paths = self.paths
        if paths.count == 1:
            return "1 path: the gradient is one product."
        said = f"{_count(paths.count)} paths"
        if paths.omitted:
            said += f", of which the largest {len(paths.paths)} are listed"
        if paths.absolute and paths.cancellation < 0.5:
            kept = format_share(paths.cancellation) if paths.cancellation > 0.005 else "almost none"
            said += f". They partly cancel: {kept} of their sizes added up is left"
        return f"{said}."

    def describe_cost(self) -> str:
        """Return how many multiplications the two ways of calculating it take, in words."""
        by_path, factored = self.paths.multiplications, self.paths.factored
        if by_path == factored:
            return f"Multiplications: {_count(by_path)} path by path, as many with each node once."
        return (
            f"Multiplications: {_count(by_path)} path by path; {factored} with each node once, as "
            "reverse mode calculates."
        )

    def to_text(self, *, fold: bool = True, width: int | None = None) -> str:
        """Return the sum over paths in Unicode plain text.

        Args:
            fold: Whether to leave out the middle of a long expansion.
            width: Columns of the terminal, `None` for lines of any length.

        Example:
            >>> graph = ScalarGraph.parse("x + relu(w*x)", {"x": 2, "w": 3})
            >>> print(derive_expression(graph, "x").to_text())
            dp/dx = ∂p/∂x + ∂p/∂u₂ · du₂/dx
                  = ∂p/∂x + ∂p/∂u₂ · ∂u₂/∂u₁ · du₁/dx
                  = ∂p/∂x + ∂p/∂u₂ · ∂u₂/∂u₁ · ∂u₁/∂x
                  = 1 + 1 · [u₁ > 0] · w
                  = 1 + 1 · 1 · 3
                  = 1 + 3
                  = 4
        """
        rows = (
            f"{start} {' '.join(piece.text for piece in pieces)}"
            for start, pieces in self.write_rows(fold=fold, width=width)
        )
        return "\n".join(rows)

    def write_rows(
        self, *, fold: bool = True, width: int | None = None
    ) -> Iterator[tuple[str, tuple[Piece, ...]]]:
        """Yield the sum over paths row by row: what stands at its start, and its pieces.

        Args:
            fold: Whether to leave out the middle of a long expansion.
            width: Columns of the terminal, `None` for rows of any length.
        """
        left = render_text(self.subject)
        margin, hidden = " " * len(left), 0
        start = left
        for line in self.lines[1:]:
            if fold and line.hidden:
                hidden += 1
                continue
            if hidden:
                yield f"{margin} ⋮", (Piece(f"{hidden} more lines"),)
                hidden = 0
            head = f"{start} {line.relation}"
            room = None if width is None else width - len(left) - 3
            for pieces in wrap_groups(split_text(line.term), room, (PLUS,)):
                yield head, pieces
                head = f"{margin}  "
            start = margin

    def to_latex(self, *, fold: bool = True) -> str:
        """Return definitions and sum over paths as one aligned environment.

        Args:
            fold: Whether to leave out the middle of a long expansion.
        """
        left = render_latex(self.subject)
        lines = enumerate(self._render(render_latex, r"\;\vdots", fold))
        definitions = []
        for equation in self.definitions:
            first, *rest = [(line.relation, line.to_latex()) for line in equation.lines]
            right = join_latex(first[1], rest)
            definitions.append((render_latex(equation.subject), first[0], right))
        return stack_latex([*definitions, *(("" if i else left, *row) for i, row in lines)])

    def to_mathml(self, *, fold: bool = True) -> str:
        """Return the sum over paths as one math element with a row per line, factors marked.

        Args:
            fold: Whether to leave out the middle of a long expansion.
        """
        rows = [*self._render(render_mathml, "<mo>⋮</mo>", fold)]
        return align_mathml(render_mathml(self.subject), rows)

    # ------------------------------------------------------------------ inside

    def _render(
        self, render: Callable[[Term], str], dots: str, fold: bool
    ) -> Iterator[tuple[str, str]]:
        for line in skip_hidden(self.lines[1:], fold=fold):
            yield ("=", dots) if line is None else (line.relation, render(line.term))

    @cached_property
    def _edges(self) -> dict[str, tuple[str, str]]:
        """Source and target of every edge."""
        return {edge.id: (edge.source, edge.target) for edge in self.graph.edges}

    @cached_property
    def _listed(self) -> tuple[tuple[Factor, ...], ...]:
        """The paths that are written out: in the order of the operands if they are all."""
        if self.paths.count > self.limit:
            return tuple(path.factors for path in self.paths.paths[: max(self.limit // 2, 1)])
        return tuple(self._walk(self.graph.root.id))

    def _walk(self, node: str) -> Iterator[tuple[Factor, ...]]:
        """Yield all paths from a node down to the variable."""
        if node == self.wrt:
            yield ()
        for factor in self._below.get(node, ()):
            for rest in self._walk(self._edges[factor.id][0]):
                yield (factor, *rest)

    @cached_property
    def _below(self) -> dict[str, list[Factor]]:
        """The edges on the way by the node that they leave downwards."""
        below: dict[str, list[Factor]] = {}
        for factor in reversed(self.graph.factors(self.wrt)):
            below.setdefault(self._edges[factor.id][1], []).append(factor)
        return below

    def _expand(self) -> Iterator[SumLine]:
        """Yield lines in which one more value each is expanded into its operands.

        Expanded are all the values at the end of a product, from the output downwards.
        """
        if self.paths.count > self.limit:
            return
        places = {node.id: place for place, node in enumerate(self.graph.nodes)}
        symbols = {node.id: node.symbol for node in self.graph.nodes}
        sums: list[tuple[tuple[Factor, ...], str]] = [((), self.graph.root.id)]
        lines: list[tuple[str, list[tuple[tuple[Factor, ...], str]]]] = []
        while True:
            ends = {end for _, end in sums} - {self.wrt}
            if not ends:
                break
            node = max(ends, key=places.__getitem__)
            sums = [
                each
                for head, end in sums
                for each in (
                    [((*head, f), self._edges[f.id][0]) for f in self._below[end]]
                    if end == node
                    else [(head, end)]
                )
            ]
            lines.append((node, sums))
        for number, (node, found) in enumerate(lines[:-1], 1):  # the last one is "product"
            name = render_text(symbols[node])
            by = render_text(self.paths.by)
            operands = dict.fromkeys(render_text(f.partial.by) for f in self._below[node])
            ways = ["directly" if each == by else f"through {each}" for each in operands]
            summands = [
                [*(Mark((f.id,), f.partial) for f in head), *self._write_pending(end, symbols)]
                for head, end in found
            ]
            yield _write(
                "expansion",
                "=",
                _add(summands),
                f"{name} depends on {by} {' and '.join(ways)}.",
                hidden=len(lines) - 1 > MAX_EXPANSIONS and number > KEPT_EXPANSIONS,
            )

    def _write_pending(self, end: str, symbols: dict[str, Term]) -> list[Mark]:
        """Return the derivative that is still to be expanded, if it is any."""
        if end == self.wrt:
            return []
        symbol = symbols[end]
        assert isinstance(symbol, Symbol)
        names = tuple(factor.id for path in self._walk(end) for factor in path)
        return [Mark(tuple(dict.fromkeys(names)), Total(symbol, self.paths.by))]

    def _multiply(self) -> Iterator[SumLine]:
        """Yield the lines from one product per path to the value."""
        paths = self._listed
        omitted = self.paths.count - len(paths)
        rest = self._sum_omitted(len(paths))
        factors = {factor.id: factor for path in paths for factor in path}.values()
        exact = all(factor.exact.reads_exactly for factor in factors)
        exact = exact and (not omitted or rest.reads_exactly)
        products = [self._multiply_out(path) for path in paths]
        whole = exact and all(product.reads_exactly for product in products)
        more = [[Omitted(omitted)]] if omitted else []
        more_value = [[Omitted(omitted, rest)]] if omitted else []
        if factors:
            yield _write(
                "product",
                "=",
                _add([*([Mark((f.id,), f.partial) for f in path] for path in paths), *more]),
                "One product for each path, every factor a local derivative."
                if self.paths.count > 1
                else "Every factor is a local derivative now: nothing is left to expand.",
            )
            yield _write(
                "formulas",
                "=",
                _add([*([Mark((f.id,), f.formula) for f in path] for path in paths), *more]),
                "Each local derivative by its formula.",
            )
            yield _write(
                "numbers",
                "=" if exact else "≈",
                _add(
                    [
                        *([Mark((f.id,), Number(f.exact)) for f in path] for path in paths),
                        *more_value,
                    ]
                ),
                "The numbers of this graph.",
            )
        if self.paths.count > 1 and any(len(path) > 1 for path in paths):
            summands = [
                [Mark(tuple(f.id for f in path), Number(product))]
                for path, product in zip(paths, products, strict=True)
            ]
            yield _write(
                "products",
                "=" if whole else "≈",
                _add([*summands, *more_value]),
                "What each path brings.",
            )
        names = tuple(factor.id for factor in factors)
        value = Number(self.value)
        yield _write(
            "value",
            "=" if whole and self.value.reads_exactly else "≈",
            Mark(names, value) if names else value,
            "The gradient.",
        )

    def _sum_omitted(self, listed: int) -> WideFloat:
        """Return the sum over the paths that are not written out."""
        rest = self.paths.rest
        if self.paths.count > listed:
            for path in self.paths.paths[listed:]:
                rest = rest + path.product
        return rest

    def _multiply_out(self, path: Sequence[Factor]) -> WideFloat:
        product = ONE
        for factor in path:
            product = product * factor.exact
        return product

    def _gather(
        self, name: str, factors: Sequence[Factor], arriving: Sequence[WideFloat]
    ) -> Equation:
        """Return a node's gradient: what arrives from each of its uses, times a derivative."""
        output = self.paths.output
        node = next(node for node in self.graph.nodes if node.id == name)
        assert isinstance(node.symbol, Symbol)
        above = [Total(output, factor.partial.of) for factor in factors]
        rows = list(zip(factors, above, arriving, strict=True))
        exact = all(f.exact.reads_exactly and each.reads_exactly for f, _, each in rows)
        lines = [
            _write("product", "=", _add([[d, Mark((f.id,), f.partial)] for f, d, _ in rows])),
            _write("formulas", "=", _add([[d, Mark((f.id,), f.formula)] for f, d, _ in rows])),
            _write(
                "numbers",
                "=" if exact else "≈",
                _add([[Number(each), Mark((f.id,), Number(f.exact))] for f, _, each in rows]),
            ),
            _write(
                "value",
                "=" if exact and node.gradient.reads_exactly else "≈",
                Number(node.gradient),
            ),
        ]
        symbol = render_text(node.symbol)
        count = len(factors)
        note = (
            f"{symbol} is used {count} times: the sum of what comes back from each use."
            if count > 1
            else f"{symbol} is used once: what comes back, times the local derivative."
        )
        return Equation(
            node=name, subject=Total(output, node.symbol), lines=tuple(lines), note=note
        )


def derive_expression(
    graph: ScalarGraph, wrt: str | None = None, *, limit: int = SHOWN_PATHS
) -> GraphDerivation:
    """Return the derivation of one gradient of a scalar graph.

    Args:
        graph: The graph.
        wrt: A variable of the graph; `None` for its first one.
        limit: How many paths to write out; of more, the largest, and half as many.

    Raises:
        SpecError: If there is no such variable, or the limit is not from 1 to 64.

    Example:
        >>> derive_expression(ScalarGraph.parse("x*x", {"x": 3})).value
        6
    """
    name = graph.variables[0] if wrt is None else wrt
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_PATHS:
        raise SpecError(f"limit: must be a whole number from 1 to {MAX_PATHS}; got {limit!r}.")
    graph.gradient(name)
    return GraphDerivation(graph, name, limit)


def _write(
    kind: str, relation: Relation, term: Term, note: str = "", *, hidden: bool = False
) -> SumLine:
    return SumLine(kind=kind, relation=relation, note=note, term=term, hidden=hidden)


def _add(summands: Sequence[Sequence[Term]]) -> Term:
    """Return the sum of products; a negative number is subtracted."""
    terms = [
        Product(tuple(factors)) if len(factors) > 1 else factors[0] if factors else Number(ONE)
        for factors in summands
    ]
    total, *rest = terms
    for term in rest:
        match term:
            case Mark(names, Number(value)) if value.sign < 0:
                total = Sum(total, "−", Mark(names, Number(-value)))
            case _:
                total = Sum(total, "+", term)
    return total


def _count(number: int) -> str:
    """Return a number of things: with all its digits, unless nobody would read them."""
    return str(number) if number < 10**9 else str(WideFloat.from_ratio(number))
