"""Logging in at the console and out again; see `sessions`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from rest_api.auth import LiveKeys
from rest_api.console.pages import SESSION_PATH
from rest_api.console.sessions import COOKIE, IDLE_S, Sessions, cookie_in
from rest_api.errors import RequestRefused

router = APIRouter(prefix=SESSION_PATH, include_in_schema=False)


@router.get("")
async def who(request: Request) -> Response:
    """Who is logged in, and whether anything may be seen or done without."""
    state = request.state
    session = getattr(state, "session", None)
    is_open = getattr(state, "is_open_to_all", False)
    return _answer(
        {
            "name": session.name if session is not None else "",
            "token": session.token if session is not None else "",
            "may_see": getattr(state, "is_trusted", True),
            "may_act": is_open or session is not None,
        }
    )


@router.post("")
async def log_in(request: Request) -> Response:
    """With the key in a header: a session's cookie."""
    name = getattr(request.state, "key_name", "")
    keys: LiveKeys = request.app.state.keys
    if not name or keys.ring is None:
        raise RequestRefused(
            HTTPStatus.UNAUTHORIZED, "an API key is needed: X-API-Key: KEY"
        )
    sessions: Sessions = request.app.state.sessions
    cookie, session = sessions.begin(name, keys.ring.digests[name])
    response = _answer(
        {"name": name, "token": session.token, "may_see": True, "may_act": True}
    )
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=int(IDLE_S),
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return response


@router.delete("")
async def log_out(request: Request) -> Response:
    """The cookie is worth nothing any more."""
    sessions: Sessions = request.app.state.sessions
    sessions.end(cookie_in(request.headers))
    response = _answer({"name": "", "token": "", "may_see": False, "may_act": False})
    response.delete_cookie(COOKIE, path="/")
    return response


def _answer(session: dict[str, Any]) -> JSONResponse:
    return JSONResponse(
        {"success": True, "data": session}, headers={"Cache-Control": "no-store"}
    )
