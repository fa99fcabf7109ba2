"""A synthesiser without processes: 10 ms of tone for every character.

Plays the part of espeak where what matters is how much was spoken, not how.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import numpy as np

from model.errors import SynthesisFailed
from model.tts.errors import VoiceUnknown
from model.tts.synthesizer import SynthesizerStatus
from model.tts.voice import Voice

MS_PER_CHAR = 10


class ToneSynthesizer:
    """Says a tone; refuses the voice "nobody" and the text "unspeakable"."""

    backend = "tone"

    def __init__(self) -> None:
        self.num_running = 0
        self.num_made = 0
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
        self.num_made += 1
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
        return SynthesizerStatus(
            backend=self.backend,
            version="1",
            num_workers=0,
            num_busy=self.num_running,
            num_waiting=0,
            num_requests=0,
            num_retries=0,
            num_failures=0,
            num_replaced=0,
        )

    async def aclose(self) -> None:
        return
