"""pcm16 bytes to float waves and back.

`pcm16` is little-endian int16; a wave is float32 in [-1, 1), shape (n_samples,); waves
are several of one length, shape (rows, n_samples).
"""

from __future__ import annotations

import math
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Wave: TypeAlias = NDArray[np.float32]
Waves: TypeAlias = NDArray[np.float32]

FULL_SCALE: Final = 32768.0
# What level_dbfs says of digital silence, where the logarithm has no answer; one
# least significant bit is -90 dBFS, so nothing audible is this low.
SILENCE_DBFS: Final = -120.0
_SILENCE_POWER: Final = 10.0 ** (SILENCE_DBFS / 10.0)


def wave_from_pcm16(pcm16: bytes | bytearray | memoryview) -> Wave:
    """Samples as float32, exactly value / 32768.

    Raises:
        ValueError: an odd number of bytes; a sample was cut in two on the way.
    """
    wave = np.frombuffer(pcm16, dtype="<i2").astype(np.float32)
    wave *= np.float32(1.0 / FULL_SCALE)
    return wave


def pcm16_from_wave(wave: Wave) -> bytes:
    """Nearest int16 of each sample; what is louder than full scale is clipped.

    A sample that isn't a number becomes silence: on a telephone it would
    otherwise be a full-scale click.
    """
    scaled = np.nan_to_num(wave * np.float32(FULL_SCALE), nan=0.0)
    clipped = np.clip(np.rint(scaled), -32768.0, 32767.0)
    return bytes(clipped.astype("<i2").data)


def level_dbfs(wave: Wave) -> float:
    """Level (RMS) of a wave against full scale; an empty wave is silence."""
    if wave.size == 0:
        return SILENCE_DBFS
    return _dbfs(float(np.dot(wave, wave)) / wave.size)


def levels_dbfs(waves: Waves) -> list[float]:
    """The same of each row, to the last bit."""
    sums: list[float] = np.vecdot(waves, waves).tolist()
    return [_dbfs(power_sum / waves.shape[1]) for power_sum in sums]


def _dbfs(power: float) -> float:
    if power <= _SILENCE_POWER:
        return SILENCE_DBFS
    return 10.0 * math.log10(power)
