"""piper: which voice file speaks, and the whole way through a process where installed.

The package and real voices are optional.  With the package, a voice of a few hundred
bytes made here goes through its real loading, phoneme and network code.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from model.audio.pcm import Wave, level_dbfs, wave_from_pcm16
from model.tts.errors import SynthesizerUnavailable, VoiceUnknown
from model.tts.fallback import FallbackSynthesizer
from model.tts.open import TtsOptions, open_synthesizer
from model.tts.piper_voices import PiperModel, PiperVoices
from model.tts.synthesizer import SpeechSynthesizer
from model.tts.voice import Voice
from model.tts.worker_pool import WorkerPool
from tests.model.tts.tiny_piper_voice import write_voice

needs_piper = pytest.mark.skipif(
    importlib.util.find_spec("piper") is None, reason="piper-tts is not installed"
)


class ScriptedModel:
    rate_hz = 16_000

    def __init__(self, language: str) -> None:
        self.language = language
        self.said: list[tuple[str, float]] = []

    def speak(self, text: str, speed: float) -> Iterator[Wave]:
        self.said.append((text, speed))
        for _ in range(3):
            yield np.full(100, 0.1, dtype=np.float32)


MODELS = {
    "en_GB-alan-medium": ScriptedModel("en-gb-x-rp"),
    "en_US-lessac-medium": ScriptedModel("en-us"),
    "es_MX-ald-medium": ScriptedModel("es-419"),
}


def load(path: Path) -> PiperModel:
    return MODELS[path.stem]


@pytest.fixture
def voices() -> PiperVoices:
    files = tuple(Path(f"{name}.onnx") for name in MODELS)
    return PiperVoices(files, load, "1.8")


@pytest.mark.parametrize(
    ("voice", "file"),
    [
        (Voice("en-us"), "en_US-lessac-medium"),
        (Voice("en-au"), "en_GB-alan-medium"),
        (Voice("es"), "es_MX-ald-medium"),
        (Voice("en-us", "en_GB-alan-medium"), "en_GB-alan-medium"),
    ],
)
def test_a_voice_is_found_by_name_or_by_language(
    voices: PiperVoices, voice: Voice, file: str
) -> None:
    assert voices.identify(voice) == file


@pytest.mark.parametrize("voice", [Voice("fr"), Voice("en-us", "nobody")])
def test_a_voice_without_a_file_is_refused(voices: PiperVoices, voice: Voice) -> None:
    with pytest.raises(VoiceUnknown):
        voices.identify(voice)


def test_every_voice_is_warmed_up_by_its_own_name(voices: PiperVoices) -> None:
    assert [voices.identify(voice) for voice in voices.warm_voices()] == list(MODELS)


def test_speed_is_relative_and_phoneme_brackets_are_taken_out(
    voices: PiperVoices,
) -> None:
    waves: list[Wave] = []

    def listen(wave: Wave, rate_hz: int) -> bool:
        waves.append(wave)
        return rate_hz == 8000  # which it is not: stop

    voices.speak("say [[aI]]", Voice("es", speed_wpm=330), listen)
    assert MODELS["es_MX-ald-medium"].said == [("say   aI  ", 2.0)]
    assert len(waves) == 1


@needs_piper
async def test_a_real_voice_file_speaks_through_a_process(tmp_path: Path) -> None:
    write_voice(tmp_path, "en_US-tiny", "en-us")
    write_voice(tmp_path, "es_ES-tiny", "es")
    options = TtsOptions(voice=str(tmp_path), num_workers=1)
    synthesizer = await open_synthesizer(options)
    try:
        chunks = synthesizer.synthesize("6, 7, 8, 9, 10.", Voice())
        wave = wave_from_pcm16(b"".join([chunk async for chunk in chunks]))
        await synthesizer.check_voice(Voice("es"))
        with pytest.raises(VoiceUnknown):
            await synthesizer.check_voice(Voice("fr"))
    finally:
        await synthesizer.aclose()
    assert synthesizer.backend == "piper"
    assert len(wave) > 8000
    # Phonemes differ in loudness and have silence between them in this toy voice.
    assert level_dbfs(wave) == pytest.approx(-20.0, abs=6.0)


@needs_piper
async def test_an_unusable_voice_file_is_named(tmp_path: Path) -> None:
    path = write_voice(tmp_path, "bad", "en-us")
    path.write_bytes(b"no network")
    with pytest.raises(SynthesizerUnavailable, match=r"bad\.onnx"):
        await open_synthesizer(TtsOptions(voice=str(path), num_workers=1))


@needs_piper
async def test_a_voice_file_without_its_settings_is_named(tmp_path: Path) -> None:
    path = write_voice(tmp_path, "bad", "en-us").rename(tmp_path / "lone.onnx")
    with pytest.raises(SynthesizerUnavailable, match=r"lone\.onnx\.json"):
        await open_synthesizer(TtsOptions(voice=str(path), num_workers=1))


async def test_without_the_package_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    path = write_voice(tmp_path, "en_US-tiny", "en-us")
    with pytest.raises(SynthesizerUnavailable, match="pip install piper-tts"):
        await open_synthesizer(TtsOptions(voice=str(path)))


@needs_piper
async def test_a_killed_voice_is_replaced_and_nothing_is_lost(tmp_path: Path) -> None:
    """The process dies in mid-sentence: the text is spoken all the same."""
    path = write_voice(tmp_path, "en_US-tiny", "en-us")
    synthesizer = await open_synthesizer(TtsOptions(voice=str(path), num_workers=1))
    try:
        whole = await _spoken(synthesizer, "6, 7, 8, 9, 10.")
        assert isinstance(synthesizer, FallbackSynthesizer)
        pool = synthesizer._first
        assert isinstance(pool, WorkerPool)
        [worker] = pool._workers
        speaking = asyncio.create_task(_spoken(synthesizer, "6, 7, 8, 9, 10."))
        await asyncio.sleep(0)
        os.kill(worker.pid, signal.SIGKILL)
        assert len(await speaking) > len(whole) // 2
        assert len(await _spoken(synthesizer, "6, 7, 8, 9, 10.")) > len(whole) // 2
    finally:
        await synthesizer.aclose()


async def _spoken(synthesizer: SpeechSynthesizer, text: str) -> bytes:
    return b"".join([chunk async for chunk in synthesizer.synthesize(text, Voice())])
