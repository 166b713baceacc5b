"""A chain as what it is, a special case of a graph: its operations, and how a chain names them."""

from collections.abc import Sequence
from dataclasses import replace

from chainrule.chain.expressions import Program, Step
from chainrule.chain.network import ChainLayer, Edge, Node, name_activation, write_activation
from chainrule.chain.scalar_graph import ScalarGraph
from chainrule.chain.terms import Number, Product, Symbol
from chainrule.chain.wide_float import ONE

_KINDS = {"x": "input", "w": "weight", "b": "bias", "h": "activation"}
"""What a node of a chain is called by the first letter of its id; others by their operation."""

_LARGEST = 2**21
"""Beyond what any chain's layers are given: 1000 weights of up to 2^1024."""


def build_graph(layers: Sequence[ChainLayer], *, biased: bool) -> ScalarGraph:
    """Return the graph of a chain: x, and for each layer w, its product, b, their sum, and h.

    Args:
        layers: All layers of the chain.
        biased: Whether the graph adds biases.
    """
    steps: list[Step] = []
    numbers: list[float] = []

    def add(name: str, kind: str, *operands: int) -> int:
        digits = name[1:]
        symbol = Symbol(name[0], int(digits) if digits else None)
        steps.append(Step(id=name, kind=kind, symbol=symbol, operands=operands))
        return len(steps) - 1

    h = add("x", "variable")
    numbers.append(float(layers[0].input))
    for layer in layers:
        n = layer.number
        w = add(f"w{n}", "variable")
        numbers.append(float(layer.weight))
        z = add(f"m{n}" if biased else f"z{n}", "multiply", w, h)
        if biased:
            b = add(f"b{n}", "variable")
            numbers.append(float(layer.bias))
            z = add(f"z{n}", "add", z, b)
        h = add(f"h{n}", layer.activation.name, z)
    program = Program(text="", steps=tuple(steps), statements=(), largest=_LARGEST)
    return ScalarGraph(program, tuple(numbers))


def list_nodes(graph: ScalarGraph) -> tuple[Node, ...]:
    """Return the nodes of a chain, input to output: those of its graph, and p.

    Args:
        graph: The graph of the chain.
    """
    nodes = []
    for node in graph.nodes:
        n = int(node.id[1:] or 0)
        symbol = node.symbol
        if node.id[0] == "m":
            symbol = Product((Symbol("w", n), write_activation(n - 1)))
        kind = _KINDS.get(node.id[0], node.kind)
        nodes.append(replace(node, kind=kind, layer=n, symbol=symbol))
    last = nodes[-1]
    return (*nodes, replace(last, id="p", kind="output", symbol=Symbol("p"), gradient=ONE))


def list_edges(graph: ScalarGraph) -> tuple[Edge, ...]:
    """Return the edges of a chain, input to output: those of its graph, and the one to p.

    Where biases are added, ∂z/∂h and ∂z/∂w pass over two edges, as factors of the chain do.

    Args:
        graph: The graph of the chain.
    """
    known = {edge.id: edge for edge in graph.edges}
    edges: list[Edge] = []
    last = int(graph.root.id[1:])
    for n in range(1, last + 1):
        h, z = name_activation(n - 1), f"z{n}"
        biased = f"b{n}-{z}" in known
        product = f"m{n}" if biased else z
        own = (f"{h}-{z}", f"w{n}-{z}")
        factors: dict[str, tuple[str, ...]]
        factors = {f"{h}-{product}": own[:1], f"w{n}-{product}": own[1:]}
        if biased:
            factors |= {f"{product}-{z}": own, f"b{n}-{z}": (f"b{n}-{z}",)}
        factors[f"{z}-h{n}"] = (f"{z}-h{n}",)
        edges += [replace(known[each], layer=n, factors=ids) for each, ids in factors.items()]
    final = edges[-1]
    output = replace(
        final,
        id=f"{final.target}-p",
        source=final.target,
        target="p",
        derivative=Number(ONE),
        value=ONE,
    )
    return (*edges, output)
