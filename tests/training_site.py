"""A page with nothing but the training panel, and a stand-in for the rest of the explorer."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse

import chainrule.app
from chainrule.app.jobs.queue import JobQueue
from chainrule.app.routes.training_route import register_routes
from serving import serve_app

ASSETS = Path(chainrule.app.__file__).parent / "assets"

PAGE = """<!DOCTYPE html>
<html lang="en" data-mantine-color-scheme="SCHEME"><head><title>training</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<link rel="stylesheet" href="/assets/explore/explore.css">
<link rel="stylesheet" href="/assets/explore/explore_train.css">
<style>
:root { --mantine-color-text: #000; --mantine-color-body: #fff;
  --mantine-color-blue-filled: #228be6; --mantine-color-default-border: #ced4da; }
:root[data-mantine-color-scheme="dark"] { --mantine-color-text: #c9c9c9;
  --mantine-color-body: #242424; --mantine-color-default-border: #424242; }
body { margin: 0; padding: 16px; color: var(--mantine-color-text);
  background: var(--mantine-color-body); font: 16px/1.5 system-ui, sans-serif; }
</style></head><body><main><h1>explore</h1><section data-part="train"></section></main>
<script src="/assets/explore/explore_train.js"></script>
<script>
window.shown = { query: "QUERY", pinned: PINNED, heard: [] };
window.answer = (query) => { shown.query = query; shown.heard.forEach((tell) => tell({}, query)); };
chainrule.mountTrain(document.querySelector('[data-part="train"]'), {
  query: () => shown.query, pinnedQuery: () => shown.pinned, apply: window.answer,
  onAnswer: (tell) => shown.heard.push(tell),
});
</script></body></html>"""


def create_site(queue: JobQueue | None = None) -> FastAPI:
    """Return an application with the page at "/", the panel's files and its route."""
    server = FastAPI()
    register_routes(server, queue or JobQueue())

    @server.get("/")
    def show(query: str = "", pinned: str | None = None, scheme: str = "light") -> HTMLResponse:
        shown = f'"{pinned}"' if pinned is not None else "null"
        page = PAGE.replace("SCHEME", scheme).replace("QUERY", query).replace("PINNED", shown)
        return HTMLResponse(page)

    @server.get("/assets/{name:path}")
    def read(name: str) -> FileResponse:
        return FileResponse(ASSETS / name)

    return server


@contextmanager
def serve_site() -> Iterator[str]:
    """Serve the page by uvicorn; give its address."""
    with serve_app(create_site()) as address:
        yield address
