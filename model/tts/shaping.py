"""Synthesised speech -> what goes on the line: trimmed, levelled, limited, resampled.

Streaming, in blocks of 10 ms, so the output does not depend on how the input was cut.
The gain is one constant per voice: loudness never pumps within or between sentences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from model.audio.pcm import Wave, pcm16_from_wave
from model.audio.resample import StreamResampler

_BLOCKS_PER_S: Final = 100
# Blocks this far under the loudest one are pauses, not speech (as in ITU-T P.56, whose
# margin for active speech is 15.9 dB under the level and so about 30 under the peak).
_ACTIVE_RANGE_DB: Final = 30.0
_MAX_GAIN_DB: Final = 24.0
# Telephone lines add noise at -50 dBFS and louder: under it an edge is silence.
_SILENCE_DBFS: Final = -45.0
_FADE_S: Final = 0.004  # keeps a cut edge from clicking
_KNEE: Final = 0.6  # the limiter leaves smaller samples as they are
_CEILING: Final = 0.9  # -0.9 dBFS; resampling may overshoot by a few tenths of a dB


@dataclass(frozen=True, slots=True)
class ShapingOptions:
    target_dbfs: float = -20.0
    """Level of active speech.  Louder would need the limiter more often."""
    lead_ms: int = 20
    """Silence kept before the first sound: soft consonants are under the threshold."""
    tail_ms: int = 60
    """Silence kept after the last sound; the speaker adds pauses between sentences."""


def gain_for(wave: Wave, rate_hz: int, target_dbfs: float) -> float:
    """The factor that brings the active speech in `wave` to `target_dbfs`."""
    block_samples = rate_hz // 50
    num_blocks = len(wave) // block_samples
    if num_blocks == 0:
        return 1.0
    blocks = wave[: num_blocks * block_samples].reshape(num_blocks, -1)
    power = np.mean(np.square(blocks, dtype=np.float64), axis=1)  # (num_blocks,)
    active = power > power.max() * 10.0 ** (-_ACTIVE_RANGE_DB / 10.0)
    if not active.any():
        return 1.0
    gain_db = target_dbfs - 10.0 * float(np.log10(power[active].mean()))
    return float(10.0 ** (min(gain_db, _MAX_GAIN_DB) / 20.0))


class SpeechShaper:
    """One piece of speech; make a new one for each."""

    def __init__(
        self, from_hz: int, to_hz: int, gain: float, options: ShapingOptions
    ) -> None:
        self._gain = np.float32(gain)
        self._resampler = StreamResampler(from_hz, to_hz)
        self._block_samples = from_hz // _BLOCKS_PER_S
        self._lead_samples = from_hz * options.lead_ms // 1000
        self._tail_samples = from_hz * options.tail_ms // 1000
        self._fade_samples = int(from_hz * _FADE_S)
        self._min_energy = self._block_samples * 10.0 ** (_SILENCE_DBFS / 10.0)
        self._rest: Wave = np.zeros(0, dtype=np.float32)  # less than a block
        self._silence: Wave = np.zeros(0, dtype=np.float32)  # not known to be inner
        self._has_begun = False

    def feed(self, wave: Wave) -> bytes:
        """(n,) at `from_hz` -> pcm16 at `to_hz`, which may be nothing yet."""
        wave = np.concatenate((self._rest, wave * self._gain))
        whole = len(wave) - len(wave) % self._block_samples
        self._rest = wave[whole:]
        return self._finish(self._keep(wave[:whole]))

    def flush(self) -> bytes:
        """The end of the speech and a little silence; call once."""
        padding = np.zeros(-len(self._rest) % self._block_samples, dtype=np.float32)
        spoken = self._keep(np.concatenate((self._rest, padding)))
        if self._has_begun:
            tail = self._silence[: self._tail_samples]
            spoken = np.concatenate(
                (spoken, _faded(tail, self._fade_samples, 1.0, 0.0))
            )
        return self._finish(spoken) + pcm16_from_wave(self._resampler.flush())

    def _keep(self, wave: Wave) -> Wave:
        """What whole blocks let out: silence waits until speech follows it."""
        blocks = wave.reshape(-1, self._block_samples)
        loud = np.flatnonzero(np.einsum("ij,ij->i", blocks, blocks) >= self._min_energy)
        if len(loud) == 0:
            self._silence = np.concatenate((self._silence, wave))
            if not self._has_begun:
                self._silence = self._silence[-self._lead_samples :]
            return wave[:0]
        spoken_samples = (int(loud[-1]) + 1) * self._block_samples
        before, self._silence = self._silence, wave[spoken_samples:]
        spoken: Wave = np.concatenate((before, wave[:spoken_samples]))
        if self._has_begun:
            return spoken
        self._has_begun = True
        onset = len(before) + int(loud[0]) * self._block_samples
        start = max(0, onset - self._lead_samples)
        return _faded(spoken[start:], min(self._fade_samples, onset - start), 0.0, 1.0)

    def _finish(self, spoken: Wave) -> bytes:
        if len(spoken) == 0:
            return b""
        return pcm16_from_wave(self._resampler.feed(_limit(spoken)))


def _faded(wave: Wave, num_samples: int, start: float, end: float) -> Wave:
    """`wave` with its first (rising) or last (falling) samples faded."""
    num_samples = min(num_samples, len(wave))
    ramp = np.linspace(start, end, num_samples, dtype=np.float32)
    wave = wave.copy()
    if end > start:
        wave[:num_samples] *= ramp
    elif num_samples:
        wave[-num_samples:] *= ramp
    return wave


def _limit(wave: Wave) -> Wave:
    """A soft ceiling: straight up to the knee, then bending towards the ceiling."""
    size = np.abs(wave)
    if size.max() <= _KNEE:
        return wave
    room = _CEILING - _KNEE
    bent = _KNEE + room * np.tanh((size - _KNEE) / room)
    limited: Wave = np.where(size > _KNEE, np.sign(wave) * bent, wave)
    return limited.astype(np.float32, copy=False)
