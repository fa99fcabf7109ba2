"""One dialogue over one connection to a sidecar; `model.failover` makes a call of them.

reply(turn)  ─▶ `utterance` ─▶ a ReplyStream for the turn ◀─ the connection's reader
iterator closed ─▶ `cancel`        connection lost ─▶ every open stream raises
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from model.call_memory import PastTurn
from model.errors import (
    ContextTooLong,
    GenerationFailed,
    InvalidAudio,
    InvalidRequest,
    SpeechError,
    SpeechOverloaded,
    SpeechUnavailable,
    SynthesisFailed,
)
from model.live_messages import (
    Cancel,
    ClientMessage,
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
    UserTurnSent,
    check_user_turn,
    is_sendable,
)
from model.live_wire import ServerMessages, encode_client
from model.reply_stream import ReplyStream
from model.speech import (
    Answerer,
    ReplyDone,
    ReplyEvent,
    Transcript,
    TurnEnd,
    UserTurn,
    Utterance,
)
from telemetry import fields

logger = logging.getLogger(__name__)

_UNKNOWN: Final = Answerer("unsure", "")
_MAX_UNSENT = 256
"""Messages waiting for the network: more than a call says in a minute of stillness,
and room for its whole past when it moves to another sidecar."""


@dataclass(frozen=True, slots=True)
class SpeechClientOptions:
    """How patient the client is."""

    connect_timeout_s: float = 2.0
    """One try at one address up to `ready`; sidecars are near, and a caller waits."""
    first_event_timeout_s: float = 8.0
    """A turn's question to its first event: encoder, prefill and a full batch."""
    inter_event_timeout_s: float = 5.0
    """Between events of a reply; a sentence takes a CPU a second or two."""
    send_timeout_s: float = 2.0
    """To hand one message to the network; a peer that reads nothing is gone."""
    ping_interval_s: float = 5.0
    ping_timeout_s: float = 5.0
    """A host that lost its power says nothing: silence this long ends the session."""
    max_buffered_bytes: int = 2 * 1024 * 1024
    """Reply audio not yet taken, for each turn: two minutes at 8 kHz.  When full, the
    connection isn't read on, and through it synthesis waits."""
    retry_after_s: float = 5.0
    """An address that failed is tried after the others for this long."""
    max_remembered_bytes: int = 1024 * 1024
    """Of the caller's speech, to tell the next sidecar when one dies: a minute of it
    at 8 kHz, beside what was said to him.  200 calls are 200 MB at the very most."""


