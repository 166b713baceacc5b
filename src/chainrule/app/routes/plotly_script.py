"""Plotly's script, served by ourselves: the charts need no other host."""

import gzip
from functools import cache
from importlib.metadata import version
from importlib.resources import files

from fastapi import FastAPI, Request
from fastapi.responses import Response

PATH = f"/plotly-{version('plotly')}.min.js"
"""The address; it changes with the version, so that it may be kept for ever."""

_HEADERS = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}


def register_routes(server: FastAPI) -> None:
    """Serve the script, compressed for all who can read that."""

    @server.get(PATH, include_in_schema=False)
    def send(request: Request) -> Response:
        plain, packed = _read_script()
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers = {**_HEADERS, "Content-Encoding": "gzip"}
            return Response(packed, media_type="text/javascript", headers=headers)
        return Response(plain, media_type="text/javascript", headers=_HEADERS)


@cache
def _read_script() -> tuple[bytes, bytes]:
    plain = (files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    return plain, gzip.compress(plain, 5, mtime=0)
