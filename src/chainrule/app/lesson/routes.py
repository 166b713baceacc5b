"""What the lesson asks the server for: its text, and the listing of a configuration."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from starlette.concurrency import run_in_threadpool

from chainrule.app.answers.encoding import encode
from chainrule.app.jobs.measuring import Measurer, count_entries, plan_seeds
from chainrule.app.jobs.queue import Busy, JobQueue, Lane
from chainrule.app.lesson.document import build_lesson
from chainrule.app.routes.replies import reply, send_body, send_json
from chainrule.app.state.view import View, read_view
from chainrule.display.script import format_listing_output, write_listing
from chainrule.errors import SpecError


def register_routes(server: FastAPI, queue: JobQueue, measurer: Measurer) -> None:
    """Answer with the lesson and with listings.

    GET /api/lesson: {"html"}. GET /api/listing with a network's query (and seeds): {"listing",
    "output" or null, "note", "query"}. GET /listing.py: the listing as a file.

    Args:
        server: Where the routes go.
        queue: Where the measurements wait.
        measurer: What measures; mostly it has just measured what the page shows.
    """

    @server.get("/api/lesson", include_in_schema=False)
    async def lesson(request: Request) -> Response:
        body = await run_in_threadpool(lambda: encode({"html": build_lesson()}))
        return await send_body(request, body, headers={"Cache-Control": "max-age=60"})

    @server.get("/api/listing", include_in_schema=False)
    async def listing(request: Request) -> Response:
        view, _ = read_view(request.url.query)
        seeds = _count_seeds(view)

        async def measure() -> Response:
            output, note = (
                None,
                "Too large to measure while you wait. Run it: it prints every layer.",
            )
            try:
                plan_seeds(view.spec, 1, first=False)
                output = await queue.run(
                    request,
                    lambda check: format_listing_output(measurer.measure(view.spec, seeds, check)),
                    lane=Lane.LONG,
                    size=count_entries(view.spec),
                )
                note = "The same numbers as the charts, to three digits."
            except Busy:
                note = "The server is busy just now. Run it: it prints every layer."
            except SpecError:
                pass  # larger than the page measures; the script itself has no bound
            return send_json(_answer(view, seeds, output, note))

        return await reply(measure())

    @server.get("/listing.py", include_in_schema=False)
    def download(request: Request) -> Response:
        view, _ = read_view(request.url.query)
        return PlainTextResponse(
            write_listing(view.spec, _count_seeds(view)),
            media_type="text/x-python",
            headers={"Content-Disposition": 'attachment; filename="listing.py"'},
        )


def _count_seeds(view: View) -> int:
    """Return how many networks the page shows of a view: then the script prints its numbers."""
    try:
        return plan_seeds(view.spec, view.seeds, first=False)
    except SpecError:
        return view.seeds


def _answer(view: View, seeds: int, output: str | None, note: str) -> dict[str, Any]:
    return {
        "listing": write_listing(view.spec, seeds),
        "output": output,
        "note": note,
        "query": view.spec.to_query(),
    }
