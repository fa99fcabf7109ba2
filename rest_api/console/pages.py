"""The operators' console at /console: static pages over the JSON of the other routes.

The files hold no data and are open to all; what they ask for (`/health`, `/calls`) is
guarded as everything else.  Nothing is taken from another host.
"""

from __future__ import annotations

from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from fastapi.responses import Response

from rest_api.errors import RequestRefused

router = APIRouter(prefix="/console", include_in_schema=False)

_FOLDER: Final = Path(__file__).resolve().parent
_PAGE: Final = "console.html"
_MEDIA_TYPES: Final = {
    "style.css": "text/css",
    **dict.fromkeys(
        (
            *("app.js", "api.js", "dom.js", "charts.js", "controls.js", "listen.js"),
            *("live.js", "history.js", "call.js", "figures.js", "recording.js"),
        ),
        "text/javascript",
    ),
}
SESSION_PATH: Final = "/console/session"
"""Logging in and out, see `login`."""
PATHS: Final = ("/console", *(f"/console/{name}" for name in _MEDIA_TYPES))
"""Open to everybody: they show nothing by themselves."""
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; media-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@router.get("")
async def page() -> Response:
    """The page."""
    return Response(_content(_PAGE), media_type="text/html", headers=_HEADERS)


@router.get("/{name}")
async def asset(name: str) -> Response:
    """Its scripts and looks."""
    media_type = _MEDIA_TYPES.get(name)
    if media_type is None:
        raise RequestRefused(HTTPStatus.NOT_FOUND, "the console has no such file")
    return Response(_content(name), media_type=media_type, headers=_HEADERS)


@cache
def _content(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()
