"""Noise added to log-mels is noise added to the sound."""

from __future__ import annotations

import random

import numpy as np

from model.training.added_noise import add_noise, power_from_log_mel, with_power
from model.training.logmel import log_mel


def _speechlike(rng: np.random.Generator) -> np.ndarray:
    """Two seconds at 16 kHz: a buzz that comes and goes."""
    time_s = np.arange(32_000) / 16_000
    buzz = sum(np.sin(2 * np.pi * 140 * k * time_s) / k for k in range(1, 25))
    loud = np.clip(np.sin(2 * np.pi * 2.5 * time_s), 0, 1)
    hush = rng.standard_normal(32_000) * 1e-3
    return np.asarray(0.1 * buzz * loud + hush, np.float32)


def test_powers_add_up_as_sounds_do() -> None:
    rng = np.random.default_rng(1)
    voice = _speechlike(rng)
    noise = np.asarray(rng.standard_normal(32_000) * 0.03, np.float32)
    heard = log_mel(voice + noise)
    mixed = with_power(log_mel(voice), power_from_log_mel(log_mel(noise)))
    # 0.025 is a decibel. Phases make single bands differ, not their mean.
    assert abs(float((mixed - heard).mean())) < 0.02
    assert float(np.abs(mixed - heard).mean()) < 0.07
    assert float(np.abs(log_mel(voice) - heard).mean()) > 0.3


def test_about_half_of_the_clips_get_noise_of_many_levels() -> None:
    rng = random.Random(3)
    clean = log_mel(_speechlike(np.random.default_rng(2)))
    others = [log_mel(_speechlike(np.random.default_rng(n))) for n in range(3, 6)]
    power = power_from_log_mel(clean).sum(1)
    speech = power[power >= np.median(power)].mean()
    snrs_db = []
    for _ in range(300):
        noisy = clean.copy()
        add_noise(rng, noisy, others)
        if not np.array_equal(noisy, clean):
            added = (power_from_log_mel(noisy).sum(1) - power).mean()
            snrs_db.append(10 * np.log10(speech / max(added, 1e-12)))
    assert 100 < len(snrs_db) < 170
    assert min(snrs_db) < 4
    assert max(snrs_db) > 18
    assert all(1.5 < snr_db < 21 for snr_db in snrs_db)


def test_the_same_seed_gives_the_same_noise() -> None:
    clean = log_mel(_speechlike(np.random.default_rng(2)))

    def noisy(seed: int) -> np.ndarray:
        rng, mel = random.Random(seed), clean.copy()
        for _ in range(4):
            add_noise(rng, mel, [clean])
        return mel

    assert np.array_equal(noisy(5), noisy(5))
    assert not np.array_equal(noisy(5), noisy(6))
