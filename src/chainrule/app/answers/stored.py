"""Answers that are the same for everybody: prepared once in memory, compressed, with an ETag."""

import gzip
import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from fastapi import Request
from fastapi.responses import Response

LASTING = "public, max-age=31536000, immutable"
"""For an address that changes whenever what stands there does."""

CHECKED = "no-cache"
"""For an address that stays: a browser keeps the answer, but asks whether it is still the same."""

MOST_BYTES = 2**25
"""Of answers that a store keeps."""


@dataclass(frozen=True)
class Stored:
    """An answer that does not depend on who asks.

    Attributes:
        body: Its bytes.
        media_type: What they are.
    """

    body: bytes
    media_type: str

    worth_packing: ClassVar[int] = 512
    """Bytes from which on compressing saves anything."""

    @cached_property
    def packed(self) -> bytes:
        """The bytes compressed by gzip."""
        return gzip.compress(self.body, 9, mtime=0)

    @cached_property
    def digest(self) -> str:
        """What tells one content from another."""
        return hashlib.sha256(self.body).hexdigest()[:16]

    @property
    def size(self) -> int:
        """Bytes that it takes, without what is compressed."""
        return len(self.body)

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
        worth = len(body) >= self.worth_packing and self.media_type != "image/png"
        if worth and "gzip" in request.headers.get("accept-encoding", ""):
            body = self.packed
            headers["Content-Encoding"] = "gzip"
        return Response(body, status, headers, self.media_type)


@dataclass(frozen=True)
class Measured(Stored):
    """An answer that was measured for somebody: it is compressed in a hurry, if at all."""

    worth_packing: ClassVar[int] = 2**14

    @cached_property
    def packed(self) -> bytes:
        """The bytes compressed by gzip."""
        return gzip.compress(self.body, 1, mtime=0)

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return len(self.body) + (len(self.packed) if len(self.body) >= self.worth_packing else 0)


class AnswerStore:
    """Answers that somebody asked for lately: the same question always has the same answer.

    Like measurements, they change no answer.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        """Keep some answers.

        Args:
            most: Bytes of all of them; the one that was asked for longest ago goes first.
        """
        self._most = most
        self._kept: OrderedDict[str, Stored] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def find(self, question: str) -> Stored | None:
        """Return the answer to a question, if it is kept."""
        with self._lock:
            if question in self._kept:
                self._kept.move_to_end(question)
            return self._kept.get(question)

    def keep(self, question: str, answer: Stored) -> None:
        """Keep an answer, unless it is larger than all that may be kept."""
        with self._lock:
            self._drop(question)
            if _weigh(question, answer) > self._most:
                return
            self._kept[question] = answer
            self._bytes += _weigh(question, answer)
            while self._bytes > self._most:
                self._drop(next(iter(self._kept)))

    def _drop(self, question: str) -> None:
        answer = self._kept.pop(question, None)
        if answer is not None:
            self._bytes -= _weigh(question, answer)


def _weigh(question: str, answer: Stored) -> int:
    return len(question) + answer.size
