"""`/chat/live`: one dialogue over one WebSocket; the table is in model.live_messages.

One task reads the client's messages and acts on them in order; each reply runs in a
task of its own, so that a cancel is heard while it speaks.  Whatever ends the
connection ends all of them, and frees the dialogue's place in the engine.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Final, Self, assert_never

from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect

import telemetry
from model.errors import InvalidRequest, SpeechError
from model.live_messages import (
    Cancel,
    ClientMessage,
    End,
    Forget,
    Identified,
    Identify,
    LiveError,
    LiveProtocolError,
    Past,
    Ready,
    Say,
    ServerMessage,
    Settle,
    Start,
    UserTurnSent,
)
from model.live_wire import ClientMessages, encode_server
from model.local_session import LocalSession
from model.speech import ReplyEvent, SessionOptions
from rest_api.auth import LIVE_SUBPROTOCOL
from rest_api.service_state import ServiceState
from telemetry import call_context, fields

logger = logging.getLogger(__name__)

router = APIRouter()

START_TIMEOUT_S: Final = 10.0
"""From the connection to `start`; a scanner that says nothing holds no place."""
IDLE_TIMEOUT_S: Final = 1800.0
"""Without a message: longer than any call's pause, shorter than forever."""
_END_TIMEOUT_S: Final = 5.0
"""For the last messages to go out."""
_MAX_UNSENT: Final = 16
_MAX_REPLIES: Final = 8
"""Open at once in one dialogue: the reply, a filler, and a few being cancelled."""
_CLOSE_NORMAL: Final = 1000
_CLOSE_PROTOCOL: Final = 1008
_CLOSE_INTERNAL: Final = 1011
_CLOSE_TRY_LATER: Final = 1013


@router.websocket("/chat/live")
async def chat_live(websocket: WebSocket) -> None:
    """Serve one dialogue."""
    offered = websocket.scope.get("subprotocols", [])
    chosen = LIVE_SUBPROTOCOL if LIVE_SUBPROTOCOL in offered else None
    await websocket.accept(subprotocol=chosen)
    state: ServiceState = websocket.app.state.service
    async with _Line.over(websocket) as line:
        try:
            await _serve(line, state)
        except WebSocketDisconnect:
            return
        except SpeechError as exc:
            state.note_error(exc.code, str(exc))
            field = exc.field if isinstance(exc, LiveProtocolError) else ""
            code = _CLOSE_TRY_LATER if exc.retryable else _CLOSE_PROTOCOL
            await line.end(code, LiveError(None, exc.code, str(exc), field))
        except Exception:
            state.note_error("internal", "a dialogue crashed; the log says how")
            logger.exception("dialogue_crashed")
            error = LiveError(None, "internal", "internal error")
            await line.end(_CLOSE_INTERNAL, error)
        else:
            await line.end(_CLOSE_NORMAL)


async def _serve(line: _Line, state: ServiceState) -> None:
    """Raises SpeechError: the dialogue cannot begin or go on."""
    options = await line.start()
    service = state.require()
    with call_context(call_id=options.call_id, campaign=options.campaign):
        async with service.open_session(options) as session:
            status = await service.status()
            await line.send(Ready(status.model, status.weights, options.rate_hz))
            dialogue = _Dialogue(line, session, state)
            try:
                await dialogue.run()
            finally:
                await dialogue.aclose()


