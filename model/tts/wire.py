"""Messages between the service and a synthesiser process, without I/O.

    kind (1 byte)  request id (4 bytes)  length (4 bytes)  payload      all big-endian

The service sends Speak and Cancel; the process answers Ready once, then for each
request Audio, Audio, ... and at the end Done or Failed.  Cancel is answered by Done.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass
from typing import Final, Literal, TypeAlias

from model.tts.voice import Voice

_HEADER: Final = struct.Struct(">BII")
_MAX_PAYLOAD_BYTES: Final = 1 << 20
FailureReason: TypeAlias = Literal["voice_unknown", "unavailable", "failed"]


@dataclass(frozen=True, slots=True)
class Speak:
    request_id: int
    text: str
    voice: Voice
    rate_hz: int


@dataclass(frozen=True, slots=True)
class Cancel:
    request_id: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The process has loaded what it needs."""

    version: str
    request_id: int = 0


@dataclass(frozen=True, slots=True)
class Audio:
    request_id: int
    pcm16: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """All audio of the request was sent, or it was cancelled."""

    request_id: int


@dataclass(frozen=True, slots=True)
class Failed:
    request_id: int
    reason: FailureReason
    message: str


Message: TypeAlias = Speak | Cancel | Ready | Audio | Done | Failed
_KINDS: Final[tuple[type[Message], ...]] = (Speak, Cancel, Ready, Audio, Done, Failed)


class WireError(Exception):
    """The other side sent what is no message."""


def encode(message: Message) -> bytes:
    kind = _KINDS.index(type(message))
    if isinstance(message, Audio):
        payload = message.pcm16
    else:
        fields = asdict(message)
        del fields["request_id"]
        payload = json.dumps(fields).encode()
    return _HEADER.pack(kind, message.request_id, len(payload)) + payload


class MessageReader:
    """Bytes in, cut anywhere; whole messages out."""

    def __init__(self) -> None:
        self._received = bytearray()

    def receive_data(self, data: bytes) -> list[Message]:
        """The messages that `data` completes.

        Raises:
            WireError: an unknown kind, an absurd length or a payload that is not JSON.
        """
        self._received += data
        messages: list[Message] = []
        while len(self._received) >= _HEADER.size:
            kind, request_id, length = _HEADER.unpack_from(self._received)
            if kind >= len(_KINDS) or length > _MAX_PAYLOAD_BYTES:
                raise WireError(f"kind {kind} with {length} bytes is no message")
            end = _HEADER.size + length
            if len(self._received) < end:
                break
            payload = bytes(self._received[_HEADER.size : end])
            del self._received[:end]
            messages.append(_decode(_KINDS[kind], request_id, payload))
        return messages


def _decode(kind: type[Message], request_id: int, payload: bytes) -> Message:
    if kind is Audio:
        return Audio(request_id, payload)
    try:
        fields = json.loads(payload)
        if kind is Speak:
            fields["voice"] = Voice(**fields["voice"])
        return kind(request_id=request_id, **fields)
    except (ValueError, TypeError, KeyError) as exc:
        raise WireError(f"{kind.__name__} cannot be read: {exc}") from exc
