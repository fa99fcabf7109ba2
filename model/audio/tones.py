"""Tones on a telephone line: answering machines' beeps, fax signals, network signals.

    8 kHz audio ─▶ spectra of 32 ms ─▶ stretches of one steady frequency ─▶ Tone

A tone is nearly all of the line's power at one frequency that does not move; a voice
glides, and has harmonics.  However the audio is cut, the tones are the same.
Source: ITU-T T.30 (CNG 1100 Hz, 0.5 s every 3 s), V.25 (answer tone 2100 Hz, with phase
reversals), E.180 and ATIS-0300117 (special information tones: 914/985, 1371/1429 and
1777 Hz, one after the other).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from model.audio.frames import RATE_HZ, SAMPLE_BYTES, ms_from_samples
from model.audio.pcm import wave_from_pcm16

ToneKind: TypeAlias = Literal["beep", "cng", "ced", "sit"]

_WINDOW_SAMPLES: Final = 256
_HOP_SAMPLES: Final = 128
_BIN_HZ: Final = RATE_HZ / _WINDOW_SAMPLES
# The main lobe of the window: what a steady tone spreads over.
_LOBE_BINS: Final = 2
_LOWEST_BIN: Final = 6  # 190 Hz: below is hum
_HIGHEST_BIN: Final = 116  # 3.6 kHz
_MIN_SHARE: Final = 0.8  # of all power; white noise 6 dB below a tone leaves this
_MIN_POWER: Final = 10.0 ** (-42.0 / 10.0)  # of a sine; beeps are as loud as speech
_MAX_DRIFT_HZ: Final = 12.0
# V.25 turns the phase every 450 ms: one or two spectra are spoiled.
_MAX_GAP_HOPS: Final = 3

# Kitchens and smoke alarms beep at 2 kHz and above, answering machines below.
_BEEP_HZ: Final = (350.0, 1750.0)
_BEEP_MS: Final = (180, 2500)
# High voices hold a hum ("mm", "oo") at their pitch for up to 180 ms.
_VOICE_BELOW_HZ: Final = 650.0
_LOW_BEEP_MS: Final = (220, 2500)
_CNG_HZ, _CNG_TOLERANCE_HZ = 1100.0, 38.0
_CNG_MS: Final = (400, 620)
_CED_HZ, _CED_TOLERANCE_HZ = 2100.0, 20.0
_CED_MIN_MS: Final = 800
_SIT_STEPS_HZ: Final = ((913.8, 985.2), (1370.6, 1428.5), (1776.7, 1776.7))
_SIT_TOLERANCE_HZ: Final = 30.0
_SIT_MS: Final = (200, 480)
_SIT_GAP_MS: Final = 120


@dataclass(frozen=True, slots=True)
class Tone:
    """A tone that was heard; times are samples since the first."""

    kind: ToneKind
    hz: float
    started_samples: int
    ended_samples: int
    """Of an answer tone (ced) where it was decided: it goes on."""

    @property
    def duration_ms(self) -> int:
        return ms_from_samples(self.ended_samples - self.started_samples)


@dataclass(slots=True)
class _Stretch:
    """One frequency that goes on."""

    first_hop: int
    last_hop: int
    sum_hz: float
    num_hops: int = 1
    is_told: bool = False

    @property
    def hz(self) -> float:
        return self.sum_hz / self.num_hops

    @property
    def bounds(self) -> tuple[int, int]:
        """The tone itself: a spectrum counts it from about its window's middle on."""
        edge = _WINDOW_SAMPLES // 4
        start = self.first_hop * _HOP_SAMPLES + edge
        return start, self.last_hop * _HOP_SAMPLES + _WINDOW_SAMPLES - edge

    @property
    def duration_ms(self) -> int:
        start, end = self.bounds
        return ms_from_samples(end - start)


