"""The speech half in this process: `SpeechService` over engine and synthesiser."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import telemetry
from model.engine.interface import ReplyEngine
from model.errors import SpeechOverloaded
from model.local_session import LocalSession
from model.speech import SessionOptions, SpeechStatus, WeightsKind
from model.tts.open import TtsOptions, voice_for
from model.tts.speaker import Speaker
from model.tts.synthesizer import SpeechSynthesizer

_WEIGHTS: Final[dict[str, WeightsKind]] = {
    "random": "random",
    "demo": "demo",
    "published": "published",
    "none": "scripted",
}


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """What one speech half takes on."""

    max_sessions: int = 40
    """Dialogues at once; the next one is refused, so that its caller goes elsewhere."""
    tts: TtsOptions = field(default_factory=TtsOptions)
    """Whose default voice speaks where a dialogue names none."""
    max_buffered_bytes: int = 512 * 1024
    """Speech made ahead of a reader that is slow, for each reply: half a minute."""


class LocalSpeechService:
    """Opens dialogues on this process's engine."""

    def __init__(
        self,
        engine: ReplyEngine,
        synthesizer: SpeechSynthesizer,
        speaker: Speaker,
        options: ServiceOptions | None = None,
    ) -> None:
        """`speaker` speaks with `synthesizer`; closing them is the caller's."""
        self._engine = engine
        self._synthesizer = synthesizer
        self._speaker = speaker
        self._options = options or ServiceOptions()
        self._num_sessions = 0

    @property
    def engine(self) -> ReplyEngine:
        """For requests that are no dialogue: REST chat, transcripts."""
        return self._engine

    @property
    def num_sessions(self) -> int:
        """Dialogues open now."""
        return self._num_sessions

    @asynccontextmanager
    async def open_session(
        self, options: SessionOptions
    ) -> AsyncGenerator[LocalSession]:
        """A dialogue of its own; what it holds is free when the block ends.

        Raises:
            SpeechOverloaded: as many are open as are allowed.
            VoiceUnknown, ContextTooLong: the options cannot be served.
        """
        if self._num_sessions >= self._options.max_sessions:
            raise SpeechOverloaded(f"{self._num_sessions} dialogues are open already")
        self._num_sessions += 1
        telemetry.SESSIONS_NOW.set(self._num_sessions)
        try:
            voice = voice_for(
                self._options.tts, language=options.language, name=options.voice
            )
            await self._synthesizer.check_voice(voice)
            session = LocalSession(
                self._engine,
                self._speaker,
                voice,
                options,
                self._options.max_buffered_bytes,
            )
            try:
                session.warm()
                yield session
            finally:
                await session.aclose()
        finally:
            self._num_sessions -= 1
            telemetry.SESSIONS_NOW.set(self._num_sessions)

    async def status(self) -> SpeechStatus:
        """What this speech half is."""
        about = self._engine.description
        return SpeechStatus(
            is_ready=True,
            model=about.model_name,
            weights=_WEIGHTS.get(about.weights_kind, "remote"),
            device=about.device,
            max_sessions=self._options.max_sessions,
            num_sessions=self._num_sessions,
        )
