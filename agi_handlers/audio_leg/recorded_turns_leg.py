"""The recorded-turns leg: half duplex by AGI commands alone, for every Asterisk.

RECORD FILE listens, STREAM FILE speaks; never both.  A recording cannot be
interrupted, so listening is done in recordings that a second of quiet ends, and which
begin anew while the caller says nothing.  What was recorded is fetched while the next
recording runs.

::

    thinking ──listen()──▶ recording ──quiet after speech──▶ CallerPaused, thinking
       ▲  └──play()──▶ playing ──end──┘ ▲ └─quiet from the start─┘ (again)
       └──────────────────────┘
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from agi_handlers.agi.commands import (
    RecordingEnd,
    RecordingEnded,
    record_file,
)
from agi_handlers.agi.connection import AgiConnection
from agi_handlers.audio_leg.event_queue import LegEventQueue
from agi_handlers.audio_leg.file_exchange import FileExchange
from agi_handlers.audio_leg.file_playback import FilePlayback, FilePlaybackOptions
from agi_handlers.audio_leg.leg import (
    AudioListener,
    CallerKey,
    CallerPaused,
    CloseReason,
    LegClosed,
    LegEvent,
    LegName,
)
from agi_handlers.audio_leg.sent_keys import SentKeys
from agi_handlers.errors import AudioLegLost, ChannelGone, TelephonyError
from model.audio.frames import SAMPLES_PER_MS
from model.audio.g711 import ulaw_decode
from telemetry import ERRORS, fields

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RecordedTurnsOptions:
    playback: FilePlaybackOptions = field(default_factory=FilePlaybackOptions)
    silence_s: int = 1  # RECORD FILE knows whole seconds only
    # Asterisk ends a silent recording a frame or two after its second.
    silence_margin_ms: int = 200
    # On a line so noisy that Asterisk hears no silence, our own detector must get the
    # audio now and then: a recording that long is followed by the next at once.
    max_recording_ms: int = 6_000
    end_timeout_s: float = 2.0  # beyond what a recording may still take


@asynccontextmanager
async def open_recorded_turns_leg(
    agi: AgiConnection,
    files: FileExchange,
    options: RecordedTurnsOptions | None = None,
) -> AsyncIterator[RecordedTurnsLeg]:
    """The caller's audio by recordings and sound files, for the block.

    The channel must be up; `files` must stay open as long.
    """
    leg = RecordedTurnsLeg(agi, files, options or RecordedTurnsOptions())
    task = asyncio.create_task(leg.run(), name="recorded turns")
    try:
        yield leg
    finally:
        try:
            await leg.end()
        finally:
            task.cancel()
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(outcome, Exception):
                logger.error("recorded_turns_failed", exc_info=outcome)


class RecordedTurnsLeg:
    """One call's audio, taking turns; made by `open_recorded_turns_leg`."""

    name: LegName = "recorded_turns"
    is_full_duplex = False

    def __init__(
        self, agi: AgiConnection, files: FileExchange, options: RecordedTurnsOptions
    ) -> None:
        self._agi = agi
        self._files = files
        self._options = options
        self._events = LegEventQueue()
        self._playback = FilePlayback(
            agi, files, self._events, options.playback, wake=self._wake
        )
        self._wants_to_listen = False
        self._caller_spoke = False  # since listening began
        self._is_filling = False
        self._ending = False
        self._keys = SentKeys()
        # Recordings to fetch, in order. Full: the next recording waits, since the
        # Asterisk host is then slower than the caller speaks.
        self._recorded: asyncio.Queue[tuple[str, RecordingEnded] | CallerPaused] = (
            asyncio.Queue(maxsize=4)
        )
        self._finished = asyncio.Event()

    # --- AudioLeg ---

    def events(self) -> AsyncIterator[LegEvent]:
        return self._events.events()

    def hand_audio_to(self, listener: AudioListener | None) -> None:
        self._events.hand_audio_to(listener)

    def heard_elsewhere(self, event: LegEvent) -> None:
        """Of the caller, from somebody who hears more than this leg."""
        self._events.put(event)

    async def play(self, pcm16: bytes) -> None:
        if self._events.closed is None:
            self._wants_to_listen = False
            await self._playback.play(pcm16)
        else:  # a speaker that plays on and on must not keep the loop to itself
            await asyncio.sleep(0)

    def end_of_speech(self) -> None:
        if self._events.closed is None:
            self._playback.end_of_speech()

    def stop(self) -> int:
        return self._playback.stop()

    def lower(self, *, is_lowered: bool) -> None:
        """Asterisk plays a file as it is."""

    def heard_ms(self) -> int:
        return self._playback.heard_ms

    def listen(self) -> None:
        """Record as soon as what is queued has been played."""
        if not self._wants_to_listen:
            self._wants_to_listen = True
            self._caller_spoke = False
            self._wake()

    async def send_keys(self, keys: str) -> bool:
        """Send DTMF when the command in progress has ended; silence ends at once."""
        if self._events.closed is not None:
            return False
        return await self._keys.ask(keys, self._wake)

    async def end(self) -> None:
        """Stop playing; wait for a recording in progress, which cannot be stopped."""
        self._ending = True
        self._playback.stop()
        self._wake()
        limit_s = self._options.end_timeout_s + self._options.max_recording_ms / 1000
        try:
            async with asyncio.timeout(limit_s):
                await self._finished.wait()
        except TimeoutError:
            logger.warning("recorded_turns_end_unanswered")
        self._close("ended_by_us")

    # --- the leg's task ---

    async def run(self) -> None:
        """Everything this leg does on the AGI connection, one command at a time."""
        try:
            async with asyncio.TaskGroup() as tasks:
                background = [
                    tasks.create_task(self._playback.prepare_pieces()),
                    tasks.create_task(self._fetch_recordings()),
                ]
                await self._playback.open()
                await self._take_turns()
                await self._recorded.join()
                for task in background:
                    task.cancel()
        except* ChannelGone:
            self._close("caller_hung_up")
        except* TelephonyError as group:
            self._close("lost", str(group.exceptions[0]))
        finally:
            self._close("ended_by_us" if self._ending else "lost")
            self._finished.set()

    async def _take_turns(self) -> None:
        while not self._ending:
            if (keys := self._keys.next()) is not None:
                await self._keys.send(self._agi, keys)
            elif self._playback.is_ready:
                await self._playback.play_next()
            elif self._wants_to_listen and self._playback.is_idle:
                if not await self._record():
                    return
            else:
                await self._fill()

    async def _fill(self) -> None:
        self._is_filling = True
        try:
            await self._playback.play_silence()
        finally:
            self._is_filling = False

    def _wake(self) -> None:
        """Something else is due: the silence gives way."""
        if self._is_filling:
            self._agi.request_interrupt()

    # --- listening ---

    async def _record(self) -> bool:
        """One recording; False when the caller has hung up."""
        options = self._options
        name = self._files.new_name()
        ended = await self._agi.execute(
            record_file(
                self._files.path_for_asterisk(name),
                "ulaw",
                timeout_ms=options.max_recording_ms,
                silence_s=options.silence_s,
            )
        )
        if ended.how is RecordingEnd.WRITE_FAILED:
            raise AudioLegLost("Asterisk cannot write our recording: folder or disk")
        if ended.how is RecordingEnd.FAILED:
            raise AudioLegLost("Asterisk could not record")
        await self._recorded.put((name, ended))
        if ended.how is RecordingEnd.HANGUP:
            await self._recorded.join()
            self._close("caller_hung_up")
            return False
        silence_ms = options.silence_s * 1000 + options.silence_margin_ms
        if ended.endpos_samples > silence_ms * SAMPLES_PER_MS:
            self._caller_spoke = True
        is_pause = ended.how is RecordingEnd.SILENCE and self._caller_spoke
        if is_pause and self._wants_to_listen:
            self._wants_to_listen = False
            await self._recorded.put(CallerPaused())
        return True

    async def _fetch_recordings(self) -> None:
        """Deliver recordings in their order, while the next one runs; for ever."""
        while True:
            item = await self._recorded.get()
            try:
                if isinstance(item, CallerPaused):
                    self._events.put(item)
                else:
                    await self._deliver(*item)
            finally:
                self._recorded.task_done()

    async def _deliver(self, name: str, ended: RecordingEnded) -> None:
        if ended.endpos_samples > 0:
            self._events.put_audio(ulaw_decode(await self._files.get(name)))
        if ended.digit is not None:
            self._events.put(CallerKey(ended.digit))
        await self._files.remove(name)

    # --- the end ---

    def _close(self, reason: CloseReason, detail: str = "") -> None:
        if self._events.closed is not None:
            return
        self._events.put(LegClosed(reason, detail))
        self._playback.release()
        self._keys.refuse_all()
        if reason == "lost":
            ERRORS.labels(kind="recorded_turns_lost").inc()
            logger.warning("leg_lost", extra=fields(leg=self.name, detail=detail))
