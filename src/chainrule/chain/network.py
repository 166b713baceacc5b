"""What a scalar chain is made of: layers with values, factors of its product, nodes and edges."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from chainrule._utils.numbers import to_subscript
from chainrule.chain.notation import format_equal, render_text, write_name
from chainrule.chain.terms import (
    Number,
    Partial,
    Symbol,
    Term,
    write_prime,
    write_slope,
)
from chainrule.chain.wide_float import (
    ONE,
    ZERO,
    WideFloat,
    apply_activation,
    apply_derivative,
)
from chainrule.spec.activations import Activation

_REMEMBERED = 512
"""Factors whose formulas are remembered."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ChainLayer:
    """One layer's forward values and slope.

    Attributes:
        number: The layer l, from 1.
        activation: Its activation.
        weight: w_l.
        bias: b_l; 0 if the chain has no biases.
        input: h_{l−1}.
        product: w_l·h_{l−1}.
        z: The pre-activation.
        h: The activation.
        slope: φ′(z).
    """

    number: int
    activation: Activation
    weight: WideFloat
    bias: WideFloat
    input: WideFloat
    product: WideFloat
    z: WideFloat
    h: WideFloat
    slope: WideFloat

    def __repr__(self) -> str:
        texts = (f"{name} {format_equal(value)}" for name, value in self.list_values())
        return f"ChainLayer({', '.join(texts)})"

    def list_values(self, *, biased: bool = True) -> tuple[tuple[str, WideFloat], ...]:
        """Return the layer's values by name, as w₁, b₁, z₁, h₁, σ′(z₁).

        Args:
            biased: Whether the bias is among them.
        """
        n = to_subscript(self.number)
        bias = ((f"b{n}", self.bias),) if biased else ()
        return (
            (f"w{n}", self.weight),
            *bias,
            (f"z{n}", self.z),
            (f"h{n}", self.h),
            (render_text(write_prime(self.activation.name, self.number)), self.slope),
        )


def compute_layers(
    x: float,
    weights: Sequence[float],
    activations: Sequence[Activation],
    biases: Sequence[float] | None,
) -> tuple[ChainLayer, ...]:
    """Return h_l = φ(w_l·h_{l−1} + b_l) for l = 1 … n, with every value on the way.

    Args:
        x: The input h₀.
        weights: w_1 … w_n.
        activations: One per layer.
        biases: b_1 … b_n, or `None` for zeros.
    """
    layers = []
    h = WideFloat.from_float(x)
    for n, (weight, activation) in enumerate(zip(weights, activations, strict=True), 1):
        w = WideFloat.from_float(weight)
        b = ZERO if biases is None else WideFloat.from_float(biases[n - 1])
        product = w * h
        z = product + b
        layer = ChainLayer(
            number=n,
            activation=activation,
            weight=w,
            bias=b,
            input=h,
            product=product,
            z=z,
            h=apply_activation(activation, z),
            slope=apply_derivative(activation, z),
        )
        layers.append(layer)
        h = layer.h
    return tuple(layers)


