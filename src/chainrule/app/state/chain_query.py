"""The chain-rule page's address as a chain or an expression."""

import math
from collections.abc import Mapping

from chainrule.chain import ScalarChain
from chainrule.chain.arguments import parse_numbers, parse_settings
from chainrule.chain.expressions import parse_program
from chainrule.chain.graph_presets import get_expression
from chainrule.chain.scalar_graph import ScalarGraph
from chainrule.errors import SpecError

MOST_LAYERS = 50
"""Layers of a chain that the page can ask for; more would be megabytes of derivation."""

MOST_NODES = 40
"""Nodes of an expression that the page can ask for."""


def read_chain(query: Mapping[str, str]) -> tuple[ScalarChain, str]:
    """Return the chain that a query describes, and the variable that p is differentiated by.

    Args:
        query: x, weights, activation, wrt and, if there are any, biases (numbers with commas).

    Raises:
        SpecError: If it does not describe a chain, or a longer one than the page shows.
    """
    names = query.get("activation", "sigmoid").split(",")
    biases = query.get("biases")
    written = query.get("weights", "0.5,-2,1.5")
    if (count := written.count(",") + 1) > MOST_LAYERS:
        raise SpecError(
            f"weights: must be at most {MOST_LAYERS} here; got {count}. "
            "The command line, chainrule equation, takes up to 1000."
        )
    chain = ScalarChain(
        read_number(query, "x", 1.0),
        parse_numbers("weights", written),
        names if len(names) > 1 else names[0],
        parse_numbers("biases", biases) if biases else None,
    )
    wrt = query.get("wrt", "w1")
    chain.show(wrt)
    return chain, wrt


def read_expression(query: Mapping[str, str]) -> tuple[ScalarGraph, str]:
    """Return the graph that a query describes, and the variable of its gradient.

    Args:
        query: expr, set (values such as "x=1,w=0.5"; 1 for every other name) and wrt; or preset
            for a known expression with its own values, of which set changes some.

    Raises:
        SpecError: If it is no expression, or a larger one than the page shows.
    """
    known = get_expression(query["preset"]) if "preset" in query else None
    program = parse_program(known.text if known else query.get("expr", ""))
    if len(program.steps) > MOST_NODES:
        raise SpecError(
            f"expression: must have at most {MOST_NODES} nodes here; got {len(program.steps)}. "
            "The command line, chainrule equation --expr, takes up to 200."
        )
    values = dict(known.values) if known else {}
    if settings := query.get("set"):  # values of names that an edit has removed are left out
        values |= {n: v for n, v in parse_settings(settings) if n in program.variables}
    graph = ScalarGraph.parse(program.text, values, default=1.0)
    first = known.wrt if known else graph.variables[0]
    return graph, query["wrt"] if query.get("wrt") in graph.variables else first


def read_number(query: Mapping[str, str], name: str, default: float) -> float:
    """Return a number of a query.

    Args:
        query: The query.
        name: The number's name.
        default: What it is where the query does not say.

    Raises:
        SpecError: If it is not one finite number.
    """
    if name not in query:
        return default
    numbers = parse_numbers(name, query[name])
    if len(numbers) != 1:
        raise SpecError(f"{name}: must be one number; got {len(numbers)}.")
    if not math.isfinite(numbers[0]):
        raise SpecError(f"{name}: must be a finite number; got {query[name][:40]!r}.")
    return numbers[0]
