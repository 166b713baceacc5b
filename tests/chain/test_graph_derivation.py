"""The derivation of an expression's gradient: each line against the next in SymPy, and its text."""

import random
from functools import cache
from xml.etree import ElementTree

import pytest
import sympy

from chainrule.chain import ScalarGraph, derive_expression, get_expression
from chainrule.chain.derivation import KEPT_EXPANSIONS, MAX_EXPANSIONS
from chainrule.chain.graph_derivation import SHOWN_PATHS
from chainrule.chain.notation import render_text
from chainrule.chain.paths import MAX_PATHS
from chainrule.chain.terms import (
    Apply,
    Condition,
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
    Total,
    iterate_marks,
    write_derivative,
)
from chainrule.errors import SpecError
from chainrule.spec.activations import ACTIVATIONS
from random_expressions import draw_cases
from test_derivation import convert_formula

SYMBOLIC = ("derivative", "expansion", "product")
COUNT = 200

# ------------------------------------------------------------- textbook lines

RESIDUAL = """\
dp/dx = ∂p/∂x + ∂p/∂u₂ · du₂/dx
      = ∂p/∂x + ∂p/∂u₂ · ∂u₂/∂u₁ · du₁/dx
      = ∂p/∂x + ∂p/∂u₂ · ∂u₂/∂u₁ · ∂u₁/∂x
      = 1 + 1 · u₂(1 − u₂) · w
      ≈ 1 + 1 · 0.229 · 1.2
      ≈ 1 + 0.275
      ≈ 1.27"""

SQUARE = """\
dp/dx = ∂p/∂x⁽¹⁾ + ∂p/∂x⁽²⁾
      = x + x
      = 3 + 3
      = 6"""

QUOTIENT = """\
dp/dx = ∂p/∂x + ∂p/∂u₁ · du₁/dx
      = ∂p/∂x + ∂p/∂u₁ · ∂u₁/∂x
      = 1/u₁ + (−x/u₁²) · 2 · x
      = 0.5 + (−0.25) · 2
      = 0.5 − 0.5
      = 0"""


@pytest.mark.parametrize(
    ("text", "values", "lines"),
    [
        ("x + sigmoid(w*x)", {"x": 0.5, "w": 1.2}, RESIDUAL),
        ("x*x", {"x": 3}, SQUARE),
        ("x/(1 + x**2)", {"x": 1}, None),
        ("x", {"x": 3}, "dx/dx = 1"),
        ("x/(x**2 + 1)", {"x": 1}, None),
    ],
)
def test_textbook_lines(text, values, lines):
    derivation = derive_expression(ScalarGraph.parse(text, values), "x")
    if lines is not None:
        assert derivation.to_text() == lines
    assert derivation.to_text().splitlines()[-1].split()[-1] == str(derivation.value)


def test_lines_name_their_step():
    lines = derive_expression(get_expression("residual").build(), "x").lines
    kinds = [line.kind for line in lines]
    assert kinds == [
        "derivative",
        *["expansion"] * 5,
        "product",
        "formulas",
        "numbers",
        "products",
        "value",
    ]
    assert lines[1].note == "p depends on x through h and through u₄."
    assert lines[4].note == "h depends on x directly and through u₂."
    assert all(line.note for line in lines)


def test_definitions_come_first_and_are_true():
    derivation = derive_expression(ScalarGraph.parse("2 + tanh(w*x)", {"w": 3, "x": 0}), "w")
    assert [repr(each) for each in derivation.definitions] == [
        "w = 3",
        "x = 0",
        "u₁ = w · x = 0",
        "u₂ = tanh(u₁) = 0",
        "p = 2 + u₂ = 2",
    ]


