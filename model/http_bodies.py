"""Answers of other servers, read up to a length."""

from __future__ import annotations

from typing import Final

import httpx

MAX_BODY_BYTES: Final = 1 << 20


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
