"""How the server treats connections: many, but not without end, and none that only keeps a place.

uvicorn bounds the number of connections and the size of the headers. What it leaves open is time: a
client that sends a byte now and then would keep its connection for ever.
"""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS = 512
"""Most connections of one process; whoever comes then is told so (503)."""

HEADER_BYTES = 2**15
"""Most bytes of a request's line and headers; an address has at most 8,000."""

HEADER_SECONDS = 15.0
"""How long they may take to arrive, and how long a new connection may say nothing."""

IDLE_SECONDS = 5
"""How long a connection stays open after an answer when nothing more is asked."""

OPTIONS: dict[str, Any] = {
    "limit_concurrency": CONNECTIONS,
    "h11_max_incomplete_event_size": HEADER_BYTES,
    "timeout_keep_alive": IDLE_SECONDS,
    "ws": "none",
    "server_header": False,
}
"""What `uvicorn.Config` is given."""


class TimedProtocol(H11Protocol):  # type: ignore[misc]  # uvicorn is not followed
    """HTTP/1.1 with a time limit for every part of a request that a client sends."""

    header_seconds = HEADER_SECONDS

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to wait for a first request."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; part of a request's headers does not give it more time."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif self._deadline is None and not self.transport.is_closing():
            self._wait()

    def on_response_complete(self) -> None:
        """Go on, or close what has not sent all of a request that is answered already."""
        unread = self.conn.their_state is h11.SEND_BODY
        super().on_response_complete()
        if unread:
            self.transport.close()

    def _wait(self) -> None:
        self._deadline = self.loop.call_later(self.header_seconds, self._close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close(self) -> None:
        self._deadline = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.close()
