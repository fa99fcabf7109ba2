"""Trimming, levelling and limiting of synthesised speech."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.audio.pcm import Wave, level_dbfs, wave_from_pcm16
from model.tts.shaping import ShapingOptions, SpeechShaper, gain_for

RATE_HZ = 16_000
OPTIONS = ShapingOptions()


def tone(duration_ms: int, peak: float = 0.14) -> Wave:
    at = np.arange(duration_ms * RATE_HZ // 1000) / RATE_HZ
    return (peak * np.sin(2 * np.pi * 400 * at)).astype(np.float32)


def silence(duration_ms: int) -> Wave:
    return np.zeros(duration_ms * RATE_HZ // 1000, dtype=np.float32)


def shaped(*chunks: Wave, to_hz: int = RATE_HZ, gain: float = 1.0) -> Wave:
    shaper = SpeechShaper(RATE_HZ, to_hz, gain, OPTIONS)
    pcm16 = b"".join([shaper.feed(chunk) for chunk in chunks])
    return wave_from_pcm16(pcm16 + shaper.flush())


def milliseconds(wave: Wave, rate_hz: int = RATE_HZ) -> float:
    return len(wave) * 1000 / rate_hz


def test_silence_around_speech_is_cut_to_fixed_values() -> None:
    wave = shaped(silence(500), tone(1000), silence(700))
    assert milliseconds(wave) == OPTIONS.lead_ms + 1000 + OPTIONS.tail_ms


def test_short_edges_are_not_lengthened_beyond_what_was_there() -> None:
    assert milliseconds(shaped(tone(1000))) == 1000


def test_pauses_inside_speech_stay() -> None:
    wave = shaped(tone(300), silence(400), tone(300))
    assert milliseconds(wave) == 1000
    assert not wave[RATE_HZ * 310 // 1000 : RATE_HZ * 690 // 1000].any()


def test_silence_alone_gives_nothing() -> None:
    assert len(shaped(silence(800))) == 0
    assert len(shaped()) == 0


def test_speech_begins_and_ends_without_a_click() -> None:
    hum = silence(1000) + np.float32(0.003)  # under the threshold, far from zero
    wave = shaped(hum, tone(500), hum)
    assert wave[0] == 0.0
    assert abs(float(wave[-1])) < 0.0005


@settings(deadline=None)
@given(st.lists(st.integers(0, RATE_HZ), max_size=12))
def test_output_does_not_depend_on_how_the_input_was_cut(cuts: list[int]) -> None:
    wave = np.concatenate(
        (silence(120), tone(300), silence(205), tone(256), silence(99))
    )
    edges = [0, *sorted(cuts), len(wave)]
    chunks = [wave[a:b] for a, b in pairwise(edges)]
    assert np.array_equal(shaped(*chunks), shaped(wave))


def test_gain_brings_active_speech_to_the_target_whatever_the_pauses() -> None:
    for peak in (0.02, 0.14, 0.9):
        wave = np.concatenate((tone(600, peak), silence(900), tone(500, peak)))
        gain = gain_for(wave, RATE_HZ, -20.0)
        assert level_dbfs(tone(600, peak) * np.float32(gain)) == pytest.approx(
            -20, abs=0.1
        )


def test_gain_of_silence_is_one() -> None:
    assert gain_for(silence(500), RATE_HZ, -20.0) == 1.0
    assert gain_for(silence(0), RATE_HZ, -20.0) == 1.0


def test_gain_of_a_whisper_is_bounded() -> None:
    assert gain_for(tone(500, 0.0001), RATE_HZ, -20.0) < 17


def test_loud_peaks_are_bent_not_clipped() -> None:
    wave = shaped(tone(500, 0.9), gain=1.2)
    assert 0.8 < np.abs(wave).max() <= 0.9
    assert np.count_nonzero(np.abs(wave) == np.abs(wave).max()) < len(wave) // 4


def test_ordinary_peaks_pass_unchanged() -> None:
    inner = slice(RATE_HZ // 10, RATE_HZ // 5)
    assert np.abs(shaped(tone(500, 0.5))[inner] - tone(500, 0.5)[inner]).max() < 1e-4


def test_resampling_keeps_the_duration() -> None:
    wave = shaped(tone(1000), to_hz=8000)
    assert milliseconds(wave, 8000) == pytest.approx(1000, abs=2)
    assert np.abs(wave).max() < 0.16
