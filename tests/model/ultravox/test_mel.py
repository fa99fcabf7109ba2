"""Log-mel features against transformers' own extractor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor

from model.ultravox.mel import LogMel


def _clip(num_samples: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time_s = np.arange(num_samples) / 16_000
    tone = 0.3 * np.sin(2 * np.pi * (200 + 300 * time_s) * time_s)
    return (tone + 0.05 * rng.standard_normal(num_samples)).astype(np.float32)


def _whisper_mel(wave: np.ndarray, num_mel_bins: int) -> np.ndarray:
    extractor = WhisperFeatureExtractor(feature_size=num_mel_bins)  # type: ignore[no-untyped-call]
    padded = wave if len(wave) >= 320 else np.pad(wave, (0, 320 - len(wave)))
    features = extractor(
        padded,
        sampling_rate=16_000,
        padding="longest",
        pad_to_multiple_of=160,
        truncation=False,
        return_tensors="np",
    )
    return np.asarray(features["input_features"][0])


@pytest.mark.parametrize("num_mel_bins", [80, 128])
@pytest.mark.parametrize("num_samples", [1, 320, 16_000, 20_801, 31 * 16_000])
def test_equals_whispers_extractor(num_mel_bins: int, num_samples: int) -> None:
    wave = _clip(num_samples, seed=num_samples)
    mel, num_frames = LogMel(num_mel_bins)([torch.from_numpy(wave)])
    expected = _whisper_mel(wave, num_mel_bins)
    assert num_frames.tolist() == [expected.shape[1]]
    np.testing.assert_allclose(mel[0].numpy(), expected, atol=1e-5)


def test_each_clip_of_a_batch_is_as_if_alone() -> None:
    log_mel = LogMel(80)
    waves = [
        torch.from_numpy(_clip(n, seed=n) * gain)
        for n, gain in ((40_000, 1.0), (5_000, 0.01), (321, 0.3))
    ]
    mel, num_frames = log_mel(waves)
    for row, wave, count in zip(mel, waves, num_frames.tolist(), strict=True):
        alone, _ = log_mel([wave])
        torch.testing.assert_close(row[:, :count], alone[0], atol=1e-5, rtol=0)
        assert not row[:, count:].any()


def test_the_loudest_bin_is_the_whole_clips_not_a_pieces() -> None:
    loud_then_quiet = np.concatenate([_clip(480_000, 1), 1e-4 * _clip(16_000, 2)])
    mel, _ = LogMel(80)([torch.from_numpy(loud_then_quiet)])
    quiet_alone, _ = LogMel(80)([torch.from_numpy(loud_then_quiet[480_000:])])
    assert (mel[0, :, 3000:] - quiet_alone[0]).abs().max() > 0.1
