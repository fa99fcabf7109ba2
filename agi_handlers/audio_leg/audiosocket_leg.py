"""The AudioSocket leg: full duplex, Asterisk's own module, 18 and later.

`EXEC AudioSocket` runs on the AGI connection as long as the leg lasts; the audio comes
over a connection of its own to the media port.  Asterisk takes no keys that way, so to
send some the application is ended, the keys are sent over AGI, and it is begun anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from agi_handlers.agi.connection import AgiConnection
from agi_handlers.audio_leg.audiosocket_protocol import (
    AUDIO_FRAME_HEADER,
    SILENCE_MESSAGE,
    Audio,
    Digit,
)
from agi_handlers.audio_leg.audiosocket_session import (
    AudioSocketSession,
    SessionOptions,
)
from agi_handlers.audio_leg.caller_clock import CallerClock
from agi_handlers.audio_leg.caller_format import CallerAudioReader
from agi_handlers.audio_leg.channel_end import why_ended
from agi_handlers.audio_leg.event_queue import LegEventQueue
from agi_handlers.audio_leg.frame_wheel import FrameWheel
from agi_handlers.audio_leg.leg import (
    AudioListener,
    CallerKey,
    CloseReason,
    LegClosed,
    LegEvent,
    LegName,
)
from agi_handlers.audio_leg.loudness import Loudness
from agi_handlers.audio_leg.media_port import MediaPort
from agi_handlers.audio_leg.playback_queue import PlaybackQueue
from agi_handlers.audio_leg.sent_keys import SentKeys
from agi_handlers.errors import ChannelGone, TelephonyError
from model.audio.frames import FRAME_BYTES, FRAME_MS
from telemetry import ERRORS, fields

logger = logging.getLogger(__name__)

# By then the caller's frames come at their own pace: the first ones may have waited.
_FOLLOW_AT_FRAME = 25
# play() queues so much at a time, so that one huge chunk cannot jump the limit.
_STEP_BYTES = 50 * FRAME_BYTES


@dataclass(frozen=True, slots=True)
class AudioSocketOptions:
    session: SessionOptions = field(default_factory=SessionOptions)
    # EOF on the audio and the end of EXEC come within 5 ms of each other.
    judge_timeout_s: float = 1.0
    # Longest speech queued: longer replies make play() wait.
    max_queued_ms: int = 20_000
    # A dialer whose host has died takes no bytes and says nothing.
    stalled_timeout_s: float = 5.0
    max_unsent_frames: int = 4  # in our own buffer, when the system's is full
    gap_after_ms: int = 100  # without caller audio; frames come 20 to 45 ms apart


@asynccontextmanager
async def open_audiosocket_leg(
    agi: AgiConnection,
    media_port: MediaPort,
    wheel: FrameWheel,
    *,
    address: str,
    options: AudioSocketOptions | None = None,
    call_id: UUID | None = None,
) -> AsyncIterator[AudioSocketLeg]:
    """The caller's audio over AudioSocket, for the block; the channel must be up.

    address: HOST:PORT of the media port as Asterisk reaches it.
    call_id: a fresh uuid4 of the caller's, or one is made.

    Raises:
        AudioLegUnavailable: no such module, refused, or nobody connected.
        ChannelGone: the caller left meanwhile. AgiTimeout.
    """
    options = options or AudioSocketOptions()

    def new_session(leg: AudioSocketLeg) -> AudioSocketSession:
        return AudioSocketSession(
            agi, media_port, address, options.session, leg.audio_or_key_received
        )

    leg = AudioSocketLeg(agi, wheel, options, new_session)
    task: asyncio.Task[None] | None = None
    try:
        await leg.open(call_id or uuid4())
        task = asyncio.create_task(leg.run(), name="AudioSocket leg")
        yield leg
    finally:
        await leg.shut_down(task)


class AudioSocketLeg:
    """One call's audio over AudioSocket; made by `open_audiosocket_leg`."""

    name: LegName = "audiosocket"
    is_full_duplex = True

    def __init__(
        self,
        agi: AgiConnection,
        wheel: FrameWheel,
        options: AudioSocketOptions,
        new_session: Callable[[AudioSocketLeg], AudioSocketSession],
    ) -> None:
        self.num_frames_sent = 0
        self.num_frames_dropped = 0  # Asterisk did not take them in time
        self.num_frames_received = 0
        self._agi = agi
        self._wheel = wheel
        self._options = options
        self._new_session = new_session
        self._session = new_session(self)
        self._queue = PlaybackQueue(options.max_queued_ms)
        self._loudness = Loudness()
        self._events = LegEventQueue()
        self._clock = CallerClock(self._events, options.gap_after_ms)
        self._keys = SentKeys()
        self._reader = CallerAudioReader()
        self._room = asyncio.Event()
        self._room.set()
        self._generation = 0  # counts stops: a play() that waited is then void
        self._ending = False
        self._stalled_since_s: float | None = None

    @property
    def num_gap_frames(self) -> int:
        """Silence put where Asterisk sent nothing of the caller."""
        return self._clock.num_gap_frames

    # --- AudioLeg ---

    def events(self) -> AsyncIterator[LegEvent]:
        return self._events.events()

    def hand_audio_to(self, listener: AudioListener | None) -> None:
        self._events.hand_audio_to(listener)

    def heard_elsewhere(self, event: LegEvent) -> None:
        """Of the caller, from somebody who hears more than this leg."""
        self._events.put(event)

    async def play(self, pcm16: bytes) -> None:
        generation = self._generation
        for at in range(0, len(pcm16), _STEP_BYTES):
            await self._room.wait()
            if generation != self._generation or self._events.closed is not None:
                # a speaker that plays on and on must not keep the loop to itself
                await asyncio.sleep(0)
                return
            self._queue.add(pcm16[at : at + _STEP_BYTES])
            if self._queue.is_full:
                self._room.clear()

    def end_of_speech(self) -> None:
        if self._events.closed is None:
            self._queue.end_of_speech()

    def stop(self) -> int:
        unsent_ms = self._session.num_unsent_frames * FRAME_MS
        heard_ms = max(0, self._queue.stop() - unsent_ms)
        self._generation += 1
        self._room.set()
        self._loudness.reset()
        return heard_ms

    def lower(self, *, is_lowered: bool) -> None:
        self._loudness.lower(is_lowered=is_lowered)

    def heard_ms(self) -> int:
        unsent_ms = self._session.num_unsent_frames * FRAME_MS
        return max(0, self._queue.heard_ms - unsent_ms)

    def listen(self) -> None:
        """Nothing to do: both directions flow all the time."""

    async def send_keys(self, keys: str) -> bool:
        """Send DTMF; speech and hearing pause for about 0.35 s a key."""
        if self._events.closed is not None:
            return False
        return await self._keys.ask(keys, self._session.hang_up)

    async def end(self) -> None:
        """Say 0x00, and wait until Asterisk has answered EXEC."""
        self._ending = True
        self._close("ended_by_us")
        self._session.hang_up()
        await self._session.wait_answered()

    # --- the wheel's side ---

    def on_frame_time(self, num_frames: int) -> None:
        for _ in range(num_frames):
            self._send_frame()
        if not self._room.is_set() and not self._queue.is_full:
            self._room.set()
        self._clock.on_frame_time(num_frames)

    def _send_frame(self) -> None:
        session = self._session
        if session.transport is None or session.is_closing:
            return  # keys are being sent
        while (finished := self._queue.finished()) is not None:
            self._events.put(finished)
        if session.num_unsent_frames >= self._options.max_unsent_frames:
            self._drop_frame()
            return
        frame = self._queue.take()
        session.transport.write(
            SILENCE_MESSAGE
            if frame is None
            else AUDIO_FRAME_HEADER + self._loudness.apply(frame)
        )
        self.num_frames_sent += 1
        self._stalled_since_s = None

    def _drop_frame(self) -> None:
        """Asterisk does not read: time passes for the speech all the same."""
        now_s = time.monotonic()
        self._queue.skip()
        self.num_frames_dropped += 1
        if self._stalled_since_s is None:
            self._stalled_since_s = now_s
            ERRORS.labels(kind="audiosocket_stalled").inc()
            logger.warning("audiosocket_stalled")
        elif now_s - self._stalled_since_s > self._options.stalled_timeout_s:
            self._session.lose_audio("Asterisk took no audio any more")

    # --- the session's side ---

    def audio_or_key_received(self, message: Audio | Digit) -> None:
        if isinstance(message, Audio):
            self.num_frames_received += 1
            if self.num_frames_received == _FOLLOW_AT_FRAME:
                self._wheel.follow_caller(self)
            self._clock.heard()
            heard = self._reader.read(message.pcm16, time.monotonic(), message.rate_hz)
            self._events.put_audio(heard)
        else:
            self._events.put(CallerKey(message.key))

    # --- the leg's task ---

    async def open(self, call_id: UUID) -> None:
        """Begin; raises what the session raises."""
        await self._session.open(call_id)
        self._clock.heard()
        self._wheel.add(self)

    async def run(self) -> None:
        """Watch the session; send keys between two of them; say why it ended."""
        try:
            while True:
                await self._session.ended()
                if self._ending:
                    return
                if self._keys.is_empty or not self._session.is_closing:
                    break  # it was not we who ended it
                await self._send_keys_and_come_back()
            self._session.hang_up()  # where the connection is still there, free AGI
            await self._find_out()
        except ChannelGone:
            self._close("caller_hung_up")
        except TelephonyError as exc:
            self._close("lost", str(exc))
        finally:
            self._close("ended_by_us" if self._ending else "lost")

    async def _send_keys_and_come_back(self) -> None:
        await self._session.close()
        while (keys := self._keys.next()) is not None:
            await self._keys.send(self._agi, keys)
        if self._ending:
            return
        self._session = self._new_session(self)
        await self._session.open(uuid4())

    async def _find_out(self) -> None:
        assert self._session.exec_task is not None
        reason, detail = await why_ended(
            self._agi,
            self._session.exec_task,
            detail=self._session.fault or "AudioSocket ended",
            timeout_s=self._options.judge_timeout_s,
        )
        self._close(reason, detail)

    # --- the end ---

    def _close(self, reason: CloseReason, detail: str = "") -> None:
        self._wheel.remove(self)
        if self._events.closed is not None:
            return
        self._queue.stop()
        self._events.put(LegClosed(reason, detail))
        self._room.set()
        self._keys.refuse_all()
        if reason == "lost":
            ERRORS.labels(kind="audiosocket_lost").inc()
            logger.warning("leg_lost", extra=fields(leg=self.name, detail=detail))

    async def shut_down(self, task: asyncio.Task[None] | None) -> None:
        """Leave nothing behind: no task, no socket, AGI free for commands."""
        try:
            await self.end()
        finally:
            if task is not None:
                task.cancel()
                (outcome,) = await asyncio.gather(task, return_exceptions=True)
                if isinstance(outcome, Exception):
                    logger.error("audiosocket_leg_failed", exc_info=outcome)
            await self._session.close()
