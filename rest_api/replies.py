"""One reply for REST: its text, and its speech if wanted, as both come about.

complete ─▶ text ─▶ ReplyText …────────────────┐
              └──▶ speaker ─▶ ReplySpeech … ───┴─▶ ReplyMade
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, TypeAlias

from model.completion import ChatMessage, Sampling, complete
from model.engine.interface import ReplyEngine
from model.engine.request import FinishReason, Timings, Usage
from model.engine.stream import TokenStream
from model.service import LocalSpeechService
from model.transcription import can_transcribe, transcribe
from model.tts.voice import Voice
from model.ultravox.clip import AudioClip

_MAX_UNREAD: Final = 256
"""Parts made ahead of whoever reads them: more than most replies have."""


@dataclass(frozen=True, slots=True)
class SpeechWanted:
    """In what voice and at what rate a reply is spoken."""

    voice: Voice
    rate_hz: int


@dataclass(frozen=True, slots=True)
class ReplyText:
    """The next part of the text."""

    text: str


@dataclass(frozen=True, slots=True)
class ReplySpeech:
    """The next part of the speech, at the rate that was wanted."""

    pcm16: bytes


@dataclass(frozen=True, slots=True)
class ReplyMade:
    """The reply is complete."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    first_audio_ms: float | None
    transcript: str | None


ReplyPart: TypeAlias = ReplyText | ReplySpeech | ReplyMade


async def make_reply(
    service: LocalSpeechService,
    messages: Sequence[ChatMessage],
    sampling: Sampling,
    *,
    speech: SpeechWanted | None = None,
    transcript_of: AudioClip | None = None,
    request_id: str = "",
    is_shown_whole: bool = False,
) -> AsyncGenerator[ReplyPart]:
    """The parts of one reply, the last a `ReplyMade`; close it to cancel.

    `is_shown_whole`: of a reply in text the last is the only one.

    Raises:
        SpeechError: it cannot begin, or failed on its way.
    """
    began = time.monotonic()
    first_audio_ms: float | None = None
    stream = complete(service.engine, messages, sampling, request_id)
    async with stream:
        if speech is None and is_shown_whole:
            await stream.read_on()
        elif speech is None:
            async for chunk in stream:
                if chunk.text:
                    yield ReplyText(chunk.text)
        else:
            async with aclosing(_spoken(service, stream, speech)) as parts:
                async for part in parts:
                    if isinstance(part, ReplySpeech) and first_audio_ms is None:
                        first_audio_ms = (time.monotonic() - began) * 1000.0
                    yield part
        written = None
        if transcript_of is not None:
            written = await _transcript(service.engine, transcript_of, request_id)
        assert stream.finish_reason
        assert stream.usage
        assert stream.timings
        yield ReplyMade(
            stream.text.strip(),
            stream.finish_reason,
            stream.usage,
            stream.timings,
            first_audio_ms,
            written,
        )


async def _spoken(
    service: LocalSpeechService, stream: TokenStream, speech: SpeechWanted
) -> AsyncGenerator[ReplyPart]:
    """Text and speech as they come, each in its own order."""
    # Full: the reader is slow, and synthesis waits for it.
    parts: asyncio.Queue[ReplyPart | Exception | None] = asyncio.Queue(_MAX_UNREAD)

    async def texts() -> AsyncGenerator[str]:
        async for chunk in stream:
            if chunk.text:
                await parts.put(ReplyText(chunk.text))
                yield chunk.text

    async def speak() -> None:
        end: Exception | None = None
        try:
            pieces = service.speak(texts(), speech.voice, rate_hz=speech.rate_hz)
            async with aclosing(pieces):
                async for piece in pieces:
                    if piece.pcm16:
                        await parts.put(ReplySpeech(piece.pcm16))
        except Exception as exc:  # noqa: BLE001 - raised where the reply is read
            end = exc
        await parts.put(end)

    speaking = asyncio.create_task(speak())
    try:
        while (part := await parts.get()) is not None:
            if isinstance(part, Exception):
                raise part
            yield part
    finally:
        speaking.cancel()
        await asyncio.wait([speaking])


async def _transcript(engine: ReplyEngine, clip: AudioClip, request_id: str) -> str:
    """Empty when no words could be made out, or the engine knows none."""
    if not can_transcribe(engine):
        return ""
    return await transcribe(engine, clip, f"{request_id}/transcript")
