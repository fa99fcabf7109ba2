"""Asterisk's side of the AudioSocket wire, no I/O.

A message is its kind (1 byte), the payload's length (2 bytes, big-endian), the payload.
Source: Asterisk ``apps/app_audiosocket.c``, ``res/res_audiosocket.c``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

KIND_HANGUP: Final = 0x00
KIND_UUID: Final = 0x01
KIND_DTMF: Final = 0x03
KIND_AUDIO: Final = 0x10  # 8 kHz pcm16; 0x11 to 0x18 are other rates
KIND_ERROR: Final = 0xFF
_HEADER = struct.Struct(">BH")


def uuid_message(call_id: UUID) -> bytes:
    return _HEADER.pack(KIND_UUID, 16) + call_id.bytes


def audio_message(pcm16: bytes) -> bytes:
    return _HEADER.pack(KIND_AUDIO, len(pcm16)) + pcm16


def dtmf_message(key: str) -> bytes:
    return _HEADER.pack(KIND_DTMF, 1) + key.encode("ascii")


def hangup_message() -> bytes:
    return _HEADER.pack(KIND_HANGUP, 0)


@dataclass(slots=True)
class MessageReader:
    """Messages out of bytes that TCP may have split or joined anywhere."""

    _buffer: bytearray = field(default_factory=bytearray)

    def receive_data(self, data: bytes) -> list[tuple[int, bytes]]:
        """The (kind, payload) messages that are complete now."""
        self._buffer += data
        messages: list[tuple[int, bytes]] = []
        while len(self._buffer) >= _HEADER.size:
            kind, length_bytes = _HEADER.unpack_from(self._buffer)
            end = _HEADER.size + length_bytes
            if len(self._buffer) < end:
                break
            messages.append((kind, bytes(self._buffer[_HEADER.size : end])))
            del self._buffer[:end]
        return messages
