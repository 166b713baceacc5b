"""Applications served by a real uvicorn in this process."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from chainrule.app.connections import OPTIONS, TimedProtocol
from waiting import PATIENCE, wait_until  # noqa: F401  (tests take them from here)


@contextmanager
def serve_app(app: ASGIApp) -> Iterator[str]:
    """Serve an application; give its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    options = {"http": TimedProtocol, "log_level": "critical", "access_log": False, **OPTIONS}
    server = uvicorn.Server(uvicorn.Config(app, **options))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=120)
        server.force_exit = True  # some answer does not end
        thread.join(timeout=120)
        listener.close()
