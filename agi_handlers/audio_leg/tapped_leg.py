"""An audio leg with taps: to a conversation the leg itself, to others a window on it.

leg ─▶ TappedLeg ─▶ conversation
           └─▶ taps: the recording, the level meter and whoever listens in
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Protocol, cast

from agi_handlers.audio_leg.leg import (
    AudioLeg,
    AudioListener,
    CallerAudio,
    LegEvent,
    LegName,
    PlaybackFinished,
)


class LegTap(Protocol):
    """What a tap is told; none of it may wait or raise."""

    def queue(self, pcm16: bytes) -> None:
        """The bot's next speech is given to the leg."""
        ...

    def end_of_speech(self) -> None:
        """What is queued now is a whole speech."""
        ...

    def stopped(self, heard_ms: int) -> None:
        """The bot fell silent; the rest of the queue was never heard."""
        ...

    def finished(self) -> None:
        """The speech was heard to its end."""
        ...

    def caller(self, pcm16: bytes, heard_ms: int) -> None:
        """Caller audio came; so much of the current speech has gone out by now."""
        ...


class TappedLeg:
    """The leg, and its taps."""

    def __init__(self, leg: AudioLeg, taps: Sequence[LegTap]) -> None:
        self._leg = leg
        self._taps = tuple(taps)
        self._put_back: list[LegEvent] = []

    @property
    def name(self) -> LegName:
        return self._leg.name

    @property
    def is_full_duplex(self) -> bool:
        return self._leg.is_full_duplex

    def put_back(self, event: LegEvent) -> None:
        """The next reader of `events` gets this first; the taps have had it."""
        self._put_back.append(event)

    async def events(self) -> AsyncIterator[LegEvent]:
        while self._put_back:
            yield self._put_back.pop(0)
        events = cast("AsyncGenerator[LegEvent, None]", self._leg.events())
        async with contextlib.aclosing(events):
            async for event in events:
                if isinstance(event, CallerAudio):
                    self._tell_of_caller(event.pcm16)
                elif isinstance(event, PlaybackFinished):
                    for tap in self._taps:
                        tap.finished()
                yield event

    def hand_audio_to(self, listener: AudioListener | None) -> None:
        if listener is None:
            self._leg.hand_audio_to(None)
            return

        def tell_and_hand_on(pcm16: bytes) -> None:
            self._tell_of_caller(pcm16)
            listener(pcm16)

        self._leg.hand_audio_to(tell_and_hand_on)

    def _tell_of_caller(self, pcm16: bytes) -> None:
        heard_ms = self._leg.heard_ms()
        for tap in self._taps:
            tap.caller(pcm16, heard_ms)

    async def play(self, pcm16: bytes) -> None:
        for tap in self._taps:
            tap.queue(pcm16)
        await self._leg.play(pcm16)

    def end_of_speech(self) -> None:
        for tap in self._taps:
            tap.end_of_speech()
        self._leg.end_of_speech()

    def stop(self) -> int:
        heard_ms = self._leg.stop()
        for tap in self._taps:
            tap.stopped(heard_ms)
        return heard_ms

    def lower(self, *, is_lowered: bool) -> None:
        self._leg.lower(is_lowered=is_lowered)

    def heard_ms(self) -> int:
        return self._leg.heard_ms()

    def listen(self) -> None:
        self._leg.listen()

    async def send_keys(self, keys: str) -> bool:
        return await self._leg.send_keys(keys)

    async def end(self) -> None:
        await self._leg.end()
