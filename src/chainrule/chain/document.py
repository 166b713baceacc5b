"""A scalar chain and its derivation as plain data for a page or a file."""

import math
import sys
from typing import Any

from chainrule._utils.numbers import MINUS
from chainrule.chain.derivation import Derivation, Line, Order, derive
from chainrule.chain.drawing import classify
from chainrule.chain.erratum import Erratum, explain_erratum
from chainrule.chain.network import Edge, Factor, Node
from chainrule.chain.notation import (
    name_relation,
    render_latex,
    render_mathml,
    wrap_mathml,
    write_math,
    write_name,
)
from chainrule.chain.nudge import Nudge
from chainrule.chain.scalar_chain import ScalarChain
from chainrule.chain.terms import NAMES, Apply, Product, Sum, Symbol, Term
from chainrule.chain.wide_float import WideFloat

DOCUMENT_VERSION = 1

MAX_UNFOLDED_FACTORS = 128
"""Longer lines are given in their folded form only."""

MAX_DEFINED_LAYERS = 4
"""Of longer chains the first two layers are defined, and the last one."""

STABLE = 1.0
"""Powers of ten by which a gradient may differ from 1 and still hold."""

MAX_UNFOLDED_LINES = 24
"""Longer expansions are given with their first and last lines only."""


def describe_chain(
    chain: ScalarChain,
    wrt: str = "w1",
    *,
    order: Order = "backward",
    whole: bool = False,
    brief: bool = False,
) -> dict[str, Any]:
    """Return nodes, edges, factors and derivation as data that JSON can hold.

    Every number is an object with its float64 `value` (`None` where that overflows), `log10` of its
    size (`None` for zero), `sign`, `range` ("normal", "underflow" or "overflow"), `text` and the
    `relation` between the number and its text, "=" or "≈". Factor ids connect the factors, the
    `factors` of edges and the `data-factor` of MathML.

    Args:
        chain: The chain.
        wrt: The variable that p is differentiated by.
        order: The order in which the derivation writes its factors.
        whole: Whether to give every line of a long expansion, too.
        brief: Whether to leave out what is not seen beside a drawing of the graph: nodes, edges,
            LaTeX, the full forms of folded lines, and a sentence for each layer's slip.

    Raises:
        SpecError: If there is no such variable or order.

    Example:
        >>> describe_chain(ScalarChain(1.0, [0.5, -2.0]))["gradient"]["text"]
        '−0.0816'
    """
    derivation = derive(chain, wrt, order=order)
    shown = chain.show(wrt)
    erratum = explain_erratum(chain, wrt)
    running = chain.running_products(wrt)
    lines = derivation.lines
    describe = describe_line_briefly if brief else describe_line
    whole = whole or len(lines) <= MAX_UNFOLDED_LINES
    return {
        "version": DOCUMENT_VERSION,
        "chain": {
            "depth": chain.depth,
            "x": chain.x,
            "weights": list(chain.weights),
            "biases": None if chain.biases is None else list(chain.biases),
            "activations": [layer.activation.name for layer in chain.layers],
        },
        "wrt": wrt,
        "order": order,
        "symbols": list(derivation.describe_symbols()),
        "definitions": _describe_definitions(shown),
        "nodes": [] if brief else [describe_node(node) for node in shown.nodes],
        "edges": [] if brief else [describe_edge(edge) for edge in shown.edges],
        "factors": [
            (describe_factor_briefly if brief else describe_factor)(factor)
            | {"running_product": describe_number(product)}
            for factor, product in zip(chain.factors(wrt), running, strict=True)
        ],
        "subject": _describe_subject(derivation),
        "lines": [describe(line) for line in lines if whole or not line.hidden],
        "hidden_lines": sum(line.hidden for line in lines),
        "gradient": describe_number(derivation.value),
        "outcome": name_outcome(derivation.value),
        "range_note": derivation.describe_range(),
        "erratum": None if erratum is None else _describe_erratum(erratum, brief),
    }


def name_outcome(gradient: WideFloat) -> str:
    """Return what becomes of a gradient: it "vanishes", "holds" within 10× of 1, or "explodes".

    Args:
        gradient: The gradient.
    """
    if not gradient.sign or gradient.log10 < -STABLE:
        return "vanishes"
    return "explodes" if gradient.log10 > STABLE else "holds"


def describe_nudge(nudge: Nudge) -> dict[str, Any]:
    """Return how far a nudge moves every value on its way as data that JSON can hold.

    Args:
        nudge: The nudge.
    """
    return {
        "wrt": nudge.wrt,
        "amount": nudge.amount,
        "stops": [
            {
                "symbol": write_name(stop.node.symbol),
                "factor": stop.factor.id if stop.factor else None,
                "local": describe_number(stop.factor.exact) if stop.factor else None,
                "predicted": _describe_change(stop.predicted),
                "true": None if stop.true is None else _describe_change(stop.true),
            }
            for stop in nudge.stops
        ],
    }


def _describe_change(change: WideFloat) -> dict[str, Any]:
    """Return a small number with three digits, so that two of them can be told apart."""
    text = f"{change:.3g}"
    if change.range != "normal" or "e" in text:
        text = str(change)
    return describe_number(change) | {"text": text.replace("-", MINUS)}


