"""The picture of what is on screen, to share, and to show where a link to the page is shown."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from fastapi import FastAPI, Request
from fastapi.responses import Response

from chainrule.app.answers.picture import cover_picture, rasterize, write_picture_address
from chainrule.app.answers.stored import AnswerStore, Stored
from chainrule.app.jobs.measuring import Measurer, count_entries, plan_seeds
from chainrule.app.jobs.queue import Check, JobQueue, Lane
from chainrule.app.routes.replies import reply
from chainrule.app.state.view import read_view
from chainrule.report.picture import draw_picture

KINDS: Mapping[str, tuple[str, Callable[[str], bytes]]] = MappingProxyType(
    {"png": ("image/png", rasterize), "svg": ("image/svg+xml", str.encode)}
)
"""Media type of each kind of picture, and what makes it of the SVG."""

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

    def add_route(kind: str) -> None:
        media_type, make = KINDS[kind]

        @server.api_route(
            f"/files/picture.{kind}", methods=["GET", "HEAD"], include_in_schema=False
        )
        async def send(request: Request) -> Response:
            """Send the picture of what an address describes."""
            view, _ = read_view(request.url.query)
            shown = f"{request.base_url}?{write_picture_address(view)}"

            async def answer() -> Response:
                picture = store.find(f"{kind} {shown}")
                if picture is None:
                    picture = Stored(await draw(), media_type)
                    store.keep(f"{kind} {shown}", picture)
                response = picture.send(request, CACHING)
                response.headers["Content-Disposition"] = f'inline; filename="chainrule.{kind}"'
                return response

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

            return await reply(answer())

    for kind in KINDS:
        add_route(kind)
