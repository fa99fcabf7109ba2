"""An ear whose detector takes every loud window for speech: no network, no chance."""

from __future__ import annotations

from collections.abc import Sequence

from model.audio.pcm import Waves
from model.vad.detector import DetectorStream
from model.vad.listener import CallerEar
from model.vad.options import EndpointingOptions

_LOUD = 0.01


class LoudnessDetector:
    """Speech is whatever is louder than a hundredth of full scale."""

    window_samples = 256

    def open_stream(self) -> DetectorStream:
        return object()

    def probabilities(
        self,
        streams: Sequence[DetectorStream],
        windows: Waves,
        levels_db: Sequence[float],
    ) -> list[float]:
        return [float(abs(window).mean() > _LOUD) for window in windows]


class FailingDetector(LoudnessDetector):
    """Hears nothing in so many windows, then breaks."""

    def __init__(self, num_good_windows: int = 0) -> None:
        self._num_left = num_good_windows

    def probabilities(
        self,
        streams: Sequence[DetectorStream],
        windows: Waves,
        levels_db: Sequence[float],
    ) -> list[float]:
        self._num_left -= 1
        if self._num_left < 0:
            raise RuntimeError("the network is broken")
        return [0.0] * len(streams)


def loudness_ear(hangover_ms: int = 600) -> CallerEar:
    """A caller's ear with one fixed hangover."""
    return CallerEar(LoudnessDetector(), EndpointingOptions.fixed(hangover_ms))
