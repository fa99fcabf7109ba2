"""The telephone frame: 20 ms of 8 kHz audio, the one unit of the phone half.

Asterisk's `slin` is 8 kHz signed 16-bit little endian, sent 50 frames a second.
"""

from __future__ import annotations

from typing import Final

RATE_HZ: Final = 8000
FRAME_MS: Final = 20
SAMPLES_PER_MS: Final = RATE_HZ // 1000
FRAME_SAMPLES: Final = FRAME_MS * SAMPLES_PER_MS  # 160
SAMPLE_BYTES: Final = 2
FRAME_BYTES: Final = FRAME_SAMPLES * SAMPLE_BYTES  # 320
SILENCE_FRAME: Final = bytes(FRAME_BYTES)


def samples_from_ms(duration_ms: int) -> int:
    """Samples of telephone audio in so many milliseconds."""
    return duration_ms * SAMPLES_PER_MS


def ms_from_samples(num_samples: int) -> int:
    """Whole milliseconds of telephone audio, rounded down."""
    return num_samples // SAMPLES_PER_MS
