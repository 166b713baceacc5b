"""The Dash application."""

from pathlib import Path

import dash_mantine_components as dmc
from dash import Dash

from chainrule.app import explore_page

THEME = {
    "primaryColor": "blue",
    "defaultRadius": "md",
    "fontFamily": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif",
}


def create_app() -> Dash:
    """Return the explorer; `create_app().server` is an ASGI application for any server.

    It keeps no state between requests, so any number of workers can serve it, and it loads nothing
    from other hosts.
    """
    app = Dash(
        "chainrule",
        backend="fastapi",
        title="chainrule · see gradient flow",
        update_title="",
        assets_folder=str(Path(__file__).parent / "assets"),
        serve_locally=True,
        meta_tags=[{"name": "description", "content": "See how gradients flow in deep networks."}],
        index_string=_INDEX,
    )
    app.layout = dmc.MantineProvider(
        explore_page.layout(), theme=THEME, defaultColorScheme="auto", id="provider"
    )
    explore_page.register_callbacks(app)
    return app


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
        <footer>{%config%}{%scripts%}{%renderer%}</footer>
    </body>
</html>
"""
