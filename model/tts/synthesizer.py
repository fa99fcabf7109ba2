"""What every synthesiser offers: spoken-form text in, telephone speech out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from model.tts.voice import Voice

MAX_TEXT_CHARS = 1000
"""Of one request: about a minute of speech.  Pieces have 200, spoken forms more."""


@dataclass(frozen=True, slots=True)
class SynthesizerStatus:
    """What an operator wants to know of the synthesiser."""

    backend: str
    version: str
    num_workers: int
    """Processes that are up; fewer than asked for while one is being replaced."""
    num_busy: int
    num_waiting: int
    num_requests: int
    num_retries: int
    num_failures: int
    num_replaced: int
    """Processes that died or hung and were started anew."""
    num_fallbacks: int = 0
    """Texts that another synthesiser had to speak."""


class SpeechSynthesizer(Protocol):
    """Turns text into speech; many requests at once."""

    @property
    def backend(self) -> str:
        """ "espeak", "piper" or "openai"."""
        ...

    def synthesize(
        self, text: str, voice: Voice, *, rate_hz: int = 8000
    ) -> AsyncGenerator[bytes, None]:
        """`text` as pcm16 at `rate_hz`, levelled and without silence around it.

        Closing the generator stops the synthesis.

        Raises:
            SynthesisFailed: it went wrong, the retry included.
            SynthesisOverloaded: too many requests are waiting.
            VoiceUnknown: there is no such voice.
        """
        ...

    async def check_voice(self, voice: Voice) -> None:
        """Raises VoiceUnknown if `voice` cannot speak."""
        ...

    def status(self) -> SynthesizerStatus: ...

    async def aclose(self) -> None:
        """Stop everything; no process and no connection is left."""
        ...