def test_reverse_mode_line_by_line():
    derivation = derive_expression(ScalarGraph.parse("x*x + w*x", {"x": 3, "w": 2}), "x")
    assert [repr(each) for each in derivation.backward] == [
        "dp/dp = 1",
        "dp/du₂ = dp/dp · ∂p/∂u₂ = dp/dp · 1 = 1 · 1 = 1",
        "dp/du₁ = dp/dp · ∂p/∂u₁ = dp/dp · 1 = 1 · 1 = 1",
        "dp/dx = dp/du₁ · ∂u₁/∂x⁽¹⁾ + dp/du₁ · ∂u₁/∂x⁽²⁾ + dp/du₂ · ∂u₂/∂x "
        "= dp/du₁ · x + dp/du₁ · x + dp/du₂ · w = 1 · 3 + 1 · 3 + 1 · 2 = 8",
    ]
    assert "3 times" in derivation.backward[-1].note


def test_one_path_is_one_product():
    derivation = derive_expression(get_expression("chain").build(), "w1")
    assert "products" not in [line.kind for line in derivation.lines]
    assert "+" not in derivation.to_text()
    assert derivation.to_text().splitlines()[-3:] == [
        "       = p(1 − p) · w₃ · h₂(1 − h₂) · w₂ · h₁(1 − h₁) · x",
        "       ≈ 0.243 · 1.5 · 0.174 · (−2) · 0.235 · 1",
        "       ≈ −0.0298",
    ]


# --------------------------------------------------------- each line in SymPy


class Reading:
    """A graph read by SymPy: each operation a function of which only the derivatives have names.

    That the chain rule's lines are equal is then a matter of polynomials in these names; that each
    name's formula is the derivative of its operation is tested apart from it.
    """

    def __init__(self, graph):
        self.graph = graph
        self.symbols = {name: sympy.Symbol(name) for name in graph.variables}
        self.nodes = {render_text(node.symbol): node.id for node in graph.nodes}
        self.functions = {node.id: self.make_function(node.id) for node in graph.nodes}
        self.express = cache(self.express)
        self.differentiate = cache(self.differentiate)

    def make_function(self, name):
        def fdiff(self, argindex=1):
            return sympy.Symbol(f"∂{name}/{argindex}")

        return type(f"F_{name}", (sympy.Function,), {"fdiff": fdiff})

    def express(self, stop):
        """Return every node as a function of the variables, and of the node `stop`."""
        known = {}
        for node in self.graph.nodes:
            operands = [known[each] for each in self.graph.list_operands(node.id)]
            if node.id == stop:
                known[node.id] = sympy.Symbol(f"stop {stop}")
            elif node.kind == "variable":
                known[node.id] = self.symbols[node.id]
            elif node.kind == "number":
                known[node.id] = sympy.Rational(float(node.value))
            else:
                known[node.id] = self.functions[node.id](*operands)
        return known

    def convert(self, term):
        """Return a line as a polynomial in the names of local derivatives."""
        match term:
            case Mark(_, inner):
                return self.convert(inner)
            case Product(factors):
                return sympy.Mul(*map(self.convert, factors))
            case Sum(left, sign, right):
                right = self.convert(right)
                return self.convert(left) + (right if sign == "+" else -right)
            case Number(value):
                return sympy.Rational(float(value))
            case Partial(of, by, place):
                target, source = self.nodes[render_text(of)], self.nodes[render_text(by)]
                operands = self.graph.list_operands(target)
                return sympy.Symbol(f"∂{target}/{place or operands.index(source) + 1}")
            case Total(of, by):
                return self.differentiate(self.nodes[render_text(of)], self.nodes[render_text(by)])
        raise AssertionError(term)

    def differentiate(self, of, by):
        """Return a whole derivative as SymPy's chain rule gives it."""
        if of == by:
            return sympy.Integer(1)
        stop = sympy.Symbol(f"stop {by}")
        return self.express(by)[of].diff(stop)


def convert(term, values, holds):  # noqa: PLR0911
    """Return a formula in SymPy; `holds` says whether a condition does."""

    def again(inner):
        return convert(inner, values, holds)

    match term:
        case Negative(inner):
            return -again(inner)
        case Quotient(above, low):
            return again(above) / again(low)
        case Product(factors):
            return sympy.Mul(*map(again, factors))
        case Sum(left, sign, right):
            return again(left) + (again(right) if sign == "+" else -again(right))
        case Power(base, exponent):
            return again(base) ** again(exponent)
        case Apply("log" | "exp" | "sgn" as name, (inner,)):
            return getattr(sympy, "sign" if name == "sgn" else name)(again(inner))
        case Condition(Symbol() | Number() as left, ">", right) if right != Number(0):
            return sympy.Integer(holds(left, right))
        case _:
            return convert_formula(term, values)


