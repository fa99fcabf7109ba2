from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.audio.pcm import Wave
from model.audio.resample import StreamResampler, Upsampler, resample


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


def amplitude_db(wave: Wave, rate_hz: int, frequency_hz: float) -> float:
    """Level of one tone, by correlation over whole periods under a flat-top window."""
    window = np.blackman(wave.size)
    phase = np.exp(-2j * np.pi * frequency_hz * np.arange(wave.size) / rate_hz)
    return float(20 * np.log10(2 * abs(np.sum(wave * window * phase)) / window.sum()))


@given(st.lists(st.integers(0, 400), min_size=1, max_size=8).filter(any))
def test_upsampling_gives_the_same_bits_however_the_input_is_cut(
    sizes: list[int],
) -> None:
    wave = noise(1600)
    whole = Upsampler().feed(wave)
    upsampler = Upsampler()
    pieces = np.concatenate([upsampler.feed(chunk) for chunk in cut(wave, sizes)])
    assert pieces.tobytes() == whole.tobytes()


def test_upsampling_sample_by_sample_gives_two_samples_each_time() -> None:
    wave = noise(500)
    upsampler = Upsampler()
    pieces = [upsampler.feed(wave[i : i + 1]) for i in range(wave.size)]
    assert all(piece.size == 2 for piece in pieces)
    assert np.concatenate(pieces).tobytes() == Upsampler().feed(wave).tobytes()


@pytest.mark.parametrize("frequency_hz", [300, 1000, 2000, 3000, 3400])
def test_upsampling_keeps_the_telephone_band_and_suppresses_its_image(
    frequency_hz: int,
) -> None:
    doubled = Upsampler().feed(tone(frequency_hz, 8000, 8000))[200:]
    assert abs(amplitude_db(doubled, 16000, frequency_hz)) < 0.01
    assert amplitude_db(doubled, 16000, 8000 - frequency_hz) < -70


def test_upsampling_is_late_by_31_samples_of_its_output() -> None:
    click = np.zeros(100, dtype=np.float32)
    click[10] = 1.0
    doubled = Upsampler().feed(click)
    assert int(np.argmax(doubled)) == 2 * 10 + 31
    assert np.array_equal(doubled[: 2 * 10], np.zeros(20, dtype=np.float32))


def test_two_upsamplers_do_not_hear_each_other() -> None:
    first, second = Upsampler(), Upsampler()
    ours, theirs = noise(800, seed=1), noise(800, seed=2)
    heard = []
    for start in range(0, 800, 160):
        heard.append(first.feed(ours[start : start + 160]))
        second.feed(theirs[start : start + 160])
    assert np.concatenate(heard).tobytes() == Upsampler().feed(ours).tobytes()


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
