"""Which synthesiser and which voice the options mean."""

from __future__ import annotations

import pytest

from model.tts.errors import SynthesizerUnavailable, VoiceUnknown
from model.tts.open import (
    TtsOptions,
    chosen_backend,
    default_voice,
    open_synthesizer,
    voice_for,
)
from model.tts.voice import Voice


@pytest.mark.parametrize(
    ("options", "backend"),
    [
        (TtsOptions(), "espeak"),
        (TtsOptions(voice="en-us+f3"), "espeak"),
        (TtsOptions(voice="/voices/en_US-lessac-medium.onnx"), "piper"),
        (TtsOptions(voice="voices/"), "piper"),
        (TtsOptions(backend="espeak", voice="en"), "espeak"),
        (TtsOptions(backend="openai", url="http://tts"), "openai"),
    ],
)
def test_auto_takes_piper_when_a_voice_file_is_given(
    options: TtsOptions, backend: str
) -> None:
    assert chosen_backend(options) == backend


@pytest.mark.parametrize(
    ("voice", "name"),
    [
        ("", ""),
        ("en-us+f3", "en-us+f3"),
        ("/voices/en_US-lessac-medium.onnx", "en_US-lessac-medium"),
        ("/voices/", ""),
    ],
)
def test_the_default_voice(voice: str, name: str) -> None:
    options = TtsOptions(voice=voice, language="EN-US", speed_wpm=180)
    assert default_voice(options) == Voice("en-us", name, 180)


def test_a_campaign_in_another_language_does_not_get_the_default_voice() -> None:
    options = TtsOptions(voice="en-us+f3")
    assert voice_for(options, language="es-419") == Voice("es-419")
    assert voice_for(options, language="en-gb") == Voice("en-gb", "en-us+f3")
    assert voice_for(options, name="en-us+m2") == Voice("en-us", "en-us+m2")


async def test_espeak_opens_ready() -> None:
    synthesizer = await open_synthesizer(TtsOptions(num_workers=1))
    try:
        assert synthesizer.status().num_workers == 1
        assert synthesizer.status().version.startswith("espeak-ng 1.")
    finally:
        await synthesizer.aclose()


async def test_a_default_voice_that_does_not_exist_is_said_at_the_start() -> None:
    with pytest.raises(VoiceUnknown, match="xx"):
        await open_synthesizer(TtsOptions(language="xx", num_workers=1))


@pytest.mark.parametrize(
    "options",
    [TtsOptions(backend="openai"), TtsOptions(backend="piper")],
    ids=["server", "voice file"],
)
async def test_what_is_missing_is_said_at_the_start(options: TtsOptions) -> None:
    with pytest.raises(SynthesizerUnavailable):
        await open_synthesizer(options)
