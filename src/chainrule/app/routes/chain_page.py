"""The chain-rule page: graph, equation and product of a one-dimensional network, linked.

The page is `templates/chain.html`; `assets/chain/*.js` fill it with what the routes below answer.
Every number comes from the library. Addresses that do not describe a chain are answered with the
reason.
"""

import gzip
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from chainrule.app.answers.encoding import encode
from chainrule.app.jobs.measuring import (
    QUICK_SECONDS,
    Measurer,
    count_entries,
    estimate_seconds,
    plan_seeds,
)
from chainrule.app.jobs.queue import Check, JobQueue, Lane
from chainrule.app.routes.replies import JSON, reply, send_body
from chainrule.app.state.chain_query import read_chain, read_expression, read_number
from chainrule.chain import (
    count_stable_layers,
    describe_chain,
    describe_expression,
    describe_product,
    draw_expression,
    draw_graph,
    find_best_weights,
    find_stable_weights,
    measure_depth,
    measure_product,
    measure_recurrence,
    nudge_chain,
)
from chainrule.chain.document import describe_nudge, describe_number
from chainrule.chain.layout import MAX_LAYERS_SHOWN
from chainrule.display.cards import describe_spec
from chainrule.errors import SpecError
from chainrule.spec.network_spec import NetworkSpec
from chainrule.spec.query import repair_query

SEEDS = 8
"""Networks whose median gains the page shows for the real network."""

MOST_PATHS = 12
"""Paths of an expression that are written out."""

LIVE_WEIGHTS = 2**22
"""Most weights of all of them together."""

Answer = dict[str, Any]


def register_routes(server: FastAPI, queue: JobQueue, measurer: Measurer) -> None:
    """Answer what the page asks for.

    Args:
        server: Where the routes go.
        queue: Where the work waits.
        measurer: What measures networks.
    """
    for path, answer in (
        ("/api/chain", answer_chain),
        ("/api/expression", answer_expression),
        ("/api/depth", answer_depth),
        ("/api/recurrence", answer_recurrence),
    ):
        server.get(path, include_in_schema=False)(_respond(queue, answer))

    @server.get("/api/network", include_in_schema=False)
    async def respond(request: Request) -> Response:
        return await reply(_respond_network(request, queue, measurer))


def answer_chain(query: dict[str, str]) -> Answer:
    """Return a chain's document and its graph.

    Args:
        query: x, weights, activation, wrt and, if there are any, biases (numbers with commas);
            lines=all for every line of the derivation, graph=all for a graph that folds nothing,
            in one row; order=forward for a derivation from input to output; nudge for how far wrt
            is moved; identifier for what begins the ids of the graph; form=brief for what the page
            shows at first, without LaTeX and without the full forms of folded lines.

    Raises:
        SpecError: If the query does not describe a chain.
    """
    chain, wrt = read_chain(query)
    unfold = query.get("graph") == "all"
    return {
        **describe_chain(
            chain,
            wrt,
            order="forward" if query.get("order") == "forward" else "backward",
            whole=query.get("lines") == "all",
            brief=query.get("form") == "brief",
        ),
        "nudge": describe_nudge(nudge_chain(chain, wrt, read_number(query, "nudge", 0.01))),
        "svg": draw_graph(
            chain,
            wrt,
            identifier=query.get("identifier", "graph")[:40],
            max_layers=chain.depth if unfold else MAX_LAYERS_SHOWN,
            one_row=unfold,
        ),
    }


def answer_expression(query: dict[str, str]) -> Answer:
    """Return the document of any scalar expression, and its graph.

    Args:
        query: expr, set (values such as "x=1,w=0.5"; 1 for every other name) and wrt; or preset
            for a known expression with its own values, of which set changes some; form=brief for
            what the page shows, without LaTeX.

    Raises:
        SpecError: If it is no expression, or a larger one than the page shows.
    """
    graph, wrt = read_expression(query)
    return {
        **describe_expression(graph, wrt, limit=MOST_PATHS, brief=query.get("form") == "brief"),
        "variables": list(graph.variables),
        "svg": draw_expression(graph, wrt, identifier="expression"),
    }


