"""Answers of other servers: as they were sent, and up to a length.

httpx inflates a compressed piece before anybody can count it, and a kilobyte may hold
a megabyte.  Nothing asked here is worth compressing, so none is asked for or taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import httpx

MAX_BODY_BYTES: Final = 1 << 20


class AnswerCompressed(httpx.DecodingError):
    """A server compressed its answer although it was asked not to."""


def plain_client(
    *, headers: Mapping[str, str] | None = None, **options: Any
) -> httpx.AsyncClient:
    """A client that takes uncompressed answers only; the options are httpx's own.

    Each of its requests may raise AnswerCompressed, an httpx.HTTPError, before a byte
    of the body was read.
    """
    return httpx.AsyncClient(
        headers={**(headers or {}), "Accept-Encoding": "identity"},
        event_hooks={"response": [_refuse_compressed]},
        **options,
    )


async def _refuse_compressed(answer: httpx.Response) -> None:
    coding = answer.headers.get("Content-Encoding", "").strip()
    if coding.lower() not in ("", "identity"):
        raise AnswerCompressed(
            f"the answer is compressed ({coding[:40]!r})", request=answer.request
        )


async def read_bounded(
    answer: httpx.Response, max_bytes: int = MAX_BODY_BYTES
) -> bytes:
    """The body of a streamed answer, or as much of it as is allowed."""
    body = b""
    async for chunk in answer.aiter_bytes():
        body += chunk
        if len(body) >= max_bytes:
            break
    return body[:max_bytes]