class _Line:
    """The WebSocket as messages both ways.

    What is sent waits in a short line for one writing task, so that a reply cancelled
    in mid-message never parts a header from its audio.
    """

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._decoder = ClientMessages()
        # Full: the client reads slowly, and the replies' makers wait.
        self._unsent: asyncio.Queue[ServerMessage | None] = asyncio.Queue(_MAX_UNSENT)
        self._writing: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def over(cls, websocket: WebSocket) -> AsyncIterator[Self]:
        """A line that writes for as long as the block lasts."""
        line = cls(websocket)
        line._writing = asyncio.create_task(line._write())
        try:
            yield line
        finally:
            line._writing.cancel()
            await asyncio.wait([line._writing])

    async def start(self) -> SessionOptions:
        """The first message.

        Raises:
            LiveProtocolError: it is something else, or doesn't come.
        """
        try:
            message = await self.receive(START_TIMEOUT_S)
        except TimeoutError as exc:
            raise LiveProtocolError("no start message came") from exc
        if not isinstance(message, Start):
            raise LiveProtocolError("the first message must be start", field="type")
        return message.options

    async def receive(self, timeout_s: float = IDLE_TIMEOUT_S) -> ClientMessage:
        """Raises WebSocketDisconnect, LiveProtocolError, TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while True:
                event = await self._websocket.receive()
                if event["type"] == "websocket.disconnect":
                    raise WebSocketDisconnect(event.get("code", 1006))
                text = event.get("text")
                wire = text if text is not None else event["bytes"]
                if (message := self._decoder.receive(wire)) is not None:
                    return message

    async def send(self, message: ServerMessage) -> None:
        """Queue a message; waits while the client reads nothing."""
        await self._unsent.put(message)

    async def end(self, code: int, last: LiveError | None = None) -> None:
        """Send what waits and a last message, then close."""
        assert self._writing is not None
        try:
            async with asyncio.timeout(_END_TIMEOUT_S):
                if last is not None and not self._writing.done():
                    await self._unsent.put(last)
                if not self._writing.done():
                    await self._unsent.put(None)
                    await asyncio.wait([self._writing])
                await self._websocket.close(code)
        except (TimeoutError, WebSocketDisconnect, RuntimeError, OSError) as exc:
            # Gone, or not reading: the server's pings end such a connection.
            logger.debug("close_failed", extra=fields(reason=type(exc).__name__))

    async def _write(self) -> None:
        try:
            while (message := await self._unsent.get()) is not None:
                for wire in encode_server(message):
                    if isinstance(wire, bytes):
                        await self._websocket.send_bytes(wire)
                    else:
                        await self._websocket.send_text(wire)
        except (WebSocketDisconnect, RuntimeError, OSError) as exc:
            # RuntimeError is starlette's word for "closed already".  The reading side
            # hears of it too, and ends the dialogue.
            logger.debug("client_gone", extra=fields(reason=type(exc).__name__))


class _Dialogue:
    """One dialogue's replies under way, and what the client says meanwhile."""

    def __init__(self, line: _Line, session: LocalSession, state: ServiceState) -> None:
        self._line = line
        self._session = session
        self._state = state
        self._replies: dict[int, asyncio.Task[None]] = {}
        self._identifying: set[asyncio.Task[None]] = set()
        self._last_turn = -1

    async def run(self) -> None:
        """Until the client ends it; raises WebSocketDisconnect or SpeechError."""
        while True:
            try:
                message = await self._line.receive()
            except TimeoutError as exc:
                raise InvalidRequest(f"idle for {IDLE_TIMEOUT_S:g} s") from exc
            match message:
                case Start():
                    raise LiveProtocolError("start came twice", field="type")
                case UserTurnSent(turn, user):
                    await self._begin(turn, self._session.reply(turn, user))
                case Say(turn, text):
                    await self._begin(turn, self._session.say(turn, text))
                case Cancel(turn):
                    await self._cancel(turn)
                case Settle(turn, heard_ms):
                    await self._cancel(turn)
                    await self._session.settle(turn, heard_ms)
                case Forget(turn):
                    await self._cancel(turn)
                    await self._session.forget(turn)
                case Past(user, heard):
                    await self._session.recall(user, heard)
                case Identify():
                    self._identify(message)
                case End():
                    return
                case _:
                    assert_never(message)

    async def aclose(self) -> None:
        """End every reply."""
        tasks = [*self._replies.values(), *self._identifying]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _begin(self, turn: int, events: AsyncGenerator[ReplyEvent]) -> None:
        if turn <= self._last_turn:
            raise LiveProtocolError(
                f"turn {turn} after turn {self._last_turn}", field="turn"
            )
        if len(self._replies) >= _MAX_REPLIES:
            raise InvalidRequest(f"more than {_MAX_REPLIES} replies at once")
        self._last_turn = turn
        task = asyncio.create_task(self._tell(turn, events))
        self._replies[turn] = task
        task.add_done_callback(lambda _: self._replies.pop(turn, None))

    def _identify(self, asked: Identify) -> None:
        if len(self._identifying) >= _MAX_REPLIES:
            raise InvalidRequest(f"more than {_MAX_REPLIES} questions at once")
        task = asyncio.create_task(self._tell_who(asked))
        self._identifying.add(task)
        task.add_done_callback(self._identifying.discard)

    async def _tell_who(self, asked: Identify) -> None:
        if asked.judge:
            who = await self._session.identify(asked.said)
            found = Identified(asked.number, who.judged, who.words)
        else:
            words = await self._session.words_of(asked.said)
            found = Identified(asked.number, "unsure", words)
        await self._line.send(found)

    async def _tell(self, turn: int, events: AsyncGenerator[ReplyEvent]) -> None:
        """Send a reply's events; the bulkhead of one turn."""
        try:
            async with aclosing(events):
                async for event in events:
                    await self._line.send(event)
        except SpeechError as exc:
            self._state.note_error(exc.code, str(exc))
            await self._line.send(LiveError(turn, exc.code, str(exc)))
        except Exception:
            telemetry.ERRORS.labels(kind="internal").inc()
            logger.exception("turn_crashed", extra=fields(turn=turn))
            self._state.note_error("internal", "a turn crashed; the log says how")
            await self._line.send(LiveError(turn, "internal", "internal error"))

    async def _cancel(self, turn: int) -> None:
        task = self._replies.get(turn)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
