"""`ScalarGraph`: any scalar expression, with every local derivative that backpropagation uses.

References:
    Griewank & Walther 2008, "Evaluating Derivatives", ch. 3, for the reverse mode; Bauer 1974, for
    the gradient as a sum over paths; Olah 2015, "Calculus on Computational Graphs".
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from types import MappingProxyType
from typing import Any, Self

from chainrule.chain.expressions import Program, parse_program
from chainrule.chain.graph_drawing import draw_expression
from chainrule.chain.network import Edge, Factor, Node
from chainrule.chain.notation import format_equal, render_text
from chainrule.chain.operations import OPERATIONS, Operation, UndefinedError
from chainrule.chain.paths import MAX_PATHS, Link, PathSum, find_paths, find_way
from chainrule.chain.terms import Number, Partial, Symbol, Term
from chainrule.chain.wide_float import ONE, ZERO, WideFloat
from chainrule.errors import SpecError, suggest

MAX_LISTED = 1000
"""Most paths that can be asked for."""


@dataclass(frozen=True, repr=False)
class ScalarGraph:
    """A scalar expression as a graph: variables, numbers and operations, equal parts once.

    `parse` makes one from text. It knows all forward values, the local derivative on every edge,
    and the gradient of the output by each of its variables: factored, as reverse mode computes it,
    and as a sum over paths. No tensor library is involved, and nothing is ever evaluated as code.

    Attributes:
        program: What it computes, step by step.
        numbers: The values of its variables, in the order of `variables`.

    Raises:
        SpecError: On construction, where an operation has no value or no derivative.

    Example:
        >>> graph = ScalarGraph.parse("x + sigmoid(w*x)", {"x": 0.5, "w": 1.2})
        >>> graph, graph.gradient("x"), graph.find_paths("x").count
        (ScalarGraph(p = x + σ(w · x) ≈ 1.15, 5 nodes), 1.27, 2)
    """

    program: Program
    numbers: tuple[float, ...]

    def __post_init__(self) -> None:
        self._links  # noqa: B018  (what has no value or no derivative is refused here)

    @classmethod
    def parse(
        cls, text: str, values: Mapping[str, float] | None = None, *, default: float | None = None
    ) -> Self:
        """Return the graph of an expression.

        Names, numbers, + − × ÷ **, brackets, the activations of the table `ACTIVATIONS`, exp, log,
        abs, max and min of two. A name given to a part is used like a variable:
        "h = tanh(w*x); h*h", divided by ";" or line breaks. Equal parts are one node.

        Args:
            text: The expression; at most 2000 characters and 200 nodes.
            values: A number for each variable.
            default: The value of variables that `values` does not name; `None` if it must name all.

        Raises:
            SpecError: If the text is no such expression, a value is missing or not finite, or an
                operation has no value or no derivative there; says where.

        Example:
            >>> ScalarGraph.parse("h = tanh(w*x); h*h", {"x": 1, "w": 0.5}).gradient("w")
            0.727
        """
        program = parse_program(text)
        given = dict(values or {})
        known = program.variables
        for name in given:
            if name not in known:
                said = suggest(str(name), known)
                raise SpecError(f"values: unknown {name!r:.60}; no such name in it. {said}")
        if default is not None:
            given = dict.fromkeys(known, default) | given
        missing = [name for name in known if name not in given]
        if missing:
            raise SpecError(
                f"values: must give a number for each of {', '.join(known)}; "
                f"got none for {', '.join(missing)}. For example {{{missing[0]!r}: 1.0}}."
            )
        return cls(program, tuple(check_number(name, given[name]) for name in known))

    def __repr__(self) -> str:
        shown = [render_text(self.root.symbol)]
        if self.program.statements and len(self.program.text) <= 60:
            shown.append(render_text(self.program.statements[-1][1]))
        equal = " = ".join(dict.fromkeys(shown))
        return f"ScalarGraph({equal} {format_equal(self.output)}, {len(self.nodes)} nodes)"

    def _repr_svg_(self) -> str:
        """What a notebook shows: the graph with the derivative by its first variable."""
        return draw_expression(self, identifier=f"graph-{hash(self) & 0xFFFFFFFF:x}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.program, self.numbers)

    @property
    def variables(self) -> tuple[str, ...]:
        """The names that the output can be differentiated by, in the order of the text."""
        return self.program.variables

    @property
    def values(self) -> Mapping[str, float]:
        """The value of every variable by name."""
        return MappingProxyType(dict(zip(self.variables, self.numbers, strict=True)))

    @property
    def root(self) -> Node:
        """The node of the result."""
        return self.nodes[self._root]

    @property
    def output(self) -> WideFloat:
        """The result, whatever its size."""
        return self._forward[self._root]

    def replace(self, **values: float) -> Self:
        """Return the graph with other values of some of its variables.

        Args:
            values: The new values by name.

        Raises:
            SpecError: If there is no such variable, or the value is not possible.

        Example:
            >>> ScalarGraph.parse("x*x", {"x": 3}).replace(x=5).gradient("x")
            10
        """
        for name in values:
            self._find_variable(name)
        given = {**self.values, **values}
        return type(self)(
            self.program, tuple(check_number(name, given[name]) for name in self.variables)
        )

    def gradient(self, wrt: str) -> WideFloat:
        """Return the derivative of the output by a variable, as reverse mode computes it.

        Args:
            wrt: A variable.

        Raises:
            SpecError: If there is no such variable.

        Example:
            >>> ScalarGraph.parse("x*x", {"x": 3}).gradient("x")
            6
        """
        return self.nodes[self._find_variable(wrt)].gradient

    def find_paths(self, wrt: str, *, limit: int = MAX_PATHS) -> PathSum:
        """Return the same derivative as a sum over paths, the largest ones listed.

        Args:
            wrt: A variable.
            limit: How many paths to list at most; all are counted.

        Raises:
            SpecError: If there is no such variable.

        Example:
            >>> ScalarGraph.parse("x*x", {"x": 3}).find_paths("x")
            PathSum(2 paths from p to x = 3 + 3)
        """
        leaf = self._find_variable(wrt)
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LISTED:
            raise SpecError(f"limit: must be a whole number from 1 to {MAX_LISTED}; got {limit!r}.")
        symbols = _as_symbol(self.root.symbol), _as_symbol(self.nodes[leaf].symbol)
        return find_paths(self._links, (self._root, leaf), symbols, limit)

    def factors(self, wrt: str) -> tuple[Factor, ...]:
        """Return the local derivatives on all paths from the output to a variable, output first.

        A chain's are all the factors of its one product.

        Args:
            wrt: A variable.

        Raises:
            SpecError: If there is no such variable.

        Example:
            >>> ScalarGraph.parse("w*tanh(x)", {"w": 2, "x": 0}).factors("x")
            (Factor(∂p/∂u₁ = w = 2), Factor(∂u₁/∂x = 1 − u₁² = 1))
        """
        way = find_way(self._links, self._root, self._find_variable(wrt))
        return tuple(link.factor for link in way)

    @property
    def kinks(self) -> tuple[str, ...]:
        """What to say where an operation has two derivatives and one of them was chosen."""
        values = self._forward
        said = (
            OPERATIONS[step.kind].find_kink([values[each] for each in step.operands])
            for step in self.program.steps
            if step.operands
        )
        return tuple(dict.fromkeys(text for text in said if text))

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """The edges that a gradient passes, operands before results.

        What computes with numbers only has none.
        """
        steps = self.program.steps
        return tuple(
            Edge(
                id=link.factor.id,
                source=steps[link.source].id,
                target=steps[link.target].id,
                layer=link.factor.layer,
                derivative=link.factor.prime,
                value=link.factor.exact,
                factors=(link.factor.id,),
            )
            for link in self._links
        )

    @cached_property
    def derivatives(self) -> Mapping[str, Factor]:
        """The local derivative of every edge by the edge's id."""
        return MappingProxyType({link.factor.id: link.factor for link in self._links})

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes, operands before results, each with the gradient of the output by it."""
        gradients = [ZERO] * len(self.program.steps)
        gradients[self._root] = ONE
        for link in reversed(self._links):
            step = gradients[link.target] * link.factor.exact
            gradients[link.source] = gradients[link.source] + step
        return tuple(
            Node(
                id=step.id,
                kind=step.kind,
                layer=layer,
                symbol=step.symbol,
                value=value,
                gradient=gradient,
            )
            for step, layer, value, gradient in zip(
                self.program.steps, self._layers, self._forward, gradients, strict=True
            )
        )

    def define(self, name: str) -> Term | None:
        """Return the formula of an operation in terms of its operands, `None` for a leaf.

        Args:
            name: Id of its node.
        """
        step = self.program.steps[self._places[name]]
        if not step.operands:
            return None
        symbols = [self.program.steps[each].symbol for each in step.operands]
        return OPERATIONS[step.kind].write(symbols)

    def describe(self, name: str) -> str:
        """Return what a node is, in plain text: u₁ = w · x, or its symbol for a leaf.

        Args:
            name: Id of the node.
        """
        formula = self.define(name)
        symbol = render_text(self.program.steps[self._places[name]].symbol)
        return symbol if formula is None else f"{symbol} = {render_text(formula)}"

    def list_operands(self, name: str) -> tuple[str, ...]:
        """Return the ids of the operands of a node, in order.

        Args:
            name: Id of the node.
        """
        steps = self.program.steps
        return tuple(steps[each].id for each in steps[self._places[name]].operands)

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return MappingProxyType({step.id: at for at, step in enumerate(self.program.steps)})

    @property
    def _root(self) -> int:
        return len(self.program.steps) - 1

    @cached_property
    def _forward(self) -> tuple[WideFloat, ...]:
        """The value of every step."""
        given = dict(zip(self.variables, self.numbers, strict=True))
        values: list[WideFloat] = []
        for step in self.program.steps:
            if isinstance(step.symbol, Number):
                values.append(step.symbol.value)
            elif not step.operands:
                values.append(WideFloat.from_float(given[step.id]))
            else:
                operands = [values[each] for each in step.operands]
                operation = OPERATIONS[step.kind]
                try:
                    self._check_size(operation, operands)
                    values.append(operation.compute(operands))
                except UndefinedError as error:
                    raise self._explain(error, len(values), values) from None
        return tuple(values)

    @cached_property
    def _layers(self) -> tuple[int, ...]:
        """Of every step the most operations on a way to it from a leaf."""
        layers: list[int] = []
        for step in self.program.steps:
            layers.append(1 + max((layers[each] for each in step.operands), default=-1))
        return tuple(layers)

    @cached_property
    def _links(self) -> tuple[Link, ...]:
        """Every edge that a gradient passes, operands before results."""
        values, steps = self._forward, self.program.steps
        active: list[bool] = []
        found = []
        for target, step in enumerate(steps):
            active.append(step.kind == "variable" or any(active[each] for each in step.operands))
            operands = [values[each] for each in step.operands]
            for place, source in enumerate(step.operands):
                if not active[source]:
                    continue
                try:
                    value = OPERATIONS[step.kind].differentiate(place, operands, values[target])
                except UndefinedError as error:
                    raise self._explain(error, target, values) from None
                found.append(Link(source, target, self._build_factor(target, place, value)))
        return tuple(found)

    def _build_factor(self, target: int, place: int, value: WideFloat) -> Factor:
        steps = self.program.steps
        step = steps[target]
        operation = OPERATIONS[step.kind]
        source = steps[step.operands[place]]
        again = step.operands.count(step.operands[place]) > 1
        symbols = [steps[each].symbol for each in step.operands]
        values = [self._forward[each] for each in step.operands]
        formula = operation.write_slope(place, symbols, step.symbol, values)
        name = f"{source.id}-{step.id}{f'-{place + 1}' if again and place else ''}"
        of, by = _as_symbol(step.symbol), _as_symbol(source.symbol)
        return Factor(
            id=name,
            kind=step.kind,
            layer=self._layers[target],
            edges=(name,),
            partial=Partial(of, by, place + 1 if again else 0),
            formula=formula,
            prime=operation.write_short(symbols[0]) if operation.write_short else formula,
            exact=value,
        )

    def _check_size(self, operation: Operation, operands: Sequence[WideFloat]) -> None:
        largest, place = self.program.largest, operation.bounded
        if place is not None and operands[place].exponent > largest:
            most = WideFloat(0.5, largest + 1)
            raise UndefinedError(f"what {operation.name} is given must be below {most} in size")

    def _find_variable(self, name: str) -> int:
        """Return the position of a variable."""
        if name in self.variables:
            return self._places[name]
        raise SpecError(f"wrt: unknown {name!r:.60}. {suggest(str(name), self.variables)}")

    def _explain(
        self, error: UndefinedError, target: int, values: Sequence[WideFloat]
    ) -> SpecError:
        """Return the error that says where an operation is not defined, and at which values."""
        step = self.program.steps[target]
        formula = self.define(step.id)
        shown = ", ".join(
            f"{render_text(self.program.steps[each].symbol)} {format_equal(values[each])}"
            for each in dict.fromkeys(step.operands)
            if self.program.steps[each].kind != "number"
        )
        came = f"{render_text(formula)}{f' with {shown}' if shown else ''}" if formula else "none"
        return SpecError(
            f"expression, character {step.at + 1}: {error.must}; got {came}. "
            f"Change the values of {', '.join(self.variables)}, or the expression."
        )


def check_number(name: str, value: object) -> float:
    """Return a finite number as a float.

    Args:
        name: What it is, for the error.
        value: What came.

    Raises:
        SpecError: If it is no finite number.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise SpecError(f"{name}: must be a number; got {value!r:.60}.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise SpecError(f"{name}: must be a finite number; got {value!r:.60}.")
    return number


def _as_symbol(symbol: Symbol | Number | Term) -> Symbol:
    """Return the symbol of a node that has one: every node but a number."""
    assert isinstance(symbol, Symbol)
    return symbol
