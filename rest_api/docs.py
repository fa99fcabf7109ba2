"""The interactive documentation at /docs, from files of our own.

FastAPI's page takes its script from another host; dialers often reach none.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response
from pydantic.json_schema import models_json_schema

import model.live_messages
from rest_api.auth import OPEN_PATHS
from rest_api.chat_bodies import DOCUMENTED
from rest_api.schemas import ErrorAnswer

router = APIRouter(include_in_schema=False)

_FOLDER: Final = Path(__file__).resolve().parent / "docs_page"
_HEADERS: Final = {
    # Nothing from elsewhere, no inline script, in nobody's frame.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@router.get("/docs")
async def page() -> Response:
    """The page."""
    return _file("docs.html", "text/html")


@router.get("/docs/docs.js")
async def script() -> Response:
    """Its script."""
    return _file("docs.js", "text/javascript")


@router.get("/docs/docs.css")
async def style() -> Response:
    """Its looks."""
    return _file("docs.css", "text/css")


def _file(name: str, media_type: str) -> Response:
    return Response(_content(name), media_type=media_type, headers=_HEADERS)


@cache
def _content(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()


_ERRORS: Final = {
    "401": "an API key is needed",
    "422": "a parameter or field is wrong",
    "429": "too many requests: come back after Retry-After seconds",
    "500": "an error of this server; its log has it under X-Request-Id",
    "503": "not ready, or no room now",
}
_ERROR_SCHEMA: Final = {"$ref": "#/components/schemas/ErrorAnswer"}


def _describe_errors(description: dict[str, Any]) -> None:
    """What any route may answer, in the shape it has here."""
    for path, item in description["paths"].items():
        meanings = dict(_ERRORS)
        if "{" in path:
            meanings["404"] = "there is none of this id"
        if path in OPEN_PATHS:
            del meanings["401"]
        for operation in item.values():
            answers = operation["responses"]
            # FastAPI's own shape, which none of our answers has
            framework = str(answers.get("422", "")).find("HTTPValidationError") >= 0
            for status, meaning in meanings.items():
                if status in answers and not (status == "422" and framework):
                    continue
                content = {"application/json": {"schema": _ERROR_SCHEMA}}
                answers[status] = {"description": meaning, "content": content}
    for name in ("HTTPValidationError", "ValidationError"):
        description["components"]["schemas"].pop(name, None)


def _describe_keys(description: dict[str, Any]) -> None:
    description["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    for path, item in description["paths"].items():
        if path not in OPEN_PATHS:
            for operation in item.values():
                # the last: none, for programs on this host
                operation["security"] = [{"bearer": []}, {"header": []}, {}]


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI description, made once, with the live protocol's table."""
    if app.openapi_schema is None:
        app.openapi_schema = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
        )
        # The chat routes read their bodies themselves.
        _, made = models_json_schema(
            [(documented, "validation") for documented in DOCUMENTED],
            ref_template="#/components/schemas/{model}",
        )
        schemas = app.openapi_schema["components"]["schemas"]
        schemas.update(made["$defs"])
        _, error = models_json_schema(
            [(ErrorAnswer, "serialization")],
            ref_template="#/components/schemas/{model}",
        )
        schemas.update(error["$defs"])
        _describe_errors(app.openapi_schema)
        _describe_keys(app.openapi_schema)
        app.openapi_schema["x-live-protocol"] = model.live_messages.__doc__
    return app.openapi_schema