class RemoteSession:
    """The dialogue; implements `SpeechSession`."""

    def __init__(
        self,
        url: str,
        connection: ClientConnection,
        decoder: ServerMessages,
        options: SpeechClientOptions,
        *,
        transcribes: bool = False,
    ) -> None:
        """`decoder` has seen everything up to `ready`; `url` is the sidecar's.

        transcribes: a Transcript follows each reply to speech.
        """
        self.url = url
        self._connection = connection
        self._decoder = decoder
        self._options = options
        self._transcribes = transcribes
        self._awaits_transcript: set[int] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._streams: dict[int, ReplyStream] = {}
        self._identifying: dict[int, asyncio.Future[Identified | None]] = {}
        self._num_identified = 0
        self._last_turn = -1
        self._lost: SpeechError | None = None
        # Full: the sidecar reads nothing any more, and the session is given up.
        self._unsent: asyncio.Queue[ClientMessage] = asyncio.Queue(_MAX_UNSENT)

    @property
    def lost(self) -> SpeechError | None:
        """Why the connection is gone; None: it is there."""
        return self._lost

    def start(self) -> None:
        """Begin to read and write the connection; `aclose` ends it."""
        self._tasks = [
            asyncio.create_task(self._read()),
            asyncio.create_task(self._write()),
        ]

    async def aclose(self) -> None:
        """Close the connection; streams still open raise SpeechUnavailable."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._lose(SpeechUnavailable("the session is closed"))
        await self._connection.close()

    def recall(self, past: Sequence[PastTurn]) -> None:
        """Tell the server of turns that another one served."""
        for turn in past:
            self._send(Past(turn.user, turn.heard))

    def reply(self, turn: int, user: UserTurn) -> AsyncGenerator[ReplyEvent]:
        """See `SpeechSession.reply`; close the iterator to cancel."""
        return self._events(turn, UserTurnSent(turn, user))

    def say(self, turn: int, text: str) -> AsyncGenerator[ReplyEvent]:
        """See `SpeechSession.say`; close the iterator to cancel."""
        return self._events(turn, Say(turn, text))

    async def settle(self, turn: int, heard_ms: int | None = None) -> None:
        """See `SpeechSession.settle`; when the connection is lost, nothing."""
        self._drop(turn)
        self._send(Settle(turn, heard_ms))

    async def forget(self, turn: int) -> None:
        """See `SpeechSession.forget`; when the connection is lost, nothing."""
        self._drop(turn)
        self._send(Forget(turn))

    async def identify(self, said: Utterance) -> Answerer:
        """See `SpeechSession.identify`."""
        found = await self._identify(said, judge=True)
        return Answerer(found.judged, found.words or "") if found else _UNKNOWN

    async def words_of(self, said: Utterance) -> str | None:
        """See `SpeechSession.words_of`."""
        found = await self._identify(said, judge=False)
        return found.words if found else None

    async def _identify(self, said: Utterance, *, judge: bool) -> Identified | None:
        self._num_identified += 1
        message = Identify(self._num_identified, said, judge)
        if self._lost is not None or not is_sendable(message):
            return None
        answer: asyncio.Future[Identified | None]
        answer = asyncio.get_running_loop().create_future()
        self._identifying[message.number] = answer
        self._send(message)
        try:
            async with asyncio.timeout(self._options.first_event_timeout_s):
                return await answer
        except TimeoutError:
            return None
        finally:
            self._identifying.pop(message.number, None)

    async def _events(
        self, turn: int, message: UserTurnSent | Say
    ) -> AsyncGenerator[ReplyEvent]:
        if turn <= self._last_turn:
            raise ValueError(f"turn {turn} after turn {self._last_turn}")
        check_user_turn(message)  # the server would close the dialogue over it
        if self._lost is not None:
            raise self._lost
        self._last_turn = turn
        stream = self._streams[turn] = ReplyStream(self._options.max_buffered_bytes)
        if self._transcribes and _is_speech(message):
            self._awaits_transcript.add(turn)
        self._send(message)
        is_done = False
        try:
            timeout_s: float | None = self._options.first_event_timeout_s
            while (event := await stream.get(timeout_s)) is not None:
                yield event
                is_done = is_done or isinstance(event, ReplyDone)
                if isinstance(event, TurnEnd):
                    continue  # the first event of the reply itself is still to come
                # the transcript comes when there is time for it
                timeout_s = None if is_done else self._options.inter_event_timeout_s
        except SpeechError:
            if not is_done:  # else the reply is whole: only its transcript is missing
                raise
        finally:
            # A stream that ended has left the table: nothing is there to cancel.
            if self._drop(turn):
                self._send(Cancel(turn))

    async def _read(self) -> None:
        """Hand every message to the stream of its turn until the connection ends."""
        try:
            async for wire in self._connection:
                message = self._decoder.receive(wire)
                if message is not None:
                    await self._take(message)
            self._lose(SpeechUnavailable("the sidecar closed the connection"))
        except ConnectionClosed as exc:
            self._lose(SpeechUnavailable(f"the connection broke: {one_line(exc)}"))
        except LiveProtocolError as exc:
            self._lose(SpeechUnavailable(f"the sidecar sent nonsense: {exc}"))

    async def _write(self) -> None:
        """Send what waits; a message and its audio are never parted."""
        try:
            while True:
                message = await self._unsent.get()
                async with asyncio.timeout(self._options.send_timeout_s):
                    for wire in encode_client(message):
                        await self._connection.send(wire)
        except (ConnectionClosed, TimeoutError) as exc:
            self._lose(SpeechUnavailable(f"cannot send: {one_line(exc)}"))

    async def _take(self, message: ServerMessage) -> None:
        match message:
            case Ready():
                raise LiveProtocolError("ready in mid-dialogue", field="type")
            case LiveError(turn, code, text):
                error = error_from(code, text)
                if turn is None:
                    self._lose(error)
                elif stream := self._streams.pop(turn, None):
                    stream.end(error)
            case Identified():
                answer = self._identifying.pop(message.number, None)
                if answer is not None and not answer.done():
                    answer.set_result(message)
            case _:
                await self._deliver(message)

    async def _deliver(self, event: ReplyEvent) -> None:
        stream = self._streams.get(event.turn)
        if stream is None:
            return  # cancelled meanwhile: what was under way is of no use
        await stream.put(event)
        awaited = event.turn in self._awaits_transcript
        if isinstance(event, Transcript) or (
            isinstance(event, ReplyDone) and not awaited
        ):
            self._streams.pop(event.turn, None)
            self._awaits_transcript.discard(event.turn)
            stream.end()

    def _drop(self, turn: int) -> bool:
        """Close the turn's stream; whether the server may still be at it."""
        stream = self._streams.pop(turn, None)
        self._awaits_transcript.discard(turn)
        if stream is not None:
            stream.close()
        return stream is not None

    def _send(self, message: ClientMessage) -> None:
        if self._lost is not None:
            return
        try:
            self._unsent.put_nowait(message)
        except asyncio.QueueFull:
            self._lose(SpeechUnavailable("the sidecar reads nothing any more"))

    def _lose(self, error: SpeechError) -> None:
        """The connection is gone: every open stream raises `error`."""
        if self._lost is None:
            self._lost = error
            logger.debug("session_lost", extra=fields(reason=str(error)))
        for stream in self._streams.values():
            stream.end(error)
        self._streams.clear()
        for answer in self._identifying.values():
            if not answer.done():
                answer.set_result(None)


def _is_speech(message: UserTurnSent | Say) -> bool:
    return isinstance(message, UserTurnSent) and isinstance(message.user, Utterance)


_ERRORS: Final[tuple[type[SpeechError], ...]] = (
    SpeechOverloaded,
    SpeechUnavailable,
    InvalidRequest,
    InvalidAudio,
    GenerationFailed,
    SynthesisFailed,
)
# Codes of classes that the phone half has no need to tell apart.
_ERROR_OF_CODE: Final[dict[str, type[SpeechError]]] = {
    **{kind.code: kind for kind in _ERRORS},
    "engine_overloaded": SpeechOverloaded,
    "synthesis_overloaded": SpeechOverloaded,
    "synthesizer_unavailable": SpeechUnavailable,
    "model_load_failed": SpeechUnavailable,
    "device_lost": SpeechUnavailable,
    "voice_unknown": InvalidRequest,
    LiveProtocolError.code: InvalidRequest,
}


def error_from(code: str, message: str) -> SpeechError:
    """The typed error behind an `error` message."""
    if code == ContextTooLong.code:
        return ContextTooLong(message, num_tokens=0, limit_tokens=0)
    return _ERROR_OF_CODE.get(code, GenerationFailed)(f"{code}: {message}")


def one_line(exc: BaseException) -> str:
    """What happened, for a message; many exceptions of the network say nothing."""
    return " ".join(f"{type(exc).__name__} {exc}".split())
