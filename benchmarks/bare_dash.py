"""The smallest Dash page with a slider: what a key press costs before anything is measured."""

import sys

from dash import Dash, Input, Output, dcc, html
from fastapi import FastAPI


def create_app() -> Dash:
    """Return a page whose only callback writes the slider's value into a text."""
    app = Dash("bare", server=FastAPI())
    app.layout = html.Div(
        [dcc.Slider(0, 1000, 1, value=500, id="slider", marks=None), html.P(id="text")]
    )

    @app.callback(Output("text", "children"), Input("slider", "value"))
    def show(value: float) -> str:
        """Write the value."""
        return f"{value:g}"

    app._setup_server()
    return app


def main(port: int) -> None:
    """Serve the page."""
    import uvicorn

    uvicorn.run(create_app().server, port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main(int(sys.argv[1]))
