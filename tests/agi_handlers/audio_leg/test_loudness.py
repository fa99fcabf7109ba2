"""Lower within a frame, without a click, and back."""

from __future__ import annotations

import numpy as np

from agi_handlers.audio_leg.loudness import Loudness
from model.audio.pcm import level_dbfs, pcm16_from_wave, wave_from_pcm16

AT = np.arange(160) / 8000
TONE = pcm16_from_wave((0.5 * np.sin(2 * np.pi * 500 * AT)).astype(np.float32))


def level_db(frame: bytes) -> float:
    return level_dbfs(wave_from_pcm16(frame)) - level_dbfs(wave_from_pcm16(TONE))


def test_full_voice_is_the_frame_itself() -> None:
    assert Loudness().apply(TONE) is TONE


def test_it_is_15_db_softer_from_the_second_frame_on_and_comes_back() -> None:
    loudness = Loudness()
    loudness.lower(is_lowered=True)
    heard = [loudness.apply(TONE) for _ in range(3)]
    assert level_db(heard[0]) < -3
    assert abs(level_db(heard[1]) + 15) < 0.1
    assert abs(level_db(heard[2]) + 15) < 0.1
    loudness.lower(is_lowered=False)
    assert -15 < level_db(loudness.apply(TONE)) < 0
    assert loudness.apply(TONE) is TONE


def test_nothing_clicks() -> None:
    loudness = Loudness()
    steady = pcm16_from_wave(np.full(160, 0.5, dtype=np.float32))
    frames = [loudness.apply(steady)]
    for is_lowered in (True, False):
        loudness.lower(is_lowered=is_lowered)
        frames += [loudness.apply(steady), loudness.apply(steady)]
    steps = np.diff(wave_from_pcm16(b"".join(frames)))
    assert float(abs(steps).max()) < 0.01


def test_what_comes_after_silence_begins_at_full_voice() -> None:
    loudness = Loudness()
    loudness.lower(is_lowered=True)
    loudness.apply(TONE)
    loudness.reset()
    assert loudness.apply(TONE) is TONE


def test_a_short_frame_and_an_empty_one() -> None:
    loudness = Loudness()
    loudness.lower(is_lowered=True)
    assert loudness.apply(b"") == b""
    assert len(loudness.apply(TONE[:10])) == 10
