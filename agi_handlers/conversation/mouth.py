"""The bot's mouth: speech on its way to the caller, which can be held and taken up.

    play ─▶ │ heard │ at the leg │ waiting │        hold: the leg falls silent at once
                    ▲ heard_ms                      go_on: from `heard_ms`, nothing lost

A leg only knows how to play and how to stop.  Here lies what it was given, so that
speech which was held by mistake (a cough, the echo of the bot itself) goes on where it
stopped, over every kind of leg.
"""

from __future__ import annotations

import asyncio
from typing import Final

from agi_handlers.audio_leg.leg import AudioLeg
from agi_handlers.conversation.speech_tape import SpeechTape
from model.audio.frames import RATE_HZ, SAMPLE_BYTES, SAMPLES_PER_MS

_BYTES_PER_MS: Final = SAMPLES_PER_MS * SAMPLE_BYTES
# Handed to the leg at a time: what is held meanwhile waits here, not there.
_STEP_BYTES: Final = RATE_HZ * SAMPLE_BYTES
# While it is held, what comes more than this waits at its source.
_MAX_HELD_BYTES: Final = 20 * RATE_HZ * SAMPLE_BYTES
# Kept of what was heard: the longest way of an echo, and the words it comes from.
_KEPT_HEARD_BYTES: Final = 2 * RATE_HZ * SAMPLE_BYTES


class BotMouth:
    """What the bot says over one leg; one speech at a time."""

    def __init__(self, leg: AudioLeg) -> None:
        self._leg = leg
        self._speech = SpeechTape()
        self._given_bytes = 0  # to the leg
        self._leg_began_bytes = 0  # where the leg's own count of heard began
        self._heard_bytes = 0
        self._fillers: list[tuple[int, int]] = []
        self._is_whole = False
        self._is_end_told = False
        self._is_held = False
        self._is_lowered = False
        self._flowing = asyncio.Event()  # not held
        self._flowing.set()
        self._giving = asyncio.Lock()
        self._before = b""  # the end of the speech before, as heard
        self._silent_since_s: float | None = None

    @property
    def is_held(self) -> bool:
        """Silent for now, with more to say."""
        return self._is_held

    @property
    def heard_ms(self) -> int:
        """Of the current speech so far, fillers in it not counted."""
        heard = self._position_bytes()
        for begin, end in self._fillers:
            heard -= max(0, min(self._position_bytes(), end) - begin)
        return heard // _BYTES_PER_MS

    async def play(self, pcm16: bytes) -> None:
        """Say this behind what is being said; waits while the leg has enough."""
        self._speech.append(pcm16)
        self._speech.forget_before(self._position_bytes() - _KEPT_HEARD_BYTES)
        await self._give()
        if self._speech.end_bytes - self._heard_bytes > _MAX_HELD_BYTES:
            await self._flowing.wait()

    async def play_filler(self, pcm16: bytes) -> None:
        """The same, but it is no part of the speech."""
        begin = self._speech.end_bytes
        self._fillers.append((begin, begin + len(pcm16)))
        await self.play(pcm16)

    async def play_whole(self, pcm16: bytes) -> None:
        """A speech in one piece."""
        await self.play(pcm16)
        await self.end_of_speech()

    async def end_of_speech(self) -> None:
        """Nothing follows: the leg reports when all is heard."""
        self._is_whole = True
        await self._give()

    def lower(self, *, is_lowered: bool) -> None:
        """Softly, while it may be that the caller begins to speak; or at full voice."""
        if is_lowered != self._is_lowered:
            self._is_lowered = is_lowered
            self._leg.lower(is_lowered=is_lowered)

    def hold(self) -> None:
        """Silence within a frame; the speech is kept."""
        if self._is_held:
            return
        self._heard_bytes = self._position_bytes()
        self._leg.stop()
        self._is_held, self._is_lowered = True, False
        self._flowing.clear()
        self._silent_since_s = asyncio.get_running_loop().time()

    async def go_on(self) -> None:
        """Say the rest of a speech that was held."""
        if not self._is_held:
            return
        self._is_held = False
        self._flowing.set()
        self._given_bytes = self._leg_began_bytes = self._heard_bytes
        self._is_end_told = False
        self._silent_since_s = None
        await self._give()

    def stop(self) -> None:
        """Silence within a frame; the speech is over, heard or not."""
        if not self._is_held:
            self._heard_bytes = self._position_bytes()
            self._leg.stop()
            self._is_lowered = False
        self._forget()

    def finished(self) -> None:
        """The leg has reported that all was heard."""
        self._heard_bytes = self._speech.end_bytes
        self.lower(is_lowered=False)
        self._forget()

    def recently_heard(self, num_samples: int) -> bytes:
        """What the caller heard of the bot up to now, silence included: pcm16."""
        position, num_bytes = self._position_bytes(), num_samples * SAMPLE_BYTES
        heard = self._before + self._speech.cut(position - num_bytes, position)
        if self._silent_since_s is not None:
            silent_s = asyncio.get_running_loop().time() - self._silent_since_s
            silence = min(round(silent_s * RATE_HZ), num_samples)
            heard += bytes(silence * SAMPLE_BYTES)
        return heard[-num_bytes:]

    # --- inside ---

    def _position_bytes(self) -> int:
        """How far the caller has heard the current speech; never goes back."""
        if not self._is_held:
            at = self._leg_began_bytes + self._leg.heard_ms() * _BYTES_PER_MS
            # a leg that has reported the end counts from nothing again
            self._heard_bytes = min(max(self._heard_bytes, at), self._speech.end_bytes)
        return self._heard_bytes

    async def _give(self) -> None:
        """Hand the leg what it has not got; one at a time, so in order."""
        async with self._giving:
            while not self._is_held and self._given_bytes < self._speech.end_bytes:
                begin = self._given_bytes
                step = self._speech.cut(begin, begin + _STEP_BYTES)
                self._given_bytes += len(step)
                self._break_silence()
                await self._leg.play(step)
            if self._is_whole and not self._is_held and not self._is_end_told:
                self._is_end_told = True
                self._leg.end_of_speech()

    def _forget(self) -> None:
        at = self._heard_bytes
        heard = self._speech.cut(at - _KEPT_HEARD_BYTES, at)
        self._before = (self._before + heard)[-_KEPT_HEARD_BYTES:]
        self._speech = SpeechTape()
        self._given_bytes = self._leg_began_bytes = self._heard_bytes = 0
        self._fillers.clear()
        self._is_whole = self._is_end_told = self._is_held = False
        self._flowing.set()
        self._silent_since_s = asyncio.get_running_loop().time()

    def _break_silence(self) -> None:
        if self._silent_since_s is None:
            return
        silent_s = asyncio.get_running_loop().time() - self._silent_since_s
        silence = min(round(silent_s * RATE_HZ) * SAMPLE_BYTES, _KEPT_HEARD_BYTES)
        self._before = (self._before + bytes(silence))[-_KEPT_HEARD_BYTES:]
        self._silent_since_s = None
