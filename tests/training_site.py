"""A page with nothing but the training panel, and a stand-in for the rest of the explorer."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from chainrule.app.answers.training_answer import Order
from chainrule.app.jobs.queue import JobQueue
from chainrule.app.routes.training_route import register_routes
from chainrule.app.site import assets
from chainrule.app.site.pages import load_templates
from serving import serve_app

PAGE = """<!DOCTYPE html>
<html lang="en" data-theme="SCHEME"><head><title>training</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<link rel="stylesheet" href="/assets/styles/explore.css">
</head><body><main><h1>explore</h1>
<section data-part="train" aria-labelledby="tr-head">PANEL</section></main>
<script type="module">
import { mountTrain } from "/assets/explore/train.js";
window.shown = { query: "QUERY", pinned: PINNED, heard: [] };
window.answer = (query) => { shown.query = query; shown.heard.forEach((tell) => tell({}, query)); };
mountTrain(document.querySelector('[data-part="train"]'), {
  query: () => shown.query, pinnedQuery: () => shown.pinned, apply: window.answer,
  onAnswer: (tell) => shown.heard.push(tell),
});
</script></body></html>"""


def create_site(queue: JobQueue | None = None) -> FastAPI:
    """Return an application with the page at "/", the panel's files and its route."""
    server = FastAPI()
    register_routes(server, queue or JobQueue())
    assets.register_routes(server)
    panel = load_templates().get_template("train.html").render()

    @server.get("/")
    def show(query: str = "", pinned: str | None = None, scheme: str = "light") -> HTMLResponse:
        shown = f'"{pinned}"' if pinned is not None else "null"
        page = PAGE.replace("SCHEME", scheme).replace("QUERY", query).replace("PINNED", shown)
        return HTMLResponse(page.replace("PANEL", panel))

    return server


@contextmanager
def serve_site(queue: JobQueue | None = None) -> Iterator[str]:
    """Serve the page by uvicorn; give its address."""
    with serve_app(create_site(queue)) as address:
        yield address


def train_endlessly(running: list[Order], order: Order, should_stop: Callable[[], bool]):
    """Stand in for a training: it goes on until it is told to stop.

    Args:
        running: Where its order stands meanwhile.
        order: What is trained.
        should_stop: Whether it is told so.
    """
    running.append(order)
    try:
        for step in itertools.count():
            if should_stop():
                return
            status = f"Step {step} of {order.steps}."
            numbers = {"loss": 2.3, "accuracy": 0.1, "norms": [1.0] * order.spec.depth}
            line = {"type": "step", "step": min(step, order.steps), "status": status}
            yield {**line, **numbers, "total": 1.0, "clipped": 1.0}
            time.sleep(0.02)
    finally:
        running.remove(order)
