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
from rest_api.chat_bodies import DOCUMENTED

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
        app.openapi_schema["x-live-protocol"] = model.live_messages.__doc__
    return app.openapi_schema
