"""What espeak really says, judged as an ear would: length, loudness, edges, words."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio

from model.audio.pcm import Wave, wave_from_pcm16
from model.tts.errors import VoiceUnknown
from model.tts.voice import Voice
from model.tts.worker_pool import PoolOptions, WorkerPool
from model.tts.worker_process import WorkerOptions

# Some machines are slow and busy; nothing here depends on time.
PATIENT = WorkerOptions(start_timeout_s=60.0, silence_timeout_s=60.0)
SENTENCE = "Thank you for calling, how can I help you with your order today?"
NUM_SYLLABLES = 15
SAME_SAMPLES = 160
"""espeak varies an utterance by a millisecond, and edges are cut in steps of 10."""
in_one_loop = pytest.mark.asyncio(loop_scope="module")  # that of the fixture


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def espeak() -> AsyncIterator[WorkerPool]:
    options = PoolOptions(num_workers=2, wait_timeout_s=60.0, worker=PATIENT)
    pool = WorkerPool("espeak", ("model.tts.espeak_worker",), options)
    await pool.open()
    try:
        yield pool
    finally:
        await pool.aclose()


async def speak(
    espeak: WorkerPool, text: str, voice: Voice | None = None, rate_hz: int = 8000
) -> Wave:
    chunks = espeak.synthesize(text, voice or Voice(), rate_hz=rate_hz)
    return wave_from_pcm16(b"".join([chunk async for chunk in chunks]))


def blocks_dbfs(wave: Wave, rate_hz: int = 8000) -> Wave:
    """Level of each 20 ms."""
    block_samples = rate_hz // 50
    blocks = wave[: len(wave) // block_samples * block_samples].reshape(
        -1, block_samples
    )
    power = np.mean(np.square(blocks, dtype=np.float64), axis=1)
    levels: Wave = (10 * np.log10(power + 1e-12)).astype(np.float32)
    return levels


def active_dbfs(wave: Wave) -> float:
    levels = blocks_dbfs(wave)
    active = levels[levels > levels.max() - 30]
    return float(10 * math.log10(np.mean(10 ** (active / 10))))


@in_one_loop
async def test_a_sentence_takes_about_as_long_as_a_person_needs(
    espeak: WorkerPool,
) -> None:
    wave = await speak(espeak, SENTENCE)
    syllables_per_s = NUM_SYLLABLES / (len(wave) / 8000)
    assert 3.0 < syllables_per_s < 6.5


@pytest.mark.parametrize(
    "voice",
    [
        Voice(),
        Voice("en-gb"),
        Voice("es-419"),
        Voice("en-us", "en-us+f3"),
        Voice("en-us", "en-us+whisper"),
        Voice("en-us", speed_wpm=250, pitch=80),
    ],
    ids=lambda voice: f"{voice.language} {voice.name}",
)
@in_one_loop
async def test_every_voice_is_equally_loud_and_never_clips(
    espeak: WorkerPool, voice: Voice
) -> None:
    wave = await speak(espeak, SENTENCE, voice)
    assert active_dbfs(wave) == pytest.approx(-20.0, abs=2.5)
    assert np.abs(wave).max() < 0.95


@in_one_loop
async def test_sentences_of_one_voice_are_equally_loud(espeak: WorkerPool) -> None:
    texts = [SENTENCE, "Yes.", "One moment, please.", "Zoo shoes use few sues."]
    levels = [active_dbfs(await speak(espeak, text)) for text in texts]
    assert max(levels) - min(levels) < 5.0


@in_one_loop
async def test_speech_begins_and_ends_at_once(espeak: WorkerPool) -> None:
    for text in (SENTENCE, "Hello.", "Is it?", "Good."):
        loud = np.flatnonzero(blocks_dbfs(await speak(espeak, text)) > -40)
        wave = await speak(espeak, text)
        assert loud[0] * 20 <= 120  # the h of "Hello" is no louder than breath
        assert len(wave) / 8 - (loud[-1] + 1) * 20 <= 120


@in_one_loop
async def test_nothing_but_speech_band_is_sent_at_eight_kilohertz(
    espeak: WorkerPool,
) -> None:
    wave = await speak(espeak, "Six sick sheep slip slowly.", rate_hz=8000)
    spectrum = np.abs(np.fft.rfft(wave))
    assert spectrum[len(spectrum) * 99 // 100 :].max() < 0.02 * spectrum.max()


@in_one_loop
async def test_the_rate_asked_for_changes_the_samples_not_the_duration(
    espeak: WorkerPool,
) -> None:
    narrow = await speak(espeak, SENTENCE, rate_hz=8000)
    wide = await speak(espeak, SENTENCE, rate_hz=16_000)
    assert len(wide) / 16_000 == pytest.approx(len(narrow) / 8000, abs=0.02)


@in_one_loop
async def test_faster_speech_is_shorter(espeak: WorkerPool) -> None:
    slow = await speak(espeak, SENTENCE, Voice(speed_wpm=120))
    fast = await speak(espeak, SENTENCE, Voice(speed_wpm=240))
    assert len(fast) < 0.7 * len(slow)


@in_one_loop
async def test_thirty_sentences_at_once_are_each_what_they_are_alone(
    espeak: WorkerPool,
) -> None:
    texts = [" ".join(["word"] * n) + "." for n in range(1, 31)]
    alone = [len(await speak(espeak, text)) for text in texts]
    together = await asyncio.gather(*(speak(espeak, text) for text in texts))
    for one, many in zip(alone, together, strict=True):
        assert abs(len(many) - one) <= SAME_SAMPLES


@in_one_loop
async def test_espeak_s_commands_inside_a_text_are_not_obeyed(
    espeak: WorkerPool,
) -> None:
    faster = await speak(espeak, "one \x01400S two three four five six seven")
    plain = await speak(espeak, "one  400S two three four five six seven")
    assert abs(len(faster) - len(plain)) <= SAME_SAMPLES


@in_one_loop
async def test_markup_is_not_obeyed(espeak: WorkerPool) -> None:
    assert len(await speak(espeak, "one <break time='9s'/> two")) < 8 * 8000


@pytest.mark.parametrize(
    "voice",
    [
        Voice("xx"),
        Voice("en-us", "en-us+nobody"),
        Voice("en-us", "alloy"),
    ],
    ids=["language", "variant", "name"],
)
@in_one_loop
async def test_a_voice_that_espeak_lacks_is_refused(
    espeak: WorkerPool, voice: Voice
) -> None:
    with pytest.raises(VoiceUnknown):
        await espeak.check_voice(voice)


@in_one_loop
async def test_a_text_without_words_is_silent(espeak: WorkerPool) -> None:
    assert len(await speak(espeak, " ... ")) == 0


@in_one_loop
async def test_a_stopped_sentence_does_not_leak_into_the_next(
    espeak: WorkerPool,
) -> None:
    expected = len(await speak(espeak, "Hello there."))
    for _ in range(4):
        chunks = espeak.synthesize(SENTENCE * 8, Voice())
        await anext(chunks)
        await chunks.aclose()
        assert abs(len(await speak(espeak, "Hello there.")) - expected) <= SAME_SAMPLES


@pytest.mark.parametrize(
    "fields",
    [
        {"language": "English"},
        {"language": "en us"},
        {"name": "../../etc"},
        {"name": "a b"},
        {"speed_wpm": 20},
        {"pitch": 100},
    ],
)
def test_a_malformed_voice_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(VoiceUnknown):
        Voice(**fields)  # type: ignore[arg-type]
