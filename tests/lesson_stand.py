"""A page with nothing on it but the lesson, and an explorer that only remembers what it is told."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

import chainrule.app
from chainrule.app.jobs.measuring import Measurer
from chainrule.app.jobs.queue import JobQueue
from chainrule.app.lesson import register_routes

ASSETS = Path(chainrule.app.__file__).parent / "assets"

PAGE = """<!DOCTYPE html>
<html lang="en" data-mantine-color-scheme="light">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>stand-in</title><link rel="icon" href="data:,">
<link rel="stylesheet" href="/assets/explore/explore.css">
<link rel="stylesheet" href="/assets/lesson/lesson.css">
<style>
  :root { --mantine-color-text: #1b1d20; --mantine-color-body: #fff;
    --mantine-color-default-border: #d5d9de; color-scheme: light; }
  :root[data-mantine-color-scheme="dark"] { --mantine-color-text: #dde1e6;
    --mantine-color-body: #1f2226; --mantine-color-default-border: #41464d; color-scheme: dark; }
  body { margin: 0; padding: 16px; background: var(--mantine-color-body);
    color: var(--mantine-color-text); font-family: system-ui, "Noto Sans", sans-serif; }
</style>
<script>
  if (matchMedia("(prefers-color-scheme: dark)").matches)
    document.documentElement.dataset.mantineColorScheme = "dark";
</script>
</head>
<body>
<div id="explore-root" class="ex-root"><div id="charts" style="height: 700px">charts</div>
<section id="what-to-change" tabindex="-1">remedies</section>
<section data-part="lesson" id="lesson"></section></div>
<script src="/assets/lesson/lesson.js"></script>
<script>
  const listeners = [];
  window.explore = {
    current: location.search.slice(1) || "depth=15&init=xavier",
    query: () => explore.current,
    pinnedQuery: () => null,
    apply: (query) => { explore.current = query; listeners.forEach((tell) => tell({}, query)); },
    onAnswer: (listener) => listeners.push(listener),
  };
  document.getElementById("explore-root").addEventListener("click", (event) => {
    const link = event.target.closest("a[data-show]");
    if (!link || event.ctrlKey) return;
    event.preventDefault();
    explore.apply(new URL(link.href).search.slice(1));
    scrollTo(0, 0);
  });
  chainrule.mountLesson(document.querySelector("[data-part=lesson]"), explore);
</script>
</body></html>
"""


def create_server() -> FastAPI:
    """Return a server of the page, the assets, and what the lesson asks for."""
    server = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    register_routes(server, JobQueue(), Measurer())
    server.mount("/assets", StaticFiles(directory=ASSETS))

    @server.get("/")
    def page() -> HTMLResponse:
        return HTMLResponse(PAGE)

    return server
