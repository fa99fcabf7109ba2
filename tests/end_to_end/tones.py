"""Tells a steady tone from speech and noise: the lab marks its places with tones."""

from __future__ import annotations

from typing import Final

import numpy as np

from model.audio.frames import RATE_HZ, SAMPLE_BYTES
from tools.caller.sound import rms

# Nearly all energy in one place, for this long: no voice does that.
_WINDOW_SAMPLES: Final = 1600  # 200 ms: bins of 5 Hz
_PURITY: Final = 0.9
_MIN_RMS: Final = 200.0
_LOOK_EVERY: Final = 5  # packets: 100 ms is often enough


class ToneFinder:
    """Takes audio as it comes; says when a tone has begun."""

    def __init__(self) -> None:
        self._pcm16 = b""
        self._num_packets = 0
        self._hz = 0

    def hear(self, pcm16: bytes) -> int | None:
        """More audio; the frequency of a tone that has newly begun."""
        self._pcm16 = (self._pcm16 + pcm16)[-_WINDOW_SAMPLES * SAMPLE_BYTES :]
        self._num_packets += 1
        if self._num_packets % _LOOK_EVERY:
            return None
        before, self._hz = self._hz, dominant_hz(self._pcm16)
        return self._hz if self._hz and self._hz != before else None


def dominant_hz(pcm16: bytes) -> int:
    """Frequency of a tone in 200 ms of audio; 0 for anything else, and for less."""
    if len(pcm16) < _WINDOW_SAMPLES * SAMPLE_BYTES or rms(pcm16) < _MIN_RMS:
        return 0
    samples = np.frombuffer(pcm16, dtype="<i2").astype(np.float64)
    windowed = samples[-_WINDOW_SAMPLES:] * np.hanning(_WINDOW_SAMPLES)
    power = np.abs(np.fft.rfft(windowed)) ** 2
    peak = int(power.argmax())
    near = power[max(0, peak - 2) : peak + 3].sum()
    if near < _PURITY * power.sum():
        return 0
    return round(peak * RATE_HZ / _WINDOW_SAMPLES)
