"""Where phone halves report their running calls and operators' wishes are passed on.

    phone halves ─ one WebSocket each ─▶ ControlDesk ◀─ routes of rest_api.live_calls

The desk keeps what each phone half said last.  A wish waits for its answer; a listener
gets a short queue, and what he is too slow for is dropped.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, assert_never

from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect

from model.control_messages import (
    CONTROL_PATH,
    MAX_MESSAGE_BYTES,
    Calls,
    CallState,
    ControlAction,
    ControlMessageInvalid,
    ControlRefused,
    DialerState,
    Do,
    Done,
    FromPhone,
    Hello,
    ToPhone,
    Watch,
    encode,
    from_phone,
    unpack_audio,
)
from telemetry import fields

logger = logging.getLogger(__name__)

router = APIRouter()

MAX_PHONES: Final = 100
WATCH_S: Final = 10.0
"""One look has phone halves report for so long."""
_FIRST_LOOK_S: Final = 1.0
"""How long the first look waits for what they report."""
_HELLO_TIMEOUT_S: Final = 5.0
_ANSWER_TIMEOUT_S: Final = 5.0
_MAX_PIECES: Final = 50
"""Of 100 ms for one listener.  Full: he is too slow, the oldest is dropped."""
_MAX_UNSENT: Final = 100
"""Wishes on their way to one phone half.  Full: the newest is refused."""
_CLOSE_PROTOCOL: Final = 1008
_CLOSE_RESTART: Final = 1012
_CLOSE_TRY_LATER: Final = 1013


class Ears:
    """One listener's queue of sound."""

    def __init__(self) -> None:
        # see `_MAX_PIECES`
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(_MAX_PIECES)
        self.why_ended = ""
        self.num_dropped = 0

    def heard(self, pcm16: bytes) -> None:
        """Sound came."""
        self._offer(pcm16)

    def end(self, why: str) -> None:
        """Nothing comes any more; empty: the call is over."""
        self.why_ended = why
        self._offer(None)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Stereo pcm16 until it ends."""
        while (piece := await self._pieces.get()) is not None:
            yield piece

    def _offer(self, piece: bytes | None) -> None:
        if self._pieces.full():
            self._pieces.get_nowait()
            self.num_dropped += 1
        self._pieces.put_nowait(piece)


@dataclass(slots=True, eq=False)
class PhoneLine:
    """A connected phone half."""

    name: str
    calls: tuple[CallState, ...] = ()
    is_drained: bool = False
    dialers: tuple[DialerState, ...] = ()
    vicidial: str = ""
    reported: asyncio.Event = field(default_factory=asyncio.Event)
    unsent: asyncio.Queue[ToPhone | None] = field(
        # see `_MAX_UNSENT`; None: close the line
        default_factory=lambda: asyncio.Queue(_MAX_UNSENT)
    )
    answers: dict[int, asyncio.Future[str]] = field(default_factory=dict)
    ears: dict[int, Ears] = field(default_factory=dict)

    def take(self, message: FromPhone) -> None:
        """A message from it; raises ControlMessageInvalid."""
        match message:
            case Calls():
                self.calls, self.is_drained = message.calls, message.is_drained
                self.dialers, self.vicidial = message.dialers, message.vicidial
                self.reported.set()
            case Done(number=number, error=error):
                if (answer := self.answers.get(number)) and not answer.done():
                    answer.set_result(error)
                if ears := self.ears.pop(number, None):
                    ears.end(error)
            case Hello():
                raise ControlMessageInvalid("hello came twice")
            case _:
                assert_never(message)

    def sound(self, wire: bytes) -> None:
        """Raises ControlMessageInvalid."""
        number, pcm16 = unpack_audio(wire)
        if ears := self.ears.get(number):
            ears.heard(pcm16)

    def send(self, message: ToPhone) -> None:
        """Raises ControlRefused: it does not read."""
        try:
            self.unsent.put_nowait(message)
        except asyncio.QueueFull as exc:
            raise ControlRefused("the phone half does not answer") from exc

    def let_go(self) -> None:
        """It shall connect anew."""
        if self.unsent.full():
            self.unsent.get_nowait()
        self.unsent.put_nowait(None)

    def lost(self) -> None:
        """It is gone: whoever waits for it hears so."""
        for answer in self.answers.values():
            if not answer.done():
                answer.set_result("the phone half is gone")
        for ears in self.ears.values():
            ears.end("the phone half is gone")
        self.ears.clear()


class ControlDesk:
    """All phone halves that are connected."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        """`clock`: seconds; by default the event loop's."""
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._lines: list[PhoneLine] = []
        self._numbers = itertools.count(1)
        self._watched_until_s = 0.0

    @contextmanager
    def connected(self, name: str) -> Iterator[PhoneLine]:
        """A phone half's line for as long as the block lasts.

        Raises:
            ControlRefused: there are too many.
        """
        if len(self._lines) >= MAX_PHONES:
            raise ControlRefused(f"{MAX_PHONES} phone halves are connected")
        line = PhoneLine(name)
        self._lines.append(line)
        self._keep_watching(line)
        logger.info("phone_connected", extra=fields(phone=name))
        try:
            yield line
        finally:
            self._lines.remove(line)
            line.lost()
            logger.info("phone_disconnected", extra=fields(phone=name))

    def retire(self) -> None:
        """Another process has our port now: the phone halves shall go there."""
        for line in self._lines:
            line.let_go()

    async def look(self) -> list[PhoneLine]:
        """Every phone half as it was at its last report, a second ago at most.

        The first look after a while waits for reports, shortly.
        """
        is_first = self._clock() >= self._watched_until_s
        self._watched_until_s = self._clock() + WATCH_S
        for line in self._lines:
            if is_first:
                line.reported.clear()
            self._keep_watching(line)
        waiting = [line.reported.wait() for line in self._lines]
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_LOOK_S):
                await asyncio.gather(*waiting)
        return sorted(self._lines, key=lambda line: line.name)

    def _keep_watching(self, line: PhoneLine) -> None:
        left_s = self._watched_until_s - self._clock()
        if left_s > 0:
            with suppress(ControlRefused):  # it is stuck, and shown as it was
                line.send(Watch(left_s))

    async def do_to_call(
        self, call_id: str, action: ControlAction, by: str, argument: str = ""
    ) -> None:
        """Raises ControlRefused: the call is unknown, or it cannot be done."""
        await self._do(await self._line_of(call_id), action, by, call_id, argument)

    async def do_to_phone(self, name: str, action: ControlAction, by: str) -> None:
        """Raises ControlRefused: no such phone half, or it cannot be done."""
        lines = [line for line in self._lines if line.name == name]
        if not lines:
            raise ControlRefused("no phone half of this name is connected")
        for line in lines:
            await self._do(line, action, by)

    @asynccontextmanager
    async def listening(self, call_id: str, by: str) -> AsyncIterator[Ears]:
        """A call's sound for as long as the block lasts.

        Raises:
            ControlRefused: no such call.
        """
        line = await self._line_of(call_id)
        number, ears = next(self._numbers), Ears()
        line.ears[number] = ears
        try:
            line.send(Do(number, "listen", by, call_id))
            yield ears
        finally:
            if line.ears.pop(number, None) is not None:
                with suppress(ControlRefused):
                    line.send(Do(number, "unlisten", by, call_id))

    async def _line_of(self, call_id: str) -> PhoneLine:
        for is_last in (False, True):
            for line in self._lines:
                if any(call.call_id == call_id for call in line.calls):
                    return line
            if not is_last:  # it may have begun since the last report
                await self.look()
        raise ControlRefused("no such call is running")

    async def _do(
        self,
        line: PhoneLine,
        action: ControlAction,
        by: str,
        call_id: str = "",
        argument: str = "",
    ) -> None:
        number = next(self._numbers)
        answer = asyncio.get_running_loop().create_future()
        line.answers[number] = answer
        try:
            line.send(Do(number, action, by, call_id, argument))
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                error = await answer
        except TimeoutError as exc:
            raise ControlRefused("the phone half does not answer") from exc
        finally:
            del line.answers[number]
        if error:
            raise ControlRefused(error)


