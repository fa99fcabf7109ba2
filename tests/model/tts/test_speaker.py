"""The speaker: pieces in order, made ahead within a bound, stopped at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import pytest

from model.errors import SynthesisFailed
from model.tts.cache import PhraseCache
from model.tts.speaker import Speaker, SpeakerOptions, SpokenPiece
from model.tts.synthesizer import SynthesizerStatus
from model.tts.voice import Voice
from model.tts.worker_pool import PoolOptions, WorkerPool
from model.tts.worker_process import WorkerOptions

SENTENCE_PAUSE_BYTES = SpeakerOptions().sentence_pause_ms * 16
CLAUSE_PAUSE_BYTES = SpeakerOptions().clause_pause_ms * 16


class ScriptedSynthesizer:
    """Says the text's own letters as samples, in two chunks; waits when told to."""

    backend = "scripted"

    def __init__(self) -> None:
        self.said: list[str] = []
        self.num_open = 0
        self.waits: dict[str, asyncio.Event] = {}
        """Texts that are spoken only after their event is set."""

    async def synthesize(
        self, text: str, voice: Voice, *, rate_hz: int = 8000
    ) -> AsyncGenerator[bytes, None]:
        self.said.append(text)
        self.num_open += 1
        try:
            if text in self.waits:
                await self.waits[text].wait()
            if text.startswith("Broken"):
                raise SynthesisFailed(text)
            half = len(text) // 2
            for part in (text[:half], text[half:]):
                await asyncio.sleep(0)
                yield part.encode("utf-16-le")
        finally:
            self.num_open -= 1

    async def check_voice(self, voice: Voice) -> None: ...

    async def aclose(self) -> None: ...

    def status(self) -> SynthesizerStatus:
        return SynthesizerStatus(self.backend, "1", 1, 0, 0, 0, 0, 0, 0)


class Tokens:
    """A model's text as it comes; knows whether it was closed."""

    def __init__(self, *chunks: str, error: Exception | None = None) -> None:
        self._chunks = chunks
        self._error = error
        self.num_given = 0
        self.was_closed = False

    async def stream(self) -> AsyncGenerator[str, None]:
        try:
            for chunk in self._chunks:
                await asyncio.sleep(0)
                self.num_given += 1
                yield chunk
            if self._error:
                raise self._error
        finally:
            self.was_closed = True


@pytest.fixture
def synthesizer() -> ScriptedSynthesizer:
    return ScriptedSynthesizer()


async def collect(speech: AsyncIterator[SpokenPiece]) -> list[SpokenPiece]:
    return [piece async for piece in speech]


async def hear(speech: AsyncIterator[SpokenPiece], heard: list[SpokenPiece]) -> None:
    """For speech that fails on the way."""
    async for piece in speech:
        heard.append(piece)


def said(pieces: list[SpokenPiece], index: int) -> bytes:
    return b"".join(piece.pcm16 for piece in pieces if piece.index == index)


async def test_pieces_come_in_order_with_their_place_in_the_text(
    synthesizer: ScriptedSynthesizer,
) -> None:
    text = "One here. Two  there! Three?"
    pieces = await collect(Speaker(synthesizer).speak(text, Voice()))
    assert [piece.index for piece in pieces] == [0, 0, 1, 1, 2, 2]
    assert [piece.is_first for piece in pieces] == [True, False] * 3
    for piece in pieces:
        assert text[piece.start_chars : piece.end_chars] == piece.text
    assert said(pieces, 0) == "One here.".encode("utf-16-le")


async def test_text_that_still_comes_gives_the_same_pieces(
    synthesizer: ScriptedSynthesizer,
) -> None:
    text = "One here. Two there! And $5 for the third."
    whole = await collect(Speaker(synthesizer).speak(text, Voice()))
    tokens = Tokens(*text)
    streamed = await collect(Speaker(synthesizer).speak(tokens.stream(), Voice()))
    assert streamed == whole


async def test_what_is_spoken_is_the_spoken_form(
    synthesizer: ScriptedSynthesizer,
) -> None:
    pieces = await collect(Speaker(synthesizer).speak("**It is $5.**", Voice()))
    assert synthesizer.said == ["It is five dollars."]
    assert pieces[0].text == "**It is $5.**"


async def test_sentences_are_apart_and_clauses_closer(
    synthesizer: ScriptedSynthesizer,
) -> None:
    text = "If you have a minute, I can help. Shall I?"
    pieces = await collect(Speaker(synthesizer).speak(text, Voice()))
    assert synthesizer.said[0] == "If you have a minute,"
    assert not said(pieces, 0).startswith(bytes(2))
    silent = {
        index: len(said(pieces, index)) - len(said(pieces, index).lstrip(b"\0"))
        for index in (1, 2)
    }
    assert silent == {1: CLAUSE_PAUSE_BYTES, 2: SENTENCE_PAUSE_BYTES}


async def test_a_piece_with_nothing_to_say_comes_without_audio(
    synthesizer: ScriptedSynthesizer,
) -> None:
    pieces = await collect(
        Speaker(synthesizer).speak("Yes! \N{GRINNING FACE}", Voice())
    )
    assert [piece.text for piece in pieces] == ["Yes!", "Yes!", "\N{GRINNING FACE}"]
    assert pieces[-1].pcm16 == b""


async def test_empty_text_gives_no_piece(synthesizer: ScriptedSynthesizer) -> None:
    assert await collect(Speaker(synthesizer).speak("  ", Voice())) == []
    assert await collect(Speaker(synthesizer).speak(Tokens().stream(), Voice())) == []


