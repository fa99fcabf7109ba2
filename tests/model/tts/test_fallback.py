"""A voice that fails in mid-call: another speaks on, and it comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from model.errors import SynthesisFailed
from model.tts.cache import PhraseCache
from model.tts.errors import VoiceUnknown
from model.tts.fallback import FallbackOptions, FallbackSynthesizer
from model.tts.open import TtsOptions, open_synthesizer
from model.tts.phrase_files import PhraseFiles
from model.tts.speaker import Speaker
from model.tts.synthesizer import SpeechSynthesizer, SynthesizerStatus
from model.tts.voice import Voice
from tests.model.tts.test_openai_speech import (
    Answer,
    SpeechServer,
    answer,
    break_off,
    break_off_after,
    tone,
)

QUICK = FallbackOptions(patience_s=0.1, probe_interval_s=0.05)
VOICE = Voice(name="bella")
TEN_WORDS = "one two three four five six seven eight nine ten"


class Spoken:
    """Says a word a 100 ms chunk; breaks where it is told to."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.said: list[tuple[str, str]] = []
        self.breaks_after: int | None = None
        """Words before it fails; None: it is well."""
        self.hangs = False
        self.refuses: set[str] = set()
        self.is_closed = False

    async def synthesize(
        self, text: str, voice: Voice, *, rate_hz: int = 8000
    ) -> AsyncGenerator[bytes, None]:
        self.said.append((text, voice.name))
        if self.hangs:
            await asyncio.sleep(60)
        for index, _ in enumerate(text.split()):
            if index == self.breaks_after:
                raise SynthesisFailed("broken")
            yield self.backend[:1].encode() * (2 * rate_hz // 10)
        if self.breaks_after == 0:
            raise SynthesisFailed("broken")

    async def check_voice(self, voice: Voice) -> None:
        if self.breaks_after is not None:
            raise SynthesisFailed("broken")
        if voice.name in self.refuses:
            raise VoiceUnknown("there is no such voice")

    def status(self) -> SynthesizerStatus:
        return SynthesizerStatus(self.backend, "1", 1, 0, 0, 0, 0, 0, 0)

    async def aclose(self) -> None:
        self.is_closed = True


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[FallbackSynthesizer, Spoken, Spoken]]:
    first, other = Spoken("first"), Spoken("other")
    both = FallbackSynthesizer(first, other, QUICK)
    try:
        yield both, first, other
    finally:
        await both.aclose()
    assert first.is_closed
    assert other.is_closed


async def speak(
    synthesizer: SpeechSynthesizer, text: str = TEN_WORDS, voice: Voice = VOICE
) -> bytes:
    return b"".join([chunk async for chunk in synthesizer.synthesize(text, voice)])


async def until_back(both: FallbackSynthesizer) -> None:
    async with asyncio.timeout(5):
        while both._is_down:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_while_all_is_well_the_other_is_never_asked() -> None:
    async with pair() as (both, _, other):
        assert set(await speak(both)) == set(b"f")
        assert other.said == []
        assert both.status().num_fallbacks == 0


async def test_what_fails_before_a_sound_is_said_by_the_other_in_its_own_voice() -> (
    None
):
    async with pair() as (both, first, other):
        first.breaks_after = 0
        assert set(await speak(both)) == set(b"o")
        assert other.said == [(TEN_WORDS, "")]
        assert both.backend == "other"
        assert both.status().num_fallbacks == 1


async def test_what_breaks_in_mid_sentence_goes_on_near_the_word_it_had_reached() -> (
    None
):
    async with pair() as (both, first, other):
        first.breaks_after = 8  # 0.8 s: two words at 165 a minute
        pcm16 = await speak(both)
        assert other.said == [("three four five six seven eight nine ten", "")]
        assert pcm16.startswith(b"f" * 1600)
        assert pcm16.endswith(b"o" * 1600)


async def test_one_that_hangs_is_not_waited_for_twice() -> None:
    async with pair() as (both, first, _):
        first.hangs = True
        for _ in range(3):
            assert set(await speak(both)) == set(b"o")
        assert sum(text == TEN_WORDS for text, _ in first.said) == 1


