"""G.711 mu-law and A-law by table, sample for sample what `audioop` gives.

`audioop` left the standard library in Python 3.13; a 256-entry table for decoding
and a 65,536-entry table for encoding say the same and need no compiled package.

Source: ITU-T G.711; the encoders follow CPython's `Modules/audioop.c` (Sun's g711.c),
which rounds towards silence and works on 14 bits for mu-law, 13 for A-law.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

ULAW_SILENCE: Final = 0xFF
ALAW_SILENCE: Final = 0xD5

_ULAW_BIAS: Final = 0x84
# The encoders work on the top 14 bits (mu-law) and 13 bits (A-law) of a sample.
_ULAW_CLIP: Final = 8159
_ULAW_SEGMENT_ENDS: Final = (0x3F, 0x7F, 0xFF, 0x1FF, 0x3FF, 0x7FF, 0xFFF, 0x1FFF)
_ALAW_SEGMENT_ENDS: Final = (0x1F, 0x3F, 0x7F, 0xFF, 0x1FF, 0x3FF, 0x7FF, 0xFFF)


def ulaw_decode(ulaw: bytes) -> bytes:
    """mu-law octets -> pcm16, two bytes a sample."""
    return _decode(_ulaw_decode_table(), ulaw)


def ulaw_encode(pcm16: bytes) -> bytes:
    """pcm16 -> mu-law octets.

    Raises:
        ValueError: an odd number of bytes.
    """
    return _encode(_ulaw_encode_table(), pcm16)


def alaw_decode(alaw: bytes) -> bytes:
    """A-law octets -> pcm16, two bytes a sample."""
    return _decode(_alaw_decode_table(), alaw)


def alaw_encode(pcm16: bytes) -> bytes:
    """pcm16 -> A-law octets.

    Raises:
        ValueError: an odd number of bytes.
    """
    return _encode(_alaw_encode_table(), pcm16)


def _decode(table: NDArray[np.int16], octets: bytes) -> bytes:
    return table.take(np.frombuffer(octets, dtype=np.uint8)).tobytes()


def _encode(table: NDArray[np.uint8], pcm16: bytes) -> bytes:
    # Read as unsigned, so that the sample is its own index into the table.
    return table.take(np.frombuffer(pcm16, dtype="<u2")).tobytes()


def _all_samples() -> NDArray[np.int32]:
    """Every int16 in the order of its unsigned reading: 0 … 32767, -32768 … -1."""
    return np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32)


@cache
def _ulaw_decode_table() -> NDArray[np.int16]:
    inverted = ~np.arange(256, dtype=np.uint8)
    mantissa = (inverted & 0x0F).astype(np.int32)
    segment = ((inverted & 0x70) >> 4).astype(np.int32)
    magnitude = (((mantissa << 3) + _ULAW_BIAS) << segment) - _ULAW_BIAS
    signed = np.where(inverted & 0x80, -magnitude, magnitude)
    return signed.astype("<i2")


@cache
def _ulaw_encode_table() -> NDArray[np.uint8]:
    sample = _all_samples() >> 2
    negative = sample < 0
    magnitude = np.minimum(np.abs(sample), _ULAW_CLIP) + (_ULAW_BIAS >> 2)
    segment = np.searchsorted(_ULAW_SEGMENT_ENDS, magnitude)
    mantissa = (magnitude >> (segment + 1)) & 0x0F
    octet = np.where(segment >= 8, 0x7F, (segment << 4) | mantissa)
    return (octet ^ np.where(negative, 0x7F, 0xFF)).astype(np.uint8)


@cache
def _alaw_decode_table() -> NDArray[np.int16]:
    octet = np.arange(256, dtype=np.int32) ^ 0x55
    mantissa = (octet & 0x0F) << 4
    segment = (octet & 0x70) >> 4
    magnitude = np.where(
        segment == 0,
        mantissa + 8,
        (mantissa + 0x108) << np.maximum(segment - 1, 0),
    )
    signed = np.where(octet & 0x80, magnitude, -magnitude)
    return signed.astype("<i2")


@cache
def _alaw_encode_table() -> NDArray[np.uint8]:
    sample = _all_samples() >> 3
    positive = sample >= 0
    magnitude = np.where(positive, sample, -sample - 1)
    segment = np.searchsorted(_ALAW_SEGMENT_ENDS, magnitude)
    mantissa = (magnitude >> np.maximum(segment, 1)) & 0x0F
    octet = np.where(segment >= 8, 0x7F, (segment << 4) | mantissa)
    return (octet ^ np.where(positive, 0xD5, 0x55)).astype(np.uint8)
