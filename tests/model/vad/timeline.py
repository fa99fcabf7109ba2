"""A caller drawn as text, one character for each 32 ms window.

"__~~~~~__"   _ silence   ~ the caller speaks   - a voice far behind him
              . a breath or a rustle, hardly suspected
              ' a moment the detector takes for speech only within a turn
"""

from __future__ import annotations

from model.vad.endpointing import Endpointing
from model.vad.events import SpeechEvent

WINDOW_SAMPLES = 256
WINDOW_MS = 32

_WINDOWS = {
    "_": (0.02, -70.0),
    "~": (0.97, -20.0),
    "-": (0.97, -45.0),
    "'": (0.45, -25.0),
    ".": (0.2, -40.0),
}


def hear(endpointing: Endpointing, timeline: str) -> list[SpeechEvent]:
    """Feed a drawn timeline; spaces are for the reader."""
    events: list[SpeechEvent] = []
    for character in timeline.replace(" ", ""):
        events += endpointing.on_window(*_WINDOWS[character])
    return events


def silence(duration_ms: int) -> str:
    """At least so much of it."""
    return "_" * -(-duration_ms // WINDOW_MS)
