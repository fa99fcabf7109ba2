"""WebRTC's voice activity detector: 2.5 us a frame, for clean lines only.

It says yes or no. On noisy lines it hardly ever says no, so turns run into each other;
`silero` is the default, this one is for machines too small for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import webrtcvad

from model.audio.frames import FRAME_SAMPLES, RATE_HZ
from model.audio.pcm import Waves, pcm16_from_wave
from model.vad.detector import DetectorStream

# 3 is the strictest; the others take line noise for speech.
_AGGRESSIVENESS: Final = 3


class WebrtcStream:
    """One caller's adaptive noise model."""

    __slots__ = ("vad",)

    def __init__(self) -> None:
        self.vad = webrtcvad.Vad(_AGGRESSIVENESS)


class WebrtcDetector:
    """Judges one 20 ms frame at a time; its probability is 0 or 1."""

    window_samples: Final = FRAME_SAMPLES

    def open_stream(self) -> WebrtcStream:
        """A fresh noise model."""
        return WebrtcStream()

    def probabilities(
        self,
        streams: Sequence[DetectorStream],
        windows: Waves,
        levels_db: Sequence[float],
    ) -> list[float]:
        """(streams, 160) at 8 kHz -> 0.0 or 1.0 each."""
        answers = []
        for stream, window in zip(streams, windows, strict=True):
            assert isinstance(stream, WebrtcStream)
            is_speech = stream.vad.is_speech(pcm16_from_wave(window), RATE_HZ)
            answers.append(1.0 if is_speech else 0.0)
        return answers
