"""A synthesiser and speaker without processes: 10 ms of tone for every character.

Plays the part of `model.tts` where what matters is how much was spoken, not how.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass

import numpy as np

from model.errors import SynthesisFailed
from model.tts.errors import VoiceUnknown
from model.tts.sentences import Piece, SentenceSplitter
from model.tts.synthesizer import SynthesizerStatus
from model.tts.voice import Voice

MS_PER_CHAR = 10


class ToneSynthesizer:
    """Says a tone; refuses the voice "nobody" and the text "unspeakable"."""

    backend = "tone"

    def __init__(self) -> None:
        self.num_running = 0
        self.hold: asyncio.Event | None = None
        """When set to an event, synthesis waits for it after its first chunk."""

    async def synthesize(
        self, text: str, voice: Voice, *, rate_hz: int = 8000
    ) -> AsyncGenerator[bytes]:
        if "unspeakable" in text:
            raise SynthesisFailed("the tone broke")
        num_samples = len(text) * MS_PER_CHAR * rate_hz // 1000
        tone = np.full(num_samples, 1000, "<i2").tobytes()
        self.num_running += 1
        try:
            half = len(tone) // 4 * 2
            yield tone[:half]
            if self.hold is not None:
                await self.hold.wait()
            yield tone[half:]
        finally:
            self.num_running -= 1

    async def check_voice(self, voice: Voice) -> None:
        if voice.name == "nobody":
            raise VoiceUnknown("there is no voice nobody")

    def status(self) -> SynthesizerStatus:
        return SynthesizerStatus("tone", "1", 0, self.num_running, 0, 0, 0, 0, 0, 0)

    async def aclose(self) -> None:
        return


@dataclass
class SpokenPiece:
    index: int
    text: str
    start_chars: int
    end_chars: int
    pcm16: bytes
    is_first: bool
    is_last: bool


class ToneSpeaker:
    def __init__(self, synthesizer: ToneSynthesizer) -> None:
        self._synthesizer = synthesizer

    async def speak(
        self, text: str | AsyncIterable[str], voice: Voice, *, rate_hz: int = 8000
    ) -> AsyncGenerator[SpokenPiece]:
        splitter = SentenceSplitter()
        index = 0

        async def chunks() -> AsyncGenerator[str]:
            if isinstance(text, str):
                yield text
            else:
                async for chunk in text:
                    yield chunk

        async def pieces() -> AsyncGenerator[Piece]:
            async for chunk in chunks():
                for piece in splitter.receive_text(chunk):
                    yield piece
            for piece in splitter.flush():
                yield piece

        async for piece in pieces():
            first = True
            async for pcm16 in self._synthesizer.synthesize(
                piece.text, voice, rate_hz=rate_hz
            ):
                yield SpokenPiece(
                    index,
                    piece.text,
                    piece.start_chars,
                    piece.end_chars,
                    pcm16,
                    first,
                    not first,
                )
                first = False
            index += 1