class ToneDetector:
    """One line's tones."""

    def __init__(self) -> None:
        self._rest = b""
        self._num_hops = 0
        self._stretch: _Stretch | None = None
        self._sit: list[_Stretch] = []
        self._waiting: _Stretch | None = None
        """A beep that may yet turn out to begin a special information tone."""

    def feed(self, pcm16: bytes) -> list[Tone]:
        """More audio (8 kHz), cut anywhere, even within a sample."""
        self._rest += pcm16
        num_samples = len(self._rest) // SAMPLE_BYTES
        num_hops = (num_samples - _WINDOW_SAMPLES) // _HOP_SAMPLES + 1
        if num_hops <= 0:
            return []
        used = ((num_hops - 1) * _HOP_SAMPLES + _WINDOW_SAMPLES) * SAMPLE_BYTES
        wave = wave_from_pcm16(self._rest[:used])
        self._rest = self._rest[num_hops * _HOP_SAMPLES * SAMPLE_BYTES :]
        windows = np.lib.stride_tricks.sliding_window_view(wave, _WINDOW_SAMPLES)
        tones: list[Tone] = []
        for hz in steady_hz(windows[::_HOP_SAMPLES]):
            tones += self._hop(float(hz))
            self._num_hops += 1
        return tones

    def _hop(self, hz: float) -> list[Tone]:
        """One spectrum's frequency; 0: none."""
        at, stretch = self._num_hops, self._stretch
        tones: list[Tone] = []
        if stretch is not None:
            if hz and abs(hz - stretch.hz) <= _MAX_DRIFT_HZ:
                stretch.last_hop = at
                stretch.sum_hz += hz
                stretch.num_hops += 1
                return self._going_on(stretch)
            if at - stretch.last_hop <= _MAX_GAP_HOPS and not hz:
                return []
            tones += self._ended(stretch)
        self._stretch = _Stretch(at, at, hz) if hz else None
        return tones + self._no_more_steps(at)

    def _going_on(self, stretch: _Stretch) -> list[Tone]:
        is_answer = abs(stretch.hz - _CED_HZ) <= _CED_TOLERANCE_HZ
        if is_answer and not stretch.is_told and stretch.duration_ms >= _CED_MIN_MS:
            stretch.is_told = True
            return [_tone("ced", stretch)]
        return []

    def _ended(self, stretch: _Stretch) -> list[Tone]:
        if stretch.is_told or stretch.num_hops < 4:
            return []
        duration_ms = stretch.duration_ms
        tones: list[Tone] = []
        if self._is_next_step(stretch):
            self._sit.append(stretch)
            if len(self._sit) == len(_SIT_STEPS_HZ):
                first, self._sit, self._waiting = self._sit[0], [], None
                whole = Tone("sit", first.hz, first.bounds[0], stretch.bounds[1])
                return [whole]
            if len(self._sit) == 1:
                tones += self._told()
                self._waiting = stretch
            return tones
        tones += self._told()
        if _is_within(duration_ms, _CNG_MS) and (
            abs(stretch.hz - _CNG_HZ) <= _CNG_TOLERANCE_HZ
        ):
            return [*tones, _tone("cng", stretch)]
        if _is_beep(stretch):
            tones.append(_tone("beep", stretch))
        return tones

    def _is_next_step(self, stretch: _Stretch) -> bool:
        if not _is_within(stretch.duration_ms, _SIT_MS):
            return False
        if self._sit:
            gap = stretch.bounds[0] - self._sit[-1].bounds[1]
            if ms_from_samples(gap) > _SIT_GAP_MS:
                self._sit = []
        wanted = _SIT_STEPS_HZ[len(self._sit)]
        if any(abs(stretch.hz - hz) <= _SIT_TOLERANCE_HZ for hz in wanted):
            return True
        self._sit = []
        return False

    def _no_more_steps(self, at: int) -> list[Tone]:
        """Give out a beep once nothing can follow that makes it a network signal."""
        waiting = self._waiting
        if waiting is None or self._stretch is not None:
            return []
        gap = at * _HOP_SAMPLES - self._sit_end()
        if ms_from_samples(gap) <= _SIT_GAP_MS + 40:
            return []
        self._sit = []
        return self._told()

    def _sit_end(self) -> int:
        return self._sit[-1].bounds[1] if self._sit else 0

    def _told(self) -> list[Tone]:
        waiting, self._waiting = self._waiting, None
        if waiting is None or not _is_beep(waiting):
            return []
        return [_tone("beep", waiting)]


def steady_hz(windows: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n, 256) -> (n,): the frequency that is nearly all of a window, or 0."""
    spectra = np.fft.rfft(windows * _taper(), axis=1)
    power = np.abs(spectra) ** 2  # (n, 129)
    band = power[:, _LOWEST_BIN : _HIGHEST_BIN + 1]
    peak = band.argmax(axis=1) + _LOWEST_BIN
    rows = np.arange(len(windows))
    lobe = sum(
        power[rows, np.clip(peak + offset, 0, power.shape[1] - 1)]
        for offset in range(-_LOBE_BINS, _LOBE_BINS + 1)
    )
    total = power[:, 2:].sum(axis=1) + 1e-20
    # a sine of amplitude a has power a^2/2; its lobe sums to a^2/4 * sum(taper^2) * N
    sine_power = 2.0 * lobe / (np.sum(_taper() ** 2) * _WINDOW_SAMPLES)
    is_tone = (lobe / total >= _MIN_SHARE) & (sine_power >= _MIN_POWER)
    return np.where(is_tone, _interpolated_hz(power, peak), 0.0)


def _interpolated_hz(
    power: NDArray[np.float32], peak: NDArray[np.intp]
) -> NDArray[np.float64]:
    """The parabola through the logarithms at the peak and its neighbours."""
    rows = np.arange(len(peak))
    low, mid, high = (np.log(power[rows, peak + d] + 1e-20) for d in (-1, 0, 1))
    bend = low - 2 * mid + high
    bend = np.where(np.abs(bend) > 1e-9, bend, 1.0)  # flat: digital silence
    shift = 0.5 * (low - high) / bend
    return np.asarray((peak + np.clip(shift, -0.5, 0.5)) * _BIN_HZ, dtype=np.float64)


@cache
def _taper() -> NDArray[np.float32]:
    return np.hanning(_WINDOW_SAMPLES).astype(np.float32)


def _is_beep(stretch: _Stretch) -> bool:
    bounds_ms = _LOW_BEEP_MS if stretch.hz < _VOICE_BELOW_HZ else _BEEP_MS
    is_beep_hz = _BEEP_HZ[0] <= stretch.hz <= _BEEP_HZ[1]
    return is_beep_hz and _is_within(stretch.duration_ms, bounds_ms)


def _is_within(value: int, bounds: tuple[int, int]) -> bool:
    return bounds[0] <= value <= bounds[1]


def _tone(kind: ToneKind, stretch: _Stretch) -> Tone:
    return Tone(kind, round(stretch.hz, 1), *stretch.bounds)