OPERATIONS = {
    "add": sympy.Add,
    "subtract": lambda a, b: a - b,
    "multiply": sympy.Mul,
    "divide": lambda a, b: a / b,
    "power": lambda a, b: a**b,
    "negate": lambda a: -a,
    "exp": sympy.exp,
    "log": sympy.log,
    "abs": sympy.Abs,
}


def check_formulas(graph, proven):
    """Prove the formula of every local derivative in SymPy, each kind of formula once."""
    nodes = {node.id: node for node in graph.nodes}
    by_text = {render_text(node.symbol): node for node in graph.nodes}
    for edge in graph.edges:
        factor = graph.derivatives[edge.id]
        target = nodes[edge.target]
        names = graph.list_operands(target.id)
        place = (factor.partial.place or names.index(edge.source) + 1) - 1
        operands = [nodes[name] for name in names]
        larger = len(names) > 1 and operands[0].value > operands[1].value
        key = (
            target.kind,
            place,
            larger,
            tuple(
                str(each.symbol) if each.kind == "number" else each.value.sign for each in operands
            ),
            names[0] == names[-1],
        )
        if target.kind in ACTIVATIONS:  # proven in test_derivation.py
            symbol = operands[0].symbol
            assert factor.formula == write_derivative(target.kind, symbol, target.symbol)
            continue
        if key in proven or (target.kind in ("max", "min") and factor.value == 0.5):
            continue
        proven.add(key)
        dummies = [
            sympy.Rational(float(each.value))
            if each.kind == "number"
            else sympy.Symbol(f"d{i}", **{"positive" if each.value > 0 else "negative": True})
            for i, each in enumerate(operands)
        ]
        if target.kind in ("max", "min"):
            chosen = 0 if larger == (target.kind == "max") else 1
            expression = dummies[chosen]
        else:
            expression = OPERATIONS[target.kind](*dummies)
        values = {
            get_name(node.symbol): dummy
            for node, dummy in zip(operands, dummies, strict=True)
            if node.kind != "number"
        }
        values[get_name(target.symbol)] = expression
        if names[0] == names[-1] and len(names) > 1:
            continue  # one value in two places: the formula is proven where they differ
        formula = convert(
            factor.formula,
            values,
            lambda left, right: value_of(left, by_text) > value_of(right, by_text),
        )
        expected = sympy.diff(expression, dummies[place])
        assert sympy.simplify(formula - expected) == 0, (key, formula)


def get_name(symbol):
    return symbol.name + ("" if symbol.index is None else str(symbol.index))


def value_of(term, by_text):
    return term.value if isinstance(term, Number) else by_text[render_text(term)].value


@pytest.mark.slow
def test_every_line_equals_the_next():
    """Lines until the product in SymPy, their formulas in SymPy, and numbers to their digits."""
    cases, proven, expansions, several = 0, set(), 0, 0
    draw = random.Random(3)
    for text, values, _, _ in draw_cases(COUNT + 40, seed=2):
        try:
            graph = ScalarGraph.parse(text, values)
        except SpecError:
            continue
        name = draw.choice(graph.variables)
        derivation = derive_expression(graph, name, limit=MAX_PATHS)
        if derivation.paths.count > MAX_PATHS:
            continue
        cases += 1
        reading = Reading(graph)
        lines = [sympy.expand(reading.convert(each.term)) for each in take(derivation, SYMBOLIC)]
        assert len(set(lines)) == 1, (text, name, lines)
        expansions += len(lines) > 2
        several += derivation.paths.count > 1
        check_formulas(graph, proven)
        check_numbers(derivation)
        check_reverse_mode(derivation, reading)
        if cases == COUNT:
            break
    assert cases == COUNT
    assert len(proven) > 50
    assert expansions > COUNT / 2 < 2 * several


