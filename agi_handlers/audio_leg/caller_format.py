"""Is that telephone audio? Notices another rate, law or byte order, and mends it.

Asterisk promises 8 kHz linear audio.  A dialer with a patched module, a relay with
another format, a wrong setting in between send something else, and then the caller is
heard as noise or not at all.  What is measured is the flow of bytes in a second that
came steadily (a burst of late packets says nothing of the rate), and how much one
sample resembles the next: in speech much, in speech read wrongly not at all.

    16,000 bytes a second: 8 kHz linear        32,000: 16 kHz linear
     8,000 bytes a second: 8 kHz, 8-bit law

The flow alone proves nothing: an overloaded telephone or host sends half of what is
due, then catches up at twice the speed.  So a law must also sound like one and linear
audio unlike, and the flow since the call began must agree.

The time is an argument; only how long it rests between two looks is chance.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Mapping
from contextvars import copy_context
from enum import Enum
from typing import Final

import numpy as np

from model.audio.frames import FRAME_SAMPLES, RATE_HZ, SAMPLE_BYTES
from model.audio.g711 import alaw_decode, ulaw_decode
from model.audio.pcm import Wave, pcm16_from_wave, wave_from_pcm16
from model.audio.resample import StreamResampler
from telemetry import ERRORS, fields

logger = logging.getLogger(__name__)

_BIN_S: Final = 0.1
_NUM_BINS: Final = 8  # judged within a second of the first byte
_STEADY: Final = (0.5, 1.6)  # of the mean, each bin of a second that counts
# In speech and in noise of a telephone's band the next sample is nearly this one.
_ALIKE: Final = 0.5
# A wrong reading is nearly full scale, and so this much louder than the right one.
_LOUDER: Final = 3.0
_LEAST_LEVEL: Final = 1e-3  # of full scale: silence looks the same in any format
# After a look that told nothing: calls that came in one burst must not all look in the
# same few milliseconds, again and again (200 of them held up every frame by 12 ms).
_MAX_REST_S: Final = 0.2


class CallerFormat(Enum):
    """What comes from the caller's side, whatever it was said to be."""

    LINEAR = "8 kHz linear"
    WIDE = "16 kHz linear"
    SWAPPED = "8 kHz linear, bytes swapped"
    ULAW = "8 kHz mu-law"
    ALAW = "8 kHz A-law"


