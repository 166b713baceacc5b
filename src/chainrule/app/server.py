"""Serving the explorer from the command line."""

import gc
import multiprocessing
import os
import signal
import socket
import threading
import webbrowser
from collections.abc import Iterable
from contextlib import suppress
from errno import EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from chainrule.app.connections import OPTIONS, TimedProtocol
from chainrule.errors import ChainruleError

_PATIENCE = 60
"""Seconds that a worker may take to start; loading PyTorch takes long on a busy machine."""

_TRIES = 20
"""Free ports that are tried where a host has several addresses: another may be taken on one."""

_ALLOCATIONS = 50_000
"""Allocations between two looks of the garbage collector; an answer makes thousands of numbers."""


def serve(
    host: str,
    port: int,
    *,
    open_browser: bool,
    workers: int = 1,
    allowed_hosts: tuple[str, ...] = (),
    runs: Path | None = None,
    path: str = "",
) -> None:
    """Serve the explorer until interrupted.

    Args:
        host: Address to listen on: a name or an address of IPv4 or IPv6, with or without brackets.
            `localhost` means both families.
        port: Port to listen on; 0 takes any free one.
        open_browser: Whether to open the page in the user's browser.
        workers: Processes that answer, each on one core; one that dies is replaced.
        allowed_hosts: Further names under which the explorer is served; see `create_app`.
        runs: Folder of training runs that the page Runs shows.
        path: Of the page that is printed and opened; the first one by default.

    Raises:
        ChainruleError: If the address cannot be listened on.
    """
    bare = host.removeprefix("[").removesuffix("]")
    listeners = listen(bare, port)
    url = f"http://{f'[{bare}]' if ':' in bare else bare}:{listeners[0].getsockname()[1]}{path}"
    print(f"chainrule explorer: {url}  (stop with Ctrl+C)", flush=True)
    if open_browser:
        threading.Timer(0.5, webbrowser.open, [url]).start()
    make = partial(create_worker, bare, allowed_hosts, runs)
    options = {"http": TimedProtocol, "log_level": "warning", "access_log": False, **OPTIONS}
    with suppress(KeyboardInterrupt):
        if workers > 1:
            config = uvicorn.Config(
                make,
                factory=True,
                workers=workers,
                timeout_graceful_shutdown=1,  # a training under way would hold it up for long
                timeout_worker_healthcheck=_PATIENCE,
                **options,
            )
            _Supervisor(config, listeners).run()
        else:
            _Server(uvicorn.Config(make(), **options)).run(listeners)
    print("stopped")


def listen(host: str, port: int) -> list[socket.socket]:
    """Return sockets that listen on every address a host means, all on one port.

    Args:
        host: A name or an address.
        port: The port; 0 takes any free one.

    Raises:
        ChainruleError: If there is no such address, or the port is taken.
    """
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        addresses = list(dict.fromkeys((family, place) for family, _, _, _, place in found))
        addresses.sort(key=lambda entry: entry[0] != socket.AF_INET)  # known to everybody: first
        for _ in range(_TRIES):
            try:
                return _open_listeners(addresses, port)
            except OSError as error:
                if port or error.errno != EADDRINUSE:
                    raise
        return _open_listeners(addresses, port)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "there is no such address"
        raise ChainruleError(
            f"The explorer must be able to listen on {host}:{port}, but cannot: {reason}. "
            "Choose another port with --port, or 0 for any free one."
        ) from None


def _open_listeners(
    addresses: Iterable[tuple[socket.AddressFamily, Any]], port: int
) -> list[socket.socket]:
    """Return a socket for each address, all on one port, or none at all."""
    listeners: list[socket.socket] = []
    try:
        for family, place in addresses:
            chosen = port or (listeners[0].getsockname()[1] if listeners else 0)
            try:
                listeners.append(
                    socket.create_server(
                        (place[0], chosen, *place[2:]), family=family, backlog=2048
                    )
                )
            except OSError as error:
                # A machine without IPv6 may still know an address of it.
                if not listeners or error.errno not in (EADDRNOTAVAIL, EAFNOSUPPORT):
                    raise
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


class _Server(uvicorn.Server):  # type: ignore[misc]  # uvicorn is not followed
    """A server that does not wait for trainings when it is asked to end."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Give all work up first; then end as usual, when every answer is complete."""
        self.config.app.state.queue.close()
        await super().shutdown(sockets)


class _Supervisor(Multiprocess):  # type: ignore[misc]  # as above
    """Keeps workers running, and ends with them when the terminal is closed."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        stays = hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        super().__init__(config, sockets)
        if stays:  # started with nohup
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def handle_hup(self) -> None:
        """End, because the terminal was closed; uvicorn itself would start all workers anew."""
        self.handle_term()


def create_worker(
    host: str = "127.0.0.1", allowed_hosts: tuple[str, ...] = (), runs: Path | None = None
) -> Any:
    """Return the application for a process that does nothing but serve it.

    In a worker process this also sees to it that the worker ends with its parent, however that
    ends.

    Args:
        host: The address that the server listens on.
        allowed_hosts: Further names under which it is served.
        runs: Folder of training runs.
    """
    # All that loads PyTorch is loaded here: a process that only supervises workers does without,
    # and the address is printed at once.
    import torch

    from chainrule.app.application import create_app
    from chainrule.app.site.pages import prepare_pages
    from chainrule.app.state.view import DEFAULT_PRESET
    from chainrule.measure.simulation import simulate
    from chainrule.presets import get_preset

    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)  # small networks run fastest so, and other workers need the cores
    server = create_app(host=host, allowed_hosts=allowed_hosts, runs=runs)
    # The first visitor is not to wait for what is done once.
    prepare_pages()
    simulate(get_preset(DEFAULT_PRESET).spec, 2)
    server.state.prepare()
    # What is loaded by now stays; looking through it for garbage would take longer than an answer.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS, 20, 20)
    return server


def _end_with(parent: Any) -> None:
    """End this process when its parent has ended, whatever it is doing."""
    parent.join()  # returns when a pipe is closed that the parent holds open
    os._exit(1)
