"""What to change: remedies for the network on screen, each measured."""

from collections import OrderedDict

from fastapi import FastAPI, Request
from fastapi.responses import Response

from chainrule.app.answers.encoding import encode
from chainrule.app.answers.remedy_answer import describe_remedies
from chainrule.app.jobs.measuring import PAGE_BUDGET, count_entries, plan_seeds
from chainrule.app.jobs.queue import Check, JobQueue, Lane
from chainrule.app.routes.replies import reply, send_body
from chainrule.app.state.view import read_view
from chainrule.remedies.spec_search import choose_seeds, find_remedies
from chainrule.spec.network_spec import NetworkSpec

KEPT = 64
"""Answers that are kept for whoever asks the same."""


def register_routes(server: FastAPI, queue: JobQueue) -> None:
    """Answer what to change.

    Args:
        server: Where the route goes.
        queue: Where the searches wait.
    """
    kept: OrderedDict[tuple[NetworkSpec, int, int], bytes] = OrderedDict()

    @server.get("/api/remedies", include_in_schema=False)
    async def answer(request: Request) -> Response:
        """Answer with the remedies of the network in the address, ranked."""
        view, _ = read_view(request.url.query)
        spec, seeds = view.spec, min(view.seeds, choose_seeds(view.spec))

        async def search() -> Response:
            shown = plan_seeds(spec, view.seeds, first=False)
            key = (spec, seeds, shown)
            body = kept.get(key)
            if body is None:
                body = await queue.run(
                    request,
                    lambda check: _find(spec, seeds, shown, check),
                    lane=Lane.SEARCH,
                    size=count_entries(spec),
                )
                kept[key] = body
                while len(kept) > KEPT:
                    kept.popitem(last=False)
            return await send_body(request, body)

        return await reply(search())


def _find(spec: NetworkSpec, seeds: int, shown: int, check: Check) -> bytes:
    remedies = find_remedies(spec, seeds, budget=PAGE_BUDGET, progress=lambda _done, _all: check())
    return encode(describe_remedies(remedies, shown))
