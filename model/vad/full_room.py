"""A full room: voices on the line all the time, and how loud they are together.

Many voices pass the detector as one does, and now and then one of them is as loud as a
soft word of the caller's. But together their level varies little: smoothed over 128 ms
it stays within a few decibels, and whoever speaks into the telephone rises above it.

Measured on babble 20 to 5 dB below the caller, one voice, hiss and traffic: of the
windows near the smoothed floor the detector suspects 86 to 94 % where the babble is 10
or 5 dB below him, and at most 45 % on other lines.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

_SMOOTHED_WINDOWS: Final = 4
# Steps of a tracked quantile, the quietest fifth: fast at first, then 0.6 dB a second
# up, so that a long turn of the caller's does not become the floor.
_QUANTILE: Final = 0.2
_STEP_DB: Final = 0.1
_FIRST_STEP_DB: Final = 4.0
_FIRST_WINDOWS: Final = 60
_LOWEST_FLOOR_DB: Final = -60.0
# What is near the floor is the line without the caller.
_NEAR_FLOOR_DB: Final = 3.0
_SUSPECTED: Final = 0.1  # by the detector
_FULL_SHARE: Final = 0.7
_FOLLOW: Final = 0.02
_FEWEST_WINDOWS: Final = 100
# A room further below the caller's usual loud level interrupts nobody.
_NEAR_CALLER_DB: Final = 12.0


class FullRoom:
    """What one caller has around him."""

    __slots__ = (
        "_floor_db",
        "_num_near",
        "_num_windows",
        "_powers",
        "_share",
        "smoothed_db",
    )

    def __init__(self) -> None:
        self._powers: deque[float] = deque(maxlen=_SMOOTHED_WINDOWS)
        self._floor_db = _LOWEST_FLOOR_DB
        self._num_windows = 0
        self._num_near = 0
        self._share = 0.0
        self.smoothed_db = _level_db(0.0)
        """The level of the last 128 ms; no audio yet is silence."""

    @property
    def is_full(self) -> bool:
        """Whether what is always on the line is voices."""
        return self._num_near >= _FEWEST_WINDOWS and self._share >= _FULL_SHARE

    def is_near(self, usual_db: float | None) -> bool:
        """Full, and its voices may be mistaken for the caller's.

        usual_db: his loud level, if known.
        """
        return self.is_full and (
            usual_db is None or self._floor_db >= usual_db - _NEAR_CALLER_DB
        )

    def hear(self, probability: float, level_db: float) -> None:
        """Every window, speech or not."""
        self._powers.append(10 ** (level_db / 10))
        self.smoothed_db = smoothed_db = _level_db(
            sum(self._powers) / len(self._powers)
        )
        is_first = self._num_windows < _FIRST_WINDOWS
        step_db = _FIRST_STEP_DB if is_first else _STEP_DB
        rises = smoothed_db > self._floor_db
        self._floor_db += step_db * (_QUANTILE if rises else _QUANTILE - 1)
        self._floor_db = max(self._floor_db, _LOWEST_FLOOR_DB)
        self._num_windows += 1
        if smoothed_db < self._floor_db + _NEAR_FLOOR_DB:
            self._num_near += 1
            follow = max(_FOLLOW, 1 / self._num_near)
            self._share += follow * ((probability >= _SUSPECTED) - self._share)


def _level_db(power: float) -> float:
    return 10 * math.log10(power + 1e-12)
