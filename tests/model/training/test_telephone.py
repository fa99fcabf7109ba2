"""The line: band, level, length, and one line for one seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.audio.pcm import Wave
from model.training import telephone
from model.training.logmel import log_mel
from model.ultravox.mel import LogMel

RNG = np.random.default_rng(1)


def _tone(hz: float, seconds: float = 1.0, rate_hz: int = 22_050) -> Wave:
    t = np.arange(int(seconds * rate_hz)) / rate_hz
    return np.sin(2 * np.pi * hz * t).astype(np.float32)


def _power_at(wave: Wave, hz: float, rate_hz: int) -> float:
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 2
    at = round(hz * len(wave) / rate_hz)
    return float(spectrum[at - 3 : at + 4].sum())


def test_speech_band_passes_and_the_rest_does_not() -> None:
    mixed = _tone(100) + _tone(1000) + _tone(3900)
    wave = telephone.to_line_rate(mixed, 22_050, telephone.clean_line())
    inside = _power_at(wave, 1000, 8000)
    assert _power_at(wave, 100, 8000) < 0.05 * inside
    assert _power_at(wave, 3900, 8000) < 0.05 * inside
    assert np.abs(wave).max() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("speed", [0.9, 1.0, 1.1])
def test_speed_changes_length_and_pitch_together(speed: float) -> None:
    line = telephone.clean_line()
    wave = telephone.to_line_rate(_tone(1000), 22_050, line, speed)
    assert len(wave) == pytest.approx(8000 / speed, abs=2)
    at = np.abs(np.fft.rfft(wave)).argmax() * 8000 / len(wave)
    assert at == pytest.approx(1000 * speed, abs=5)


def test_the_model_hears_16_khz_with_the_silence_around() -> None:
    speech = telephone.to_line_rate(_tone(1000), 22_050, telephone.clean_line())
    line = telephone.clean_line()
    wave = telephone.over_the_line(RNG, speech, line, lead_s=0.25, trail_s=0.5)
    assert len(wave) == 2 * (2000 + len(speech) + 4000)
    assert np.abs(wave[:3500]).max() < 0.02
    assert np.abs(wave).max() == pytest.approx(10 ** (-9 / 20), rel=0.1)
    assert _power_at(wave[8000:20_000], 1000, 16_000) > 0


def test_noise_has_the_level_asked_for() -> None:
    speech = telephone.to_line_rate(_tone(1000), 22_050, telephone.clean_line())
    for snr_db in (20.0, 10.0):
        line = telephone.clean_line(snr_db)
        wave = telephone.over_the_line(
            np.random.default_rng(2), speech, line, lead_s=1.0, trail_s=0.0
        )
        noise = np.sqrt(np.mean(wave[:15_000] ** 2))
        tone = np.sqrt(np.mean(wave[17_000:31_000] ** 2))
        assert 20 * np.log10(tone / noise) == pytest.approx(snr_db, abs=1.5)


def test_one_seed_is_one_line() -> None:
    def send(seed: int) -> Wave:
        rng = np.random.default_rng(seed)
        line = telephone.draw_line(rng)
        speech = telephone.to_line_rate(_tone(700), 22_050, line)
        babble = [_tone(300, rate_hz=8000)]
        return telephone.over_the_line(
            rng, speech, line, lead_s=0.1, trail_s=0.1, babble=babble
        )

    assert np.array_equal(send(3), send(3))
    assert not np.array_equal(send(3)[:1000], send(4)[:1000])


@pytest.mark.parametrize("is_alaw", [False, True])
def test_the_codec_is_close_and_coarse(is_alaw: bool) -> None:
    tone = 0.5 * _tone(440, rate_hz=8000)
    coded = telephone.through_codec(tone, is_alaw=is_alaw)
    assert np.abs(coded - tone).max() < 0.03
    assert len(np.unique(coded)) <= 256


@pytest.mark.parametrize("num_samples", [100, 320, 4000, 16_001])
def test_log_mel_is_the_models_own(num_samples: int) -> None:
    wave = np.random.default_rng(3).normal(0, 0.1, num_samples).astype(np.float32)
    theirs, frames = LogMel(80)([torch.from_numpy(wave)])
    ours = log_mel(wave)
    assert len(ours) == int(frames[0])
    assert np.abs(theirs[0].numpy().T - ours).max() < 1e-4
