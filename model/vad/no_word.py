"""Was that a word? A cough, a click and a soft "mhm" want no answer.

Judged by sound alone, within a millisecond, from a whole short utterance:

* a cough, a breath, the line's crackle have no pitch, which every word has;
* "mhm" while somebody else speaks is said under one's breath, far below the level of
  words that are meant.

Whatever is longer than short is a word. Measured and rejected for "mhm": the share of
treble and the steadiness of the spectrum, which a fifth of short words have as well.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.audio.frames import RATE_HZ, samples_from_ms
from model.audio.pcm import Wave, wave_from_pcm16

Rows = NDArray[np.float64]

_LONGEST_MS: Final = 700
_SHORTEST_MS: Final = 100  # the shortest "no" has 150
_FRAME: Final = samples_from_ms(32)
_STEP: Final = samples_from_ms(16)
# Frames this far below the loudest one are its ends, or the line.
_LOUD_DROP_DB: Final = 15.0
_PITCH_HZ: Final = (70, 400)
_VOICED: Final = 0.5  # of the autocorrelation at lag 0
_LEAST_VOICED: Final = 0.25  # of the loud frames
_SOFT_DB: Final = 8.0


def is_no_word(pcm16: bytes, spoken_ms: int, softer_db: float = 0.0) -> bool:
    """Whether an utterance (8 kHz) with so much speech in it is a mere sound.

    softer_db: how far its loudest part is below the caller's usual level.
    """
    if spoken_ms > _LONGEST_MS:
        return False
    if spoken_ms < _SHORTEST_MS or softer_db >= _SOFT_DB:
        return True
    frames = _loud_frames(wave_from_pcm16(pcm16))
    if not frames.size:
        return True
    spectra = np.abs(np.fft.rfft(frames, 2 * _FRAME)) ** 2  # (frames, bins)
    return float(_is_voiced(spectra).mean()) < _LEAST_VOICED


def _loud_frames(wave: Wave) -> Rows:
    """(frames, samples), windowed; those near the level of the loudest."""
    if wave.size < _FRAME:
        return np.zeros((0, _FRAME))
    rows = np.lib.stride_tricks.sliding_window_view(wave, _FRAME)[::_STEP]
    rows = rows.astype(np.float64)
    levels_db = 10 * np.log10(np.mean(rows**2, axis=1) + 1e-12)
    loud = rows[levels_db >= levels_db.max() - _LOUD_DROP_DB]
    return np.asarray(loud * np.hanning(_FRAME))


def _is_voiced(spectra: Rows) -> NDArray[np.bool_]:
    """(frames, bins) -> (frames,): whether it repeats at a pitch of the human voice."""
    repeats = np.fft.irfft(spectra)  # autocorrelation
    # what the window takes from longer lags is given back
    window = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(_FRAME), 2 * _FRAME)) ** 2)
    shortest, longest = (RATE_HZ // hz for hz in reversed(_PITCH_HZ))
    lags = slice(shortest, longest)
    likeness = repeats[:, lags] / (window[lags] / window[0])
    return np.asarray(likeness.max(axis=1) >= _VOICED * (repeats[:, 0] + 1e-12))
