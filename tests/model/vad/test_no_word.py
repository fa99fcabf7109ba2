"""A cough is no word; a word is no cough."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from model.audio.frames import RATE_HZ
from model.audio.pcm import Wave, pcm16_from_wave
from model.vad.no_word import is_no_word
from tests.model.vad.test_echo import voice


def cough(seed: int, duration_s: float = 0.25) -> Wave:
    """A burst of breath that dies away."""
    num_samples = int(duration_s * RATE_HZ)
    noise = np.random.default_rng(seed).standard_normal(num_samples)
    breath = signal.lfilter([1], [1, -0.7], noise)
    dying = np.exp(-4 * np.arange(num_samples) / num_samples)
    return np.asarray(0.1 * breath * dying, dtype=np.float32)


def between_silence(wave: Wave) -> bytes:
    noise = np.random.default_rng(1).standard_normal(wave.size + 2400) * 3e-4
    noise[1600 : 1600 + wave.size] += wave
    return pcm16_from_wave(noise.astype(np.float32))


@pytest.mark.parametrize("seed", range(5))
def test_a_cough_has_no_pitch(seed: int) -> None:
    assert is_no_word(between_silence(cough(seed)), 250)


@pytest.mark.parametrize("seed", range(5))
def test_a_short_word_is_one(seed: int) -> None:
    assert not is_no_word(between_silence(voice(seed, 0.4)), 400)


def test_what_is_said_under_the_breath_is_not_meant() -> None:
    word = between_silence(voice(1, 0.4))
    assert is_no_word(word, 400, softer_db=10.0)
    assert not is_no_word(word, 400, softer_db=5.0)


def test_a_click_is_no_word_and_a_long_noise_is_not_judged() -> None:
    assert is_no_word(between_silence(cough(1, 0.06)), 60)
    assert not is_no_word(between_silence(cough(1, 1.5)), 1500)


def test_nothing_at_all_is_no_word() -> None:
    assert is_no_word(b"", 300)
    assert is_no_word(bytes(20), 300)
