"""The speech half in this process: `SpeechService` over engine and synthesiser."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import telemetry
from model.engine.interface import EngineDescription, ReplyEngine
from model.engine.load_meter import WINDOW_S, CallMeter, calls_served
from model.errors import SpeechOverloaded
from model.local_session import LocalSession
from model.speech import SessionOptions, SpeechStatus, WeightsKind
from model.tts.open import TtsOptions, voice_for
from model.tts.speaker import Speaker, SpeakerOptions, SpokenPiece
from model.tts.synthesizer import SpeechSynthesizer
from model.tts.voice import Voice
from model.turn_model import TurnModel

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
    max_busy_share: float = 0.85
    """Of the engine's time, measured over the last seconds, for callers; dialogues
    that would take more are refused, rather than slowing all of them."""
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
        clock: Callable[[], float] = time.monotonic,
        turn_model: TurnModel | None = None,
    ) -> None:
        """`speaker` speaks with `synthesizer`; closing them is the caller's.

        `turn_model` tells the end of turns in place of the engine.
        """
        self._turn_model = turn_model
        self._clock = clock
        self._engine = engine
        self._synthesizer = synthesizer
        self._speaker = speaker
        self._options = options or ServiceOptions()
        self._num_sessions = 0
        self._calls = CallMeter()
        # Replies that nobody waits for on the telephone are spoken one at a time and
        # with little made ahead, so that a call's sentence is soon begun.
        self._quiet_speaker = Speaker(synthesizer, options=SpeakerOptions(max_ahead=1))
        self._quiet_turn = asyncio.Semaphore(1)

    @property
    def engine(self) -> ReplyEngine:
        """For requests that are no dialogue: REST chat, transcripts."""
        return self._engine

    @property
    def turn_model(self) -> TurnModel | None:
        """Who tells the end of turns, if not the engine."""
        return self._turn_model

    @property
    def num_sessions(self) -> int:
        """Dialogues open now."""
        return self._num_sessions

    @property
    def max_sessions(self) -> int:
        """Dialogues at once, by what those of the last seconds took of the engine."""
        limit = self._options.max_sessions
        served = calls_served(
            self._busy_share() * WINDOW_S,
            self._calls.call_seconds(self._clock()),
            self._options.max_busy_share,
        )
        return limit if served is None else min(limit, served)

    def _busy_share(self) -> float:
        """Of the device's time: what both models take of it."""
        share = self._engine.load().busy_share
        if self._turn_model is not None:
            share += self._turn_model.load().busy_share
        return min(1.0, share)

    @asynccontextmanager
    async def open_session(
        self, options: SessionOptions
    ) -> AsyncGenerator[LocalSession]:
        """A dialogue of its own; what it holds is free when the block ends.

        Raises:
            SpeechOverloaded: as many are open as are allowed, or as the engine has
                time for.
            VoiceUnknown, ContextTooLong: the options cannot be served.
        """
        if self._num_sessions >= self.max_sessions:
            raise SpeechOverloaded(f"{self._num_sessions} dialogues are open already")
        self._count(+1)
        try:
            voice = await self.voice(language=options.language, name=options.voice)
            session = LocalSession(
                self._engine,
                self._speaker,
                voice,
                options,
                self._options.max_buffered_bytes,
                self._turn_model,
            )
            try:
                session.warm()
                yield session
            finally:
                await session.aclose()
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        self._num_sessions += change
        telemetry.SESSIONS_NOW.set(self._num_sessions)
        self._calls.note_calls(self._clock(), self._num_sessions)

    async def voice(self, *, language: str = "", name: str = "") -> Voice:
        """The voice for a language or by name; both empty: the default.

        Raises:
            VoiceUnknown: there is none such.
        """
        voice = voice_for(self._options.tts, language=language, name=name)
        await self._synthesizer.check_voice(voice)
        return voice

    async def speak(
        self, text: AsyncIterable[str], voice: Voice, *, rate_hz: int
    ) -> AsyncGenerator[SpokenPiece]:
        """A reply's speech for whoever is not on the telephone.

        Raises:
            SynthesisFailed, SynthesisOverloaded, and what the text raises.
        """
        async with self._quiet_turn:
            speech = self._quiet_speaker.speak(text, voice, rate_hz=rate_hz)
            async with aclosing(speech) as pieces:
                async for piece in pieces:
                    yield piece

    async def status(self) -> SpeechStatus:
        """What this speech half is."""
        about = self._engine.description
        return SpeechStatus(
            is_ready=True,
            model=about.model_name,
            weights=_WEIGHTS.get(about.weights_kind, "remote"),
            device=about.device,
            version=_version(about),
            voice=self._synthesizer.status().version,
            max_sessions=self.max_sessions,
            num_sessions=self._num_sessions,
        )


def _version(about: EngineDescription) -> str:
    """What runs the model, which weights, their format and number."""
    parts = [about.engine]
    parts += [part for part in (about.weights_kind, about.dtype) if part != "none"]
    if about.num_parameters:
        parts.append(f"{about.num_parameters / 1e6:.1f} M")
    if about.weights_version:
        parts.append(about.weights_version)
    return ", ".join(parts)
