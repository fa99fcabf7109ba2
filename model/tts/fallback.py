"""A synthesiser behind which another one stands: no caller hears its voice break.

    text ─▶ first choice ──▶ speech
               └ fails, or says nothing in time ─▶ the other, from where it was

Once it has failed the first choice is left alone, and asked in the background until it
speaks again: each sentence of a call would have to find out anew, and the caller wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

from model.errors import SpeechError, SynthesisFailed
from model.tts.errors import SynthesisOverloaded, VoiceUnknown
from model.tts.synthesizer import SpeechSynthesizer, SynthesizerStatus
from model.tts.voice import Voice
from telemetry import TTS_FALLBACKS, fields

logger = logging.getLogger(__name__)

_SAMPLE_BYTES: Final = 2
_PROBE_TEXT: Final = "One, two, three."


@dataclass(frozen=True, slots=True)
class FallbackOptions:
    patience_s: float = 2.5
    """For the first audio of a text; the caller has heard a filler by then."""
    probe_interval_s: float = 10.0
    """Between two tries whether the first choice is back."""


class FallbackSynthesizer:
    """A SpeechSynthesizer; owns both of those it is made of."""

    def __init__(
        self,
        first: SpeechSynthesizer,
        other: SpeechSynthesizer,
        options: FallbackOptions | None = None,
    ) -> None:
        """Both open."""
        self._first = first
        self._other = other
        self._options = options or FallbackOptions()
        self._probing: asyncio.Task[None] | None = None
        self._num_fallbacks = 0

    @property
    def backend(self) -> str:
        """Of the one that speaks now."""
        return self._speaker.backend

    @property
    def _is_down(self) -> bool:
        return self._probing is not None and not self._probing.done()

    @property
    def _speaker(self) -> SpeechSynthesizer:
        return self._other if self._is_down else self._first

    async def synthesize(
        self, text: str, voice: Voice, *, rate_hz: int = 8000
    ) -> AsyncGenerator[bytes, None]:
        """See SpeechSynthesizer."""
        num_bytes = 0
        if not self._is_down:
            try:
                first = self._first.synthesize(text, voice, rate_hz=rate_hz)
                async with aclosing(self._in_time(first)) as chunks:
                    async for chunk in chunks:
                        num_bytes += len(chunk)
                        yield chunk
                return
            except (SynthesisFailed, SynthesisOverloaded, VoiceUnknown) as exc:
                self._fall_back(exc, voice)
        self._num_fallbacks += 1
        TTS_FALLBACKS.inc()
        spoken_s = num_bytes / _SAMPLE_BYTES / rate_hz
        rest = _unspoken(text, spoken_s, voice.speed_wpm)
        if rest:
            other = self._other.synthesize(rest, _unnamed(voice), rate_hz=rate_hz)
            async with aclosing(other) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def check_voice(self, voice: Voice) -> None:
        """Of the first choice, so that a wrong name is told; of the other while it is
        down.

        Raises:
            VoiceUnknown: there is no such voice.
        """
        if not self._is_down:
            try:
                async with asyncio.timeout(self._options.patience_s):
                    await self._first.check_voice(voice)
                return
            except (SynthesisFailed, SynthesisOverloaded, TimeoutError) as exc:
                self._fall_back(exc, voice)
        await self._other.check_voice(_unnamed(voice))

    def status(self) -> SynthesizerStatus:
        """Of the one that speaks now, with the failures of both."""
        now, other = self._speaker.status(), self._first.status()
        return replace(
            now,
            num_failures=other.num_failures + self._other.status().num_failures,
            num_fallbacks=self._num_fallbacks,
        )

    async def aclose(self) -> None:
        """See SpeechSynthesizer."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])
        try:
            await self._first.aclose()
        finally:
            await self._other.aclose()

    async def _in_time(
        self, chunks: AsyncGenerator[bytes, None]
    ) -> AsyncGenerator[bytes, None]:
        """Raises SynthesisFailed when the first chunk takes too long."""
        async with aclosing(chunks):
            try:
                async with asyncio.timeout(self._options.patience_s):
                    first = await anext(chunks, None)
            except TimeoutError as exc:
                raise SynthesisFailed(
                    f"no audio within {self._options.patience_s:g} s"
                ) from exc
            if first is None:
                return
            yield first
            async for chunk in chunks:
                yield chunk

    def _fall_back(self, reason: BaseException, voice: Voice) -> None:
        if self._is_down:
            return
        logger.error(
            "voice_fell_back",
            extra=fields(
                voice=voice.name,
                backend=self._first.backend,
                to=self._other.backend,
                reason=str(reason) or type(reason).__name__,
            ),
        )
        self._probing = asyncio.create_task(self._probe(voice))

    async def _probe(self, voice: Voice) -> None:
        """Until the first choice speaks again."""
        while True:
            await asyncio.sleep(self._options.probe_interval_s)
            try:
                spoken = self._first.synthesize(_PROBE_TEXT, voice)
                async with aclosing(self._in_time(spoken)) as chunks:
                    if any([bool(chunk) async for chunk in chunks]):
                        break
            except SpeechError as exc:
                logger.debug("voice_still_away", extra=fields(reason=str(exc)))
        logger.info("voice_is_back", extra=fields(backend=self._first.backend))


def _unnamed(voice: Voice) -> Voice:
    """The other's own voice for the language: names are not shared."""
    return replace(voice, name="")


def _unspoken(text: str, spoken_s: float, speed_wpm: int) -> str:
    """What was not said yet; a word too many rather than one too few."""
    words = text.split()
    return " ".join(words[int(spoken_s * speed_wpm / 60) :])