def take(derivation, kinds):
    return [line for line in derivation.lines if line.kind in kinds]


def check_numbers(derivation):
    """Formulas, numbers, products and value belong to the same factors, and multiply and add up."""
    lines = {line.kind: line for line in derivation.lines}
    if "product" not in lines:
        return
    marks = {kind: list(iterate_marks(line.term)) for kind, line in lines.items()}
    graph, size = derivation.graph, float(derivation.paths.absolute)
    for local, formula, number in zip(
        marks["product"], marks["formulas"], marks["numbers"], strict=True
    ):
        assert local.factors == formula.factors == number.factors
        factor = graph.derivatives[local.factors[0]]
        assert local.term == factor.partial
        if isinstance(factor.formula, Number):  # its sign may be that of the sum
            assert abs(formula.term.value) == abs(factor.formula.value)
        else:
            assert formula.term == factor.formula
        assert abs(number.term.value) == abs(factor.exact)
    near = pytest.approx(float(derivation.value), rel=1e-12, abs=1e-14 * size)
    for kind in ("numbers", "products", "value"):
        if kind in lines:
            assert float(add_up(lines[kind].term)) == near
    relations = [line.relation for line in derivation.lines]
    assert relations == sorted(relations, key=("", "=", "≈").index)


def add_up(term):
    match term:
        case Mark(_, inner):
            return add_up(inner)
        case Number(value) | Omitted(_, value):
            return value
        case Product(factors):
            values = list(map(add_up, factors))
            product = values[0]
            for value in values[1:]:
                product = product * value
            return product
        case Sum(left, "+", right):
            return add_up(left) + add_up(right)
        case Sum(left, "−", right):
            return add_up(left) - add_up(right)
    raise AssertionError(term)


def check_reverse_mode(derivation, reading):
    """Every node of the way has one equation, its rule is SymPy's, and its numbers add up."""
    nodes = [each.node for each in derivation.backward]
    assert len(nodes) == len(set(nodes))
    ends = {edge.id: edge for edge in derivation.graph.edges}
    way = {ends[factor.id].source for factor in derivation.graph.factors(derivation.wrt)}
    assert set(nodes) == way | {derivation.graph.root.id}
    assert nodes[-1] == derivation.wrt
    gradients = {node.id: node.gradient for node in derivation.graph.nodes}
    for equation in derivation.backward[1:]:
        rule, formulas, numbers, value = equation.lines
        left = reading.convert(equation.subject)
        assert sympy.expand(left - reading.convert(rule.term)) == 0
        for local, formula in zip(
            iterate_marks(rule.term), iterate_marks(formulas.term), strict=True
        ):
            assert formula.term == derivation.graph.derivatives[local.factors[0]].formula
        size = sum(abs(float(add_up(each))) for each in list_summands(numbers.term))
        near = pytest.approx(float(gradients[equation.node]), rel=1e-12, abs=1e-14 * size)
        assert float(add_up(numbers.term)) == near
        assert add_up(value.term) == gradients[equation.node]


def list_summands(term):
    if isinstance(term, Sum):
        return [*list_summands(term.left), *list_summands(term.right)]
    return [term]


# ------------------------------------------------------------------- rendering


def build_tower(depth):
    lines = [f"h{n} = h{n - 1} + tanh(w*h{n - 1})" for n in range(1, depth + 1)]
    return ScalarGraph.parse(";".join(["h0 = x + 0", *lines]), {"x": 0.5, "w": 0.3})


def test_of_many_paths_the_largest_are_written_and_the_rest_is_counted():
    derivation = derive_expression(build_tower(30), "x")
    kinds = [line.kind for line in derivation.lines]
    assert kinds == ["derivative", "product", "formulas", "numbers", "products", "value"]
    shown = SHOWN_PATHS // 2
    assert f"⋯ {2**30 - shown} more paths ⋯" in derivation.lines[1].to_text()
    numbers = derivation.lines[-2].term
    assert float(add_up(numbers)) == pytest.approx(float(derivation.value), rel=1e-13)
    assert len(derivation.to_text()) < 6000
    ElementTree.fromstring(derivation.to_mathml())
    assert r"\text{1073741821 more paths}" in derivation.to_latex()


