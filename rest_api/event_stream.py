"""Server-sent events: an answer that comes in parts.

Source: WHATWG HTML, "Server-sent events".
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from typing import Any, Final

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from telemetry import fields

logger = logging.getLogger(__name__)

EVENT_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "description": "One event of the stream",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}


class EventStream(StreamingResponse):
    """Sends what a generator makes; closes it whatever ends the answer."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[str], timeout_s: float) -> None:
        """`timeout_s` for all of it, a client that reads slowly included."""
        # A proxy that collects the answer would spoil it.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(events, headers=headers)
        self._events = events
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            # An answer that isn't complete: the server closes the connection.
            logger.warning("stream_too_slow", extra=fields(path=scope["path"]))
        finally:
            await self._events.aclose()


def event(name: str, data: dict[str, Any]) -> str:
    """One event with JSON for its data."""
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
