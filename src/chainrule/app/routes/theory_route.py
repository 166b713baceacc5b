"""What theory says of the network on screen: the main chart again, with theory behind it."""

from functools import lru_cache
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from chainrule.app.answers.encoding import encode
from chainrule.app.jobs.measuring import Measurer, count_entries, plan_seeds
from chainrule.app.jobs.queue import Check, JobQueue, Lane
from chainrule.app.routes.replies import reply, send_body
from chainrule.app.state.view import View, read_view
from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.limits import read_usable_range
from chainrule.figures import MEASURES, build_gradient_figure
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.theory.prediction import Prediction, predict

DEEPEST = 100
"""Layers up to which the page asks theory: each takes 10 to 150 ms."""

KEPT = 64
"""Predictions that are kept: another scale or a pinned network changes nothing in them."""

_PREDICTED = ("weight", "delta")


def register_routes(server: FastAPI, queue: JobQueue, measurer: Measurer) -> None:
    """Answer what theory says.

    Args:
        server: Where the route goes.
        queue: Where the work waits.
        measurer: Has what is on screen already.
    """
    ask = lru_cache(KEPT)(predict)

    @server.get("/api/theory", include_in_schema=False)
    async def answer(request: Request) -> Response:
        """Answer with the main chart with theory in it, or without a chart, and with words."""
        view, _ = read_view(request.url.query)

        def work(check: Check) -> bytes:
            if words := _find_obstacle(view):
                return encode({"figure": None, "words": words})
            seeds = plan_seeds(view.spec, view.seeds, first=False)
            flow = measurer.measure(view.spec, seeds, check)
            other = None
            if view.pin is not None:
                other = measurer.measure(view.pin, plan_seeds(view.pin, seeds, first=False), check)
            check()
            return encode(describe_theory(view, flow, other, ask(view.spec, seeds)))

        async def find() -> Response:
            size = max(count_entries(spec) for spec in (view.spec, view.pin) if spec is not None)
            body = await queue.run(request, work, lane=Lane.LONG, size=size)
            return await send_body(request, body)

        return await reply(find())


def _find_obstacle(view: View) -> str:
    """Return why nothing is predicted here, in one sentence; "" if something may be."""
    if view.measure not in _PREDICTED:
        names = " and ".join(MEASURES[name].label for name in _PREDICTED)
        return f"Theory says something of {names} only: choose one of them."
    if view.spec.depth > DEEPEST:
        return (
            f"Theory is shown here for up to {DEEPEST} layers, and this network has "
            f"{view.spec.depth}: chainrule.theory.predict takes any depth."
        )
    return ""


def describe_theory(
    view: View, flow: GradientFlow, other: GradientFlow | None, prediction: Prediction
) -> dict[str, Any]:
    """Return the main chart with theory behind it, and how well both agree in words.

    Args:
        view: What is shown.
        flow: Its measurement.
        other: That of the pinned network.
        prediction: What theory says, of as many networks.
    """
    bands = prediction.list_bands(view.measure)
    words = prediction.describe_agreement(flow, view.measure)
    if not any(bands):
        return {"figure": None, "words": words}
    figure = build_gradient_figure(
        flow,
        measure=view.measure,
        scale=view.scale,
        other=other,
        usable=read_usable_range(flow, diagnose(flow).verdict),
        theory=bands,
    )
    return {"figure": figure, "words": f"{words} {prediction.sentence}".rstrip()}
