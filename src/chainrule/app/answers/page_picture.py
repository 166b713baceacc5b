"""The pictures of pages without a network of the explorer: a chain, an expression, your model."""

import re
from collections.abc import Mapping
from functools import cache

from chainrule._utils.html import Markup
from chainrule.app.samples import SAMPLES, read_sample
from chainrule.app.state.chain_query import read_chain, read_expression
from chainrule.chain import ScalarChain, draw_expression, draw_graph
from chainrule.chain.derivation import derive
from chainrule.chain.drawing import write_out_style
from chainrule.chain.graph_derivation import derive_expression
from chainrule.chain.notation import format_equal, write_name
from chainrule.chain.scalar_graph import ScalarGraph
from chainrule.display.cards import describe_subject
from chainrule.errors import SpecError
from chainrule.figures import build_gradient_figure
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.loading import decode_flow
from chainrule.report.charts import draw_figure
from chainrule.report.picture import draw_card, draw_picture, draw_words
from chainrule.spec.activations import get_activation

FIRST_EXPRESSION = "residual"
"""The known expression that the page begins with."""

SAFE = ",=*()"
"""Signs of an address that stay as they are, so that people can read it."""

CHAIN = ("x", "weights", "biases", "activation", "wrt")
EXPRESSION = ("expr", "set", "wrt")
"""What of the chain-rule page's address is on its picture."""

_HEADER = 60.0
"""Pixels of a graph's drawing above the graph: the card says in words what stands there."""

_DRAWN_LAYERS = 4
"""Longer chains are folded on a picture: in a preview nobody reads more."""


def select_chain(query: Mapping[str, str]) -> dict[str, str]:
    """Return what an address of the chain-rule page says of its picture; nothing if it is wrong.

    Args:
        query: The address's query.

    Example:
        >>> select_chain({"weights": "0.5,3", "walk": "2"})
        {'weights': '0.5,3'}
        >>> select_chain({"weights": "many"})
        {}
    """
    names = EXPRESSION if "expr" in query else CHAIN
    if not query.get("expr", "1"):
        return {"expr": ""}
    found = {name: query[name] for name in names if name in query}
    try:
        read_expression(found) if "expr" in found else read_chain(found)
    except SpecError:
        return {}
    return found


def title_chain(query: Mapping[str, str]) -> str:
    """Return what a picture of the chain-rule page shows, in one line; nothing is computed.

    Args:
        query: What `select_chain` gives.

    Example:
        >>> title_chain({"weights": "0.5,3"})
        'The chain rule: 2 layers, Sigmoid, the gradient of p with respect to w₁'
    """
    if "expr" in query:
        graph, wrt = read_expression(_complete(query))
        return f"The chain rule: {_write_statements(graph)}, the gradient with respect to {wrt}"
    chain, wrt = read_chain(query)
    by = write_name(derive(chain, wrt).subject.by)
    return f"The chain rule: {_describe_layers(chain)}, the gradient of p with respect to {by}"


def draw_chain(query: Mapping[str, str], address: str) -> str:
    """Return the picture of a chain or an expression as an SVG file: its graph and its gradient.

    Args:
        query: What `select_chain` gives.
        address: Where to see it live.

    Example:
        >>> "∂p/∂w₁ ≈ 0.235" in draw_chain({"weights": "0.5"}, "")
        True
    """
    if "expr" in query:
        graph, wrt = read_expression(_complete(query))
        derivation = derive_expression(graph, wrt)
        svg = draw_expression(graph, wrt)
        subject, value = write_name(derivation.subject), graph.gradient(wrt)
        sums = [line.to_text() for line in derivation.lines if line.kind == "products"]
        lines = [
            _write_statements(graph),
            derivation.describe_paths(),
            *(f"{subject} {text}" for text in sums),
        ]
    else:
        chain, wrt = read_chain(query)
        product = derive(chain, wrt)
        svg = draw_graph(chain, wrt, max_layers=_DRAWN_LAYERS)
        told = {line.kind: line for line in product.lines}
        lines = [
            f"{_describe_layers(chain)}: one path, so the gradient is one product",
            f"{write_name(product.subject)} {told['formulas'].to_text()}",
            told["numbers"].to_text(),
        ]
        subject, value = write_name(product.subject), product.value
    drawing, size = _place(write_out_style(svg))
    return draw_card(
        f"{subject} {format_equal(value)}",
        lines,
        drawing,
        size,
        note="The graph shows the way, the equation the size",
        address=address,
    )


@cache
def read_flow(name: str) -> GradientFlow:
    """Return the measurement of a sample.

    Args:
        name: Its name.
    """
    return decode_flow(read_sample(name))