class CallerAudioReader:
    """One call's audio in, 8 kHz pcm16 out; whole samples where one has two bytes."""

    def __init__(self) -> None:
        self.format = CallerFormat.LINEAR
        self._is_sure = False
        self._bins: list[int] = []
        self._began_s = 0.0
        self._rests_until_s = 0.0
        self._first_s = 0.0
        self._num_octets = 0  # since then
        self._kept = bytearray()
        self._resampler: StreamResampler | None = None
        self._resampled_hz = RATE_HZ
        self._context = copy_context()  # the call's, for its log lines

    def read(self, octets: bytes, at_s: float, rate_hz: int = RATE_HZ) -> bytes:
        """What came next, at this time; `rate_hz`: as its sender declares it."""
        if rate_hz != RATE_HZ:
            return self._resampled(octets, rate_hz)
        if not self._is_sure:
            self._measure(octets, at_s)
        match self.format:
            case CallerFormat.LINEAR:
                return octets
            case CallerFormat.SWAPPED:
                return np.frombuffer(octets, dtype=">i2").astype("<i2").tobytes()
            case CallerFormat.ULAW:
                return ulaw_decode(octets)
            case CallerFormat.ALAW:
                return alaw_decode(octets)
            case CallerFormat.WIDE:
                return self._resampled(octets, 2 * RATE_HZ)

    def _resampled(self, octets: bytes, rate_hz: int) -> bytes:
        if self._resampler is None or self._resampled_hz != rate_hz:
            # withholds a tenth of a second: late, but there, and the log says so
            self._resampler = StreamResampler(rate_hz, RATE_HZ)
            self._resampled_hz = rate_hz
            told = fields(rate_hz=rate_hz)
            self._context.run(logger.warning, "caller_audio_rate", extra=told)
        return pcm16_from_wave(self._resampler.feed(wave_from_pcm16(octets)))

    def _measure(self, octets: bytes, at_s: float) -> None:
        if not self._num_octets:
            self._first_s = at_s
        if not self._bins:
            if 0.0 < self._rests_until_s - at_s <= _MAX_REST_S:
                self._num_octets += len(octets)
                return
            self._began_s = at_s
        index = int((at_s - self._began_s) / _BIN_S)
        if index < len(self._bins) - 1:  # the clock was set back
            self._bins.clear()
            self._kept.clear()
            index, self._began_s = 0, at_s
            self._first_s, self._num_octets = at_s, 0
        self._num_octets += len(octets)
        if index < _NUM_BINS:
            self._bins += [0] * (index + 1 - len(self._bins))
            self._bins[index] += len(octets)
            self._kept += octets
            return
        found = self._judge(self._num_octets / (at_s - self._first_s))
        # a law is believed while it lasts: nobody hears a caller who is read wrongly
        self._is_sure = found is not None and found not in _LAWS
        if found is not None and found is not self.format:
            self.format = found
            ERRORS.labels(kind="caller_audio_format").inc()
            told = fields(format=found.value)
            self._context.run(logger.error, "caller_audio_is", extra=told)
        self._bins.clear()
        self._kept.clear()
        self._rests_until_s = at_s + random.uniform(0.0, _MAX_REST_S)

    def _judge(self, octets_per_s: float) -> CallerFormat | None:
        """None: nothing can be said yet.  octets_per_s: since the first one."""
        mean = len(self._kept) / len(self._bins)
        if len(self._bins) < _NUM_BINS or not all(
            _STEADY[0] * mean <= num <= _STEADY[1] * mean for num in self._bins
        ):
            return None
        octets = bytes(self._kept[: len(self._kept) // SAMPLE_BYTES * SAMPLE_BYTES])
        due_per_s = RATE_HZ * SAMPLE_BYTES
        rate = len(octets) / (_NUM_BINS * _BIN_S) / due_per_s
        rate_so_far = octets_per_s / due_per_s
        if 1.6 <= rate <= 2.4:
            return CallerFormat.WIDE if rate_so_far >= 1.6 else None
        if 0.4 <= rate <= 0.6 and rate_so_far <= 0.6:
            return _best(octets, {**_LINEAR, **_LAWS})
        if 0.8 <= rate <= 1.25:
            return _best(octets, _LINEAR)
        return None


def _best(
    octets: bytes, readings: Mapping[CallerFormat, Callable[[bytes], bytes]]
) -> CallerFormat | None:
    """The reading that looks like sound, if another does not; None: cannot be told."""
    waves = {form: wave_from_pcm16(read(octets)) for form, read in readings.items()}
    loudness = {form: _loudness(wave) for form, wave in waves.items()}
    if max(loudness.values()) < _LEAST_LEVEL:
        return None
    quietest = min(loudness.values())
    alike = {
        form: _likeness(wave)
        for form, wave in waves.items()
        if loudness[form] <= _LOUDER * quietest
    }
    best = max(alike, key=lambda form: (round(alike[form], 1), -loudness[form]))
    return best if alike[best] >= _ALIKE else None


def _loudness(wave: Wave) -> float:
    """Standard deviation; `np.std` takes four times as long."""
    mean = float(wave.mean())
    return math.sqrt(max(0.0, float(wave @ wave) / wave.size - mean**2))


def _likeness(wave: Wave) -> float:
    """Correlation of each sample with the next, within frames.

    A step from silence to speech would make any reading of it alike.
    """
    frames = wave[: wave.size // FRAME_SAMPLES * FRAME_SAMPLES]
    frames = frames.reshape(-1, FRAME_SAMPLES)
    steady = frames - frames.mean(axis=1, keepdims=True)
    flat = steady.ravel()
    # of all neighbours, less those on both sides of a border between frames
    neighbours = float(flat[1:] @ flat[:-1]) - float(steady[1:, 0] @ steady[:-1, -1])
    return neighbours / (float(flat @ flat) + 1e-12)


def _swapped(octets: bytes) -> bytes:
    return np.frombuffer(octets, dtype=">i2").astype("<i2").tobytes()


_LINEAR: Final[Mapping[CallerFormat, Callable[[bytes], bytes]]] = {
    CallerFormat.LINEAR: bytes,
    CallerFormat.SWAPPED: _swapped,
}
_LAWS: Final[Mapping[CallerFormat, Callable[[bytes], bytes]]] = {
    CallerFormat.ULAW: ulaw_decode,
    CallerFormat.ALAW: alaw_decode,
}
