"""Serving the explorer from the command line."""

import socket
import threading
import webbrowser

import torch
import uvicorn

from chainrule.app.application import create_app
from chainrule.errors import ChainruleError


def serve(host: str, port: int, *, open_browser: bool) -> None:
    """Serve the explorer until interrupted.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 takes any free one.
        open_browser: Whether to open the page in the user's browser.

    Raises:
        ChainruleError: If the address cannot be listened on.
    """
    torch.set_num_threads(1)  # this process is ours; small networks run fastest so
    try:
        listener = socket.create_server((host, port))
    except OSError as error:
        raise ChainruleError(
            f"The explorer must be able to listen on {host}:{port}, but cannot: {error.strerror}. "
            "Choose another port with --port, or 0 for any free one."
        ) from None
    url = f"http://{host}:{listener.getsockname()[1]}"
    print(f"chainrule explorer: {url}  (stop with Ctrl+C)", flush=True)
    config = uvicorn.Config(
        create_app().server,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=1,  # a training under way would hold it up for long
    )
    if open_browser:
        threading.Timer(0.5, webbrowser.open, [url]).start()
    try:
        uvicorn.Server(config).run([listener])
    except KeyboardInterrupt:
        print("stopped")
