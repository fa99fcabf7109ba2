"""What a voice activity detector is: window of telephone audio -> speech probability.

A detector is loaded once and shared by all calls of a process; what it remembers of
one caller lives in that call's stream. Two exist: `silero` and `webrtc`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

from model.audio.pcm import Waves

DetectorName: TypeAlias = Literal["silero", "webrtc"]


class DetectorStream(Protocol):
    """One caller's state; opaque to everybody but the detector that opened it."""


class SpeechDetector(Protocol):
    """The shared part of a detector."""

    @property
    def window_samples(self) -> int:
        """Samples at 8 kHz that it judges at once."""
        ...

    def open_stream(self) -> DetectorStream:
        """A fresh state for a new call."""
        ...

    def probabilities(
        self,
        streams: Sequence[DetectorStream],
        windows: Waves,
        levels_db: Sequence[float],
    ) -> list[float]:
        """The next window of each stream -> is it speech? [0, 1]

        windows: (streams, window_samples); levels_db: of each, in dBFS.
        """
        ...


def load_detector(name: DetectorName) -> SpeechDetector:
    """Load a detector by name; do it once, before taking calls.

    Raises:
        ModelLoadError: its model is not installed or cannot be read.
    """
    # Only the one that is used gets imported: each has libraries of its own.
    if name == "silero":
        from model.vad.silero import SileroDetector

        return SileroDetector.load()
    from model.vad.webrtc import WebrtcDetector

    return WebrtcDetector()