def select_sample(query: Mapping[str, str]) -> dict[str, str]:
    """Return what an address of the page for your model says of its picture: the open sample.

    Args:
        query: The address's query.
    """
    return {"sample": query["sample"]} if query.get("sample") in SAMPLES else {}


def title_sample(query: Mapping[str, str]) -> str:
    """Return what a picture of the page for your model shows, in one line.

    Args:
        query: What `select_sample` gives.

    Example:
        >>> title_sample({"sample": "lost_over_time"})
        'An LSTM over 100 steps: its gradient is lost over time'
    """
    if "sample" not in query:
        return "Your own model, measured: what is wrong, why, and what to do"
    sample = SAMPLES[query["sample"]]
    return f"{sample.title}: {sample.teaser}"


def draw_model(query: Mapping[str, str], address: str) -> str:
    """Return the picture of the page for your model as an SVG file: a sample, or what to do.

    Args:
        query: What `select_sample` gives.
        address: Where to see it live.

    Example:
        >>> "Your own model" in draw_model({}, "")
        True
    """
    if "sample" in query:
        return draw_picture(read_flow(query["sample"]), address=address)
    sample = next(iter(SAMPLES.values()))
    flow = read_flow(sample.name)
    width, height = 760, 270
    return draw_card(
        "Your own model",
        [
            "Measure it on your machine, then look at it here: what is wrong, why, and what to do.",
            "chainrule inspect your_file.py:build --try --output flow.json",
        ],
        draw_figure(
            build_gradient_figure(flow), width=width, height=height, name="gradient per layer"
        ),
        (width, height),
        note=f"An example: {describe_subject(flow)}",
        address=address,
    )


def select_nothing(query: Mapping[str, str]) -> dict[str, str]:
    """Return what an address says of the picture of a page that is the same for every address.

    Args:
        query: The address's query.
    """
    del query
    return {}


def title_map(query: Mapping[str, str]) -> str:
    """Return what the picture of the map's page shows, in one line.

    Args:
        query: What `select_nothing` gives.
    """
    del query
    return "Phase map: theory, measurement and training of many networks"


def draw_map(query: Mapping[str, str], address: str) -> str:
    """Return the picture of the map's page as an SVG file: words, for a map takes long to measure.

    Args:
        query: What `select_nothing` gives.
        address: Where to see it live.

    Example:
        >>> "Phase map" in draw_map({}, "")
        True
    """
    del query
    return draw_words(
        "Phase map",
        "Where gradients vanish, where they explode, and where networks learn: theory, measurement "
        "and training on one map.",
        note="Each cell is a network, measured by autograd",
        address=address,
    )


def select_run(query: Mapping[str, str]) -> dict[str, str]:
    """Return what an address of the pages of runs says of its picture: the run, if it names one.

    Args:
        query: The address's query and what is in its path.

    Example:
        >>> select_run({"name": "exp1", "with": "exp2"})
        {'name': 'exp1'}
    """
    return {"name": query["name"]} if query.get("name") else {}


def title_run(query: Mapping[str, str]) -> str:
    """Return what a picture of the pages of runs shows, in one line.

    Args:
        query: What `select_run` gives. The name is not repeated: nobody has looked whether there is
            such a run.
    """
    return "A training run: its loss and its alarms" if query else "Training runs, watched"


def draw_runs(address: str) -> str:
    """Return the picture of the list of runs as an SVG file.

    Args:
        address: Where to see it live.

    Example:
        >>> "Training runs" in draw_runs("")
        True
    """
    return draw_words(
        "Training runs",
        "Watched while they train: what goes wrong, at which step, in which layer, and what to do.",
        note="Measured by chainrule.watch",
        address=address,
    )


def _complete(query: Mapping[str, str]) -> dict[str, str]:
    """Return a query with the page's first expression where it names none."""
    if query.get("expr"):
        return dict(query)
    return {"preset": FIRST_EXPRESSION}


def _write_statements(graph: ScalarGraph) -> str:
    written = [
        f"{write_name(name)} = {write_name(term)}" for name, term in graph.program.statements
    ]
    return "; ".join(written)


def _describe_layers(chain: ScalarChain) -> str:
    names = [chain.activation] if isinstance(chain.activation, str) else chain.activation
    labels = dict.fromkeys(get_activation(name).label for name in names)
    return f"{chain.depth} layer{'s' if chain.depth > 1 else ''}, {' and '.join(labels)}"


def _place(svg: str) -> tuple[Markup, tuple[float, float]]:
    """Return a graph's drawing as part of a picture, without its first line, and its size."""
    found = re.search(r'viewBox="0 0 (\d+) (\d+)" width="\d+" height="\d+"', svg)
    assert found
    width, height = float(found[1]), float(found[2]) - _HEADER
    size = f'viewBox="0 {_HEADER:g} {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    return Markup(svg.replace(found[0], size, 1)), (width, height)
