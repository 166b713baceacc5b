"""Serving the explorer from the command line."""

import gc
import socket
import threading
import webbrowser
from contextlib import suppress
from typing import Any

import torch
import uvicorn
from uvicorn.supervisors import Multiprocess

from chainrule.app.application import create_app
from chainrule.errors import ChainruleError

_PATIENCE = 60
"""Seconds that a worker may take to start; loading PyTorch takes long on a busy machine."""

_ALLOCATIONS = 50_000
"""Allocations between two looks of the garbage collector; an answer makes thousands of numbers."""


def serve(host: str, port: int, *, open_browser: bool, workers: int = 1) -> None:
    """Serve the explorer until interrupted.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 takes any free one.
        open_browser: Whether to open the page in the user's browser.
        workers: Processes that answer, each on one core; one that dies is replaced.

    Raises:
        ChainruleError: If the address cannot be listened on.
    """
    try:
        listener = socket.create_server((host, port), backlog=2048)
    except OSError as error:
        raise ChainruleError(
            f"The explorer must be able to listen on {host}:{port}, but cannot: {error.strerror}. "
            "Choose another port with --port, or 0 for any free one."
        ) from None
    url = f"http://{host}:{listener.getsockname()[1]}"
    print(f"chainrule explorer: {url}  (stop with Ctrl+C)", flush=True)
    if open_browser:
        threading.Timer(0.5, webbrowser.open, [url]).start()
    with suppress(KeyboardInterrupt):
        if workers > 1:
            config = uvicorn.Config(
                "chainrule.app.server:create_worker",
                factory=True,
                workers=workers,
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=1,  # a training under way would hold it up for long
                timeout_worker_healthcheck=_PATIENCE,
            )
            Multiprocess(config, [listener]).run()
        else:
            config = uvicorn.Config(create_worker(), log_level="warning", access_log=False)
            _Server(config).run([listener])
    print("stopped")


class _Server(uvicorn.Server):  # type: ignore[misc]  # uvicorn is not followed
    """A server that does not wait for trainings when it is asked to end."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell the application first; then end as usual, when every answer is complete."""
        self.config.app.state.closing = True
        await super().shutdown(sockets)


def create_worker() -> Any:
    """Return the application for a process that does nothing but serve it."""
    torch.set_num_threads(1)  # small networks run fastest so, and other workers need the cores
    server = create_app().server
    # What is loaded by now stays; looking through it for garbage would take longer than an answer.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS, 20, 20)
    return server