async def test_it_speaks_again_once_it_is_back() -> None:
    async with pair() as (both, first, other):
        first.breaks_after = 0
        await speak(both)
        await asyncio.sleep(0.2)
        assert both.backend == "other"  # tried meanwhile, in vain
        first.breaks_after = None
        await until_back(both)
        assert set(await speak(both)) == set(b"f")
        assert len(other.said) == 1


async def test_calls_may_begin_while_it_is_down_but_not_with_a_wrong_name() -> None:
    async with pair() as (both, first, _):
        first.refuses = {"bella"}
        with pytest.raises(VoiceUnknown):
            await both.check_voice(VOICE)
        first.breaks_after = 0
        await both.check_voice(VOICE)
        assert both.backend == "other"


async def test_when_both_fail_it_is_told() -> None:
    async with pair() as (both, first, other):
        first.breaks_after = other.breaks_after = 0
        with pytest.raises(SynthesisFailed):
            await speak(both)


async def test_a_phrase_the_other_spoke_is_not_remembered(tmp_path: Path) -> None:
    async with pair() as (both, first, _):
        cache = PhraseCache(files=PhraseFiles(tmp_path, 1 << 20))
        speaker = Speaker(both, cache)
        first.breaks_after = 2
        for _ in range(2):
            assert b"o" in await speaker.phrase("Hello dear caller.", VOICE)
        first.breaks_after = None
        await until_back(both)
        for _ in range(3):
            assert b"o" not in await speaker.phrase("Hello dear caller.", VOICE)
        await speaker.aclose()


async def silent(_writer: asyncio.StreamWriter) -> None:
    """Stands for a server that takes the request and never answers."""


@asynccontextmanager
async def served(*answers: Answer) -> AsyncIterator[tuple[SpeechSynthesizer, str]]:
    """The service's own way to a speech server that answers so, espeak behind it."""
    played, released = SpeechServer(), asyncio.Event()

    async def nothing(_writer: asyncio.StreamWriter) -> None:
        await released.wait()

    wanted = [nothing if one is silent else one for one in answers]
    played.answers += [answer(tone(1.0)), *wanted]  # the first is heard at the start
    server = await asyncio.start_server(played.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    synthesizer = await open_synthesizer(TtsOptions(backend="openai", url=url))
    try:
        yield synthesizer, url
    finally:
        released.set()
        await synthesizer.aclose()
        server.close()
        await server.wait_closed()
        async with asyncio.timeout(10):
            while played.num_open:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "fault",
    [
        (break_off, break_off),
        (answer(b"<html>oops</html>", "500 Internal Server Error"),),
        (answer(b"busy", "503 Service Unavailable"),),
        (answer(b"no such voice", "400 Bad Request"),),
        (break_off_after(tone(0.2)),),
    ],
    ids=["down", "500", "503", "voice gone", "breaks off"],
)
async def test_a_speech_server_that_fails_in_mid_call_is_replaced_by_espeak(
    fault: tuple[Answer, ...],
) -> None:
    async with served(*fault) as (synthesizer, _):
        assert synthesizer.backend == "openai"
        pcm16 = await speak(synthesizer, "Your order ships tomorrow.", Voice())
        assert len(pcm16) > 16_000  # a second and more: the sentence was spoken
        assert synthesizer.backend == "espeak"
        assert await speak(synthesizer, "Thank you.", Voice())


@pytest.mark.slow
async def test_a_silent_speech_server_costs_one_pause_only() -> None:
    async with served(silent) as (synthesizer, _):
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await speak(synthesizer, "Your order ships tomorrow.", Voice())
        assert loop.time() - began > 1.0
        for _ in range(5):
            assert await speak(synthesizer, "Thank you.", Voice())
        assert synthesizer.status().num_fallbacks == 6


async def test_without_a_fallback_the_failure_is_told() -> None:
    played = SpeechServer()
    played.answers += [answer(tone(1.0)), break_off, break_off]
    server = await asyncio.start_server(played.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    options = TtsOptions(backend="openai", url=url, fallback="none")
    synthesizer = await open_synthesizer(options)
    try:
        with pytest.raises(SynthesisFailed):
            await speak(synthesizer, "Hello.", Voice())
    finally:
        await synthesizer.aclose()
        server.close()
        await server.wait_closed()
