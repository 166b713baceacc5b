"""The explore page: choose a network, see the gradient of every layer.

The page is `templates/explore.html`; `assets/explore/*.js` and `assets/shared/flow_view.js` fill it
with what the route here answers: every number and every word about it comes from the library.
"""

import time
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import Response

from chainrule.app.answers.encoding import encode
from chainrule.app.answers.flow_answer import describe_flow, describe_quickly
from chainrule.app.answers.stored import AnswerStore, Measured
from chainrule.app.jobs.measuring import (
    QUICK_SECONDS,
    Measurer,
    count_entries,
    estimate_seconds,
    plan_seeds,
)
from chainrule.app.jobs.queue import Check, JobQueue, Lane
from chainrule.app.routes.replies import JSON, refuse, reply
from chainrule.app.state.controls import CONTROLS
from chainrule.app.state.view import COVERS, PANELS, PARTS, View, read_view, write_query
from chainrule.display.cards import describe_subject
from chainrule.errors import SpecError
from chainrule.figures import MEASURES
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.presets import PRESETS

BAND_SEEDS = 5
"""From so many networks on, a band of percentiles means something."""

Answer = dict[str, Any]

Stage = Literal["quick", "first", ""]
"""How much is asked for: one network and the main chart, what can be measured at once, all."""


def describe_vocabulary() -> Answer:
    """Return the controls, scenarios and switches of the page as JSON can hold them."""
    return {
        "controls": [control.describe() for control in CONTROLS.values()],
        "presets": [
            {
                "name": preset.name,
                "look_at": preset.look_at,
                "verdict": str(preset.verdict),
                "query": write_query(preset.spec),
            }
            for preset in PRESETS.values()
        ],
        "measures": [[name, measure.label] for name, measure in MEASURES.items()],
        "panels": dict(PANELS),
        "parts": dict(PARTS),
        "covers": dict(COVERS),
    }


@dataclass(frozen=True, slots=True)
class _Plan:
    """How many networks to measure, of the one on screen and of the pinned one."""

    seeds: int
    pinned: int
    seconds: float


def _plan(view: View, stage: Stage = "") -> _Plan:
    """Return how many networks of a view to measure, and what that takes, roughly.

    Args:
        view: What to show.
        stage: How much is wanted.

    Raises:
        SpecError: If even one network of either is more than the page measures.
    """
    first = stage != ""
    seeds = plan_seeds(view.spec, 1 if stage == "quick" else view.seeds, first=first)
    seconds = estimate_seconds(view.spec, seeds)
    if view.pin is None:
        return _Plan(seeds, 0, seconds)
    try:
        pinned = plan_seeds(view.pin, seeds, first=first)
    except SpecError as error:
        raise SpecError(f"The pinned network is too large: {error}") from None
    return _Plan(seeds, pinned, seconds + estimate_seconds(view.pin, pinned))


def register_routes(
    server: FastAPI, queue: JobQueue, measurer: Measurer, answers: AnswerStore
) -> None:
    """Answer what the page asks for.

    Args:
        server: Where the routes go.
        queue: Where the measurements wait.
        measurer: What measures.
        answers: Where answers are kept.
    """

    @server.get("/api/explore", include_in_schema=False)
    async def answer(request: Request) -> Response:
        """Answer with everything that the page shows for an address.

        With `quick=1` at its end, one network is measured, and only what the page shows at once is
        described. With `first=1`, fewer networks may be measured so that the answer comes soon.
        The answer says so, and what the page asks for next.
        """
        asked = time.perf_counter()
        kept = answers.find(request.url.query)
        if kept is not None:
            return kept.send(request)
        query, stage = _split_stage(request.url.query)
        view, notices = read_view(query)
        try:
            plan = _plan(view, stage)
            _plan(view)  # what follows must be possible, too
        except SpecError as error:
            return refuse(422, str(error), view=view.describe(), notices=notices)

        def work(check: Check) -> tuple[Measured, str]:
            start = time.perf_counter()
            measured, described = _measure(view, notices, stage, measurer, check)
            answers.keep(request.url.query, described)
            return described, _tell_times(asked, start, measured)

        async def measure() -> Response:
            size = max(count_entries(spec) for spec in (view.spec, view.pin) if spec is not None)
            lane = choose_lane(plan.seconds, quick=stage == "quick")
            body, times = await queue.run(request, work, lane=lane, size=size, seconds=plan.seconds)
            response = body.send(request)
            response.headers["Server-Timing"] = times
            return response

        return await reply(measure(), view=view.describe(), notices=notices)


def prepare_answers(measurer: Measurer, answers: AnswerStore) -> None:
    """Measure what every first visitor asks for, so that nobody waits for it.

    Args:
        measurer: What measures.
        answers: Where the answer is kept.
    """
    view, notices = read_view("")
    _, described = _measure(view, notices, "quick", measurer, lambda: None)
    answers.keep("quick=1", described)


def choose_lane(seconds: float, *, quick: bool) -> Lane:
    """Return where a measurement waits.

    Args:
        seconds: What it takes, roughly.
        quick: Whether somebody waits for the first picture of a network.
    """
    if seconds > QUICK_SECONDS:
        return Lane.LONG
    return Lane.QUICK if quick else Lane.REFINE


