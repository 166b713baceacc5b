"""`chainrule explore`: the web pages."""

from importlib.util import find_spec
from pathlib import Path
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
    runs: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Show the training runs of this folder on the page Runs."
        ),
    ] = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Do not open a browser.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Open the explorer: web pages about the gradients of a network."""
    check_packages()
    if runs is not None and not runs.is_dir():
        raise ChainruleError(
            f"--runs must be a folder; got {runs}. chainrule.watch(…, store='runs/a.db') makes one."
        )
    from chainrule.app.server import serve

    serve(
        host,
        port,
        open_browser=not no_browser,
        workers=workers,
        allowed_hosts=tuple(allow_host or ()),
        runs=runs,
    )


def check_packages() -> None:
    """Raise unless everything is installed that serving the pages needs.

    Raises:
        ChainruleError: If a package is missing.
    """
    missing = [name for name in NEEDED if not find_spec(name)]
    if missing:
        raise ChainruleError(
            f"The explorer needs {', '.join(missing)}, which must be installed. Run: {INSTALL_APP}"
        )
