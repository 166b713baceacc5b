"""What a route sends: an answer as JSON, or the reason why there is none, in one sentence."""

import gzip
from collections.abc import Awaitable, Mapping
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from chainrule.app.answers.encoding import encode
from chainrule.app.jobs.queue import RETRY_SECONDS, Busy, Superseded
from chainrule.errors import ChainruleError

JSON = "application/json"

PACKED = 2**12
"""Longer answers are compressed for all who can read that: numbers shrink to a fifth."""


def send_json(answer: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer as JSON."""
    return Response(encode(answer), status, headers, JSON)


async def send_body(
    request: Request,
    body: bytes,
    *,
    media_type: str = JSON,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return an answer that is encoded already, compressed if it is long."""
    headers = {**(headers or {}), "Vary": "Accept-Encoding"}
    if len(body) > PACKED and "gzip" in request.headers.get("accept-encoding", ""):
        body = await run_in_threadpool(gzip.compress, body, 1, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return Response(body, media_type=media_type, headers=headers)


def refuse(status: int, reason: str, **more: Any) -> Response:
    """Return why there is no answer; a busy server (503) says when to ask again."""
    headers = {"Retry-After": str(RETRY_SECONDS)} if status == 503 else None
    return send_json({"error": reason, **more}, status, headers)


async def reply(answer: Awaitable[Response], **more: Any) -> Response:
    """Return a route's answer, or the reason why there is none.

    Args:
        answer: Gives the answer.
        more: What a refusal tells in addition to the reason.
    """
    try:
        return await answer
    except Superseded:
        return Response(status_code=499)  # nobody reads it
    except Busy as busy:
        return refuse(503, str(busy))
    except ChainruleError as error:
        return refuse(422, str(error), **more)
