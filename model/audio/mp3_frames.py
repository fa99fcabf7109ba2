"""Where frames of MPEG audio layer III (MP3) begin and end."""

from __future__ import annotations

from typing import Final

# kbit/s by index, for version 1 and for versions 2 and 2.5.
_MP3_KBITS_V1: Final = (
    0,
    32,
    40,
    48,
    56,
    64,
    80,
    96,
    112,
    128,
    160,
    192,
    224,
    256,
    320,
)
_MP3_KBITS_V2: Final = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MP3_RATES_HZ: Final = (44_100, 48_000, 32_000)  # halved for 2, quartered for 2.5


def frame_bytes(header: bytes) -> int:
    """Length of the layer III frame with this header; 0 if it isn't one."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return 0
    version = header[1] >> 3 & 3  # 3: version 1, 2: version 2, 0: version 2.5
    kbits_index, rate_index = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or kbits_index in (0, 15) or rate_index == 3:
        return 0
    is_v1 = version == 3
    kbits = (_MP3_KBITS_V1 if is_v1 else _MP3_KBITS_V2)[kbits_index]
    rate_hz = _MP3_RATES_HZ[rate_index] >> {3: 0, 2: 1, 0: 2}[version]
    padding = header[2] >> 1 & 1
    return (144 if is_v1 else 72) * kbits * 1000 // rate_hz + padding
