"""What to change: remedies for the network on screen, each measured."""

import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from chainrule.app.jobs.measuring import PAGE_BUDGET, Busy, Lane, Measurer, Superseded, plan_seeds
from chainrule.app.state.view import read_view, write_query
from chainrule.errors import SpecError
from chainrule.remedies.result import Remedies, Remedy
from chainrule.remedies.spec_search import choose_seeds, find_remedies
from chainrule.spec.network_spec import NetworkSpec

KEPT = 64
"""Answers that are kept for whoever asks the same."""


def register_routes(server: FastAPI, measurer: Measurer) -> None:
    """Answer what to change.

    Args:
        server: Where the route goes.
        measurer: What measures.
    """
    kept: OrderedDict[tuple[NetworkSpec, int], bytes] = OrderedDict()
    lock = threading.Lock()

    @server.get("/api/remedies", include_in_schema=False)
    async def answer(request: Request) -> Response:
        """Answer with the remedies of the network in the address, ranked."""
        view, _ = read_view(request.url.query)
        spec, seeds = view.spec, min(view.seeds, choose_seeds(view.spec))
        key = (spec, seeds)
        try:
            plan_seeds(spec, 1, first=False)
            with lock:
                body = kept.get(key)
            if body is None:
                body = await measurer.run(
                    request, lambda check: _find(spec, seeds, check), lane=Lane.SEARCH
                )
                with lock:
                    kept[key] = body
                    while len(kept) > KEPT:
                        kept.popitem(last=False)
        except Superseded:
            return Response(status_code=499)
        except Busy as error:
            return JSONResponse({"error": str(error)}, 503, {"Retry-After": "5"})
        except SpecError as error:
            return JSONResponse({"error": str(error)}, 422)
        return Response(body, media_type="application/json")


def _find(spec: NetworkSpec, seeds: int, check: Callable[[], None]) -> bytes:
    remedies = find_remedies(spec, seeds, budget=PAGE_BUDGET, progress=lambda _done, _all: check())
    return json.dumps(_describe(remedies), ensure_ascii=False, separators=(",", ":")).encode()


def _describe(remedies: Remedies) -> dict[str, Any]:
    return {
        "verdict": str(remedies.diagnosis.verdict),
        "seeds": remedies.before.ensemble_size,
        "remedies": [_describe_remedy(remedy) for remedy in remedies],
        "refuted": [_describe_remedy(remedy) for remedy in remedies.refuted],
    }


def _describe_remedy(remedy: Remedy) -> dict[str, Any]:
    words = remedy.to_dict()
    return {
        **words,
        "query": "" if remedy.spec is None else write_query(remedy.spec),
        "meaning": remedy.outcome_text,
    }
