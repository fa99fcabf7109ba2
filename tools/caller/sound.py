"""Loudness of pcm16: where a recording has voice in it, to a few milliseconds."""

from __future__ import annotations

from typing import Final

import numpy as np

from model.audio.frames import RATE_HZ

# Loudness is judged in blocks of 5 ms: finer than a frame, coarser than a pitch period.
BLOCK_SAMPLES: Final = 40


def rms(pcm16: bytes) -> float:
    """Loudness, 0 to 32768; 0 for nothing."""
    if len(pcm16) < 2:
        return 0.0
    samples = np.frombuffer(pcm16, dtype="<i2").astype(np.float32)
    return float(np.sqrt(np.mean(samples * samples)))


def voiced_span(pcm16: bytes, threshold_rms: float) -> tuple[int, int] | None:
    """First and one-past-last sample louder than that, in blocks; None if none is."""
    samples = np.frombuffer(pcm16, dtype="<i2").astype(np.float32)
    num_samples = samples.size
    padding = -num_samples % BLOCK_SAMPLES
    if padding:
        samples = np.concatenate([samples, np.zeros(padding, dtype=np.float32)])
    blocks = samples.reshape(-1, BLOCK_SAMPLES)  # (n_blocks, 40)
    loud = np.flatnonzero(np.mean(blocks * blocks, axis=1) > threshold_rms**2)
    if loud.size == 0:
        return None
    end = min(int(loud[-1] + 1) * BLOCK_SAMPLES, num_samples)
    return int(loud[0]) * BLOCK_SAMPLES, end


def samples_from_s(duration_s: float) -> int:
    return round(duration_s * RATE_HZ)
