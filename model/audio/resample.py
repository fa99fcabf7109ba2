"""Change of sampling rate: causal filter for the live caller, soxr for the rest.

The caller's 8 kHz becomes 16 kHz (for the detector and the model) sample by sample:
a polyphase FIR, two outputs for each input, 1.9 ms delay, nothing withheld. soxr's
streaming mode withholds up to 115 ms, which ruins turn-taking on live input and is
harmless for synthesised speech, where it is the better filter (aliases 140 dB down
against 75).
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
import soxr

from model.audio.pcm import Wave, Waves

# Measured: 63 taps with Kaiser beta 7 keep images 75 dB down and the pass band within
# 0.003 dB up to 3,400 Hz; the telephone line itself is 40 dB worse.
_NUM_TAPS: Final = 63
_KAISER_BETA: Final = 7.0
# With the cut-off at a quarter of the output rate every second tap is zero but the
# middle one. One phase is therefore the input itself, 15 samples late; only the other
# one, with 32 taps, has to be computed.
_PHASE_TAPS: Final = (_NUM_TAPS + 1) // 2
UPSAMPLER_HISTORY: Final = _PHASE_TAPS - 1
_DELAY_SAMPLES: Final = (_PHASE_TAPS - 1) // 2

_SOXR_QUALITY: Final = "HQ"


@cache
def _half_band_taps() -> Wave:
    """The computed phase of the filter, newest input last; its gain is one."""
    offset = np.arange(0, _NUM_TAPS, 2) - (_NUM_TAPS - 1) // 2
    window = np.kaiser(_NUM_TAPS, _KAISER_BETA)[::2]
    taps = np.sinc(offset / 2.0) * window
    taps /= taps.sum()
    return taps[::-1].astype(np.float32)


def upsampled(waves: Waves) -> Waves:
    """8 -> 16 kHz: (callers, UPSAMPLER_HISTORY + n) -> (callers, 2 n).

    Each begins with what came before the samples that are wanted; before a call's
    first there was silence. The same samples give the same bits however they are cut:
    each output is one dot product of fixed length (numpy's `correlate`), independent
    of its neighbours. Running many callers' audio end to end was not faster.
    """
    num_samples = waves.shape[1] - UPSAMPLER_HISTORY
    doubled = np.empty((len(waves), 2 * num_samples), dtype=np.float32)
    late = UPSAMPLER_HISTORY - _DELAY_SAMPLES
    doubled[:, 1::2] = waves[:, late : late + num_samples]
    for row, wave in enumerate(waves):
        doubled[row, 0::2] = np.correlate(wave, _half_band_taps(), "valid")
    return doubled


class StreamResampler:
    """Speech that comes in chunks, faster than real time, to another rate (soxr HQ).

    Not for live input: it withholds up to 115 ms until `flush`.
    """

    __slots__ = ("_stream",)

    def __init__(self, from_hz: int, to_hz: int) -> None:
        # Equal rates pass through untouched and unheld.
        self._stream = (
            None
            if from_hz == to_hz
            else soxr.ResampleStream(
                from_hz, to_hz, 1, dtype="float32", quality=_SOXR_QUALITY
            )
        )

    def feed(self, wave: Wave) -> Wave:
        """The next chunk; what comes out may be nothing yet."""
        if self._stream is None:
            return wave
        out: Wave = self._stream.resample_chunk(wave)
        return out

    def flush(self) -> Wave:
        """What is still held. Call once, at the end; the stream is then spent."""
        nothing = np.zeros(0, dtype=np.float32)
        if self._stream is None:
            return nothing
        out: Wave = self._stream.resample_chunk(nothing, last=True)
        return out


def resample(wave: Wave, from_hz: int, to_hz: int) -> Wave:
    """A finished recording to another rate (soxr HQ)."""
    if from_hz == to_hz or wave.size == 0:
        return wave
    out: Wave = soxr.resample(wave, from_hz, to_hz, quality=_SOXR_QUALITY)
    return out
