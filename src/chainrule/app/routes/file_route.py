"""What is on screen, to keep: the flow file, the numbers, a report."""

from collections.abc import Callable

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from chainrule.app.jobs.measuring import Busy, Lane, Measurer, Superseded, plan_seeds
from chainrule.app.state.view import read_view
from chainrule.display.export import to_csv, to_summary_json
from chainrule.errors import SpecError
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.report import build_report

FILES: dict[str, tuple[str, Callable[[GradientFlow], str]]] = {
    "flow.json": ("application/json", GradientFlow.to_json),
    "numbers.csv": ("text/csv", to_csv),
    "numbers.json": ("application/json", to_summary_json),
    "report.html": ("text/html", build_report),
}
"""Media type and contents of each file by name."""


def register_routes(server: FastAPI, measurer: Measurer) -> None:
    """Send the files of whatever an address describes.

    Args:
        server: Where the route goes.
        measurer: What measures.
    """

    @server.get("/files/{name}", include_in_schema=False)
    async def send(name: str, request: Request) -> Response:
        """Send one file of the network in the address."""
        if name not in FILES:
            return JSONResponse({"error": f"There is only {', '.join(FILES)}."}, 404)
        media_type, write = FILES[name]
        view, _ = read_view(request.url.query)
        try:
            seeds = plan_seeds(view.spec, view.seeds, first=False)
            text = await measurer.run(
                request,
                lambda check: write(measurer.measure(view.spec, seeds, check)),
                lane=Lane.SEARCH,
            )
        except Superseded:
            return Response(status_code=499)
        except Busy as error:
            return JSONResponse({"error": str(error)}, 503, {"Retry-After": "5"})
        except SpecError as error:
            return JSONResponse({"error": str(error)}, 422)
        disposition = f'attachment; filename="chainrule-{name}"'
        return Response(text, media_type=media_type, headers={"Content-Disposition": disposition})