def test_long_expansions_are_folded():
    chain = "; ".join(f"h{n} = tanh(h{n - 1})" if n else "h0 = tanh(x)" for n in range(12))
    derivation = derive_expression(ScalarGraph.parse(f"{chain}; h11", {"x": 1.0}), "x")
    shown = [line for line in take(derivation, ("expansion",)) if not line.hidden]
    assert len(shown) == KEPT_EXPANSIONS < MAX_EXPANSIONS < len(take(derivation, ("expansion",)))
    hidden = sum(line.hidden for line in derivation.lines)
    assert f"⋮ {hidden} more lines" in derivation.to_text()
    assert "⋮" not in derivation.to_text(fold=False)
    assert r"\vdots" in derivation.to_latex()
    assert r"\vdots" not in derivation.to_latex(fold=False)


@pytest.mark.parametrize("width", [40, 60, 80, 100])
@pytest.mark.parametrize("name", ["residual", "tied", "softmax"])
def test_text_is_as_wide_as_it_may_be(name, width):
    preset = get_expression(name)
    derivation = derive_expression(preset.build(), preset.wrt)
    text = derivation.to_text(width=width)
    assert max(map(len, text.splitlines())) <= width
    assert text.split() == derivation.to_text().split()


def test_latex_and_mathml_hold_what_the_text_does():
    derivation = derive_expression(get_expression("softmax").build(), "z1")
    latex = derivation.to_latex()
    assert r"\frac{\mathrm{d} p}{\mathrm{d} z_1} &= " in latex
    assert r"u_1 &= e_1 + e_2 \approx 4.97" in latex
    assert r"\frac{1}{u_1} \cdot e_1 + (-\frac{e_1}{u_1^{2}}) \cdot 1 \cdot e_1" in latex
    assert latex.count("&") == len(derivation.lines) - 1 + len(derivation.definitions)
    root = ElementTree.fromstring(derivation.to_mathml())
    marked = {
        name for element in root.iter() for name in (element.get("data-factor") or "").split()
    }
    assert marked == {factor.id for factor in derivation.graph.factors("z1")}
    for each in (*derivation.definitions, *derivation.backward):
        ElementTree.fromstring(each.to_mathml())


def test_greek_and_long_names_in_latex():
    graph = ScalarGraph.parse("θ*learning_rate + λ", default=1.0)
    latex = derive_expression(graph, "θ").to_latex()
    assert r"\theta \cdot \mathrm{learning\_rate}" in latex
    assert r"\lambda" in latex


def test_what_is_beyond_float64_is_said():
    graph = ScalarGraph.parse("exp(-x)**2", {"x": 1e6})
    assert "underflows float64" in derive_expression(graph, "x").describe_range()
    assert derive_expression(graph.replace(x=1.0), "x").describe_range() is None


def test_paths_and_multiplications_in_words():
    derivation = derive_expression(build_tower(30), "x")
    assert derivation.describe_paths().startswith("1.1·10⁹ paths, of which the largest 64")
    assert f"; {4 * 30 + 1 - 2} with" in derivation.describe_cost()
    one = derive_expression(get_expression("chain").build(), "w1")
    assert one.describe_paths().startswith("1 path")
    assert "5 path by path" in one.describe_cost()
    cancelling = derive_expression(ScalarGraph.parse("x - x*w", {"x": 1, "w": 0.9}), "x")
    assert "5 %" in cancelling.describe_paths()


def test_without_a_variable_it_is_the_first_one():
    graph = ScalarGraph.parse("w*x", {"w": 2, "x": 3})
    assert derive_expression(graph).wrt == "w"
    with pytest.raises(SpecError, match="wrt: unknown 'z'"):
        derive_expression(graph, "z")


@pytest.mark.parametrize("limit", [0, MAX_PATHS + 1, 1.0, True])
def test_a_limit_that_is_none(limit):
    with pytest.raises(SpecError, match=f"limit: .* 1 to {MAX_PATHS}"):
        derive_expression(ScalarGraph.parse("x", {"x": 3}), limit=limit)
