"""The pages themselves: HTML with all of their text, the same for every visitor.

What a page is about is in its address, which its script reads; so each page is written once, and
kept. The templates are in `templates/`, longer texts in `text/`.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import FastAPI, Request
from fastapi.responses import Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.exceptions import HTTPException

from chainrule._utils.html import element
from chainrule.app.answers.page_picture import (
    SAFE,
    select_chain,
    select_nothing,
    select_run,
    select_sample,
    title_chain,
    title_map,
    title_run,
    title_sample,
)
from chainrule.app.answers.picture import QUESTION, write_picture_address
from chainrule.app.answers.stored import Stored
from chainrule.app.guard import WORKING
from chainrule.app.lesson.document import build_glossary, build_lesson
from chainrule.app.routes.explore_page import describe_vocabulary
from chainrule.app.routes.map_page import describe_map_form
from chainrule.app.routes.model_page import describe_limits, describe_samples
from chainrule.app.routes.replies import refuse
from chainrule.app.site.assets import PLOTLY, load_assets
from chainrule.app.site.thumbnails import draw_thumbnail
from chainrule.app.state.controls import CONTROLS
from chainrule.app.state.exercises import EXERCISES
from chainrule.app.state.view import PANELS, read_view
from chainrule.app.text import read_sections
from chainrule.chain.graph_presets import EXPRESSIONS
from chainrule.display.cards import describe_spec
from chainrule.presets import PRESETS
from chainrule.report.picture import SIZE
from chainrule.spec.activations import ACTIVATIONS

TEMPLATES = Path(__file__).parent.parent / "templates"

THEME_SCRIPT = (
    'try{const t=localStorage.getItem("theme");'
    'if(t==="light"||t==="dark")document.documentElement.dataset.theme=t}catch{}'
)
"""Runs before anything is painted: whoever chose dark is not shown a white page first."""

SCRIPT_HASHES = (
    f"'sha256-{base64.b64encode(hashlib.sha256(THEME_SCRIPT.encode()).digest()).decode()}'",
)
"""Of the only script that stands in the pages themselves."""


OWN_PICTURES: Mapping[
    str, tuple[Callable[[Mapping[str, str]], dict[str, str]], Callable[[Mapping[str, str]], str]]
] = {
    "chain": (select_chain, title_chain),
    "model": (select_sample, title_sample),
    "map": (select_nothing, title_map),
    "runs": (select_run, title_run),
}
"""Of pages with pictures of their own: what of the address is drawn, and what it is in words."""

PLACE = b'<meta name="preview">'
"""Stands in the templates where `write_previewed_page` writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of the site.

    Attributes:
        template: Its template.
        title: Its title, before the site's.
        description: What a search engine or a chat shows of it.
        styles: Its style sheet, a name of `assets.STYLES`.
        script: Its script.
        nav: Its entry in the navigation.
        charts: Whether it draws with Plotly.
    """

    template: str
    title: str
    description: str
    styles: str
    script: str
    nav: str = ""
    charts: bool = False


PAGES: Mapping[str, Page] = {
    "/": Page(
        template="explore.html",
        title="Explore gradient flow",
        description="See how gradients vanish or explode in deep networks, measured as you change "
        "depth, activation and initialization.",
        styles="explore",
        script="explore/explore.js",
        nav="explore",
        charts=True,
    ),
    "/chain-rule": Page(
        template="chain.html",
        title="The chain rule",
        description="The chain rule seen twice: every local step in the graph, one product in the "
        "equation. For a network, and as a sum over paths for any expression.",
        styles="chain",
        script="chain/chain.js",
        nav="chain",
    ),
    "/learn": Page(
        template="learn.html",
        title="Learn",
        description="Why gradients vanish or explode, one idea, one picture and one control at a "
        "time, with measured networks and popular claims put to the test.",
        styles="learn",
        script="lesson/learn.js",
        nav="learn",
        charts=True,
    ),
    "/map": Page(
        template="map.html",
        title="Phase map",
        description="Where gradients vanish, where they explode, and where networks learn: theory, "
        "measurement and training on one map.",
        styles="map",
        script="map/map.js",
        nav="map",
    ),
    "/your-model": Page(
        template="model.html",
        title="Your model",
        description="Open a flow file of your own PyTorch model: charts, diagnosis, and what to "
        "change.",
        styles="model",
        script="model/model.js",
        nav="model",
        charts=True,
    ),
    "/runs": Page(
        template="runs.html",
        title="Training runs",
        description="Training runs that chainrule.watch kept: live, with alarms in words.",
        styles="runs",
        script="runs/list.js",
        nav="runs",
    ),
}
"""The pages by path."""

RUN = Page(
    template="run.html",
    title="A training run",
    description="A training run: its loss, its gradients layer by layer and step by step, and its "
    "alarms in words.",
    styles="runs",
    script="runs/run.js",
    nav="runs",
)
"""The page of one run; which one is in its address."""

LESSON_WAYS = (
    ("backprop", "Backpropagation in one picture"),
    ("game", "The telephone game"),
    ("step", "What one layer multiplies by"),
    ("why", "Why gradients vanish or explode"),
    ("residual", "Residual connections: a path around"),
    ("activations", "Activations, with their slopes"),
    ("initializations", "Initializations: Xavier, He, LeCun"),
    ("fix", "The quick fix, as code"),
    ("claims", "Popular claims, measured"),
    ("glossary", "Glossary"),
)
"""The sections of the lesson that the explorer links to."""

NOT_FOUND = Page(
    template="not_found.html",
    title="Page not found",
    description="There is no such page.",
    styles="plain",
    script="shared/frame.js",
)


def register_routes(server: FastAPI) -> None:
    """Serve the pages, and a page that says so for every path that there is not.

    Args:
        server: Where the routes go.
    """
    for path, page in PAGES.items():
        server.api_route(path, methods=["GET", "HEAD"], include_in_schema=False)(_respond(page))

    server.api_route("/runs/{name}", methods=["GET", "HEAD"], include_in_schema=False)(
        _respond(RUN)
    )

    @server.exception_handler(HTTPException)
    async def explain(request: Request, error: HTTPException) -> Response:
        path = request.url.path
        if error.status_code != 404 or path.startswith(WORKING):
            reason = f"There is no {path[:80]} here." if error.status_code == 404 else error.detail
            answer = refuse(error.status_code, str(reason))
            answer.headers.update(error.headers or {})
            return answer
        return write_page(NOT_FOUND).send(request, status=404)


def _respond(page: Page) -> Any:
    async def respond(request: Request) -> Response:
        panel = request.query_params.get("embed", "") if page.nav == "explore" else ""
        if panel in PANELS:
            return write_page(page, panel).send(request)
        preview = describe_preview(page, request)
        query = request.url.query if page.nav == "explore" else None
        return write_previewed_page(page, preview, query).send(request)

    return respond


def prepare_pages() -> None:
    """Write and compress every page, so that the first visitor does not wait for it."""
    for page in (*PAGES.values(), RUN, NOT_FOUND):
        _ = write_page(page).packed
        for name in (page.script, f"styles/{page.styles}.css"):
            _ = load_assets().files[name].packed


@dataclass(frozen=True, slots=True)
class Preview:
    """What a chat or a network shows of a link (Open Graph, ogp.me).

    Attributes:
        title: Its first line.
        description: What is written below.
        address: Of the page.
        image: The address of a picture.
        alt: What the picture shows, for those who do not see it.
    """

    title: str
    description: str
    address: str
    image: str
    alt: str


def describe_preview(page: Page, request: Request) -> Preview:
    """Return what is shown of a link to a page: the network that its address names, if it has one.

    Nothing is measured here: the picture is, when somebody asks for it.

    Args:
        page: The page.
        request: Who asks for it, and under which address.
    """
    base, path = str(request.base_url).rstrip("/"), request.url.path
    if page.nav in OWN_PICTURES:
        return _preview_own(page, request, base)
    of_network = page.nav in ("explore", "learn")
    view, (usual, _) = read_view(request.url.query if of_network else "")[0], read_view("")
    address = "" if view == usual else write_picture_address(view)
    whole = ("" if view == usual else view.address) if of_network else request.url.query
    image = f"{base}/files/picture.png" + (f"?{address}" if address else "")
    title, description = page.title, page.description
    alt = f"The gradient of each layer: {describe_spec(view.spec)}."
    if address and view.guess:
        title, alt = view.ask or QUESTION, describe_spec(view.spec)
    elif address and view.pin:
        title = f"Before: {describe_spec(view.pin)}. After: {describe_spec(view.spec)}"
        alt = f"The gradient of each layer. {title}."
    elif address:
        title = describe_spec(view.spec)
    own = f"{base}{path}" + (f"?{whole}" if whole else "")
    return Preview(title, description, own, image, alt)


def _preview_own(page: Page, request: Request, base: str) -> Preview:
    """Return what is shown of a link to a page that has pictures of its own."""
    select, describe = OWN_PICTURES[page.nav]
    query = select({**request.query_params, **request.path_params})
    asked = request.url.query
    return Preview(
        title=describe(query) if query else page.title,
        description=page.description,
        address=f"{base}{request.url.path}" + (f"?{asked}" if asked else ""),
        image=f"{base}/files/{page.nav}.png" + (f"?{urlencode(query, safe=SAFE)}" if query else ""),
        alt=describe(query),
    )


@lru_cache(maxsize=32)
def write_previewed_page(page: Page, preview: Preview, query: str | None = None) -> Stored:
    """Return a page as HTML, with what is shown where somebody shares a link to it.

    Args:
        page: Which page.
        preview: What is shown.
        query: What the explorer is asked for; a browser then asks for the answer at once, before
            the page's scripts do.
    """
    width, height = SIZE
    meta: dict[str, str | float] = {
        "og:type": "website",
        "og:site_name": "chainrule",
        "og:title": preview.title,
        "og:description": preview.description,
        "og:url": preview.address,
        "og:image": preview.image,
        "og:image:type": "image/png",
        "og:image:width": width,
        "og:image:height": height,
        "og:image:alt": preview.alt,
    }
    lines = [element("meta", property=name, content=text) for name, text in meta.items()]
    lines.append(element("meta", name="twitter:card", content="summary_large_image"))
    if query is not None:
        question = f"/api/explore?{query}{'&' if query else ''}quick=1"
        lines.append(
            element("link", rel="preload", as_="fetch", href=question, crossorigin="anonymous")
        )
    head = "\n".join(lines).encode()
    return Stored(write_page(page).body.replace(PLACE, head, 1), "text/html")


@cache
def write_page(page: Page, panel: str = "") -> Stored:
    """Return a page as HTML.

    Args:
        page: Which page.
        panel: The one chart that is shown alone, if any.
    """
    assets = load_assets()
    template = load_templates().get_template("embed.html" if panel else page.template)
    text = template.render(
        page=page,
        panel=panel,
        script=assets.locate(page.script),
        modules=assets.list_modules(page.script),
        styles=assets.locate(f"styles/{page.styles}.css"),
        plotly=assets.locate(PLOTLY) if page.charts else None,
    )
    return Stored(text.encode(), "text/html")


@cache
def load_templates() -> Environment:
    """Return the pages' templates, with what they all can use."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["json_text"] = write_json
    environment.globals.update(
        theme_script=Markup(THEME_SCRIPT),
        pages=PAGES,
        vocabulary=describe_vocabulary(),
        controls=[control.describe() for control in CONTROLS.values()],
        presets=[asdict(preset) | {"label": preset.label} for preset in PRESETS.values()],
        activations=[(entry.name, entry.label) for entry in ACTIVATIONS.values()],
        expressions=list(EXPRESSIONS.values()),
        limits=describe_limits(),
        samples=describe_samples(),
        map_form=describe_map_form,
        lesson=build_lesson,
        glossary=build_glossary,
        lesson_ways=LESSON_WAYS,
        exercises=EXERCISES,
        read_sections=read_sections,
        draw_thumbnail=draw_thumbnail,
    )
    return environment


def write_json(value: Any) -> Markup:
    r"""Return JSON that can stand in a page's element for data: nothing in it ends the element.

    Args:
        value: What to write.

    Example:
        >>> write_json("</script>")
        Markup('"\\u003c/script>"')
    """
    return Markup(json.dumps(value, ensure_ascii=False).replace("<", "\\u003c"))
