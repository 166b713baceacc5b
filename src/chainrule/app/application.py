"""The Dash application: the frame around the pages, and what they ask the server for."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, dcc, html
from fastapi import FastAPI

from chainrule.app import lesson
from chainrule.app.guard import Guard, choose_hosts
from chainrule.app.jobs.measuring import Measurer
from chainrule.app.jobs.queue import JobQueue
from chainrule.app.routes import (
    chain_page,
    explore_page,
    file_route,
    model_page,
    plotly_script,
    remedy_route,
    training_route,
)

THEME = {
    "primaryColor": "blue",
    "defaultRadius": "md",
    "fontFamily": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif",
}

_ASSETS = Path(__file__).parent / "assets"

_SHARED = "shared"
"""The folder of the scripts that all others use. Dash loads folders in order of their names."""

PAGES = {"/": explore_page, "/chain-rule": chain_page, "/your-model": model_page}
"""The pages by path; an unknown path shows the first one."""


def create_app(*, host: str = "0.0.0.0", allowed_hosts: Iterable[str] = ()) -> Dash:
    """Return the explorer; `create_app().server` is an ASGI application for any server.

    It keeps no state between requests, so any number of workers can serve it, and it loads nothing
    from other hosts. Requests under a name that it does not know are refused, so that a page of
    another site cannot use it under a name of its own (DNS rebinding).

    Args:
        host: The address that the server listens on. It is served under this name, and under those
            of the machine itself. With 0.0.0.0 or :: any address in numbers is served too.
        allowed_hosts: Further names under which it is served, such as that of a proxy before it;
            "*" for every name.

    Example:
        >>> create_app(allowed_hosts=["chainrule.example.org"]).title
        'chainrule · see gradient flow'
    """
    server = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    # Before Dash takes all remaining paths:
    queue, measurer = JobQueue(), Measurer()
    server.state.queue = queue
    explore_page.register_routes(server, queue, measurer)
    remedy_route.register_routes(server, queue)
    file_route.register_routes(server, queue, measurer)
    training_route.register_routes(server, queue)
    lesson.register_routes(server, queue, measurer)
    chain_page.register_routes(server, queue, measurer)
    model_page.register_routes(server, queue)
    plotly_script.register_routes(server)
    app = Dash(
        "chainrule",
        server=server,
        title="chainrule · see gradient flow",
        update_title="",
        assets_folder=str(_ASSETS),
        assets_path_ignore=[f"^{_SHARED}$"],  # the page below names these before all others
        serve_locally=True,
        suppress_callback_exceptions=True,  # a page's controls exist while it is shown
        meta_tags=[{"name": "description", "content": "See how gradients flow in deep networks."}],
        index_string=_INDEX.replace("PLOTLY", plotly_script.PATH).replace(
            "SHARED", _name_shared_scripts()
        ),
    )
    app.layout = dmc.MantineProvider(_build_frame(), theme=THEME, defaultColorScheme="auto")

    @app.callback(Output("page", "children"), Input("location", "pathname"))
    def show_page(path: str | None) -> Any:
        """Show the page that the address names."""
        return PAGES.get((path or "/").rstrip("/") or "/", explore_page).layout()

    # Dash sets itself up at the first request to "/"; a server first asked for another page would
    # send it without its scripts.
    app._setup_server()
    server.add_middleware(
        Guard, hosts=choose_hosts(host, allowed_hosts), script_hashes=app.csp_hashes()
    )
    return app


def _name_shared_scripts() -> str:
    """Return the elements that load the shared scripts; like Dash's, they tell versions apart."""
    return "".join(
        f'<script src="/assets/{_SHARED}/{path.name}?m={path.stat().st_mtime}"></script>'
        for path in sorted((_ASSETS / _SHARED).glob("*.js"))
    )


def _build_frame() -> Any:
    return dmc.AppShell(
        [
            dcc.Location(id="location", refresh="callback-nav"),
            dmc.AppShellHeader(
                dmc.Group(
                    [
                        dmc.Group(
                            [
                                dmc.Title(
                                    dmc.Anchor("chainrule", href="/", refresh=True, inherit=True),
                                    order=1,
                                    size="h3",
                                    className="brand",
                                ),
                                dmc.Text(
                                    "see how gradients flow in deep networks",
                                    c="dimmed",
                                    size="sm",
                                    visibleFrom="md",
                                ),
                            ],
                            gap="sm",
                            align="baseline",
                        ),
                        html.Nav(
                            [
                                dmc.Anchor("Explore", href="/", refresh=True, size="sm"),
                                dmc.Anchor(
                                    "Chain rule", href="/chain-rule", refresh=True, size="sm"
                                ),
                                dmc.Anchor(
                                    "Your model", href="/your-model", refresh=True, size="sm"
                                ),
                                dmc.Anchor("Learn", href="/#lesson", refresh=True, size="sm"),
                                dmc.ColorSchemeToggle(
                                    lightIcon="☾",
                                    darkIcon="☀",
                                    variant="subtle",
                                    size="lg",
                                    **{"aria-label": "switch between light and dark"},
                                ),
                            ],
                            className="pages",
                            **{"aria-label": "pages"},
                        ),
                    ],
                    justify="space-between",
                    h="100%",
                    px="md",
                    wrap="nowrap",
                )
            ),
            dmc.AppShellMain(html.Div(id="page")),
        ],
        header={"height": 56},
        padding="md",
    )


_INDEX = """<!DOCTYPE html>
<html lang="en">
    <head>
        {%metas%}
        <title>{%title%}</title>
        {%favicon%}
        {%css%}
    </head>
    <body>
        {%app_entry%}
        <script src="PLOTLY" defer></script>
        <footer>{%config%}SHARED{%scripts%}{%renderer%}</footer>
    </body>
</html>
"""
