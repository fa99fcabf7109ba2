"""What the two halves say to each other about calls that are running now.

    phone half ─ hello, calls, done, audio ─▶ speech half ─▶ console
               ◀──────── watch, do ─────────

JSON texts, and for listening in binary messages: a number as 4 bytes, big-endian, and
8 kHz pcm16, caller left and bot right, interleaved.  The phone half connects.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, Protocol, TypeAlias

import msgspec

CONTROL_PATH: Final = "/internal/phone"
MAX_MESSAGE_BYTES: Final = 1 << 20
"""A thousand calls are about 400 kB."""
MAX_SAY_CHARS: Final = 500
"""Half a minute of speech."""
_NUMBER_BYTES: Final = 4

ControlAction: TypeAlias = Literal[
    "say", "transfer", "hangup", "listen", "unlisten",
    "pause_recording", "resume_recording", "drain", "resume",
]  # fmt: skip


class ControlRefused(Exception):
    """It cannot be done now; the message says why, to people."""


class CallState(msgspec.Struct, frozen=True):
    """A running call at one moment."""

    call_id: str
    caller: str
    """As in the call's record: masked, or plain where that is configured."""
    campaign: str
    lead_id: str
    leg: str
    seconds: float
    phase: str
    """listening, hearing, thinking, speaking or ending."""
    caller_dbfs: int
    bot_dbfs: int
    """Loudest sample of the last half second; -96 is silence."""
    num_turns: int
    num_barge_ins: int
    response_ms: int | None = None
    """Of the last reply; None: none yet."""
    recording: Literal["", "on", "paused"] = ""
    targets: tuple[str, ...] = ()
    """Names a transfer may lead to, beside the dialplan's own people."""
    num_listeners: int = 0


class DialerState(msgspec.Struct, frozen=True):
    """An Asterisk whose calls came since the start of the phone half."""

    address: str
    asterisk: str
    """Its version."""
    leg: str
    """How its audio comes; empty: no call was answered yet."""
    num_calls: int
    last_call_s: float
    """Ago."""


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """The first message: which phone half this is."""

    name: str


class Calls(msgspec.Struct, frozen=True, tag="calls"):
    """All running calls; sent every second while somebody watches."""

    calls: tuple[CallState, ...]
    is_drained: bool
    """New calls are refused because an operator wants it."""
    dialers: tuple[DialerState, ...] = ()
    vicidial: str = ""
    """`ok`, or what is wrong; empty: the calls are not VICIdial's."""


class Done(msgspec.Struct, frozen=True, tag="done"):
    """Command `number` was carried out, or listening is over; `error`: it was not."""

    number: int
    error: str = ""


class Watch(msgspec.Struct, frozen=True, tag="watch"):
    """Send `calls` for so long from now."""

    seconds: float


class Do(msgspec.Struct, frozen=True, tag="do"):
    """Somebody wants something done."""

    number: int
    action: ControlAction
    by: str
    """The name of his API key."""
    call_id: str = ""
    argument: str = ""
    """What to say, or where to transfer to."""


FromPhone: TypeAlias = Hello | Calls | Done
ToPhone: TypeAlias = Watch | Do

_decode_up: msgspec.json.Decoder[FromPhone] = msgspec.json.Decoder(FromPhone)
_decode_down: msgspec.json.Decoder[ToPhone] = msgspec.json.Decoder(ToPhone)
encode: Callable[[FromPhone | ToPhone], bytes] = msgspec.json.Encoder().encode


class ControlMessageInvalid(ValueError):
    """The other half sent what we don't understand."""


def from_phone(text: str | bytes) -> FromPhone:
    """Raises ControlMessageInvalid."""
    try:
        return _decode_up.decode(text)
    except msgspec.MsgspecError as exc:
        raise ControlMessageInvalid(str(exc)) from exc


def to_phone(text: str | bytes) -> ToPhone:
    """Raises ControlMessageInvalid."""
    try:
        return _decode_down.decode(text)
    except msgspec.MsgspecError as exc:
        raise ControlMessageInvalid(str(exc)) from exc


def pack_audio(number: int, pcm16: bytes) -> bytes:
    """Sound for whoever listens under that number."""
    return number.to_bytes(_NUMBER_BYTES, "big") + pcm16


def unpack_audio(message: bytes) -> tuple[int, bytes]:
    """Number and sound; raises ControlMessageInvalid."""
    if len(message) < _NUMBER_BYTES or len(message) % 4:
        raise ControlMessageInvalid("not whole samples of two channels")
    return int.from_bytes(message[:_NUMBER_BYTES], "big"), message[_NUMBER_BYTES:]


class Listener(Protocol):
    """Somebody who hears a call."""

    def heard(self, stereo_pcm16: bytes) -> None:
        """The next piece, caller left and bot right; never waits."""
        ...

    def ended(self) -> None:
        """The call is over."""
        ...


class Controls(Protocol):
    """What a phone half lets others see and do; all of it at once, on the loop."""

    def report(self) -> Calls:
        """Every running call, and what is known of the world around."""
        ...

    def carry_out(self, wanted: Do) -> None:
        """Raises ControlRefused."""
        ...

    def listen(self, call_id: str, by: str, listener: Listener) -> Callable[[], None]:
        """Let somebody hear a call; returns what ends that.  Raises ControlRefused."""
        ...