def answer_depth(query: dict[str, str]) -> Answer:
    """Return the running product of equal layers over depth, and the stable weights."""
    weight, x = read_number(query, "w", 1.0), read_number(query, "x", 1.0)
    activation = query.get("activation", "sigmoid")
    depth = _read_count(query, "depth", 50)
    curve = measure_depth(weight, activation, x=x, depth=depth)
    stable = find_stable_weights(activation, x=x, depth=depth)
    reach = count_stable_layers(activation, x=x, depth=depth, negative=weight < 0)
    return {
        "products": [describe_number(product) for product in curve.products],
        "best": [describe_number(product) for product in curve.best],
        "threshold": stable.threshold,
        "region": list(stable.best),
        "intervals": [list(interval) for interval in stable.intervals],
        "sentence": stable.sentence,
        "size": abs(weight),
        "negative": weight < 0,
        "reach": [[float(f"{size:.4g}"), layers] for size, layers in reach],
        "funnel": [list(find_best_weights(activation, layers)) for layers in range(1, depth + 1)],
    }


def answer_recurrence(query: dict[str, str]) -> Answer:
    """Return the gradient through time of a network that uses one weight at every step."""
    clip = query.get("clip")
    recurrence = measure_recurrence(
        read_number(query, "w", 1.0),
        _read_count(query, "steps", 20),
        x=read_number(query, "x", 1.0),
        activation=query.get("activation", "tanh"),
        clip=read_number(query, "clip", 1.0) if clip else None,
    )
    return {
        "steps": [
            {
                "back": step.back,
                "power": describe_number(step.power),
                "slopes": describe_number(step.slopes),
                "product": describe_number(step.product),
                "clipped": describe_number(step.clipped),
            }
            for step in recurrence.steps
        ],
        "uses": [describe_number(use) for use in recurrence.uses],
        "x": recurrence.chain.x,
        "gradient": describe_number(recurrence.gradient),
        "clip_factor": describe_number(recurrence.clip_factor),
        "clipped_gradient": describe_number(recurrence.clipped_gradient),
        "mathml": recurrence.to_mathml(),
        "sentence": recurrence.sentence,
    }


async def _respond_network(request: Request, queue: JobQueue, measurer: Measurer) -> Response:
    spec, notices = repair_query(request.url.query)
    seeds = count_networks(spec)
    quick = estimate_seconds(spec, seeds) <= QUICK_SECONDS
    notes = {"notices": list(notices)}
    body = await queue.run(
        request,
        lambda check: encode(answer_network(spec, seeds, measurer, check) | notes),
        lane=Lane.QUICK if quick else Lane.LONG,
        size=count_entries(spec),
    )
    return await send_body(request, body)


def count_networks(spec: NetworkSpec) -> int:
    """Return how many networks of a specification the page measures.

    Raises:
        SpecError: If even one is more than a page measures; says what to lower.
    """
    return min(
        plan_seeds(spec, SEEDS, first=False), max(1, LIVE_WEIGHTS // (spec.depth * spec.width**2))
    )


def answer_network(spec: NetworkSpec, seeds: int, measurer: Measurer, check: Check) -> Answer:
    """Return the measured gains of real, wide networks, in backward order.

    They are geometric means over the networks: unlike medians, these multiply as the gains do.

    Args:
        spec: The network.
        seeds: How many networks.
        measurer: What measures.
        check: Called again and again; may raise to give up.
    """
    flow = measurer.measure(spec, seeds, check)
    return {
        **describe_product(measure_product(flow)),
        "spec": spec.model_dump(),
        "query": spec.to_query(),
        "seeds": seeds,
        "sentence": (
            f"{describe_spec(spec)}: the factors of {seeds} real networks, measured by autograd "
            "(their geometric mean, which multiplies as they do)."
        ),
    }


def write_body(answer: Answer, *, packed: bool) -> bytes:
    """Return an answer as JSON, compressed where it is made: handing it on would take longer.

    Args:
        answer: The answer.
        packed: Whether whoever asks reads gzip.
    """
    body = encode(answer)
    return gzip.compress(body, 1, mtime=0) if packed else body


def _respond(queue: JobQueue, answer: Callable[[dict[str, str]], Answer]) -> Any:
    async def respond(request: Request) -> Response:
        async def work() -> Response:
            query = dict(request.query_params)
            packed = "gzip" in request.headers.get("accept-encoding", "")
            body = await queue.run(
                request, lambda _: write_body(answer(query), packed=packed), lane=Lane.QUICK
            )
            headers = {"Vary": "Accept-Encoding"}
            if packed:
                headers["Content-Encoding"] = "gzip"
            return Response(body, media_type=JSON, headers=headers)

        return await reply(work())

    return respond


def _read_count(query: dict[str, str], name: str, default: int) -> int:
    text = query.get(name, str(default))
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise SpecError(f"{name}: must be a whole number; got {text[:40]!r}.")
    return int(text)