def _measure(
    view: View, notices: tuple[str, ...], stage: Stage, measurer: Measurer, check: Check
) -> tuple[float, Measured]:
    """Return an answer, and when everything had been measured."""
    plan, whole = _plan(view, stage), _plan(view)
    shown = stage != "quick"  # the charts of activations
    flow = measurer.measure(view.spec, plan.seeds, check, histograms=shown)
    other = None
    if view.pin is not None:
        other = measurer.measure(view.pin, plan.pinned, check, histograms=shown)
    measured = time.perf_counter()
    answer = _describe(view, flow, other, notices, plan, whole, stage)
    described = Measured(encode(answer), JSON)
    _ = described.size, described.digest  # made here, in the thread that measures
    return measured, described


def _split_stage(query: str) -> tuple[str, Stage]:
    """Return an address, and what stands at its end: "quick=1", "first=1" or nothing."""
    stages: tuple[Stage, ...] = ("quick", "first")
    for stage in stages:
        mark = f"{stage}=1"
        if query == mark or query.endswith(f"&{mark}"):
            return query.removesuffix(mark).removesuffix("&"), stage
    return query, ""


def _tell_times(asked: float, start: float, measured: float) -> str:
    """Return what took how long as the header that browsers show beside a request."""
    parts = {
        "wait": start - asked,
        "measure": measured - start,
        "describe": time.perf_counter() - measured,
    }
    return ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in parts.items())


def _describe(
    view: View,
    flow: GradientFlow,
    other: GradientFlow | None,
    notices: tuple[str, ...],
    plan: _Plan,
    whole: _Plan,
    stage: Stage,
) -> Answer:
    if stage == "quick":
        answer = describe_quickly(flow, measure=view.measure, scale=view.scale, other=other)
    else:
        answer = describe_flow(
            flow, measure=view.measure, scale=view.scale, layer=view.layer, other=other
        )
    return {
        **answer,
        "quick": stage == "quick",
        "view": view.describe(),
        "notices": list(notices),
        "scenario": _name_scenario(view),
        "look_at": _describe_scenario(view, answer["cards"][-1]["note"]),
        "subject": describe_subject(flow),
        "caption": _caption(flow, other),
        "ensemble": {
            "seeds": plan.seeds,
            "partial": stage == "quick" or plan != whole,
            "next": _name_next(stage, plan, whole),
            "note": _describe_ensemble(plan, whole, view.seeds),
            "so_far": _count_so_far(plan, whole),
        },
        "chain": f"/chain-rule?{_write_chain_query(view)}",
    }


def _name_next(stage: Stage, plan: _Plan, whole: _Plan) -> str | None:
    """Return what the page asks for next; `None` where this is all."""
    if stage == "quick":
        return "whole" if whole.seconds <= QUICK_SECONDS else "first"
    return None if plan == whole else "whole"


def _caption(flow: GradientFlow, other: GradientFlow | None) -> str:
    subject = describe_subject(flow)
    return f"{subject}; pinned: {describe_subject(other)}" if other else subject


def _name_scenario(view: View) -> str | None:
    return next((name for name, preset in PRESETS.items() if preset.spec == view.spec), None)


def _describe_scenario(view: View, meaning: str) -> str:
    name = _name_scenario(view)
    if name is not None:
        return PRESETS[name].look_at
    return f"Your own configuration: {meaning[0].lower()}{meaning[1:]}"


_AREAS = (
    " Where gradients are too small or too large, a filled area shows how far they are from where "
    "layers learn."
)

_RATIOS = (
    " Ratios are worked out in each network first: their median can differ a little from the ratio "
    "of two medians."
)


def _describe_ensemble(plan: _Plan, whole: _Plan, wanted: int) -> str:
    seeds = plan.seeds
    networks = "network" if seeds == 1 else "networks"
    if seeds < whole.seeds:
        return f"First answer: {seeds} of {whole.seeds} networks; the others are being measured."
    if plan.pinned < whole.pinned:
        return (
            f"First answer: {plan.pinned} of {whole.pinned} pinned networks; the others are being "
            "measured."
        )
    if seeds == 1:
        text = "One network, measured by autograd"
    elif seeds < BAND_SEEDS:
        text = f"Median of {seeds} {networks}, measured by autograd"
    else:
        text = (
            f"Median of {seeds} networks and the grey band of the middle 80 %, measured by autograd"
        )
    if seeds < wanted:
        text += f"; {wanted} of this size would take too long on a page"
    return f"{text}.{_AREAS}{_RATIOS if seeds > 1 else ''}"


def _count_so_far(plan: _Plan, whole: _Plan) -> str:
    """Return of how many networks the values on screen are, in a few words; "" if of all."""
    if plan.seeds < whole.seeds:
        return f"{plan.seeds} of {whole.seeds} networks so far"
    if plan.pinned < whole.pinned:
        return f"{plan.pinned} of {whole.pinned} pinned networks so far"
    return ""


def _write_chain_query(view: View) -> str:
    """Return the address of the chain-rule page's view of the network.

    The page's own chain has an activation too, so the network's goes by another name.
    """
    return (
        view.query.replace("activation=", "network_activation=")
        if ("activation=" in view.query)
        else f"{view.query}&network_activation={view.spec.activation}"
    )
