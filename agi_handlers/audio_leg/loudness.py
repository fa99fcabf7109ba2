"""How loud the bot is on a leg that can change it: lower while it may be interrupted.

The change takes one frame, so that nothing clicks.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from model.audio.frames import SAMPLE_BYTES

_LOWERED: Final = 10 ** (-15.0 / 20)


class Loudness:
    """Of one call."""

    __slots__ = ("_gain", "_target")

    def __init__(self) -> None:
        self._gain = self._target = 1.0

    def lower(self, *, is_lowered: bool) -> None:
        """From the next frame on."""
        self._target = _LOWERED if is_lowered else 1.0

    def reset(self) -> None:
        """Nothing is being heard: what comes next begins at full voice."""
        self._gain = self._target = 1.0

    def apply(self, frame: bytes) -> bytes:
        """The next frame (pcm16) at that loudness; the very frame at full voice."""
        if self._gain == self._target == 1.0:
            return frame
        gains = np.linspace(self._gain, self._target, len(frame) // SAMPLE_BYTES)
        self._gain = self._target
        samples = np.frombuffer(frame, dtype="<i2") * gains
        return bytes(np.rint(samples).astype("<i2").data)
