"""The picture of what is on screen, to share, and to show where a link to the page is shown."""

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from urllib.parse import urlencode

from fastapi import FastAPI, Request
from fastapi.responses import Response

from chainrule.app.answers.page_picture import (
    SAFE,
    draw_chain,
    draw_map,
    draw_model,
    select_chain,
    select_nothing,
    select_sample,
)
from chainrule.app.answers.picture import KINDS, cover_picture, write_picture_address
from chainrule.app.answers.stored import AnswerStore, Stored
from chainrule.app.jobs.measuring import Measurer, count_entries, plan_seeds
from chainrule.app.jobs.queue import Check, JobQueue, Lane
from chainrule.app.routes.replies import reply
from chainrule.app.state.view import read_view
from chainrule.report.picture import draw_picture

Query = Mapping[str, str]

PAGES: Mapping[str, tuple[str, Callable[[Query], dict[str, str]], Callable[[Query, str], str]]] = (
    MappingProxyType(
        {
            "chain": ("chain-rule", select_chain, draw_chain),
            "model": ("your-model", select_sample, draw_model),
            "map": ("map", select_nothing, draw_map),
        }
    )
)
"""Of each picture of another page: its path, what of its address is drawn, and what draws it."""

KEPT = 2**23
"""Bytes of pictures that are kept: about 100 KB each."""

CACHING = "public, max-age=3600"
"""The same address always gives the same picture; another version may draw another one."""


def register_routes(server: FastAPI, queue: JobQueue, measurer: Measurer) -> None:
    """Send pictures.

    Args:
        server: Where the route goes.
        queue: Where the measurements wait.
        measurer: What measures.
    """
    store = AnswerStore(KEPT)

    async def send_picture(
        request: Request, kind: str, shown: str, draw: Callable[[], Awaitable[bytes]]
    ) -> Response:
        async def answer() -> Response:
            picture = store.find(f"{kind} {shown}")
            if picture is None:
                picture = Stored(await draw(), KINDS[kind][0])
                store.keep(f"{kind} {shown}", picture)
            response = picture.send(request, CACHING)
            response.headers["Content-Disposition"] = f'inline; filename="chainrule.{kind}"'
            return response

        return await reply(answer())

    def add_route(kind: str) -> None:
        make = KINDS[kind][1]

        @server.api_route(
            f"/files/picture.{kind}", methods=["GET", "HEAD"], include_in_schema=False
        )
        async def send(request: Request) -> Response:
            """Send the picture of what an address describes."""
            view, _ = read_view(request.url.query)
            shown = f"{request.base_url}?{write_picture_address(view)}"

            async def draw() -> bytes:
                seeds = plan_seeds(view.spec, view.seeds, first=False)
                pinned = plan_seeds(view.pin, seeds, first=False) if view.pin else 0

                def work(check: Check) -> bytes:
                    if view.guess:
                        return make(cover_picture(view, shown))
                    flow = measurer.measure(view.spec, seeds, check)
                    other = measurer.measure(view.pin, pinned, check) if view.pin else None
                    return make(draw_picture(flow, other=other, address=shown))

                size = max(count_entries(spec) for spec in (view.spec, view.pin) if spec)
                return await queue.run(request, work, lane=Lane.SEARCH, size=size)

            return await send_picture(request, kind, shown, draw)

    def add_page_route(name: str, kind: str) -> None:
        path, select, draw_page = PAGES[name]
        make = KINDS[kind][1]

        @server.api_route(f"/files/{name}.{kind}", methods=["GET", "HEAD"], include_in_schema=False)
        async def send(request: Request) -> Response:
            """Send the picture of what an address of another page describes."""
            query = select(request.query_params)
            shown = f"{request.base_url}{path}" + (
                f"?{urlencode(query, safe=SAFE)}" if query else ""
            )

            async def draw() -> bytes:
                return await queue.run(
                    request, lambda _: make(draw_page(query, shown)), lane=Lane.SEARCH
                )

            return await send_picture(request, kind, shown, draw)

    for kind in KINDS:
        add_route(kind)
        for name in PAGES:
            add_page_route(name, kind)
