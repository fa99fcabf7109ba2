"""Every failure of the HTTP port in one shape, with the right status.

    {"success": false, "error": {"code": "...", "message": "...", "field": "..."}}

Under `/v1/` there are `type` and `param` as well, where OpenAI's clients look.  `field`
is there when one field of the request is at fault.  What is said is for the
client: the cause of a 500 is in the log, under the request's id, and never in the body.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, TypeAlias

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

import telemetry
from model.errors import (
    InvalidAudio,
    InvalidRequest,
    ModelLoadError,
    SpeechError,
    SpeechOverloaded,
    SpeechUnavailable,
)
from telemetry import fields

logger = logging.getLogger(__name__)

_RETRY_AFTER_S: Final = 1
_OPENAI_PATHS: Final = "/v1/"
Answer: TypeAlias = Callable[[Request, Exception], Awaitable[JSONResponse]]

_CODE_OF_STATUS: Final = {
    HTTPStatus.BAD_REQUEST: "bad_request",
    HTTPStatus.UNAUTHORIZED: "unauthorized",
    HTTPStatus.FORBIDDEN: "forbidden",
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
    HTTPStatus.REQUEST_TIMEOUT: "timeout",
    HTTPStatus.CONFLICT: "conflict",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "too_large",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "unsupported_media_type",
    HTTPStatus.TOO_MANY_REQUESTS: "too_many_requests",
    HTTPStatus.SERVICE_UNAVAILABLE: "unavailable",
    HTTPStatus.GATEWAY_TIMEOUT: "timeout",
}


class RequestRefused(Exception):
    """A request that gets an error for its answer."""

    def __init__(
        self, status: HTTPStatus, message: str, *, code: str = "", field: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code or _CODE_OF_STATUS.get(status, "error")
        self.field = field


def error_body(code: str, message: str, field: str = "") -> dict[str, Any]:
    """The shape of every failure."""
    error = {"code": code, "message": message}
    if field:
        error["field"] = field
    return {"success": False, "error": error}


def error_response(
    status: int,
    code: str,
    message: str,
    field: str = "",
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """A failure as an HTTP answer."""
    extra = dict(headers or {})
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        extra["Retry-After"] = str(_RETRY_AFTER_S)
    return JSONResponse(error_body(code, message, field), status, extra)


def status_of(error: SpeechError) -> HTTPStatus:
    """The HTTP status that says whose fault it is and whether to try again."""
    match error:
        case SpeechOverloaded() | SpeechUnavailable() | ModelLoadError():
            return HTTPStatus.SERVICE_UNAVAILABLE
        case InvalidRequest():
            return HTTPStatus.UNPROCESSABLE_ENTITY
        case _:
            return HTTPStatus.INTERNAL_SERVER_ERROR


def add_error_answers(app: FastAPI) -> None:
    """Give every failure of the app's routes the common shape."""
    app.add_exception_handler(RequestRefused, _as_openai_has_it(_refused))
    app.add_exception_handler(SpeechError, _as_openai_has_it(_speech_error))
    app.add_exception_handler(RequestValidationError, _as_openai_has_it(_invalid))
    app.add_exception_handler(HTTPException, _as_openai_has_it(_http_error))


def openai_error_body(
    status: int, code: str, message: str, field: str = ""
) -> dict[str, Any]:
    """The common shape with what OpenAI's clients look for beside it."""
    body = error_body(code, message, field)
    kind = "invalid_request_error" if status < 500 else "server_error"
    kinds = {401: "authentication_error", 429: "rate_limit_error"}
    body["error"] |= {"type": kinds.get(status, kind), "param": field or None}
    return body


def _as_openai_has_it(answer: Answer) -> Answer:
    """On the paths made for OpenAI's clients, errors have their two more fields."""

    async def answering(request: Request, exc: Exception) -> JSONResponse:
        response = await answer(request, exc)
        if not request.url.path.startswith(_OPENAI_PATHS):
            return response
        error = json.loads(bytes(response.body))["error"]
        body = openai_error_body(
            response.status_code,
            error["code"],
            error["message"],
            error.get("field", ""),
        )
        kept = {
            name: value
            for name, value in response.headers.items()
            if name not in ("content-length", "content-type")
        }
        return JSONResponse(body, response.status_code, kept)

    return answering


async def _refused(_: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, RequestRefused)
    return error_response(exc.status, exc.code, str(exc), exc.field)


async def _speech_error(_: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, SpeechError)
    telemetry.ERRORS.labels(kind=exc.code).inc()
    status = status_of(exc)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("request_failed", extra=fields(code=exc.code, reason=str(exc)))
    field = "audio_base64" if isinstance(exc, InvalidAudio) else ""
    return error_response(status, exc.code, str(exc), field)


async def _invalid(_: Request, exc: Exception) -> JSONResponse:
    """FastAPI's list of complaints, the first of them."""
    assert isinstance(exc, RequestValidationError)
    first = exc.errors()[0]
    if first["type"] == "json_invalid":
        return error_response(
            HTTPStatus.BAD_REQUEST, "invalid_json", "the body is not valid JSON"
        )
    # loc is ("body", "turns", 0, "role"): the client knows it as turns[0].role
    field = ""
    for part in first["loc"][1:]:
        field += f"[{part}]" if isinstance(part, int) else f".{part}"
    message = str(first["msg"]).removeprefix("Value error, ")
    return error_response(
        HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", message, field.lstrip(".")
    )


async def _http_error(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, HTTPException)
    code = _CODE_OF_STATUS.get(HTTPStatus(exc.status_code), "error")
    message = {
        HTTPStatus.NOT_FOUND: f"there is no {request.url.path}; see /docs",
        HTTPStatus.METHOD_NOT_ALLOWED: (
            f"{request.method} is not for {request.url.path}; see /docs"
        ),
    }.get(HTTPStatus(exc.status_code), str(exc.detail))
    return error_response(exc.status_code, code, message, headers=exc.headers)
