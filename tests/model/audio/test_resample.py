from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.audio.pcm import Wave
from model.audio.resample import (
    UPSAMPLER_HISTORY,
    StreamResampler,
    resample,
    upsampled,
)


def noise(num_samples: int, seed: int = 1) -> Wave:
    rng = np.random.default_rng(seed)
    return (0.2 * rng.standard_normal(num_samples)).astype(np.float32)


def tone(frequency_hz: float, rate_hz: int, num_samples: int) -> Wave:
    at_s = np.arange(num_samples) / rate_hz
    return np.sin(2 * np.pi * frequency_hz * at_s).astype(np.float32)


def cut(wave: Wave, sizes: list[int]) -> list[Wave]:
    chunks = []
    start = 0
    while start < wave.size:
        for size in sizes:
            chunks.append(wave[start : start + size])
            start += size
    return chunks


SILENCE = np.zeros(0, dtype=np.float32)


def double(before: Wave, wave: Wave) -> Wave:
    """The wave at 16 kHz, after this and the silence in front of it."""
    quiet = np.zeros(UPSAMPLER_HISTORY, dtype=np.float32)
    known = np.concatenate((quiet, before))[-UPSAMPLER_HISTORY:]
    doubled: Wave = upsampled(np.concatenate((known, wave))[np.newaxis])[0]
    return doubled


def amplitude_db(wave: Wave, rate_hz: int, frequency_hz: float) -> float:
    """Level of one tone, by correlation over whole periods under a flat-top window."""
    window = np.blackman(wave.size)
    phase = np.exp(-2j * np.pi * frequency_hz * np.arange(wave.size) / rate_hz)
    return float(20 * np.log10(2 * abs(np.sum(wave * window * phase)) / window.sum()))


@given(st.lists(st.integers(1, 400), min_size=1, max_size=8))
def test_upsampling_gives_the_same_bits_however_the_input_is_cut(
    sizes: list[int],
) -> None:
    wave = noise(1600)
    pieces, at = [], 0
    for chunk in filter(len, cut(wave, sizes)):
        pieces.append(double(wave[:at], chunk))
        at += chunk.size
    assert np.concatenate(pieces).tobytes() == double(SILENCE, wave).tobytes()


@pytest.mark.parametrize("frequency_hz", [300, 1000, 2000, 3000, 3400])
def test_upsampling_keeps_the_telephone_band_and_suppresses_its_image(
    frequency_hz: int,
) -> None:
    doubled = double(SILENCE, tone(frequency_hz, 8000, 8000))[200:]
    assert abs(amplitude_db(doubled, 16000, frequency_hz)) < 0.01
    assert amplitude_db(doubled, 16000, 8000 - frequency_hz) < -70


def test_upsampling_is_late_by_31_samples_of_its_output() -> None:
    click = np.zeros(100, dtype=np.float32)
    click[10] = 1.0
    doubled = double(SILENCE, click)
    assert int(np.argmax(doubled)) == 2 * 10 + 31
    assert np.array_equal(doubled[: 2 * 10], np.zeros(20, dtype=np.float32))


def test_callers_doubled_together_get_the_bits_that_each_gets_alone() -> None:
    callers = np.array([noise(800, seed) for seed in range(5)])
    alone = [upsampled(caller[np.newaxis]).tobytes() for caller in callers]
    assert [doubled.tobytes() for doubled in upsampled(callers)] == alone


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=6))
def test_a_stream_resampled_in_chunks_equals_it_resampled_whole(
    sizes: list[int],
) -> None:
    wave = noise(6000)
    stream = StreamResampler(22_050, 8000)
    pieces = [stream.feed(chunk) for chunk in cut(wave, sizes)]
    pieces.append(stream.flush())
    np.testing.assert_allclose(
        np.concatenate(pieces), resample(wave, 22_050, 8000), atol=1e-6
    )


@pytest.mark.parametrize("from_hz", [8000, 11_025, 22_050, 24_000, 44_100, 48_000])
def test_no_time_is_lost_by_resampling(from_hz: int) -> None:
    wave = noise(from_hz)
    stream = StreamResampler(from_hz, 8000)
    streamed = stream.feed(wave).size + stream.flush().size
    assert streamed == resample(wave, from_hz, 8000).size
    assert abs(streamed - 8000) <= 1


def test_what_the_telephone_cannot_carry_does_not_fold_into_the_band() -> None:
    wave = tone(5000, 22_050, 22_050)
    narrow = resample(wave, 22_050, 8000)[400:-400]
    assert amplitude_db(narrow, 8000, 3000) < -90


def test_an_empty_stream_flushes_nothing() -> None:
    assert StreamResampler(22_050, 8000).flush().size == 0
    assert StreamResampler(8000, 8000).flush().size == 0
