"""A page with nothing on it but the lesson, and an explorer that only remembers what it is told."""

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from chainrule.app.jobs.measuring import Measurer
from chainrule.app.jobs.queue import JobQueue
from chainrule.app.lesson import register_routes
from chainrule.app.lesson.document import build_lesson
from chainrule.app.site import assets

PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>stand-in</title><link rel="icon" href="data:,">
<link rel="stylesheet" href="/assets/styles/explore.css">
</head>
<body><main>
<div id="explore-root" class="ex-root"><div id="charts" style="height: 700px">charts</div>
<section id="what-to-change" tabindex="-1">remedies</section>
<section data-part="lesson" id="lesson">LESSON</section></div>
</main>
<script type="module">
  import { mountLesson } from "/assets/lesson/lesson.js";
  const listeners = [];
  window.explore = {
    current: location.search.slice(1) || "depth=15&init=xavier",
    query: () => explore.current,
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
  mountLesson(document.querySelector("[data-part=lesson]"), explore);
  document.body.dataset.ready = "1";
</script>
</body></html>
"""


def create_server() -> FastAPI:
    """Return a server of the page, the assets, and what the lesson asks for."""
    server = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    register_routes(server, JobQueue(), Measurer())
    assets.register_routes(server)

    @server.get("/")
    def page() -> HTMLResponse:
        return HTMLResponse(PAGE.replace("LESSON", build_lesson()))

    return server
