"""What every request must pass, and the headers that every answer carries.

The explorer computes for whoever asks, so it must be sure who that is. A page of another site must
not make it work (`Sec-Fetch-Site`, `Origin`), not even when that site's name suddenly means this
machine (the `Host` header; this is called DNS rebinding). Bodies are bounded in size and in time.
A browser learns what the pages may load, and which of them another site may show in a frame.
"""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Iterable
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chainrule.app.routes.replies import refuse
from chainrule.app.state.view import PANELS

WORKING = ("/api/", "/files/", "/listing.py")
"""How the paths begin that cost computing time: only the explorer's own pages may ask for them."""

UPLOADS = ("/api/flow",)
"""Paths that bound the size of a body themselves."""

BODY = 2**16
"""Most bytes of any other body; the pages send a few hundred."""

BODY_SECONDS = 60.0
"""How long a body may take to arrive."""

LOCAL = ("localhost", "127.0.0.1", "::1")
"""Names under which a machine reaches itself."""

ANY_HOST = "*"
"""In a list of hosts: every name is served."""

_LOG = logging.getLogger(__name__)


def choose_hosts(bound: str, allowed: Iterable[str] = ()) -> frozenset[str]:
    """Return the names under which a server may be asked.

    Args:
        bound: The address that it listens on. With 0.0.0.0 or :: that is every address of the
            machine: then its own name is served too, and every address in numbers. Those are
            harmless: an attacker's page has a name, and only names can be made to mean this
            machine.
        allowed: Further names; "*" for all.
    """
    hosts = {_normalize(host) for host in (bound, *LOCAL, *allowed)}
    if _is_wildcard(bound):
        own = socket.gethostname().lower()
        hosts |= {own, f"{own}.local"}
    return frozenset(hosts)


def _is_wildcard(host: str) -> bool:
    address = _read_address(host)
    return host == "" or (address is not None and address.is_unspecified)


def _read_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _normalize(host: str) -> str:
    """Return a host in one spelling: small letters, no brackets, no dot at the end."""
    bare = host.removeprefix("[").removesuffix("]").rstrip(".").lower()
    address = _read_address(bare)
    return bare if address is None else str(address)


def read_host(header: str) -> str | None:
    """Return the host of a Host header without its port; `None` if it is no host."""
    if any(character in header for character in "/@?#\\ \t"):
        return None
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port
    except ValueError:
        return None
    return _normalize(parts.hostname) if parts.hostname else None


class Guard:
    """An ASGI application that lets through to another one what may be asked."""

    def __init__(self, app: ASGIApp, *, hosts: Iterable[str], script_hashes: Iterable[str]) -> None:
        """Guard an application.

        Args:
            app: What answers.
            hosts: Names under which it may be asked; see `choose_hosts`.
            script_hashes: Of the scripts that stand in the pages themselves.
        """
        self.app = app
        self.hosts = frozenset(hosts)
        self.any_address = any(_is_wildcard(host) for host in self.hosts)
        self.policy = write_policy(script_hashes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, refuse it, or pass it on."""
        if scope["type"] == "websocket":  # no page speaks over one
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._examine(scope, Headers(scope=scope))
        own = self._list_headers(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered = MutableHeaders(raw=message.setdefault("headers", []))
                for name, value in own.items():
                    answered[name] = value
            await send(message)

        if refusal is None:
            await self._pass_on(scope, _bound_time(receive), send_with_headers)
        else:
            await refuse(*refusal)(scope, receive, send_with_headers)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer; where it fails, say so without any details."""
        begun = False

        async def send_and_note(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        except Exception:
            _LOG.exception("a request failed")
            if not begun:
                answer = refuse(500, "The server could not answer this request.")
                await answer(scope, receive, send)

    def _examine(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        """Return status and reason of a refusal; `None` for what may be asked."""
        given = headers.getlist("host")
        host = read_host(given[0]) if len(given) == 1 else None
        if host is None or not self._is_own(host):
            return 421, (
                f"The host must be one of {', '.join(sorted(self.hosts))}; got "
                f"{(given[0] if given else 'none')[:80]!r}. Name more with --allow-host."
            )
        path = scope["path"]
        if path.startswith(WORKING) and _is_foreign(headers, given[0]):
            return 403, "Only the explorer's own page may ask for this; another site's page did."
        if path not in UPLOADS:
            length = headers.get("content-length", "0")
            if "transfer-encoding" in headers:
                return 411, "A request with a body must state its length (Content-Length)."
            if not length.isascii() or not length.isdigit() or int(length[:12]) > BODY:
                return 413, f"A body must have at most {BODY:,} bytes here; got {length[:20]}."
        return None

    def _is_own(self, host: str) -> bool:
        if host in self.hosts or ANY_HOST in self.hosts:
            return True
        return self.any_address and _read_address(host) is not None

    def _list_headers(self, scope: Scope) -> dict[str, str]:
        framed = "*" if may_be_framed(scope) else "'none'"
        return {
            "Content-Security-Policy": f"{self.policy}; frame-ancestors {framed}",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",
        }


def write_policy(script_hashes: Iterable[str]) -> str:
    """Return the Content-Security-Policy of all answers: everything comes from the server itself.

    Styles may stand in the pages: the charts and controls set them. Scripts may not, except for
    those with a known hash.
    """
    scripts = " ".join(["'self'", *script_hashes])
    return "; ".join(
        (
            "default-src 'self'",
            f"script-src {scripts}",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "worker-src 'self' blob:",
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'self'",
        )
    )


def may_be_framed(scope: Scope) -> bool:
    """Whether another site may show an address in a frame: only one panel, named by `embed`."""
    if scope["path"] != "/":
        return False
    query = parse_qs(scope["query_string"].decode("latin-1"))
    return query.get("embed", [""])[-1] in PANELS


def _is_foreign(headers: Headers, host: str) -> bool:
    """Whether a browser says that another site's page asks; programs do not say.

    Another port of the same machine counts as another site: anybody's program may listen there.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")  # from browsers that do not know the other header
    return origin is not None and urlsplit(origin).netloc.lower() != host.lower()


def _bound_time(receive: Receive) -> Receive:
    """Return `receive` for a body that must have arrived after some time.

    A sender that is too slow counts as one that has left.
    """
    until: float | None = asyncio.get_running_loop().time() + BODY_SECONDS

    async def receive_in_time() -> Message:
        nonlocal until
        if until is None:  # the body is complete; what comes next is that the visitor leaves
            return await receive()
        try:
            async with asyncio.timeout_at(until):
                message = await receive()
        except TimeoutError:
            return {"type": "http.disconnect"}
        if not message.get("more_body", False):
            until = None
        return message

    return receive_in_time
