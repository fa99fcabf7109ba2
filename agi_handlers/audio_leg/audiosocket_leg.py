"""The AudioSocket leg: full duplex, Asterisk's own module, 18 and later.

`EXEC AudioSocket` runs on the AGI connection as long as the leg lasts; the audio comes
over a connection of its own to the media port.

::

    announce ──EXEC AudioSocket──▶ waiting ──call id comes──▶ open ──0x00──▶ ended
                                      └──EXEC answered, time over──▶ unavailable

The application's result is not to be trusted (-1 for a good end up to 20.13 and
22.3), so the channel itself is asked how things stand.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import assert_never, cast
from uuid import UUID, uuid4

from agi_handlers.agi.commands import (
    ExecEnded,
    channel_status,
    exec_audiosocket,
)
from agi_handlers.agi.connection import AgiConnection
from agi_handlers.audio_leg.audiosocket_protocol import (
    AUDIO_FRAME_HEADER,
    FRAME_MESSAGE_BYTES,
    HANGUP_MESSAGE,
    SILENCE_MESSAGE,
    Audio,
    AudioSocketDecoder,
    AudioSocketMessage,
    CallId,
    Digit,
    Hangup,
    PeerError,
)
from agi_handlers.audio_leg.channel_end import why_ended
from agi_handlers.audio_leg.event_queue import LegEventQueue
from agi_handlers.audio_leg.frame_wheel import FrameWheel
from agi_handlers.audio_leg.leg import (
    CallerKey,
    CloseReason,
    LegClosed,
    LegEvent,
    LegName,
)
from agi_handlers.audio_leg.media_port import MediaPort
from agi_handlers.audio_leg.playback_queue import PlaybackQueue
from agi_handlers.errors import (
    AgiTimeout,
    AudioLegUnavailable,
    TelephonyError,
)
from model.audio.frames import FRAME_MS, SILENCE_FRAME
from telemetry import ERRORS, fields

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AudioSocketOptions:
    # Asterisk itself gives up connecting after 2 s and then answers -1.
    connect_timeout_s: float = 4.0
    # From 0x00 to the answer of EXEC; measured 1-20 ms.
    end_timeout_s: float = 2.0
    # EOF on the audio and the end of EXEC come within 5 ms of each other.
    judge_timeout_s: float = 1.0
    # Longest speech queued: longer replies make play() wait.
    max_queued_ms: int = 20_000
    # A dialer whose host has died takes no bytes and says nothing.
    stalled_timeout_s: float = 10.0
    # Asterisk sends nothing during a key (180 ms) nor when the caller's telephone
    # suppresses silence. The detector's clock is the audio, so the gap is filled.
    gap_after_ms: int = 100
    # About 0.3 s of small packets; the system's default of megabytes would keep
    # minutes of speech that can no longer be stopped.
    send_buffer_bytes: int = 8192
    max_unsent_frames: int = 4  # in our own buffer, when the system's is full


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
        ChannelGone: the caller left meanwhile.
    """
    options = options or AudioSocketOptions()
    leg = AudioSocketLeg(agi, wheel, options)
    call_id = call_id or uuid4()
    with media_port.announce_audiosocket(
        call_id, lambda: _Connection(leg)
    ) as announcement:
        leg.call_id = call_id
        leg.exec_task = asyncio.create_task(
            agi.execute(exec_audiosocket(call_id, address)), name="exec AudioSocket"
        )
        watch: asyncio.Task[None] | None = None
        try:
            arrived = asyncio.ensure_future(announcement.arrived())
            try:
                await asyncio.wait(
                    (arrived, leg.exec_task),
                    timeout=options.connect_timeout_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                arrived.cancel()
            if not announcement.is_taken:
                raise await _why_unavailable(agi, leg.exec_task, address, options)
            watch = asyncio.create_task(leg.watch(), name="AudioSocket watch")
            yield leg
        finally:
            await leg.shut_down(watch)


async def _why_unavailable(
    agi: AgiConnection,
    exec_task: asyncio.Task[ExecEnded],
    address: str,
    options: AudioSocketOptions,
) -> AudioLegUnavailable:
    """EXEC was answered, or nobody came.  Raises: ChannelGone, AgiTimeout."""
    if not exec_task.done():
        return AudioLegUnavailable(
            f"AudioSocket: nobody connected to {address} within "
            f"{options.connect_timeout_s:g} s"
        )
    ended = await exec_task
    if ended.is_unknown_application:
        return AudioLegUnavailable("AudioSocket: Asterisk has no app_audiosocket")
    await agi.execute(channel_status())  # ChannelGone: a hang-up, not a fault
    return AudioLegUnavailable(
        f"AudioSocket: Asterisk answered {ended.result} without a connection to "
        f"{address}: unreachable or refused"
    )


class AudioSocketLeg:
    """One call's audio over AudioSocket; made by `open_audiosocket_leg`."""

    name: LegName = "audiosocket"
    is_full_duplex = True

    def __init__(
        self, agi: AgiConnection, wheel: FrameWheel, options: AudioSocketOptions
    ) -> None:
        self.call_id: UUID | None = None
        self.num_frames_sent = 0
        self.num_frames_dropped = 0  # Asterisk did not take them in time
        self.num_frames_received = 0
        self.num_gap_frames = 0  # silence put where Asterisk sent nothing
        self._agi = agi
        self._wheel = wheel
        self._options = options
        self._queue = PlaybackQueue(options.max_queued_ms)
        self._events = LegEventQueue()
        self._transport: asyncio.Transport | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._generation = 0  # counts stops: a play() that waited is then void
        self._media_lost = asyncio.Event()
        self._media_detail = ""
        self._ending = False
        self._stalled_since_s: float | None = None
        self._heard_from_caller_s = 0.0
        self.exec_task: asyncio.Task[ExecEnded] | None = None

    # --- AudioLeg ---

    def events(self) -> AsyncIterator[LegEvent]:
        return self._events.events()

    async def play(self, pcm16: bytes) -> None:
        generation = self._generation
        # a second at a time, so that one huge chunk cannot jump the limit
        step = 50 * len(SILENCE_FRAME)
        for at in range(0, len(pcm16), step):
            await self._room.wait()
            if generation != self._generation or self._events.closed is not None:
                return
            self._queue.add(pcm16[at : at + step])
            if self._queue.is_full:
                self._room.clear()

    def end_of_speech(self) -> None:
        if self._events.closed is None:
            self._queue.end_of_speech()

    def stop(self) -> int:
        unsent_ms = self._num_unsent_frames() * FRAME_MS
        heard_ms = max(0, self._queue.stop() - unsent_ms)
        self._generation += 1
        self._room.set()
        return heard_ms

    def heard_ms(self) -> int:
        return max(0, self._queue.heard_ms - self._num_unsent_frames() * FRAME_MS)

    def listen(self) -> None:
        """Nothing to do: both directions flow all the time."""

    async def send_keys(self, keys: str) -> bool:
        """False: Asterisk takes no keys from this side, and AGI is busy."""
        return False

    async def end(self) -> None:
        """Say 0x00, and wait until Asterisk has answered EXEC."""
        self._close("ended_by_us")
        if self.exec_task is None:
            return
        if not self._ending:
            self._ending = True
            # never a bare close: up to 20.13 and 22.3 Asterisk then spins on the EOF
            self._hang_up()
        await asyncio.wait((self.exec_task,), timeout=self._options.end_timeout_s)

    # --- the wheel's side ---

    def on_frame_time(self, num_frames: int) -> None:
        transport = self._transport
        if transport is None:
            return
        for _ in range(num_frames):
            self._report_finished()
            if self._num_unsent_frames() >= self._options.max_unsent_frames:
                self._drop_frame()
                continue
            frame = self._queue.take()
            transport.write(
                SILENCE_MESSAGE if frame is None else AUDIO_FRAME_HEADER + frame
            )
            self.num_frames_sent += 1
            self._stalled_since_s = None
        if not self._room.is_set() and not self._queue.is_full:
            self._room.set()
        if num_frames == 1:
            # at a late tick what the caller sent may lie unread (uvloop runs timers
            # before sockets)
            self._fill_gap()

    def _report_finished(self) -> None:
        while (finished := self._queue.finished()) is not None:
            self._events.put(finished)

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
            self._lose_media("Asterisk took no audio any more")
            if self._transport is not None:
                self._transport.abort()

    def _fill_gap(self) -> None:
        """The detector's clock is the caller's audio: silence where none comes."""
        quiet_ms = (time.monotonic() - self._heard_from_caller_s) * 1000
        if quiet_ms >= self._options.gap_after_ms:
            num_frames = int(quiet_ms) // FRAME_MS
            self._events.put_audio(SILENCE_FRAME * num_frames)
            self.num_gap_frames += num_frames
            self._heard_from_caller_s += num_frames * FRAME_MS / 1000

    def _num_unsent_frames(self) -> int:
        if self._transport is None or self._transport.is_closing():
            return 0
        return self._transport.get_write_buffer_size() // FRAME_MESSAGE_BYTES

    # --- the connection's side ---

    def media_connected(self, transport: asyncio.Transport) -> None:
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(
                socket.SOL_SOCKET, socket.SO_SNDBUF, self._options.send_buffer_bytes
            )
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._transport = transport
        if self._ending:  # it came while we were leaving
            transport.write(HANGUP_MESSAGE)
            return
        self._heard_from_caller_s = time.monotonic()
        self._wheel.add(self)

    def media_received(self, message: AudioSocketMessage) -> None:
        match message:
            case Audio(pcm16):
                self.num_frames_received += 1
                self._heard_from_caller_s = time.monotonic()
                self._events.put_audio(pcm16)
            case Digit(key):
                self._events.put(CallerKey(key))
            case PeerError(code):
                self._lose_media(f"Asterisk reports AudioSocket error {code}")
            case Hangup():
                self._lose_media("Asterisk ended AudioSocket")
            case CallId():
                pass  # it has brought the connection here
            case _:
                assert_never(message)

    def media_lost(self, detail: str) -> None:
        self._lose_media(detail)
        self._transport = None

    def _lose_media(self, detail: str) -> None:
        if not self._media_lost.is_set():
            self._media_detail = detail
            self._media_lost.set()
            self._wheel.remove(self)

    # --- the end ---

    async def watch(self) -> None:
        """Wait until audio or EXEC ends, find out why, say so."""
        assert self.exec_task is not None
        lost = asyncio.ensure_future(self._media_lost.wait())
        try:
            await asyncio.wait(
                (lost, self.exec_task), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            lost.cancel()
        if self._ending:
            return
        self._hang_up()  # where the connection is still there, free AGI
        reason, detail = await why_ended(
            self._agi,
            self.exec_task,
            detail=self._media_detail or "AudioSocket ended",
            timeout_s=self._options.judge_timeout_s,
        )
        self._close(reason, detail)

    def _hang_up(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(HANGUP_MESSAGE)

    def _close(self, reason: CloseReason, detail: str = "") -> None:
        self._wheel.remove(self)
        if self._events.closed is None:
            self._queue.stop()
            self._events.put(LegClosed(reason, detail))
            self._room.set()
            logger.info("leg_closed", extra=fields(reason=reason, detail=detail))

    async def shut_down(self, watch: asyncio.Task[None] | None) -> None:
        """Leave nothing behind: no task, no socket, AGI free for commands."""
        assert self.exec_task is not None
        try:
            await self.end()
        finally:
            tasks: list[asyncio.Task[object]] = [
                cast("asyncio.Task[object]", task)
                for task in (watch, self.exec_task)
                if task is not None
            ]
            for task in tasks:
                task.cancel()
            if self._transport is not None:
                self._transport.abort()
            self._wheel.remove(self)
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            for outcome in outcomes:
                _log_unexpected(outcome)


def _log_unexpected(outcome: object) -> None:
    if isinstance(outcome, AgiTimeout):
        logger.warning("audiosocket_end_unanswered")
    elif isinstance(outcome, Exception) and not isinstance(outcome, TelephonyError):
        logger.error("audiosocket_task_failed", exc_info=outcome)


class _Connection(asyncio.Protocol):
    """Bytes between Asterisk and the leg."""

    def __init__(self, leg: AudioSocketLeg) -> None:
        self._leg = leg
        self._decoder = AudioSocketDecoder()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._leg.media_connected(self._transport)

    def data_received(self, data: bytes) -> None:
        self._decoder.receive_data(data)
        self._pass_on()

    def eof_received(self) -> None:
        self._decoder.receive_eof()
        self._pass_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leg.media_lost(self._decoder.fault or str(exc or "EOF on the audio"))
        self._transport = None

    def _pass_on(self) -> None:
        for message in self._decoder.events_received():
            self._leg.media_received(message)
        if self._decoder.fault is not None and self._transport is not None:
            self._transport.abort()
