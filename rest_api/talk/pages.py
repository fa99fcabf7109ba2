"""A spoken conversation from the browser, at /console/talk: static pages of our own.

They hold no data and are open to all; the dialogue they open, `/chat/live`, is guarded
as everything else.  Nothing is taken from another host.
"""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from fastapi.responses import Response

router = APIRouter(prefix="/console/talk", include_in_schema=False)

_FOLDER: Final = Path(__file__).resolve().parent
_MEDIA_TYPES: Final = {
    "talk.css": "text/css",
    "talk.js": "text/javascript",
    "dialogue.js": "text/javascript",
    "audio.js": "text/javascript",
    "turns.js": "text/javascript",
    "microphone.js": "text/javascript",
}
PATHS: Final = ("/console/talk", *(f"/console/talk/{name}" for name in _MEDIA_TYPES))
"""Open to everybody: they show nothing by themselves."""
_HEADERS: Final = {
    # connect-src 'self' covers ws: and wss: of this origin
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; worker-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


@router.get("")
async def page() -> Response:
    """The page."""
    return _file("talk.html", "text/html")


async def _asset(name: str) -> Response:
    return _file(name, _MEDIA_TYPES[name])


for _name in _MEDIA_TYPES:
    router.add_api_route(f"/{_name}", partial(_asset, _name), methods=["GET"])


def _file(name: str, media_type: str) -> Response:
    return Response(_content(name), media_type=media_type, headers=_HEADERS)


@cache
def _content(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()
