"""What every HTTP request gets: an id, a size limit, and an answer whatever happens.

ASGI middleware, because starlette's own kind hides a client's disconnect and buffers
streams.  WebSockets pass through; they have limits of their own.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from contextlib import suppress
from http import HTTPStatus
from typing import Final

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
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


_HEADERS: Final = (
    # Pages of ours say more; for the rest a browser is to do nothing but read.
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)
_HSTS: Final = (b"strict-transport-security", b"max-age=31536000")

BODY_TIMEOUT_S: Final = 60.0
"""For a whole body: the largest one over a slow line; a slower one is an attack."""


_CLOSING: Final = {"Connection": "close"}
_MAX_DISCARDED_BYTES: Final = 1 << 20
_DISCARD_S: Final = 1.0
"""What is still coming of a refused body would have to be read and thrown away."""


class BodyRefused(Exception):
    """The body is too large or too slow; nobody reads on."""


class RequestEnvelope:
    """ASGI middleware around everything else."""

    def __init__(
        self,
        app: ASGIApp,
        max_body_bytes: int = MAX_BODY_BYTES,
        body_timeout_s: float = BODY_TIMEOUT_S,
    ) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        wanted = headers.get(_REQUEST_ID, "")
        request_id = wanted if _ID_WANTED.fullmatch(wanted) else secrets.token_hex(16)
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
        patience = asyncio.timeout(None)  # begins when the body is first read
        body = _WatchedBody(
            receive, self._max_body_bytes, patience, self._body_timeout_s
        )

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if body.refused and not status:
                return  # the framework's answer to a body it could not read
            if message["type"] == "http.response.start":
                status = message["status"]
                is_https = scope.get("scheme") == "https"
                _complete(message["headers"], request_id, is_https=is_https)
            await send(message)

        try:
            length = headers.get("content-length", "0")
            if length.isdigit() and int(length) > self._max_body_bytes:
                body.refused = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            else:
                async with patience:
                    await self._app(scope, body, send_with_id)
        except BodyRefused:
            pass
        except ClientDisconnect:
            pass  # in the middle of its body: nobody is there to be answered
        except TimeoutError:
            if not patience.expired():
                raise
            body.refused = HTTPStatus.REQUEST_TIMEOUT
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
        if body.refused and not status:
            refused, body.refused = body.refused, None
            if "expect" not in headers:  # who asks first sends nothing
                await body.discard()
            await self._refusal(refused)(scope, receive, send_with_id)
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

    def _refusal(self, status: HTTPStatus) -> JSONResponse:
        if status == HTTPStatus.REQUEST_TIMEOUT:
            message = f"the body took over {self._body_timeout_s:g} s"
            return error_response(status, "timeout", message, headers=_CLOSING)
        message = f"the body is over {self._max_body_bytes} bytes"
        return error_response(status, "too_large", message, headers=_CLOSING)


def _complete(
    headers: list[tuple[bytes, bytes]], request_id: str, *, is_https: bool
) -> None:
    """Add to an answer's headers, in ASGI's form, what it does not say itself."""
    said = {name for name, _ in headers}
    wanted = (*_HEADERS, _HSTS) if is_https else _HEADERS
    headers += [header for header in wanted if header[0] not in said]
    headers.append((_REQUEST_ID.encode(), request_id.encode()))


class _WatchedBody:
    """A receive channel that ends a body that is too large or too slow."""

    def __init__(
        self,
        receive: Receive,
        max_bytes: int,
        patience: asyncio.Timeout,
        limit_s: float,
    ) -> None:
        self._receive = receive
        self._left_bytes = max_bytes
        self._patience = patience
        self._limit_s = limit_s
        self._has_begun = False
        self._is_complete = False
        self.refused: HTTPStatus | None = None

    async def __call__(self) -> Message:
        # After the body comes the wait for a disconnect, which has no end.
        if self._is_complete:
            return await self._receive()
        if not self._has_begun:
            self._has_begun = True
            now_s = asyncio.get_running_loop().time()
            self._patience.reschedule(now_s + self._limit_s)
        message = await self._receive()
        self._left_bytes -= len(message.get("body", b""))
        if not message.get("more_body", False):
            self._is_complete = True
            self._patience.reschedule(None)
        if self._left_bytes < 0:
            self.refused = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            raise BodyRefused
        return message

    async def discard(self) -> None:
        """Read on for a moment.

        To close a connection with bytes unread resets it, and the answer is lost.
        """
        left_bytes = _MAX_DISCARDED_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(_DISCARD_S):
                while left_bytes > 0 and not self._is_complete:
                    message = await self._receive()
                    left_bytes -= len(message.get("body", b""))
                    self._is_complete = not message.get("more_body", False)
