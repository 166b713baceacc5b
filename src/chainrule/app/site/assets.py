"""The pages' scripts and styles, read once, each under an address that names its content.

`/assets/VERSION/...` may be kept by a browser for ever: VERSION is a digest of all own files, so
that a script finds those it imports beside itself. `/assets/...` without it is the same file, asked
for anew each time. Files of others (`vendor/`) have a digest of their own: they change seldom.
"""

import gzip
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from posixpath import dirname, join, normpath

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import Response

from chainrule.app.answers.stored import CHECKED, LASTING, Stored

FOLDER = Path(__file__).parent.parent / "assets"

STYLES: Mapping[str, tuple[str, ...]] = {
    "explore": (
        "shared/base.css",
        "shared/flow.css",
        "shared/strip.css",
        "explore/explore.css",
        "explore/train.css",
    ),
    "chain": ("shared/base.css", "chain/chain.css"),
    "learn": (
        "shared/base.css",
        "shared/flow.css",
        "shared/strip.css",
        "lesson/lesson.css",
        "lesson/learn.css",
    ),
    "model": (
        "shared/base.css",
        "shared/flow.css",
        "shared/strip.css",
        "explore/explore.css",
        "model/model.css",
    ),
    "map": ("shared/base.css", "map/map.css"),
    "runs": ("shared/base.css", "runs/runs.css"),
    "plain": ("shared/base.css",),
}
"""The style sheets of each page; they are sent as one."""

PLOTLY = "vendor/plotly-basic.min.js"

_TYPES = {".js": "text/javascript", ".css": "text/css", ".txt": "text/plain"}

_IMPORT = re.compile(r'^(?:import|export)\b[^;]*?from\s+"(\.[^"]+)"|^import\s+"(\.[^"]+)"', re.M)


@dataclass(frozen=True)
class _Packed(Stored):
    """A file that is kept compressed."""

    source: bytes = b""

    @property
    def packed(self) -> bytes:
        """The bytes as they are kept."""
        return self.source


@dataclass(frozen=True, slots=True)
class Assets:
    """All files by address.

    Attributes:
        version: Stands in the lasting addresses of own files.
        files: Own files and joined style sheets by path, and those of others.
        lasting: Those of others by lasting path.
    """

    version: str
    files: Mapping[str, Stored]
    lasting: Mapping[str, Stored]

    def locate(self, path: str) -> str:
        """Return the lasting address of a file."""
        stored = self.files[path]
        own = f"{stored.digest}/{path}"
        return f"/assets/{own if own in self.lasting else f'{self.version}/{path}'}"

    def list_modules(self, path: str) -> list[str]:
        """Return the lasting addresses of all scripts that a script imports, directly or not."""
        found: dict[str, None] = {}
        waiting = [path]
        while waiting:
            script = waiting.pop(0)
            for imported in _find_imports(script, self.files[script].body.decode()):
                if imported not in found:
                    found[imported] = None
                    waiting.append(imported)
        return [self.locate(each) for each in found]


def _find_imports(path: str, text: str) -> Iterator[str]:
    for found in _IMPORT.finditer(text):
        yield normpath(join(dirname(path), found[1] or found[2]))


@cache
def load_assets() -> Assets:
    """Return all files of the pages."""
    files: dict[str, Stored] = {}
    for path in sorted(FOLDER.rglob("*.*")):
        name = path.relative_to(FOLDER).as_posix()
        content = path.read_bytes()
        if path.suffix == ".gz":
            name = name.removesuffix(".gz")
            files[name] = _Packed(
                gzip.decompress(content), _TYPES[Path(name).suffix], source=content
            )
        elif path.suffix in _TYPES:
            files[name] = Stored(content, _TYPES[path.suffix])
    for page, parts in STYLES.items():
        joined = b"\n".join(files[part].body for part in parts)
        files[f"styles/{page}.css"] = Stored(joined, "text/css")
    own = {name: stored for name, stored in files.items() if not name.startswith("vendor/")}
    digests = "".join(f"{name} {stored.digest}" for name, stored in own.items())
    lasting = {
        f"{stored.digest}/{name}": stored
        for name, stored in files.items()
        if name.startswith("vendor/")
    }
    return Assets(hashlib.sha256(digests.encode()).hexdigest()[:16], files, lasting)


def register_routes(server: FastAPI) -> None:
    """Serve the files.

    Args:
        server: Where the route goes.
    """
    assets = load_assets()

    @server.get("/assets/{path:path}", include_in_schema=False)
    def send(path: str, request: Request) -> Response:
        if path in assets.lasting:
            return assets.lasting[path].send(request, LASTING)
        version, _, rest = path.partition("/")
        stored = assets.files.get(rest if version == assets.version else path)
        if stored is None:
            raise HTTPException(404)
        return stored.send(request, LASTING if version == assets.version else CHECKED)