# --------------------------------------------------------------------- factors


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Factor:
    """One local derivative of the chain-rule product.

    Attributes:
        id: The same in the graph, the equation and the chart: "h1-z2" for ∂z₂/∂h₁.
        kind: In a chain "activation" for ∂h/∂z, "weight" for ∂z/∂h, "input" for ∂z/∂w, "bias" for
            ∂z/∂b; in any other graph the name of the operation.
        layer: The layer l; in any other graph the most operations on a way to its result.
        edges: Ids of the edges of the graph that it stands for; the first carries the derivative.
        partial: ∂z₂/∂h₁ as a term.
        formula: What it is, as a term: w₂.
        prime: The formula by a short name, as a term: σ′(z₁) for h₁(1 − h₁).
        exact: Its value, whatever its size.

    Example:
        >>> from chainrule.chain import ScalarChain
        >>> ScalarChain(1.0, [0.5, -2.0]).factors("w1")[1]
        Factor(∂z₂/∂h₁ = w₂ = −2)
    """

    id: str
    kind: str
    layer: int
    edges: tuple[str, ...]
    partial: Partial
    formula: Term
    prime: Term
    exact: WideFloat

    def __repr__(self) -> str:
        return f"Factor({self.symbol} = {self.substituted} {format_equal(self.exact)})"

    @property
    def edge(self) -> str:
        """Id of the edge that carries the derivative."""
        return self.edges[0]

    @property
    def symbol(self) -> str:
        """The derivative in plain text: ∂z₂/∂h₁."""
        return write_name(self.partial)

    @property
    def substituted(self) -> str:
        """Its formula in plain text: w₂, or h₁(1 − h₁) for a sigmoid."""
        return write_name(self.formula)

    @property
    def value(self) -> float:
        """Its value in float64; 0 or inf where `exact` is beyond its range."""
        return float(self.exact)

    @property
    def sentence(self) -> str:
        """What multiplying by it does: "× σ′(z₂) ≈ 0.105: keeps 10 %"."""
        name = write_name(self.prime)
        shown = name if name == str(self.exact) else f"{name} {format_equal(self.exact)}"
        return f"× {shown}: {describe_effect(self.exact)}"


def list_factors(
    layers: Sequence[ChainLayer], letter: str, last: int, *, biased: bool
) -> tuple[Factor, ...]:
    """Return the factors of ∂p/∂variable, output to input.

    Args:
        layers: All layers of the chain.
        letter: "h" for the input of layer `last`, "w" or "b" for its weight or bias.
        last: The layer at which the path ends.
        biased: Whether the graph adds biases.
    """
    factors = []
    for layer in reversed(layers[last - 1 :]):
        factors.append(_build_activation_factor(layer, final=layer.number == len(layers)))
        kind = letter if layer.number == last else "h"
        factors.append(_build_linear_factor(layer, kind, biased))
    return tuple(factors)


def _build_activation_factor(layer: ChainLayer, *, final: bool) -> Factor:
    """Return ∂h_l/∂z_l, of the last layer ∂p/∂z_n."""
    return Factor(
        **_write_activation(layer.number, layer.activation.name, final), exact=layer.slope
    )


@lru_cache(maxsize=_REMEMBERED)
def _write_activation(n: int, name: str, final: bool) -> Mapping[str, Any]:
    """Return all of an activation's factor but its value."""
    edge = f"z{n}-h{n}"
    return {
        "id": edge,
        "kind": "activation",
        "layer": n,
        "edges": (edge, f"h{n}-p") if final else (edge,),
        "partial": Partial(Symbol("p") if final else Symbol("h", n), Symbol("z", n)),
        "formula": write_slope(name, n),
        "prime": write_prime(name, n),
    }


def _build_linear_factor(layer: ChainLayer, letter: str, biased: bool) -> Factor:
    """Return ∂z_l/∂h_{l−1}, ∂z_l/∂w_l or ∂z_l/∂b_l."""
    value = {"h": layer.weight, "w": layer.input, "b": ONE}[letter]
    return Factor(**_write_linear(layer.number, letter, biased), exact=value)


@lru_cache(maxsize=_REMEMBERED)
def _write_linear(n: int, letter: str, biased: bool) -> Mapping[str, Any]:
    """Return all of the factor of a weight, an input or a bias but its value."""
    z = f"z{n}"
    source = name_activation(n - 1) if letter == "h" else f"{letter}{n}"
    by = write_activation(n - 1) if letter == "h" else Symbol(letter, n)
    kind: str
    formula: Term
    if letter == "h":
        kind, formula = "weight", Symbol("w", n)
    elif letter == "w":
        kind, formula = "input", write_activation(n - 1)
    else:
        kind, formula = "bias", Number(ONE)
    through_product = biased and letter != "b"
    return {
        "id": f"{source}-{z}",
        "kind": kind,
        "layer": n,
        "edges": (f"{source}-m{n}", f"m{n}-{z}") if through_product else (f"{source}-{z}",),
        "partial": Partial(Symbol("z", n), by),
        "formula": formula,
        "prime": formula,
    }


