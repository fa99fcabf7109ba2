"""Running calls on all phone halves: see them, listen in, steer them.

Steering and listening need somebody's key, on this host as well: what was done is in
the call's record with its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Body, Depends, Request
from pydantic import BaseModel, Field
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from model.control_messages import MAX_SAY_CHARS, ControlAction, ControlRefused
from rest_api.auth import LISTEN_SUBPROTOCOL
from rest_api.control_desk import ControlDesk
from rest_api.errors import RequestRefused, error_response
from rest_api.schemas import ErrorAnswer
from telemetry import fields

logger = logging.getLogger(__name__)

_SEND_TIMEOUT_S: Final = 5.0
_CLOSE_NORMAL: Final = 1000
_CLOSE_REFUSED: Final = 4404
_NEEDS_KEY: Final = "steering calls needs an API key, on this host as well"
_REFUSED: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": ErrorAnswer, "description": meaning}
    for status, meaning in {
        400: "the body is not JSON",
        409: "not possible now; the message says why",
        413: "the body is too large",
    }.items()
}


class SayBody(BaseModel):
    """What the bot is to say."""

    text: Annotated[str, Field(min_length=1, max_length=MAX_SAY_CHARS)]


class TransferBody(BaseModel):
    """Where the caller goes."""

    target: Annotated[str, Field(max_length=60)] = ""
    """A name of the campaign's `[transfer]` table; empty: the dialplan's people."""


def _no_store(response: Response) -> None:
    response.headers["Cache-Control"] = "no-store"


def operator_of(state: Any) -> str:
    """Whose key a request came with; empty: none."""
    if getattr(state, "is_open_to_all", False):
        return "anybody"  # ULTRAVOX_AUTH=off: everybody may do everything
    return str(getattr(state, "key_name", ""))


def _operator(request: Request) -> str:
    name = operator_of(request.state)
    if not name:
        raise RequestRefused(HTTPStatus.UNAUTHORIZED, _NEEDS_KEY, code="unauthorized")
    return name


def _desk(request: Request) -> ControlDesk:
    desk: ControlDesk = request.app.state.control_desk
    return desk


Desk = Annotated[ControlDesk, Depends(_desk)]
Operator = Annotated[str, Depends(_operator)]
router = APIRouter(
    prefix="/live", tags=["live calls"], dependencies=[Depends(_no_store)]
)


@router.get("/calls")
async def running(desk: Desk) -> dict[str, Any]:
    """Every running call of every phone half, not older than a second."""
    phones = [
        {
            "name": line.name,
            "is_drained": line.is_drained,
            "calls": msgspec.to_builtins(line.calls),
            "dialers": msgspec.to_builtins(line.dialers),
            "vicidial": line.vicidial,
        }
        for line in await desk.look()
    ]
    return {"success": True, "data": {"phones": phones}}


@router.post("/calls/{call_id}/say", responses=_REFUSED)
async def say(desk: Desk, by: Operator, call_id: str, body: SayBody) -> dict[str, Any]:
    """Have the bot say something now, in place of what it says."""
    return await _to_call(desk, call_id, "say", by, body.text)


@router.post("/calls/{call_id}/transfer", responses=_REFUSED)
async def transfer(
    desk: Desk,
    by: Operator,
    call_id: str,
    body: Annotated[TransferBody, Body(default_factory=TransferBody)],
) -> dict[str, Any]:
    """Hand the caller on, after the campaign's phrase for it."""
    return await _to_call(desk, call_id, "transfer", by, body.target)


@router.post("/calls/{call_id}/{action}", responses=_REFUSED)
async def steer(
    desk: Desk,
    by: Operator,
    call_id: str,
    action: Literal["hangup", "pause_recording", "resume_recording"],
) -> dict[str, Any]:
    """End the call at once; record silence while a secret is told, or sound again."""
    return await _to_call(desk, call_id, action, by)


@router.post("/phones/{name}/{action}", responses=_REFUSED)
async def steer_phone(
    desk: Desk, by: Operator, name: str, action: Literal["drain", "resume"]
) -> dict[str, Any]:
    """Have a phone half take no new calls, or take them again; running ones go on."""
    try:
        await desk.do_to_phone(name, action, by)
    except ControlRefused as exc:
        raise _refused(exc) from exc
    return {"success": True, "data": {}}


async def _to_call(
    desk: ControlDesk, call_id: str, action: ControlAction, by: str, argument: str = ""
) -> dict[str, Any]:
    try:
        await desk.do_to_call(call_id, action, by, argument)
    except ControlRefused as exc:
        raise _refused(exc) from exc
    return {"success": True, "data": {}}


def _refused(exc: ControlRefused) -> RequestRefused:
    return RequestRefused(HTTPStatus.CONFLICT, str(exc), code="not_possible")


@router.websocket("/calls/{call_id}/listen")
async def listen(websocket: WebSocket, call_id: str) -> None:
    """The call's sound: binary messages of 8 kHz pcm16, caller left, bot right."""
    by = operator_of(websocket.state)
    if not by:
        refusal = error_response(HTTPStatus.UNAUTHORIZED, "unauthorized", _NEEDS_KEY)
        await websocket.send_denial_response(refusal)
        return
    desk: ControlDesk = websocket.app.state.control_desk
    offered = websocket.scope.get("subprotocols", [])
    is_named = LISTEN_SUBPROTOCOL in offered
    await websocket.accept(LISTEN_SUBPROTOCOL if is_named else None)
    try:
        async with desk.listening(call_id, by) as ears:
            gone = asyncio.create_task(_until_gone(websocket))
            sending = asyncio.create_task(_send(websocket, ears.pieces()))
            try:
                await asyncio.wait({gone, sending}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                gone.cancel()
                sending.cancel()
                await asyncio.wait({gone, sending})
            if ears.num_dropped:
                logger.info("listener_slow", extra=fields(pieces=ears.num_dropped))
            code = _CLOSE_REFUSED if ears.why_ended else _CLOSE_NORMAL
            await _close(websocket, code, ears.why_ended)
    except ControlRefused as exc:
        await _close(websocket, _CLOSE_REFUSED, str(exc))


async def _send(websocket: WebSocket, pieces: Any) -> None:
    """A browser that reads nothing for a while is let go."""
    with contextlib.suppress(TimeoutError, WebSocketDisconnect, RuntimeError, OSError):
        async for piece in pieces:
            async with asyncio.timeout(_SEND_TIMEOUT_S):
                await websocket.send_bytes(piece)


async def _until_gone(websocket: WebSocket) -> None:
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass  # a listener has nothing to say


async def _close(websocket: WebSocket, code: int, why: str) -> None:
    with contextlib.suppress(RuntimeError, WebSocketDisconnect, OSError):
        async with asyncio.timeout(_SEND_TIMEOUT_S):
            await websocket.close(code, why[:100])