async def test_the_next_pieces_are_made_while_one_is_heard_but_not_all(
    synthesizer: ScriptedSynthesizer,
) -> None:
    text = " ".join(f"This is sentence {letter}." for letter in "ABCDEFGH")
    tokens = Tokens(*(word + " " for word in text.split(" ")))
    speaker = Speaker(synthesizer, options=SpeakerOptions(max_ahead=2))
    async with aclosing(speaker.speak(tokens.stream(), Voice())) as pieces:
        await anext(pieces)
        for _ in range(200):
            await asyncio.sleep(0)
        # One is being heard, two are ahead; a fourth waits for room.
        assert len(synthesizer.said) == 3
        assert tokens.num_given < 24


async def test_a_slow_first_piece_does_not_change_the_order(
    synthesizer: ScriptedSynthesizer,
) -> None:
    go = synthesizer.waits["First one."] = asyncio.Event()
    task = asyncio.create_task(
        collect(Speaker(synthesizer).speak("First one. Second one.", Voice()))
    )
    for _ in range(50):
        await asyncio.sleep(0)
    assert synthesizer.said == ["First one.", "Second one."]
    go.set()
    assert [piece.index for piece in await task] == [0, 0, 1, 1]


async def test_closing_stops_synthesis_and_closes_the_token_stream(
    synthesizer: ScriptedSynthesizer,
) -> None:
    synthesizer.waits["Second one."] = asyncio.Event()
    tokens = Tokens("First one. ", "Second one. ", "Third ", *["word "] * 1000)
    speech = Speaker(synthesizer).speak(tokens.stream(), Voice())
    async with aclosing(speech) as pieces:
        await anext(pieces)
    assert tokens.was_closed
    assert synthesizer.num_open == 0


async def test_cancelling_who_listens_stops_everything(
    synthesizer: ScriptedSynthesizer,
) -> None:
    synthesizer.waits["First one."] = asyncio.Event()
    tokens = Tokens("First one. ", "Second one. ")
    task = asyncio.create_task(
        collect(Speaker(synthesizer).speak(tokens.stream(), Voice()))
    )
    for _ in range(50):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tokens.was_closed
    assert synthesizer.num_open == 0


async def test_a_piece_that_fails_is_told_after_the_audio_before_it(
    synthesizer: ScriptedSynthesizer,
) -> None:
    heard: list[SpokenPiece] = []
    speech = Speaker(synthesizer).speak("Fine. Broken piece. Never.", Voice())
    with pytest.raises(SynthesisFailed):
        await hear(speech, heard)
    assert [piece.text for piece in heard] == ["Fine.", "Fine."]
    assert synthesizer.num_open == 0


async def test_a_failing_text_stream_is_told_after_the_audio_before_it(
    synthesizer: ScriptedSynthesizer,
) -> None:
    tokens = Tokens("One here. ", "Two ", error=RuntimeError("model died"))
    heard: list[SpokenPiece] = []
    speech = Speaker(synthesizer).speak(tokens.stream(), Voice())
    with pytest.raises(RuntimeError, match="model died"):
        await hear(speech, heard)
    assert [piece.text for piece in heard] == ["One here.", "One here."]


async def test_a_spoken_form_beyond_the_limit_is_spoken_in_parts(
    synthesizer: ScriptedSynthesizer,
) -> None:
    pieces = await collect(Speaker(synthesizer).speak("9" * 199 + ".", Voice()))
    assert {piece.index for piece in pieces} == {0}
    assert all(len(text) <= 1000 for text in synthesizer.said)
    assert sum(text.count("nine") for text in synthesizer.said) == 199


async def test_a_fixed_phrase_is_synthesised_once(
    synthesizer: ScriptedSynthesizer,
) -> None:
    cache = PhraseCache()
    speaker = Speaker(synthesizer, cache)
    first = await speaker.phrase("Hello. One moment.", Voice())
    assert await speaker.phrase("Hello. One moment.", Voice()) == first
    assert synthesizer.said == ["Hello.", "One moment."]
    await speaker.phrase("Hello.", Voice(speed_wpm=200))
    assert len(synthesizer.said) == 3


async def test_a_reply_uses_fixed_phrases_but_leaves_none_behind(
    synthesizer: ScriptedSynthesizer,
) -> None:
    cache = PhraseCache()
    speaker = Speaker(synthesizer, cache)
    await collect(speaker.speak("One moment.", Voice(), is_fixed=True))
    num_bytes = cache.num_bytes
    await collect(speaker.speak("One moment. Something new.", Voice()))
    assert synthesizer.said == ["One moment.", "Something new."]
    assert cache.num_bytes == num_bytes


async def test_many_replies_at_once_through_espeak_stay_apart() -> None:
    options = PoolOptions(
        wait_timeout_s=60.0,
        worker=WorkerOptions(start_timeout_s=60.0, silence_timeout_s=60.0),
    )
    pool = WorkerPool("espeak", ("model.tts.espeak_worker",), options)
    await pool.open()
    try:
        speaker = Speaker(pool)

        async def reply(num_words: int) -> list[SpokenPiece]:
            text = f"Hello. The {'word ' * num_words}now. Good bye."
            tokens = Tokens(*(word + " " for word in text.split(" ")))
            return await collect(speaker.speak(tokens.stream(), Voice()))

        replies = await asyncio.gather(*(reply(n) for n in range(1, 31)))
    finally:
        await pool.aclose()
    lengths = []
    for pieces in replies:
        indexes = [piece.index for piece in pieces]
        assert indexes == sorted(indexes)
        assert set(indexes) == {0, 1, 2}
        lengths.append(sum(len(piece.pcm16) for piece in pieces))
    assert lengths == sorted(lengths)
