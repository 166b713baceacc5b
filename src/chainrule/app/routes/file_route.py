"""What is on screen, to keep: the flow file, the numbers, a report."""

from collections.abc import Callable

from fastapi import FastAPI, Request
from fastapi.responses import Response

from chainrule.app.jobs.measuring import Measurer, count_entries, plan_seeds
from chainrule.app.jobs.queue import Check, JobQueue, Lane
from chainrule.app.routes.replies import refuse, reply, send_body
from chainrule.app.state.view import read_view
from chainrule.display.export import to_csv, to_summary_json
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.report import build_report

FILES: dict[str, tuple[str, Callable[[GradientFlow], str]]] = {
    "flow.json": ("application/json", GradientFlow.to_json),
    "numbers.csv": ("text/csv", to_csv),
    "numbers.json": ("application/json", to_summary_json),
    "report.html": ("text/html", build_report),
}
"""Media type and contents of each file by name."""


def register_routes(server: FastAPI, queue: JobQueue, measurer: Measurer) -> None:
    """Send the files of whatever an address describes.

    Args:
        server: Where the route goes.
        queue: Where the measurements wait.
        measurer: What measures.
    """

    @server.get("/files/{name}", include_in_schema=False)
    async def send(name: str, request: Request) -> Response:
        """Send one file of the network in the address."""
        if name not in FILES:
            return refuse(404, f"The file must be one of {', '.join(FILES)}; got {name[:40]!r}.")
        media_type, write = FILES[name]
        view, _ = read_view(request.url.query)

        async def write_file() -> Response:
            seeds = plan_seeds(view.spec, view.seeds, first=False)
            pin = view.pin if name == "report.html" else None
            pinned = plan_seeds(pin, seeds, first=False) if pin else 0

            def work(check: Check) -> bytes:
                flow = measurer.measure(view.spec, seeds, check)
                if pin is None:
                    return write(flow).encode()
                return build_report(flow, other=measurer.measure(pin, pinned, check)).encode()

            body = await queue.run(
                request,
                work,
                lane=Lane.SEARCH,
                size=max(count_entries(spec) for spec in (view.spec, pin) if spec is not None),
            )
            headers = {"Content-Disposition": f'attachment; filename="chainrule-{name}"'}
            return await send_body(request, body, media_type=media_type, headers=headers)

        return await reply(write_file())
