"""The page for your model: a flow file goes in, its charts and diagnosis come out.

The page is `templates/model.html` and `assets/model/model.js`. A file is read as data and
validated; nothing in it is run, and nothing of it is kept: the browser sends it again when
something else of it is to be shown. Whoever has no model opens a sample.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect

from chainrule.app.answers.encoding import encode
from chainrule.app.answers.flow_answer import describe_flow
from chainrule.app.jobs.queue import Busy, Check, JobQueue, Lane, Superseded
from chainrule.app.routes.replies import refuse, reply, send_body
from chainrule.app.samples import SAMPLES, read_sample
from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.rule import Verdict
from chainrule.display.cards import (
    describe_attention,
    describe_measurement,
    describe_subject,
    describe_versions,
    start_sentence,
)
from chainrule.display.facts import Section, list_sections
from chainrule.display.tables import (
    ATTENTION_HEAD,
    CALL_HEAD,
    PARAMETER_HEAD,
    count_outputs,
    describe_block,
    write_attention_row,
    write_call_row,
    write_parameter_row,
)
from chainrule.figures import (
    MEASURES,
    SCALES,
    build_profile_figure,
    build_time_figure,
    count_hidden,
)
from chainrule.flow.blocks import build_profile, group_blocks, group_calls, is_profiled
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.loading import Limits, decode_flow
from chainrule.flow.time import LOST
from chainrule.remedies.advice import advise
from chainrule.remedies.result import write_search

LIMITS = Limits(size=16 * 2**20, entries=5_000, members=1_000, text=1_000)
"""What is read of a file that a visitor sends."""

UPLOADS = 4
"""Files that are received, or wait to be read, at the same time; they are kept in memory."""

TIME_CHARTS = 6
"""Recurrent modules that get a chart; the others are in the table."""

_DISCARDED = 4 * LIMITS.size
"""So much of a file that is too large is still received, so that its sender hears the reason."""

Answer = dict[str, Any]


def describe_limits() -> Answer:
    """Return the largest file that the page takes, and what it says of a larger one."""
    return {"bytes": LIMITS.size, "too_large": _describe_limit()}


def describe_samples() -> list[Answer]:
    """Return the samples that the page offers."""
    return [{**asdict(sample), "command": sample.command} for sample in SAMPLES.values()]


class Desk:
    """Counts the files that are being received or wait to be read."""

    def __init__(self, places: int = UPLOADS) -> None:
        self.free = places

    @contextmanager
    def take_place(self) -> Iterator[bool]:
        """Take a place, if there is one; give it back afterwards."""
        taken = self.free > 0
        self.free -= taken
        try:
            yield taken
        finally:
            self.free += taken


def register_routes(server: FastAPI, queue: JobQueue) -> None:
    """Answer what the page asks for.

    Args:
        server: Where the routes go.
        queue: Where the files wait to be read.
    """
    desk = Desk()

    @server.post("/api/flow", include_in_schema=False)
    async def answer(request: Request) -> Response:
        """Answer a flow file, the body, with everything that the page shows of it."""

        async def read() -> Response:
            with desk.take_place() as has_place:
                try:
                    content = await _receive(request, LIMITS.size if has_place else 0)
                except ClientDisconnect:
                    raise Superseded from None
                if not has_place:
                    raise Busy(f"The server is busy: it is reading {UPLOADS} files already.")
                if content is None:
                    return refuse(413, _describe_limit())
                query = dict(request.query_params)
                body = await queue.run(
                    request, lambda check: _answer(content, query, check), lane=Lane.SEARCH
                )
                return await send_body(request, body)

        return await reply(read())

    @server.get("/files/samples/{name}.json", include_in_schema=False)
    async def send_sample(name: str, request: Request) -> Response:
        """Send the flow file of a sample."""
        if name not in SAMPLES:
            return refuse(
                404, f"The sample must be one of {', '.join(SAMPLES)}; got {name[:40]!r}."
            )
        return await send_body(request, read_sample(name))


async def _receive(request: Request, limit: int) -> bytes | None:
    """Return the body; `None` if it is too large, without having kept more than the limit."""
    announced = request.headers.get("content-length", "")
    too_large = announced.isdigit() and int(announced[:12]) > limit
    parts: list[bytes] = []
    received = 0
    async for part in request.stream():
        received += len(part)
        too_large = too_large or received > limit
        if too_large:
            parts.clear()
            if received > _DISCARDED:
                return None
        else:
            parts.append(part)
    return None if too_large else b"".join(parts)


def _describe_limit() -> str:
    return (
        f"A flow file must be at most {LIMITS.size // 2**20} MiB here. Larger ones become a page "
        "with: chainrule report flow.json --open"
    )


def _answer(content: bytes, query: dict[str, str], check: Check) -> bytes:
    flow = decode_flow(content, limits=LIMITS)
    check()
    measure, scale, layer = (query.get(name, "") for name in ("measure", "scale", "layer"))
    answer = describe_model(
        flow,
        measure=measure if measure in MEASURES else "weight",
        scale=scale if scale in SCALES else "log",
        layer=int(layer) if layer.isascii() and layer.isdigit() and len(layer) < 10 else 1,
    )
    return encode(answer)


def describe_model(
    flow: GradientFlow, *, measure: str = "weight", scale: str = "log", layer: int = 1
) -> Answer:
    """Return everything the page shows of a measurement.

    Args:
        flow: What was measured.
        measure: What the main chart shows; a name of `MEASURES`.
        scale: "log" or "linear".
        layer: The layer shown in full.
    """
    layers = flow.weight_layers
    answer = describe_flow(flow, measure=measure, scale=scale, layer=layer)
    names = [f" ({entry.name})" if flow.spec is None and entry.name else "" for entry in layers]
    blocks = group_calls(flow)
    places = {id(block): place for place, block in enumerate(blocks)}
    subject = describe_subject(flow)
    return {
        **answer,
        "layers": [
            f"{sentence}{name}" for sentence, name in zip(answer["layers"], names, strict=True)
        ],
        "ensemble": {"note": f"{subject}; {describe_measurement(flow)}."},
        "caption": subject,
        "versions": describe_versions(flow),
        "view": {"measure": measure, "scale": scale, "layer": layer, "address": str(layer)},
        "modules": {
            "title": f"Every module, by block ({count_outputs(len(flow.layers))})",
            "head": CALL_HEAD,
            "blocks": [
                {
                    "name": block.name or "(model)",
                    "note": describe_block(block),
                    "rows": [write_call_row(call) for call in block.calls],
                }
                for block in blocks
            ],
            "stacks": [
                {"name": pattern, "blocks": [places[id(block)] for block in members]}
                for pattern, members in group_blocks(blocks)
            ],
        },
        "profile": _describe_profile(flow),
        "changes": _describe_changes(flow),
        "sections": [_describe_section(each) for each in list_sections(flow, diagnose(flow))],
        "attention": {
            "title": f"Attention ({len(flow.attentions):,})",
            "note": start_sentence(describe_attention(flow)),
            "head": ATTENTION_HEAD,
            "rows": [write_attention_row(each) for each in flow.attentions],
        }
        if flow.attentions
        else None,
        "parameters": {
            "title": f"Every parameter ({len(flow.parameters):,})",
            "head": PARAMETER_HEAD,
            "rows": [write_parameter_row(parameter) for parameter in flow.parameters],
        },
    }


def _describe_section(section: Section) -> Answer:
    return {
        "name": section.name,
        "title": section.title,
        "sentences": section.sentences,
        "code": section.code,
        "tables": [asdict(table) for table in section.tables],
        "charts": [
            {
                "title": f"{time.name or '(model)'}: {time.length:,} {time.unit}s",
                "figure": build_time_figure(time, lost=LOST),
            }
            for time in section.times[:TIME_CHARTS]
        ],
        "first": section.is_concerned,
    }


def _describe_profile(flow: GradientFlow) -> list[Answer]:
    """Return the repeated blocks of a large model, a chart for each kind of them."""
    if not is_profiled(flow):
        return []
    return [
        {
            "title": f"Depth profile: {stack.title}",
            "note": "The blocks side by side, a line for each place in a block."
            + (f" {hidden} more are in the table." if (hidden := count_hidden(stack)) else ""),
            "figure": build_profile_figure(stack),
        }
        for stack in build_profile(flow)
        if stack.repeats
    ]


def _describe_changes(flow: GradientFlow) -> Answer | None:
    """Return how to look for remedies, and advice; `None` for a healthy network.

    A flow file holds no weights, so that nothing can be tried here.
    """
    diagnosis = diagnose(flow)
    if diagnosis.verdict is Verdict.HEALTHY:
        return None
    advice = advise(flow, diagnosis) if flow.spec is None else ()
    return {"command": write_search(flow), "advice": [asdict(each) for each in advice]}