@router.websocket(CONTROL_PATH)
async def phone_line(websocket: WebSocket) -> None:
    """Serve a phone half."""
    await websocket.accept()
    desk: ControlDesk = websocket.app.state.control_desk
    try:
        async with asyncio.timeout(_HELLO_TIMEOUT_S):
            hello = from_phone(await websocket.receive_text())
        if not isinstance(hello, Hello) or not 0 < len(hello.name) <= 200:
            raise ControlMessageInvalid("the first message must be hello")
        with desk.connected(hello.name) as line:
            await _serve(websocket, line)
    except (WebSocketDisconnect, OSError):
        return
    except (ControlMessageInvalid, KeyError, TimeoutError) as exc:
        # KeyError is starlette's word for bytes where text was wanted
        logger.warning("phone_not_understood", extra=fields(error=str(exc)))
        await websocket.close(_CLOSE_PROTOCOL)
    except ControlRefused as exc:
        await websocket.close(_CLOSE_TRY_LATER, str(exc))


async def _serve(websocket: WebSocket, line: PhoneLine) -> None:
    """Raises WebSocketDisconnect, ControlMessageInvalid."""
    writing = asyncio.create_task(_write(websocket, line))
    try:
        while True:
            event = await websocket.receive()
            if event["type"] == "websocket.disconnect":
                return
            if (text := event.get("text")) is not None:
                if len(text) > MAX_MESSAGE_BYTES:
                    raise ControlMessageInvalid("too long")
                line.take(from_phone(text))
            else:
                line.sound(event["bytes"])
    finally:
        writing.cancel()
        await asyncio.wait([writing])


async def _write(websocket: WebSocket, line: PhoneLine) -> None:
    with suppress(WebSocketDisconnect, RuntimeError, OSError):  # reading hears of it
        while (message := await line.unsent.get()) is not None:
            await websocket.send_text(encode(message).decode())
        await websocket.close(_CLOSE_RESTART)
