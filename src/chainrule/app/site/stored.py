"""Answers that are the same for everybody: prepared once in memory, compressed, with an ETag."""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cached_property

from fastapi import Request
from fastapi.responses import Response

LASTING = "public, max-age=31536000, immutable"
"""For an address that changes whenever what stands there does."""

CHECKED = "no-cache"
"""For an address that stays: a browser keeps the answer, but asks whether it is still the same."""

_WORTH_PACKING = 512
"""Bytes from which on compressing saves anything."""


@dataclass(frozen=True)
class Stored:
    """An answer that does not depend on who asks.

    Attributes:
        body: Its bytes.
        media_type: What they are.
    """

    body: bytes
    media_type: str

    @cached_property
    def packed(self) -> bytes:
        """The bytes compressed by gzip."""
        return gzip.compress(self.body, 9, mtime=0)

    @cached_property
    def digest(self) -> str:
        """What tells one content from another."""
        return hashlib.sha256(self.body).hexdigest()[:16]

    def send(self, request: Request, caching: str = CHECKED, status: int = 200) -> Response:
        """Return the answer, or that it is still what the browser has."""
        headers = {
            "Cache-Control": caching,
            "ETag": f'"{self.digest}"',
            "Vary": "Accept-Encoding",
        }
        if status == 200 and headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        body = self.body
        worth = len(body) >= _WORTH_PACKING and self.media_type != "image/png"
        if worth and "gzip" in request.headers.get("accept-encoding", ""):
            body = self.packed
            headers["Content-Encoding"] = "gzip"
        return Response(body, status, headers, self.media_type)
