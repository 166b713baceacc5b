"""The smallest page of the same stack with a slider: what a key costs before anything is measured.

Each key asks the server for one number, and the page shows it.
"""

import sys

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, JSONResponse

PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>bare</title><link rel="icon" href="data:,"></head>
<body><input type="range" id="slider" min="0" max="1000" value="500" aria-label="value">
<p id="text"></p>
<script type="module">
const slider = document.getElementById("slider");
slider.addEventListener("input", async () => {
  const answer = await (await fetch(`/number?value=${slider.value}`)).json();
  document.getElementById("text").textContent = answer.value;
});
</script></body></html>"""


def create_app() -> FastAPI:
    """Return an application with the page and the route that it asks."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/")
    def show() -> HTMLResponse:
        return HTMLResponse(PAGE)

    @app.get("/number")
    async def answer(value: int) -> JSONResponse:
        return JSONResponse({"value": str(value)})

    return app


def main(port: int) -> None:
    """Serve the page."""
    import uvicorn

    uvicorn.run(create_app(), port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main(int(sys.argv[1]))