def describe_number(number: WideFloat | None) -> dict[str, Any]:
    """Return a number as data that JSON can hold, whatever its size.

    Args:
        number: The number; `None` is one that does not exist.
    """
    if number is None:
        return {
            "value": None,
            "log10": None,
            "sign": 0,
            "range": "undefined",
            "text": "undefined",
            "relation": "=",
        }
    value = float(number)
    largest = sys.float_info.max
    return {
        "value": value if math.isfinite(value) else None,
        "log10": max(-largest, min(largest, number.log10)) if number.sign else None,
        "sign": number.sign,
        "range": number.range,
        "text": str(number),
        "relation": name_relation(number),
    }


def describe_node(node: Node) -> dict[str, Any]:
    """Return a node of a graph as data that JSON can hold."""
    return {
        "id": node.id,
        "kind": node.kind,
        "layer": node.layer,
        "symbol": write_name(node.symbol),
        "latex": render_latex(node.symbol),
        "value": describe_number(node.value),
        "gradient": describe_number(node.gradient),
    }


def describe_edge(edge: Edge) -> dict[str, Any]:
    """Return an edge of a graph as data that JSON can hold."""
    return {
        "id": edge.id,
        "source": edge.source,
        "target": edge.target,
        "layer": edge.layer,
        "derivative": write_name(edge.derivative),
        "value": describe_number(edge.value),
        "effect": classify(edge.value),
        "factors": list(edge.factors),
    }


def describe_factor(factor: Factor) -> dict[str, Any]:
    """Return a local derivative as data that JSON can hold."""
    return describe_factor_briefly(factor) | {
        "symbol_latex": render_latex(factor.partial),
        "substituted_latex": render_latex(factor.formula),
    }


def describe_factor_briefly(factor: Factor) -> dict[str, Any]:
    """Return a local derivative as `describe_factor` does, without LaTeX."""
    return {
        "id": factor.id,
        "kind": factor.kind,
        "layer": factor.layer,
        "edge": factor.edge,
        "edges": list(factor.edges),
        "symbol": factor.symbol,
        "substituted": factor.substituted,
        "short": write_name(factor.prime),
        "value": describe_number(factor.exact),
        "effect": classify(factor.exact),
        "sentence": factor.sentence,
    }


def _describe_definitions(chain: ScalarChain) -> list[dict[str, Any]]:
    """Return what every letter means, in the order in which the values are computed."""
    depth = chain.depth
    whole = depth <= MAX_DEFINED_LAYERS
    layers = [layer for layer in chain.layers if whole or layer.number in (1, 2, depth)]
    ends = {edge.id: edge for edge in chain.edges}
    found: list[tuple[Symbol, Term, str]] = []
    for layer in layers:
        n = layer.number
        z, h = Symbol("z", n), Symbol("h", n)
        before = Symbol("h", n - 1) if n > 1 else Symbol("x")
        linear: Term = Product((Symbol("w", n), before))
        if chain.biases is not None:
            linear = Sum(linear, "+", Symbol("b", n))
        into = f"m{n}" if f"m{n}-z{n}" in ends else f"z{n}"
        found.append((z, linear, into))
        found.append((h, Apply(NAMES[layer.activation.name], (z,)), f"h{n}"))
    found.append((Symbol("p"), Symbol("h", depth), "p"))
    return [
        {
            "text": f"{write_name(left)} = {write_name(right)}",
            "mathml": wrap_mathml(write_math(left), "<mo>=</mo>", write_math(right)),
            "factors": _list_into(chain, into),
            "gap": not whole and left == Symbol("z", depth) and depth > 3,
        }
        for left, right, into in found
    ]


def _list_into(chain: ScalarChain, target: str) -> list[str]:
    """Return the factors of the edges that lead to a node."""
    factors = [name for e in chain.edges if e.target == target for name in e.factors]
    return list(dict.fromkeys(factors))


def _describe_subject(derivation: Derivation) -> dict[str, str]:
    subject = derivation.subject
    return {
        "text": write_name(subject),
        "latex": render_latex(subject),
        "mathml": render_mathml(derivation.lines[0].full),
    }


def describe_line(line: Line, limit: int = MAX_UNFOLDED_FACTORS) -> dict[str, Any]:
    """Return a line in its folded form, and in its full one if that is not too long.

    Args:
        line: The line.
        limit: The most factors of a full form.
    """
    unfolds = line.folds and line.count <= limit
    return describe_line_briefly(line, limit) | {
        "latex": line.to_latex(),
        "unfolded": _unfold_line(line) if unfolds else None,
    }


def describe_line_briefly(line: Line, limit: int = MAX_UNFOLDED_FACTORS) -> dict[str, Any]:
    """Return a line in its folded form, without LaTeX.

    Args:
        line: The line.
        limit: The most factors of a full form; whether there is one is said.
    """
    return {
        "number": line.number,
        "kind": line.kind,
        "relation": line.relation,
        "note": line.note,
        "hidden": line.hidden,
        "folds": line.folds,
        "unfolds": line.folds and line.count <= limit,
        "text": line.to_text(),
        "mathml": line.to_mathml(),
    }


def _unfold_line(line: Line) -> dict[str, str]:
    return {
        "text": line.to_text(fold=False),
        "latex": line.to_latex(fold=False),
        "mathml": line.to_mathml(fold=False),
    }


def _describe_erratum(erratum: Erratum, brief: bool) -> dict[str, Any]:
    return {
        "sentence": erratum.sentence,
        "right": describe_number(erratum.right),
        "wrong": describe_number(erratum.wrong),
        "layers": [
            {
                "layer": layer.layer,
                "right": describe_number(layer.right),
                "wrong": describe_number(layer.wrong),
                **({} if brief else {"sentence": layer.sentence}),
            }
            for layer in erratum.layers
        ],
    }
