"""A scalar graph and one of its gradients as plain data for a page or a file."""

from typing import Any

from chainrule.chain.document import (
    DOCUMENT_VERSION,
    describe_edge,
    describe_factor,
    describe_factor_briefly,
    describe_node,
    describe_number,
)
from chainrule.chain.graph_derivation import (
    SHOWN_PATHS,
    Equation,
    GraphDerivation,
    SumLine,
    derive_expression,
)
from chainrule.chain.network import Node
from chainrule.chain.notation import (
    render_latex,
    render_mathml,
    render_text,
    wrap_mathml,
)
from chainrule.chain.operations import OPERATIONS
from chainrule.chain.paths import Path, PathSum
from chainrule.chain.scalar_graph import ScalarGraph
from chainrule.chain.terms import Symbol, Term


def describe_expression(
    graph: ScalarGraph,
    wrt: str | None = None,
    *,
    limit: int = SHOWN_PATHS,
    brief: bool = False,
) -> dict[str, Any]:
    """Return nodes, edges, paths and derivation as data that JSON can hold.

    Numbers are described as in `describe_chain`. Every edge is one factor: edges, `factors`, the
    factors of paths and the `data-factor` of MathML have the same ids. Counts are numbers with
    their `text`, for programs whose numbers do not hold them.

    Args:
        graph: The graph.
        wrt: The variable that the output is differentiated by; `None` for the first one.
        limit: How many paths the derivation writes out.
        brief: Whether to leave out what is not seen beside a drawing of the graph: nodes,
            definitions, and LaTeX.

    Raises:
        SpecError: If there is no such variable, or the limit is out of range.

    Example:
        >>> describe_expression(ScalarGraph.parse("x*x", {"x": 3}))["gradient"]["text"]
        '6'
    """
    derivation = derive_expression(graph, wrt, limit=limit)
    paths = derivation.paths
    return {
        "version": DOCUMENT_VERSION,
        "expression": {
            "text": graph.program.text,
            "statements": [
                {"name": render_text(name), **_render_equal(name, term)}
                for name, term in graph.program.statements
            ],
            "values": dict(graph.values),
        },
        "wrt": derivation.wrt,
        "symbols": list(derivation.notes),
        "definitions": []
        if brief
        else [_describe_equation(each) for each in derivation.definitions],
        "nodes": [] if brief else [_describe_node(graph, node) for node in graph.nodes],
        "edges": [describe_edge(edge) for edge in graph.edges],
        "factors": [
            describe_factor_briefly(factor) if brief else describe_factor(factor)
            for factor in graph.derivatives.values()
        ],
        "way": [factor.id for factor in graph.factors(derivation.wrt)],
        "subject": {
            "text": render_text(derivation.subject),
            "latex": render_latex(derivation.subject),
            "mathml": wrap_mathml(render_mathml(derivation.subject)),
        },
        "lines": [_describe_line(line, brief) for line in derivation.lines],
        "hidden_lines": sum(line.hidden for line in derivation.lines),
        "paths": _describe_paths(paths, derivation),
        "backward": [
            _describe_briefly(each) if brief else _describe_equation(each)
            for each in derivation.backward
        ],
        "multiplications": {
            "by_path": _describe_count(paths.multiplications),
            "factored": _describe_count(paths.factored),
            "sentence": derivation.describe_cost(),
        },
        "gradient": describe_number(derivation.value),
        "range_note": derivation.describe_range(),
        "kinks": list(graph.kinks),
    }


def _describe_node(graph: ScalarGraph, node: Node) -> dict[str, Any]:
    operation = OPERATIONS.get(node.kind)
    formula = graph.define(node.id)
    return {
        **describe_node(node),
        "sign": operation.sign if operation else None,
        "operands": list(graph.list_operands(node.id)),
        "formula": None if formula is None else render_text(formula),
        "formula_latex": None if formula is None else render_latex(formula),
    }


def _describe_line(line: SumLine, brief: bool) -> dict[str, Any]:
    latex = {} if brief else {"latex": line.to_latex()}
    return {
        "kind": line.kind,
        "relation": line.relation,
        "note": line.note,
        "hidden": line.hidden,
        "text": line.to_text(),
        "mathml": line.to_mathml(),
        **latex,
    }


def _describe_briefly(equation: Equation) -> dict[str, Any]:
    return {
        "node": equation.node,
        "note": equation.note,
        "text": repr(equation),
        "mathml": equation.to_mathml(),
    }


def _describe_equation(equation: Equation) -> dict[str, Any]:
    return {
        **_describe_briefly(equation),
        "subject": render_text(equation.subject),
        "sides": [
            {"kind": line.kind, "relation": line.relation, "text": render_text(line.term)}
            for line in equation.lines
        ],
        "latex": equation.to_latex(),
    }


def _describe_paths(paths: PathSum, derivation: GraphDerivation) -> dict[str, Any]:
    return {
        "count": _describe_count(paths.count),
        "listed": [_describe_path(path) for path in paths.paths],
        "omitted": _describe_count(paths.omitted),
        "rest": describe_number(paths.rest),
        "rest_share": paths.rest_share,
        "total": describe_number(paths.total),
        "absolute": describe_number(paths.absolute),
        "cancellation": paths.cancellation,
        "sentence": derivation.describe_paths(),
    }


def _describe_path(path: Path) -> dict[str, Any]:
    return {
        "text": path.way,
        "factors": [factor.id for factor in path.factors],
        "product": describe_number(path.product),
        "share": path.share,
    }


def _describe_count(number: int) -> dict[str, Any]:
    """Return a whole number, of which JavaScript keeps the first 53 bits only, with its text."""
    return {"value": number, "text": str(number)}


def _render_equal(name: Symbol, term: Term) -> dict[str, str]:
    return {
        "text": f"{render_text(name)} = {render_text(term)}",
        "latex": f"{render_latex(name)} = {render_latex(term)}",
        "mathml": wrap_mathml(render_mathml(name), "<mo>=</mo>", render_mathml(term)),
    }
