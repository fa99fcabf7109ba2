"""A reply's text -> its speech, sentence by sentence while the text still comes.

tokens ─▶ sentences ─▶ spoken form ─▶ synthesizer ─▶ pieces of speech, in order
                                      (the next pieces while one is being played)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from model.tts.cache import PhraseCache, PhraseKey
from model.tts.normalize import spoken_form
from model.tts.sentences import Piece, SentenceSplitter, SplitOptions
from model.tts.synthesizer import MAX_TEXT_CHARS, SpeechSynthesizer
from model.tts.voice import Voice

_SAMPLE_BYTES = 2


@dataclass(frozen=True, slots=True)
class SpeakerOptions:
    max_ahead: int = 2
    """Pieces being made beyond the one that is being given out: with one, a short
    sentence ("Yes.") is over before the next is there."""
    sentence_pause_ms: int = 220
    """Between two sentences; with the synthesiser's own edges about 0.3 s, as read
    speech has it."""
    clause_pause_ms: int = 60
    """After a piece that ends in mid-sentence."""
    split: SplitOptions = field(default_factory=SplitOptions)


@dataclass(frozen=True, slots=True)
class SpokenPiece:
    """The next audio of a reply, in order.

    A piece comes in one part or several; it is complete when the next piece begins or
    the reply ends.  One with nothing to say (only an emoji) has no audio.
    """

    index: int
    text: str
    """The piece as written, the same in each of its parts."""
    start_chars: int
    end_chars: int
    """Where `text` lies in the reply."""
    pcm16: bytes
    """Begins with a pause in all pieces but the first."""
    is_first: bool
    """The first part of its piece."""


class _Speaking:
    """A piece on its way: its audio is put in by one task and taken out by another."""

    def __init__(self, piece: Piece) -> None:
        self.piece = piece
        # The piece's length bounds its audio; the synthesiser never waits for a slow
        # listener, who would hold up other calls.
        self.chunks: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(maxsize=0)


_Ahead: TypeAlias = asyncio.Queue[_Speaking | Exception | None]


class Speaker:
    """Speaks replies with one synthesiser; shared by all calls."""

    def __init__(
        self,
        synthesizer: SpeechSynthesizer,
        cache: PhraseCache | None = None,
        options: SpeakerOptions | None = None,
    ) -> None:
        self._synthesizer = synthesizer
        self._cache = cache or PhraseCache()
        self._options = options or SpeakerOptions()

    async def aclose(self) -> None:
        """Wait for phrases that are being written to disk."""
        await self._cache.aclose()

    async def phrase(self, text: str, voice: Voice, *, rate_hz: int = 8000) -> bytes:
        """A fixed phrase as pcm16, from memory if it was spoken before.

        Raises:
            SynthesisFailed, SynthesisOverloaded, VoiceUnknown.
        """
        speech = self.speak(text, voice, rate_hz=rate_hz, is_fixed=True)
        async with aclosing(speech) as pieces:
            return b"".join([piece.pcm16 async for piece in pieces])

    async def speak(
        self,
        text: str | AsyncIterable[str],
        voice: Voice,
        *,
        rate_hz: int = 8000,
        is_fixed: bool = False,
    ) -> AsyncGenerator[SpokenPiece, None]:
        """Speech of a text that is there or still coming; `is_fixed`: remember it.

        Leave it by `contextlib.aclosing`: then synthesis stops at once and the token
        stream is closed.

        Raises:
            SynthesisFailed, SynthesisOverloaded, VoiceUnknown: at the piece concerned,
                after all audio before it.
            Whatever the text stream raises, after all audio of the text before it.
        """
        # Full: the text is read no further until the listener has caught up.
        ahead: _Ahead = asyncio.Queue(maxsize=self._options.max_ahead)
        said = _Manner(voice, rate_hz, is_fixed)
        producer = asyncio.create_task(self._produce(text, said, ahead))
        try:
            index = 0
            pause_ms = 0
            while (speaking := await ahead.get()) is not None:
                if isinstance(speaking, Exception):
                    raise speaking
                is_first = True
                async for chunk in _audio_of(speaking):
                    pcm16 = _silence(pause_ms, rate_hz) + chunk if chunk else chunk
                    yield _spoken(index, speaking.piece, pcm16, is_first=is_first)
                    is_first = False
                    if chunk:
                        pause_ms = 0
                index += 1
                pause_ms = max(pause_ms, self._pause_after_ms(speaking.piece))
        finally:
            producer.cancel()
            await asyncio.wait([producer])

    async def _produce(
        self, text: str | AsyncIterable[str], manner: _Manner, ahead: _Ahead
    ) -> None:
        """Cut the text and begin each piece's speech; ends with None or what failed."""
        end: Exception | None = None
        async with asyncio.TaskGroup() as group:
            try:
                async with aclosing(_pieces(text, self._options.split)) as pieces:
                    async for piece in pieces:
                        speaking = _Speaking(piece)
                        await ahead.put(speaking)
                        group.create_task(self._make(speaking, manner))
            except Exception as exc:  # noqa: BLE001 - raised where the reply is heard
                end = exc
            await ahead.put(end)

    async def _make(self, speaking: _Speaking, manner: _Manner) -> None:
        end: Exception | None = None
        try:
            for said in _requests(speaking.piece, manner.voice.language):
                async with aclosing(self._speech(said, manner)) as chunks:
                    async for chunk in chunks:
                        speaking.chunks.put_nowait(chunk)
        except Exception as exc:  # noqa: BLE001 - raised where the piece is heard
            end = exc
        speaking.chunks.put_nowait(end)

    async def _speech(self, said: str, manner: _Manner) -> AsyncGenerator[bytes, None]:
        """From memory, or made; kept in memory only if the text is a fixed one."""
        key = self._key(said, manner)
        if (pcm16 := self._cache.get(key)) is not None:
            yield pcm16
        elif manner.is_fixed:
            yield await self._fixed(key, said, manner)
        else:
            async with aclosing(self._synthesize(said, manner)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def _fixed(self, key: PhraseKey, said: str, manner: _Manner) -> bytes:
        """A phrase that another voice had to speak is not what is wanted next time."""
        before = self._synthesizer.status().num_fallbacks
        pcm16 = await self._cache.get_or_make(key, lambda: self._whole(said, manner))
        if self._synthesizer.status().num_fallbacks != before:
            self._cache.drop(key)
        return pcm16

    async def _whole(self, said: str, manner: _Manner) -> bytes:
        async with aclosing(self._synthesize(said, manner)) as chunks:
            return b"".join([chunk async for chunk in chunks])

    def _synthesize(self, said: str, manner: _Manner) -> AsyncGenerator[bytes, None]:
        return self._synthesizer.synthesize(said, manner.voice, rate_hz=manner.rate_hz)

    def _key(self, said: str, manner: _Manner) -> PhraseKey:
        backend = self._synthesizer.backend
        version = self._synthesizer.status().version
        return PhraseKey(backend, version, said, manner.voice, manner.rate_hz)

    def _pause_after_ms(self, piece: Piece) -> int:
        if piece.ends_sentence:
            return self._options.sentence_pause_ms
        return self._options.clause_pause_ms


@dataclass(frozen=True, slots=True)
class _Manner:
    """How a whole reply is spoken."""

    voice: Voice
    rate_hz: int
    is_fixed: bool


async def _pieces(
    text: str | AsyncIterable[str], options: SplitOptions
) -> AsyncGenerator[Piece, None]:
    splitter = SentenceSplitter(options)
    if isinstance(text, str):
        for piece in splitter.receive_text(text):
            yield piece
    else:
        async with _closing(text) as chunks:
            async for chunk in chunks:
                for piece in splitter.receive_text(chunk):
                    yield piece
    for piece in splitter.flush():
        yield piece


@asynccontextmanager
async def _closing(chunks: AsyncIterable[str]) -> AsyncIterator[AsyncIterable[str]]:
    """Generators hold resources and are closed; other streams have nothing to close."""
    if isinstance(chunks, AsyncGenerator):
        async with aclosing(chunks):
            yield chunks
    else:
        yield chunks


def _requests(piece: Piece, language: str) -> Iterator[str]:
    """The spoken form, in parts where it is much longer than what is written."""
    said = spoken_form(piece.text, language)
    if said and not piece.ends_sentence and said[-1].isalnum():
        said += ","  # the voice stays up: more follows
    while len(said) > MAX_TEXT_CHARS:
        cut = said.rfind(" ", 1, MAX_TEXT_CHARS) + 1 or MAX_TEXT_CHARS
        yield said[:cut].strip()
        said = said[cut:]
    if said:
        yield said


async def _audio_of(speaking: _Speaking) -> AsyncGenerator[bytes, None]:
    """The piece's audio as it is made; one empty chunk if it has none at all."""
    is_silent = True
    while (chunk := await speaking.chunks.get()) is not None:
        if isinstance(chunk, Exception):
            raise chunk
        is_silent = False
        yield chunk
    if is_silent:
        yield b""


def _spoken(index: int, piece: Piece, pcm16: bytes, *, is_first: bool) -> SpokenPiece:
    return SpokenPiece(
        index, piece.text, piece.start_chars, piece.end_chars, pcm16, is_first
    )


def _silence(duration_ms: int, rate_hz: int) -> bytes:
    return bytes(duration_ms * rate_hz // 1000 * _SAMPLE_BYTES)
