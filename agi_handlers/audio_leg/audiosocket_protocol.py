"""AudioSocket framing without I/O: bytes in, messages out, and the bytes to send.

One message is a kind (1 byte), a length (2 bytes, big-endian) and a payload; the
samples of audio are little-endian all the same.  The caller's hang-up is no message
but the end of the stream; `Hangup` is what we send to end the application in order.

Source: Asterisk res/res_audiosocket.c and apps/app_audiosocket.c, 18 to 22.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias
from uuid import UUID

from model.audio.frames import FRAME_BYTES, RATE_HZ, SAMPLE_BYTES, SILENCE_FRAME

HEADER_BYTES: Final = 3
UUID_BYTES: Final = 16
# Asterisk sends 320 bytes; half a second in one message is not Asterisk.
MAX_PAYLOAD_BYTES: Final = 8192
KEYS: Final = frozenset("0123456789*#ABCD")


class Kind(IntEnum):
    """The kinds of message there are; 0x11 to 0x18 are audio at other rates."""

    HANGUP = 0x00
    CALL_ID = 0x01
    DIGIT = 0x03
    AUDIO = 0x10
    ERROR = 0xFF


_RATES_HZ: Final = {
    Kind.AUDIO: RATE_HZ,
    **dict(
        zip(
            range(0x11, 0x19),
            (12_000, 16_000, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000),
            strict=True,
        )
    ),
}


@dataclass(frozen=True, slots=True)
class CallId:
    """The first message of every connection: which call it belongs to."""

    uuid: UUID


@dataclass(frozen=True, slots=True)
class Audio:
    """Audio of the caller; from the application always 20 ms, so far at 8 kHz."""

    pcm16: bytes
    rate_hz: int = RATE_HZ


@dataclass(frozen=True, slots=True)
class Digit:
    """A DTMF key, sent when it is released (Asterisk 20.14, 22.4 and later)."""

    key: str


@dataclass(frozen=True, slots=True)
class Hangup:
    """The peer ends the connection in order."""


@dataclass(frozen=True, slots=True)
class PeerError:
    """The peer reports a fault; its bits are Asterisk's own (0 when it gave none)."""

    code: int


AudioSocketMessage: TypeAlias = CallId | Audio | Digit | Hangup | PeerError


def call_id_message(call_id: UUID) -> bytes:
    """What Asterisk sends first."""
    return _message(Kind.CALL_ID, call_id.bytes)


def audio_message(pcm16: bytes) -> bytes:
    """One message of 8 kHz audio; Asterisk wants 20 ms in each."""
    assert len(pcm16) <= MAX_PAYLOAD_BYTES
    assert len(pcm16) % SAMPLE_BYTES == 0
    return _message(Kind.AUDIO, pcm16)


def digit_message(key: str) -> bytes:
    """What Asterisk sends when the caller has pressed a key."""
    assert key in KEYS
    return _message(Kind.DIGIT, key.encode("ascii"))


def _message(kind: Kind, payload: bytes) -> bytes:
    return bytes((kind,)) + len(payload).to_bytes(2, "big") + payload


HANGUP_MESSAGE: Final = _message(Kind.HANGUP, b"")
AUDIO_FRAME_HEADER: Final = _message(Kind.AUDIO, SILENCE_FRAME)[:HEADER_BYTES]
SILENCE_MESSAGE: Final = AUDIO_FRAME_HEADER + SILENCE_FRAME
FRAME_MESSAGE_BYTES: Final = HEADER_BYTES + FRAME_BYTES


class AudioSocketDecoder:
    """The stream of one AudioSocket connection, cut into messages.

    Bad bytes never raise: `fault` then says what was wrong, and nothing more is
    read, since a stream that has lost its framing cannot be trusted again.
    """

    def __init__(self) -> None:
        self.fault: str | None = None
        self.num_unknown = 0
        self._buffer = b""
        self._messages: list[AudioSocketMessage] = []

    def receive_data(self, data: bytes) -> None:
        """Take any number of bytes, cut anywhere."""
        if self.fault is not None:
            return
        stream = self._buffer + data if self._buffer else data
        at = 0
        while self.fault is None and len(stream) - at >= HEADER_BYTES:
            length_bytes = stream[at + 1] << 8 | stream[at + 2]
            if length_bytes > MAX_PAYLOAD_BYTES:
                self._fail(f"message of {length_bytes} bytes")
                return
            end = at + HEADER_BYTES + length_bytes
            if end > len(stream):
                break
            self._receive_message(stream[at], stream[at + HEADER_BYTES : end])
            at = end
        # never more than one message, since its length has been judged above
        self._buffer = stream[at:] if self.fault is None else b""

    def receive_eof(self) -> None:
        """The peer closed its side: a message cut in two is a fault."""
        if self._buffer and self.fault is None:
            self._fail("the stream ended inside a message")

    def events_received(self) -> list[AudioSocketMessage]:
        """Messages since the last call, in order."""
        messages, self._messages = self._messages, []
        return messages

    def _receive_message(self, kind: int, payload: bytes) -> None:
        if kind in _RATES_HZ:
            if len(payload) % SAMPLE_BYTES:
                self._fail(f"audio of {len(payload)} bytes is half a sample too long")
            elif payload:
                self._messages.append(Audio(payload, _RATES_HZ[kind]))
        elif kind == Kind.DIGIT:
            self._receive_digit(payload)
        elif kind == Kind.CALL_ID:
            if len(payload) == UUID_BYTES:
                self._messages.append(CallId(UUID(bytes=payload)))
            else:
                self._fail(f"call id of {len(payload)} bytes")
        elif kind == Kind.HANGUP:
            self._messages.append(Hangup())
        elif kind == Kind.ERROR:
            self._messages.append(PeerError(int.from_bytes(payload[:4], "big")))
        else:
            # later versions may add kinds: the length says how to step over them
            self.num_unknown += 1

    def _receive_digit(self, payload: bytes) -> None:
        key = payload.decode("ascii", errors="replace").upper()
        if key in KEYS:
            self._messages.append(Digit(key))
        else:
            self.num_unknown += 1

    def _fail(self, reason: str) -> None:
        self.fault = reason
        self._buffer = b""
