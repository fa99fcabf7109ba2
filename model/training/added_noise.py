"""New noise on log-mels that are made already.

A stored clip has the one noise that its line had. In the power domain noise adds up, so
each time a clip is used it gets other noise, at the price of a few array operations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    import numpy.typing as npt

_NOISY_SHARE = 0.45
_VOICES_SHARE = 0.3  # of the noisy ones
_LOWEST_SNR_DB, _HIGHEST_SNR_DB = 2.0, 20.0
_FEWEST_BANDS, _MOST_BANDS = 54, 62  # of hiss on a telephone: to 3 or 4 kHz
_LEAST_TILT, _MOST_TILT = -1.5, 0.5  # powers of ten over the bands: pink to bright
_MOST_VOICES = 3
_RANGE = 8.0  # Whisper's: what is softer by so many powers of ten is cut off


def add_noise(
    rng: random.Random,
    mel: npt.NDArray[Any],
    others: Sequence[npt.NDArray[Any]],
) -> None:
    """Put noise on some of the clips: log-mel (F, 80), in place.

    Hiss of some colour, or voices behind the caller: other clips, any of `others`.
    """
    if rng.random() > _NOISY_SHARE:
        return
    if others and rng.random() < _VOICES_SHARE:
        noise = _voices(rng, len(mel), others)
    else:
        noise = _hiss(rng, len(mel))
    by_frame = power_from_log_mel(mel).sum(1)
    # The louder half is speech, the rest pauses.
    speech = float(by_frame[by_frame >= np.median(by_frame)].mean())
    snr_db = rng.uniform(_LOWEST_SNR_DB, _HIGHEST_SNR_DB)
    wanted = speech * 10.0 ** (-snr_db / 10.0)
    noise *= wanted / max(float(noise.sum(1).mean()), 1e-20)
    mel[:] = with_power(mel, noise)


def power_from_log_mel(mel: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Whisper's log-mel (F, 80) -> power."""
    return np.asarray(10.0 ** (4.0 * np.asarray(mel, np.float32) - 4.0))


def with_power(mel: npt.NDArray[Any], added: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Log-mel (F, 80) of the sum of both powers."""
    log_mel = np.log10(np.maximum(power_from_log_mel(mel) + added, 1e-10))
    cut = np.maximum(log_mel, log_mel.max() - _RANGE)
    return np.asarray((cut + 4.0) / 4.0, np.float32)


def _hiss(rng: random.Random, num_frames: int) -> npt.NDArray[Any]:
    bands = rng.randint(_FEWEST_BANDS, _MOST_BANDS)
    tilt = 10.0 ** (rng.uniform(_LEAST_TILT, _MOST_TILT) * np.arange(bands) / bands)
    drawn = np.random.default_rng(rng.getrandbits(32))
    # A Gaussian noise's power, and neighbouring frames share most of their samples.
    rough = drawn.standard_exponential((num_frames + 2, bands), np.float32)
    noise = np.zeros((num_frames, 80), np.float32)
    noise[:, :bands] = (rough[:-2] + 2 * rough[1:-1] + rough[2:]) / 4 * tilt
    return noise


def _voices(
    rng: random.Random, num_frames: int, others: Sequence[npt.NDArray[Any]]
) -> npt.NDArray[Any]:
    noise = np.zeros((num_frames, 80), np.float32)
    for _ in range(rng.randint(1, _MOST_VOICES)):
        other = power_from_log_mel(rng.choice(others))
        noise += np.resize(np.roll(other, rng.randrange(len(other)), 0), noise.shape)
    return noise
