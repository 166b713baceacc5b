"""The computational graph of a scalar chain: nodes with values, edges with local derivatives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from chainrule.chain.factors import name_activation, write_activation
from chainrule.chain.formulas import write_prime
from chainrule.chain.layers import ChainLayer
from chainrule.chain.terms import Number, Product, Symbol, Term
from chainrule.chain.wide_float import ONE, WideFloat

NodeKind = Literal["input", "weight", "bias", "multiply", "add", "activation", "output"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node of the computational graph.

    Attributes:
        id: For example "x", "w1", "z1", "h1", "p".
        kind: What it does.
        layer: The layer l; 0 for the input.
        symbol: Its value's name as a term.
        value: Its forward value.
        gradient: ∂p/∂node, the cumulative gradient.
    """

    id: str
    kind: NodeKind
    layer: int
    symbol: Term
    value: WideFloat
    gradient: WideFloat


@dataclass(frozen=True, slots=True, kw_only=True)
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
    """

    id: str
    source: str
    target: str
    layer: int
    derivative: Term
    value: WideFloat
    factors: tuple[str, ...]


def build_nodes(layers: Sequence[ChainLayer], *, biased: bool) -> tuple[Node, ...]:
    """Return the nodes, input to output.

    Args:
        layers: All layers of the chain.
        biased: Whether the graph adds biases.
    """
    gradient = ONE
    backward = [_node("p", "output", len(layers), Symbol("p"), layers[-1].h, ONE)]
    for layer in reversed(layers):
        n = layer.number
        backward.append(_node(f"h{n}", "activation", n, Symbol("h", n), layer.h, gradient))
        gradient = gradient * layer.slope
        if biased:
            backward += [
                _node(f"z{n}", "add", n, Symbol("z", n), layer.z, gradient),
                _node(f"b{n}", "bias", n, Symbol("b", n), layer.bias, gradient),
                _node(
                    f"m{n}",
                    "multiply",
                    n,
                    Product((Symbol("w", n), write_activation(n - 1))),
                    layer.product,
                    gradient,
                ),
            ]
        else:
            backward.append(_node(f"z{n}", "multiply", n, Symbol("z", n), layer.z, gradient))
        weight_gradient = gradient * layer.input
        backward.append(_node(f"w{n}", "weight", n, Symbol("w", n), layer.weight, weight_gradient))
        gradient = gradient * layer.weight
    x = layers[0].input
    backward.append(_node("x", "input", 0, Symbol("x"), x, gradient))
    return tuple(reversed(backward))


def build_edges(layers: Sequence[ChainLayer], *, biased: bool) -> tuple[Edge, ...]:
    """Return the edges, input to output.

    Args:
        layers: All layers of the chain.
        biased: Whether the graph adds biases.
    """
    edges: list[Edge] = []
    for layer in layers:
        n = layer.number
        h, z = name_activation(n - 1), f"z{n}"
        product = f"m{n}" if biased else z
        own = (f"{h}-{z}", f"w{n}-{z}")
        edges += [
            _edge(h, product, n, Symbol("w", n), layer.weight, own[:1]),
            _edge(f"w{n}", product, n, write_activation(n - 1), layer.input, own[1:]),
        ]
        if biased:
            one = Number(ONE)
            edges += [
                _edge(product, z, n, one, ONE, own),
                _edge(f"b{n}", z, n, one, ONE, (f"b{n}-{z}",)),
            ]
        prime = write_prime(layer.activation.name, n)
        edges.append(_edge(z, f"h{n}", n, prime, layer.slope, (f"{z}-h{n}",)))
    last = len(layers)
    edges.append(_edge(f"h{last}", "p", last, Number(ONE), ONE, (f"z{last}-h{last}",)))
    return tuple(edges)


def _node(
    name: str, kind: NodeKind, layer: int, symbol: Term, value: WideFloat, gradient: WideFloat
) -> Node:
    return Node(id=name, kind=kind, layer=layer, symbol=symbol, value=value, gradient=gradient)


def _edge(
    source: str,
    target: str,
    layer: int,
    derivative: Term,
    value: WideFloat,
    factors: tuple[str, ...],
) -> Edge:
    return Edge(
        id=f"{source}-{target}",
        source=source,
        target=target,
        layer=layer,
        derivative=derivative,
        value=value,
        factors=factors,
    )
