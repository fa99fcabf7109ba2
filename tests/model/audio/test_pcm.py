from __future__ import annotations

import numpy as np
import pytest

from model.audio.frames import (
    FRAME_BYTES,
    FRAME_MS,
    FRAME_SAMPLES,
    SILENCE_FRAME,
    ms_from_samples,
    samples_from_ms,
)
from model.audio.pcm import (
    level_dbfs,
    levels_dbfs,
    pcm16_from_wave,
    wave_from_pcm16,
)


def test_pcm16_and_wave_are_two_forms_of_the_same_samples() -> None:
    pcm16 = np.arange(-32768, 32768).astype("<i2").tobytes()
    wave = wave_from_pcm16(pcm16)
    assert float(wave.min()) == -1.0
    assert float(wave.max()) < 1.0
    assert pcm16_from_wave(wave) == pcm16


def test_what_is_too_loud_is_clipped_and_what_is_no_number_is_silent() -> None:
    wave = np.array([1.0, 7.0, -7.0, np.inf, -np.inf, np.nan], dtype=np.float32)
    samples = np.frombuffer(pcm16_from_wave(wave), dtype="<i2")
    assert samples.tolist() == [32767, 32767, -32768, 32767, -32768, 0]


def test_half_a_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="buffer size"):
        wave_from_pcm16(b"\x00\x01\x02")


def test_levels_are_against_full_scale() -> None:
    assert level_dbfs(np.zeros(100, dtype=np.float32)) == -120.0
    assert level_dbfs(np.zeros(0, dtype=np.float32)) == -120.0
    assert level_dbfs(np.full(100, 1e-7, dtype=np.float32)) == -120.0
    assert level_dbfs(np.full(100, 0.1, dtype=np.float32)) == pytest.approx(-20.0)


def test_levels_of_rows_are_those_of_each_row_to_the_last_bit() -> None:
    rows = np.random.default_rng(5).standard_normal((33, 256)).astype(np.float32)
    rows *= np.geomspace(1e-7, 0.3, len(rows), dtype=np.float32)[:, np.newaxis]
    assert levels_dbfs(rows) == [level_dbfs(row) for row in rows]


def test_a_frame_is_20_ms_of_telephone_audio() -> None:
    assert samples_from_ms(FRAME_MS) == FRAME_SAMPLES == 160
    assert len(SILENCE_FRAME) == FRAME_BYTES == 320
    assert ms_from_samples(FRAME_SAMPLES + 7) == FRAME_MS
