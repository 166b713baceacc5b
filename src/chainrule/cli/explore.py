"""`chainrule explore`: the web pages."""

from importlib.util import find_spec
from typing import Annotated

import typer

from chainrule.cli.options import DebugOption
from chainrule.errors import ChainruleError

INSTALL_APP = 'pip install "chainrule[app]"'

NEEDED = ("fastapi", "jinja2", "latex2mathml", "markdown_it", "uvicorn")
"""Packages of the extra without which the pages cannot be served."""


def explore_command(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="Port; 0 for any free one.")
    ] = 8050,
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            max=64,
            metavar="N",
            help="Number of server processes, each on one core. Use more for many visitors.",
        ),
    ] = 1,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Answer to this host name, too, for example that of a proxy. May be repeated.",
        ),
    ] = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Do not open a browser.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Open the explorer: web pages about the gradients of a network."""
    missing = [name for name in NEEDED if not find_spec(name)]
    if missing:
        raise ChainruleError(
            f"The explorer needs {', '.join(missing)}, which must be installed. Run: {INSTALL_APP}"
        )
    from chainrule.app.server import serve

    serve(
        host,
        port,
        open_browser=not no_browser,
        workers=workers,
        allowed_hosts=tuple(allow_host or ()),
    )
