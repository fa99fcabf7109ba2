"""Whisper's log-mel in numpy, for making data in processes without torch.

Same numbers as the model's own `LogMel` (a test compares them).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import scipy.fft

if TYPE_CHECKING:
    from model.training.aligned import Wave

NUM_MELS = 80
HOP = 160
_FFT = 400


def log_mel(wave: Wave) -> npt.NDArray[np.float32]:
    """16 kHz wave (n,) -> (ceil(n / 160), 80), at least two frames."""
    num_samples = max(-(-len(wave) // HOP) * HOP, 2 * HOP)
    padded = np.zeros(num_samples, np.float32)
    padded[: len(wave)] = wave
    padded = np.pad(padded, _FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[::HOP][:-1]
    spectrum = scipy.fft.rfft(frames * _window(), axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    mel = np.log10(np.maximum(power @ _filters(), 1e-10))
    mel = np.maximum(mel, mel.max() - 8.0)
    return cast("npt.NDArray[np.float32]", ((mel + 4.0) / 4.0).astype(np.float32))


@functools.cache
def _window() -> npt.NDArray[np.float32]:
    periodic = np.hanning(_FFT + 1)[:-1]
    return cast("npt.NDArray[np.float32]", periodic.astype(np.float32))


@functools.cache
def _filters() -> npt.NDArray[np.float32]:
    """(201, 80): slaney's mel filters, area normalised."""
    bins = np.linspace(0, 8000, _FFT // 2 + 1)
    edges = _mel_to_hz(np.linspace(_hz_to_mel(0.0), _hz_to_mel(8000.0), NUM_MELS + 2))
    width = np.diff(edges)
    slopes = edges[None, :] - bins[:, None]
    down = -slopes[:, :-2] / width[:-1]
    up = slopes[:, 2:] / width[1:]
    filters = np.maximum(0, np.minimum(down, up))
    filters *= (2.0 / (edges[2:] - edges[:-2]))[None, :]
    return cast("npt.NDArray[np.float32]", filters.astype(np.float32))


def _hz_to_mel(hz: float) -> float:
    return hz * 3 / 200 if hz < 1000 else 15 + np.log(hz / 1000) * 27 / np.log(6.4)


def _mel_to_hz(mel: npt.NDArray[Any]) -> npt.NDArray[Any]:
    high = 1000 * np.exp(np.log(6.4) / 27 * (mel - 15))
    return np.where(mel < 15, mel * 200 / 3, high)
