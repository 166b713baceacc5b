"""What the lesson asks the server for: its text, and the listing of a configuration."""

from typing import Any
from urllib.parse import parse_qsl, urlencode

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from chainrule.app.lesson.document import build_lesson
from chainrule.listing import format_listing_output, write_listing
from chainrule.simulation import simulate
from chainrule.spec import MAX_SEED, NetworkSpec, repair_query

SEEDS, MAX_SEEDS = 16, 64

LIVE_WEIGHTS = 2**23
"""Most weights of all networks whose output is computed at once."""


def register_routes(server: FastAPI) -> None:
    """Answer with the lesson and with listings.

    GET /api/lesson: {"html"}. GET /api/listing with a network's query (and seeds): {"listing",
    "output" or null, "note", "query"}. GET /listing.py: the listing as a file.
    """

    @server.get("/api/lesson", include_in_schema=False)
    def lesson() -> JSONResponse:
        return JSONResponse({"html": build_lesson()}, headers={"Cache-Control": "max-age=60"})

    @server.get("/api/listing", include_in_schema=False)
    def listing(request: Request) -> JSONResponse:
        return JSONResponse(answer_listing(request.url.query))

    @server.get("/listing.py", include_in_schema=False)
    def download(request: Request) -> Response:
        spec, seeds = read_query(request.url.query)
        return PlainTextResponse(
            write_listing(spec, seeds),
            media_type="text/x-python",
            headers={"Content-Disposition": 'attachment; filename="listing.py"'},
        )


def read_query(query: str) -> tuple[NetworkSpec, int]:
    """Return the network that a visitor's query describes, and how many of it.

    Args:
        query: Any string; what is illegal is mended as the explorer does.
    """
    try:
        pairs = parse_qsl(query[:4000], max_num_fields=100, errors="replace")
    except ValueError:
        pairs = []
    asked = next((text for name, text in reversed(pairs) if name == "seeds"), "")
    seeds = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 6 else SEEDS
    spec, _ = repair_query(urlencode([pair for pair in pairs if pair[0] != "seeds"]))
    return spec, max(1, min(seeds, MAX_SEEDS, MAX_SEED - spec.seed + 1))


def answer_listing(query: str) -> dict[str, Any]:
    """Return a listing and what it prints.

    Args:
        query: A network's query, with "seeds" for how many.
    """
    spec, seeds = read_query(query)
    weights = spec.depth * spec.width * (spec.width + spec.batch_size) * seeds
    live = weights <= LIVE_WEIGHTS
    output = format_listing_output(simulate(spec, seeds)) if live else None
    note = (
        "The same numbers as the charts, to three digits."
        if live
        else "Too large to measure while you wait. Run it: it prints every layer."
    )
    return {
        "listing": write_listing(spec, seeds),
        "output": output,
        "note": note,
        "query": spec.to_query(),
    }
