"""The page of training runs: which runs there are, what is known of each, files to keep.

The pages are `templates/runs.html` and `templates/run.html`. A name from an address is only ever
compared with the names of the files that the folder of runs holds; it never becomes a path.
"""

import gzip
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from chainrule.app.answers.encoding import encode
from chainrule.app.answers.page_picture import draw_runs
from chainrule.app.answers.picture import KINDS
from chainrule.app.answers.run_answer import (
    EXPORTS,
    describe_comparison,
    describe_error,
    describe_line,
    describe_run,
)
from chainrule.app.routes.replies import JSON, PACKED, refuse, send_body
from chainrule.errors import ChainruleError, RunFileError
from chainrule.report.run_report import build_run_report, draw_run
from chainrule.watch.export import export_run
from chainrule.watch.reading import RunReader, find_runs

LISTED = 200
"""Runs that the list shows at most, those written last."""

_KEPT = 32
"""Answers that are kept, so that several visitors of a run cost as much as one."""

T = TypeVar("T")


class Shelf:
    """The runs of a folder, by name, and the answers about them that still hold."""

    def __init__(self, folder: Path | None) -> None:
        """Look after a folder.

        Args:
            folder: The folder of runs; `None` if there is none.
        """
        self.folder = folder
        self._answers: OrderedDict[tuple[str, ...], tuple[str, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def list_files(self) -> dict[str, Path]:
        """Return the run files by name, those written last first.

        The name is the file's without its ending; the whole one where two would be the same.

        Raises:
            RunFileError: If the folder cannot be read.
        """
        files: dict[str, Path] = {}
        for path in find_runs(self.folder) if self.folder else ():
            files[path.stem if path.stem not in files else path.name] = path
        return files

    def find(self, name: str) -> Path | None:
        """Return the file of a run; `None` if no listed run has this name.

        Args:
            name: From an address.
        """
        try:
            return self.list_files().get(name)
        except RunFileError:
            return None

    def answer(self, key: tuple[str, ...], stamp: str, make: Callable[[], bytes]) -> bytes:
        """Return an answer, the one made before if nothing has changed since.

        Args:
            key: What is asked.
            stamp: Differs when the files do.
            make: Makes the answer; one at a time.
        """
        with self._lock:
            kept = self._answers.get(key)
            if kept is None or kept[0] != stamp:
                kept = self._answers[key] = stamp, make()
            self._answers.move_to_end(key)
            while len(self._answers) > _KEPT:
                self._answers.popitem(last=False)
            return kept[1]


def read_stamp(*paths: Path) -> str:
    """Return what changes when a run is written, begins or ends.

    Args:
        paths: Run files.
    """
    parts: list[object] = []
    for path in paths:
        for each in (path, path.with_name(f"{path.name}-wal")):
            try:
                state = each.stat()
                parts += [each.name, state.st_mtime_ns, state.st_size]
            except OSError:
                parts.append(each.name)
        try:
            parts.append(RunReader(path).live)
        except RunFileError as error:
            parts.append(str(error))
    return sha256(repr(parts).encode()).hexdigest()[:20]


def register_routes(server: FastAPI, folder: Path | None) -> None:
    """Answer what the pages of runs ask for.

    Args:
        server: Where the routes go.
        folder: The folder of runs; `None` if none was given.
    """
    shelf = Shelf(folder)
    server.state.runs = shelf

    @server.get("/api/runs", include_in_schema=False)
    async def list_all(request: Request) -> Response:
        """List the runs."""
        return await run_in_threadpool(_guarded, lambda: _list_runs(shelf, request))

    @server.get("/api/runs/{name}", include_in_schema=False)
    async def show(name: str, request: Request) -> Response:
        """Show a run, and another one to compare it with."""
        other = request.query_params.get("with", "")
        return await run_in_threadpool(_guarded, lambda: _show_run(shelf, request, name, other))

    @server.api_route("/files/runs.{kind}", methods=["GET", "HEAD"], include_in_schema=False)
    async def show_picture(kind: str, request: Request) -> Response:
        """Send the picture of a run, or of the list, for where a link is shown."""
        return await run_in_threadpool(_guarded, lambda: _send_picture(shelf, kind, request))

    @server.get("/files/runs/{name}/{file}", include_in_schema=False)
    async def send(name: str, file: str, request: Request) -> Response:
        """Send a table, the report, or one whole measurement of a run."""

        def make() -> tuple[bytes, str, str] | Response:
            path = shelf.find(name)
            return _refuse_name(shelf, name) if path is None else _write_file(path, file, request)

        made = await run_in_threadpool(_guarded, make)
        if isinstance(made, Response):
            return made
        body, media_type, kept = made
        headers = {"Content-Disposition": f'attachment; filename="{kept}"'}
        return await send_body(request, body, media_type=media_type, headers=headers)

    @server.get("/runs/{name}/report.html", include_in_schema=False)
    async def lead_to_report(name: str, request: Request) -> Response:
        """Lead to the report: making it takes time, so it stands where only own pages may ask."""
        known = await run_in_threadpool(shelf.find, name)
        if known is None:
            return _refuse_name(shelf, name)
        return RedirectResponse(f"/files/runs/{quote(name, safe='')}/report.html")


def _guarded(make: Callable[[], T]) -> T | Response:
    """Return what is made, or the reason why it could not be."""
    try:
        return make()
    except ChainruleError as error:
        return refuse(422, str(error))


def _list_runs(shelf: Shelf, request: Request) -> Response:
    if shelf.folder is None:
        return _send(request, encode({"folder": "", "runs": [], "hidden": 0}))
    try:
        files = shelf.list_files()
    except RunFileError as error:
        return refuse(422, describe_error(error, shelf.folder))
    shown = list(files.items())[:LISTED]
    lines = [
        shelf.answer(("line", name), read_stamp(path), _line_maker(path, name))
        for name, path in shown
    ]
    hidden = encode({"folder": shelf.folder.name, "hidden": len(files) - len(shown)})
    return _send(request, hidden[:-1] + b',"runs":[' + b",".join(lines) + b"]}")


def _line_maker(path: Path, name: str) -> Callable[[], bytes]:
    return lambda: encode(describe_line(path, name))


def _show_run(shelf: Shelf, request: Request, name: str, other: str) -> Response:
    path = shelf.find(name)
    beside = shelf.find(other) if other else None
    if path is None or (other and beside is None):
        return _refuse_name(shelf, name if path is None else other)
    stamp = read_stamp(path)
    tag = f'"{stamp if beside is None else stamp + read_stamp(beside)}"'
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers={"ETag": tag, "Cache-Control": "no-cache"})
    try:
        body = shelf.answer(
            ("run", name), stamp, lambda: encode(describe_run(RunReader(path), name))
        )
        if beside is not None:
            compared = shelf.answer(
                ("pair", name, other),
                tag,
                lambda: encode(describe_comparison(RunReader(path), RunReader(beside), other)),
            )
            body = body[:-1] + b',"other":' + compared + b"}"
    except RunFileError as error:
        return refuse(422, describe_error(error, path))
    answer = _send(request, body)
    answer.headers["ETag"] = tag
    return answer


def _send_picture(shelf: Shelf, kind: str, request: Request) -> Response:
    """Return the picture of a run; that of the list for a run that cannot be read."""
    if kind not in KINDS:
        return refuse(404, f"A picture must be {' or '.join(KINDS)}; got {kind[:20]!r}.")
    media_type, make = KINDS[kind]
    name = request.query_params.get("name", "")
    path = shelf.find(name) if name else None
    base = f"{request.base_url}runs"
    body = None
    if path is not None:
        address = f"{base}/{quote(name, safe='')}"
        with suppress(RunFileError):
            body = shelf.answer(
                ("picture", kind, address),
                read_stamp(path),
                lambda: make(draw_run(RunReader(path), address)),
            )
    if body is None:
        body = shelf.answer(("picture", kind, base), "", lambda: make(draw_runs(base)))
    return Response(body, media_type=media_type, headers={"Cache-Control": "no-cache"})


def _write_file(path: Path, file: str, request: Request) -> tuple[bytes, str, str] | Response:
    """Return a file's bytes, what they are, and the name to keep it under."""
    stem = "".join(letter if (letter.isascii() and letter.isalnum()) or letter in "-_" else "_"
                   for letter in path.stem)[:80] or "run"  # fmt: skip
    tables = {f"{what}.csv": what for what, _ in EXPORTS}
    try:
        reader = RunReader(path)
        if file == "report.html":
            return build_run_report(reader).encode(), "text/html", f"{stem}-report.html"
        if file == "flow.json":
            step = request.query_params.get("step", "")
            if not (step.isascii() and step.isdigit() and len(step) < 12):
                return refuse(422, f"The step must be a whole number; got {step[:40]!r}.")
            flow = reader.flow(int(step))
            return flow.to_json().encode(), JSON, f"{stem}-step-{step}.json"
        if file in tables:
            with tempfile.TemporaryDirectory() as folder:
                target = Path(folder) / file
                export_run(reader, target, tables[file])
                return target.read_bytes(), "text/csv", f"{stem}-{file}"
    except ChainruleError as error:
        return refuse(422, describe_error(error, path))
    known = ", ".join(["report.html", "flow.json", *tables])
    return refuse(404, f"The file must be one of {known}; got {file[:40]!r}.")


def _refuse_name(shelf: Shelf, name: str) -> Response:
    if shelf.folder is None:
        return refuse(404, "There are no runs here. Start with: chainrule explore --runs FOLDER")
    return refuse(404, f"There is no run of the name {name[:80]!r} in the folder of runs.")


def _send(request: Request, body: bytes) -> Response:
    """Return an answer, or that it is still what the browser has."""
    tag = f'"{sha256(body).hexdigest()[:20]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if len(body) > PACKED and "gzip" in request.headers.get("accept-encoding", ""):
        body = gzip.compress(body, 1, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return Response(body, media_type=JSON, headers=headers)
