"""Expressions to begin with: each shows one thing about gradients that a chain does not."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from chainrule.chain.scalar_graph import ScalarGraph
from chainrule.errors import SpecError, suggest


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """An expression with values.

    Attributes:
        name: Its short name.
        label: Its name for people.
        text: The expression.
        values: A value for each of its variables.
        wrt: The variable whose gradient shows what it is for.
        sentence: What to see in it.

    Example:
        >>> EXPRESSIONS["square"].build().gradient("x")
        6
    """

    name: str
    label: str
    text: str
    values: Mapping[str, float]
    wrt: str
    sentence: str

    def build(self, **values: float) -> ScalarGraph:
        """Return its graph.

        Args:
            values: Other values of some of its variables.

        Raises:
            SpecError: If there is no such variable, or its value is not possible.
        """
        return ScalarGraph.parse(self.text, {**self.values, **values})


_TABLE = (
    Expression(
        name="chain",
        label="Chain",
        text="h1 = sigmoid(w1*x); h2 = sigmoid(w2*h1); sigmoid(w3*h2)",
        values={"x": 1.0, "w1": 0.5, "w2": -2.0, "w3": 1.5},
        wrt="w1",
        sentence="One path: the gradient is one product, and one small factor is enough to make it "
        "small.",
    ),
    Expression(
        name="residual",
        label="Residual connections",
        text="h = x + tanh(w1*x); h + tanh(w2*h)",
        values={"x": 0.5, "w1": 0.4, "w2": 0.3},
        wrt="x",
        sentence="Each sum doubles the paths, and one of them has only factors of 1: whatever the "
        "weights, it brings the gradient back whole.",
    ),
    Expression(
        name="tied",
        label="Tied weights (a recurrent network of three steps)",
        text="h1 = tanh(w*x); h2 = tanh(w*h1); tanh(w*h2)",
        values={"x": 0.5, "w": 1.2},
        wrt="w",
        sentence="One weight is used three times: one path for each use, and the earliest use has "
        "the longest product.",
    ),
    Expression(
        name="product",
        label="Product",
        text="f = sigmoid(a*x); g = tanh(b*x); f*g",
        values={"x": 0.5, "a": 1.2, "b": -0.7},
        wrt="x",
        sentence="Two paths, one through each factor: their sum is the product rule, f′g + fg′.",
    ),
    Expression(
        name="square",
        label="Square",
        text="x*x",
        values={"x": 3.0},
        wrt="x",
        sentence="x is both operands of one product: two paths of one edge each, so 2x.",
    ),
    Expression(
        name="softmax",
        label="Softmax of two",
        text="e1 = exp(z1); e2 = exp(z2); e1/(e1 + e2)",
        values={"z1": 0.5, "z2": 1.2},
        wrt="z1",
        sentence="The paths through numerator and denominator have opposite signs: together they "
        "are p(1 − p).",
    ),
)

EXPRESSIONS: Mapping[str, Expression] = MappingProxyType({entry.name: entry for entry in _TABLE})
"""Every expression to begin with by its short name, in the order in which to show them."""


def get_expression(name: str) -> Expression:
    """Return the expression of a short name.

    Args:
        name: The name.

    Raises:
        SpecError: If there is none; the message lists all.

    Example:
        >>> get_expression("tied").build().find_paths("w").count
        3
    """
    try:
        return EXPRESSIONS[name.lower()]
    except KeyError:
        raise SpecError(f"preset: unknown {name!r:.60}. {suggest(name, EXPRESSIONS)}") from None
