"""What waits between a leg and the one task that reads its events.

A listener gets the audio by a plain call while no event waits before it: a task that is
woken for every frame of 200 calls costs 4 % of a core.

Audio that is not taken in time is joined, so that a reader which was held up gets one
long chunk and not a thousand short ones.  Keys and the end are never lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextvars import Context, copy_context

from agi_handlers.audio_leg.leg import (
    AudioListener,
    CallerAudio,
    CallerKey,
    LegClosed,
    LegEvent,
)
from model.audio.frames import RATE_HZ, SAMPLE_BYTES

# A reader that has not looked for so long has failed; memory must not follow it.
MAX_UNREAD_AUDIO_BYTES = 10 * RATE_HZ * SAMPLE_BYTES
# Callers press a few keys a second; more unread ones than this is a flood.
MAX_UNREAD_KEYS = 256


class LegEventQueue:
    """Events of one leg, in order; `LegClosed` is put last, once."""

    def __init__(self) -> None:
        self.num_dropped_bytes = 0
        self.closed: LegClosed | None = None
        # runs of audio and other events in their order
        self._waiting: deque[list[bytes] | LegEvent] = deque()
        self._num_keys = 0
        self._audio_bytes = 0
        self._reader: asyncio.Future[None] | None = None
        self._listener: AudioListener | None = None
        self._listens_in: Context = copy_context()

    def hand_audio_to(self, listener: AudioListener | None) -> None:
        """See AudioLeg."""
        self._listener, self._listens_in = listener, copy_context()

    def put_audio(self, pcm16: bytes) -> None:
        """Caller audio; the oldest is dropped when far too much is unread."""
        if self.closed is not None or not pcm16:
            return
        if self._listener is not None and not self._waiting:
            self._listens_in.run(self._listener, pcm16)
            return
        last = self._waiting[-1] if self._waiting else None
        if isinstance(last, list):
            last.append(pcm16)
        else:
            self._waiting.append([pcm16])
        self._audio_bytes += len(pcm16)
        while self._audio_bytes > MAX_UNREAD_AUDIO_BYTES:
            self._drop_oldest_audio()
        self._wake()

    def put(self, event: LegEvent) -> None:
        """Any other event; a flood of keys is cut off at a generous number."""
        if self.closed is not None:
            return
        if isinstance(event, LegClosed):
            self.closed = event
        elif isinstance(event, CallerKey):
            if self._num_keys >= MAX_UNREAD_KEYS:
                return
            self._num_keys += 1
        self._waiting.append(event)
        self._wake()

    async def events(self) -> AsyncIterator[LegEvent]:
        """Everything put, ending after LegClosed; one reader."""
        while True:
            while not self._waiting:
                if self.closed is not None:
                    return
                self._reader = asyncio.get_running_loop().create_future()
                try:
                    await self._reader
                finally:
                    self._reader = None
            event = self._waiting.popleft()
            if isinstance(event, list):
                pcm16 = event[0] if len(event) == 1 else b"".join(event)
                self._audio_bytes -= len(pcm16)
                yield CallerAudio(pcm16)
                continue
            if isinstance(event, CallerKey):
                self._num_keys -= 1
            yield event
            if isinstance(event, LegClosed):
                return

    def _drop_oldest_audio(self) -> None:
        for run in self._waiting:
            if isinstance(run, list) and run:
                dropped = len(run.pop(0))
                self._audio_bytes -= dropped
                self.num_dropped_bytes += dropped
                if not run:
                    self._waiting.remove(run)
                return
        raise AssertionError("unread bytes are counted, so a run must be there")

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
