"""What every HTTP request gets: an id, a size limit, and an answer whatever happens.

ASGI middleware, because starlette's own kind hides a client's disconnect and buffers
streams.  WebSockets pass through; they have limits of their own.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import telemetry
from rest_api.errors import error_response
from telemetry import call_context, fields

logger = logging.getLogger(__name__)

MAX_BODY_BYTES: Final = 48 * 1024 * 1024
"""An audio file of 32 MiB in base64, and its conversation."""
_REQUEST_ID: Final = "x-request-id"
_ID_WANTED: Final = re.compile(r"[\w.-]{1,64}", re.ASCII)
_QUIET_PATHS: Final = ("/health", "/metrics", "/internal")


class BodyTooLarge(Exception):
    """More bytes came than any request may have."""


class RequestEnvelope:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        wanted = headers.get(_REQUEST_ID, "")
        request_id = wanted if _ID_WANTED.fullmatch(wanted) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        with call_context(request_id=request_id):
            await self._answer(scope, receive, send, headers, request_id)

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: Headers,
        request_id: str,
    ) -> None:
        began = time.monotonic()
        status = 0

        counted = _Counted(receive, self._max_body_bytes)

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if counted.is_over and not status:
                return  # the framework's answer to a body it could not read
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[_REQUEST_ID] = request_id
            await send(message)

        try:
            length = headers.get("content-length", "0")
            if length.isdigit() and int(length) > self._max_body_bytes:
                counted.is_over = True
            else:
                await self._app(scope, counted, send_with_id)
        except BodyTooLarge:
            pass
        except Exception:
            telemetry.ERRORS.labels(kind="internal").inc()
            logger.exception("request_crashed", extra=fields(path=scope["path"]))
            if not status:
                response = error_response(
                    HTTPStatus.INTERNAL_SERVER_ERROR,
                    "internal",
                    f"internal error; the log has it under {request_id}",
                )
                await response(scope, receive, send_with_id)
        if counted.is_over and not status:
            counted.is_over = False
            response = error_response(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                "too_large",
                f"the body is over {self._max_body_bytes} bytes",
            )
            await response(scope, receive, send_with_id)
        if not scope["path"].startswith(_QUIET_PATHS):
            logger.info(
                "request",
                extra=fields(
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    ms=round((time.monotonic() - began) * 1000.0, 1),
                ),
            )


class _Counted:
    """A receive channel that ends a body that is too large."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive = receive
        self._left_bytes = max_bytes
        self.is_over = False

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._left_bytes -= len(message.get("body", b""))
            if self._left_bytes < 0:
                self.is_over = True
                raise BodyTooLarge
        return message