def describe_effect(value: WideFloat) -> str:
    """Return what a factor does to a gradient, in words.

    Args:
        value: The factor.
    """
    if not value.sign:
        return "stops the gradient: nothing is left"
    flip = ", sign flipped" if value.sign < 0 else ""
    size = abs(value)
    if size == ONE:
        return f"keeps all of it{flip}"
    if abs(float(size) - 1.0) < 0.01:
        return (
            f"keeps nearly all of it, within 1 %{flip}"
            if size < ONE
            else (f"grows it by less than 1 %{flip}")
        )
    if size > ONE:
        return f"grows it {size} times{flip}"
    if size.log10 < -3:
        return f"keeps {size} of it{flip}"
    return f"keeps {100 * float(size):.2g} %{flip}"


def name_activation(layer: int) -> str:
    """Return the id of h_l: "x" for h₀."""
    return f"h{layer}" if layer else "x"


def write_activation(layer: int) -> Symbol:
    """Return h_l as a term: x for h₀."""
    return Symbol("h", layer) if layer else Symbol("x")


# ------------------------------------------------------------- nodes and edges


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Node:
    """One node of the computational graph.

    Attributes:
        id: For example "x", "w1", "z1", "h1", "p".
        kind: What it does: in a chain "input", "weight", "bias", "multiply", "add", "activation" or
            "output"; in any other graph "variable", "number" or the name of an operation.
        layer: The layer l, 0 for the input; in any other graph the most operations on a way to it.
        symbol: Its value's name as a term.
        value: Its forward value.
        gradient: ∂p/∂node, the cumulative gradient.

    Example:
        >>> from chainrule.chain import ScalarChain
        >>> ScalarChain(1.0, [0.5]).nodes[0]
        Node(x = 1, gradient ≈ 0.118)
    """

    id: str
    kind: str
    layer: int
    symbol: Term
    value: WideFloat
    gradient: WideFloat

    def __repr__(self) -> str:
        name = render_text(self.symbol)
        return f"Node({name} {format_equal(self.value)}, gradient {format_equal(self.gradient)})"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Edge:
    """One edge of the computational graph, from operand to result.

    Attributes:
        id: "source-target".
        source: Id of the operand.
        target: Id of the result.
        layer: The layer l.
        derivative: The local derivative ∂target/∂source as a term.
        value: Its value.
        factors: Ids of the factors that pass over this edge.

    Example:
        >>> from chainrule.chain import ScalarChain
        >>> ScalarChain(1.0, [0.5]).edges[0]
        Edge(x → z1: w₁ = 0.5)
    """

    id: str
    source: str
    target: str
    layer: int
    derivative: Term
    value: WideFloat
    factors: tuple[str, ...]

    def __repr__(self) -> str:
        derivative = render_text(self.derivative)
        equal = "" if derivative == str(self.value) else f" {format_equal(self.value)}"
        return f"Edge({self.source} → {self.target}: {derivative}{equal})"


class Graph(Protocol):
    """What can be drawn: a computational graph with the factors of each of its gradients."""

    @property
    def depth(self) -> int:
        """Number of layers n."""

    @property
    def biases(self) -> Sequence[float] | None:
        """b_1 … b_n, or `None` for a graph without biases."""

    @property
    def layers(self) -> tuple[ChainLayer, ...]:
        """The layers, input to output."""

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes, input to output."""

    @property
    def edges(self) -> tuple[Edge, ...]:
        """The edges, input to output."""

    def factors(self, wrt: str) -> tuple[Factor, ...]:
        """Return the factors of ∂p/∂wrt, output to input."""

    def gradient(self, wrt: str) -> WideFloat:
        """Return ∂p/∂wrt."""

    def show(self, wrt: str) -> "Graph":
        """Return the graph that has a node for `wrt`."""
