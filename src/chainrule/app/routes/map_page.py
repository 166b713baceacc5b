"""The page of phase maps: theory, measurement and training over two axes.

The page is `templates/map.html`; `assets/map/map.js` fills it with what the route here answers.
"""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from chainrule.app.answers.map_answer import CellStore, describe_cells, describe_start
from chainrule.app.jobs.measuring import count_entries
from chainrule.app.jobs.queue import Busy, JobQueue, Lane
from chainrule.app.routes.replies import refuse
from chainrule.app.routes.streams import LineResponse
from chainrule.app.state.maps import DEFAULTS, KINDS, SETTINGS, STEPS, read_map
from chainrule.errors import ChainruleError
from chainrule.spec.activations import get_activation
from chainrule.sweeps.mapping import SEEDS
from chainrule.training.training import check_installed

LABELS = {
    "activation": "Activation",
    "bias_std": "Spread of the biases σ_b",
    "depth": "Depth",
    "width": "Width",
    "size": "Cells",
    "train": "Train each network, too",
}


def describe_map_form() -> dict[str, Any]:
    """Return the settings of the page with their choices, for its template."""
    fields = [
        {
            "name": name,
            "label": LABELS[name],
            "kinds": [kind for kind, each in KINDS.items() if name in (*each.settings, "train")],
            "value": str(DEFAULTS[name]),
            "choices": [(str(value), _write(name, value)) for value in values],
        }
        for name, values in SETTINGS.items()
    ]
    return {"kinds": [(name, kind.label) for name, kind in KINDS.items()], "fields": fields}


def _write(name: str, value: Any) -> str:
    if name == "activation":
        return get_activation(value).label
    if name == "size":
        return f"{value} × {value}"
    if name == "train":
        return {"": "no", "sgd": f"{STEPS} steps of SGD", "adam": f"{STEPS} steps of Adam"}[value]
    return f"{value:g}"


def register_routes(server: FastAPI, queue: JobQueue) -> None:
    """Answer `GET /api/map`.

    The answer is a stream of lines, each a JSON object with a `type`: "start" (axes and lines),
    "queued", "cell" as each is computed, at last "done" or "error". Empty lines mean nothing.

    Args:
        server: Where the route goes.
        queue: Where maps wait.
    """
    store = CellStore()

    @server.get("/api/map", include_in_schema=False)
    async def answer(request: Request) -> Response:
        view, notices = read_map(request.url.query)
        try:
            if view.training is not None:
                check_installed()
            start = await run_in_threadpool(describe_start, view, notices)
            y = view.axes[1]
            deepest = max(y.values) if y.name == "depth" else view.base.depth
            return LineResponse(
                start,
                lambda should_stop: describe_cells(view, store, should_stop),
                queue,
                lane=Lane.MAP,
                size=SEEDS * count_entries(view.base.replace(depth=deepest)),
                noun="map",
            )
        except (ChainruleError, Busy) as error:
            return refuse(503, str(error))
