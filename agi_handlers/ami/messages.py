"""Asterisk's manager interface, read only: its bytes to events and responses.

No I/O.  A message is lines of `Key: value` up to an empty one; the first line of a
connection is a greeting.  What we send has no text from outside in it.
Source: Asterisk main/manager.c, res_talkdetect (func_talkdetect.c).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

_MAX_MESSAGE_BYTES: Final = 64 * 1024
"""The largest events list variables; ours are a few hundred bytes."""


class AmiProtocolError(Exception):
    """The other side does not speak the manager's language."""


@dataclass(frozen=True, slots=True)
class KeyPressed:
    """A key of the far end, at its release (DTMFEnd)."""

    channel: str
    uniqueid: str
    key: str


@dataclass(frozen=True, slots=True)
class TalkStarted:
    """TALK_DETECT hears speech (ChannelTalkingStart)."""

    channel: str
    uniqueid: str


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to our one action in flight."""

    is_success: bool
    message: str


AmiEvent: TypeAlias = KeyPressed | TalkStarted
AmiMessage: TypeAlias = AmiEvent | Response


class AmiReader:
    """Bytes of one connection, cut anywhere -> what concerns us of them."""

    def __init__(self) -> None:
        self._received = b""
        self._has_greeting = False

    def receive_data(self, data: bytes) -> list[AmiMessage]:
        """The messages these bytes complete; other events are left out.

        Raises:
            AmiProtocolError: no manager, or a message without end.
        """
        self._received += data
        if not self._has_greeting and not self._take_greeting():
            return []
        messages: list[AmiMessage] = []
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            block, self._received = self._received[:end], self._received[end + 4 :]
            message = _message(_fields_of(block))
            if message is not None:
                messages.append(message)
        if len(self._received) > _MAX_MESSAGE_BYTES:
            raise AmiProtocolError("a message of the manager has no end")
        return messages

    def _take_greeting(self) -> bool:
        line, found, rest = self._received.partition(b"\r\n")
        if not found and len(line) < 200:
            return False
        if not line.startswith(b"Asterisk Call Manager"):
            raise AmiProtocolError(f"no manager interface: {line[:60]!r}")
        self._received, self._has_greeting = rest, True
        return True


def login(user: str, password: str) -> bytes:
    """Log in; only the two kinds of events that we read are asked for.

    Raises:
        ValueError: a value that would begin a line of its own.
    """
    if any(c in value for value in (user, password) for c in "\r\n"):
        raise ValueError("a line break in the manager's user or password")
    return _action(
        {
            "Action": "Login",
            "Username": user,
            "Secret": password,
            "Events": "dtmf,call",
        }
    )


def ping() -> bytes:
    """Is anybody there?"""
    return _action({"Action": "Ping"})


def _action(values: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in values.items())
    return f"{lines}\r\n".encode()


def _fields_of(block: bytes) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in block.decode("utf-8", errors="replace").split("\r\n"):
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip().lower(), value.strip())
    return fields


def _message(fields: Mapping[str, str]) -> AmiMessage | None:
    if "response" in fields:
        is_success = fields["response"].lower() in ("success", "pong")
        return Response(is_success, fields.get("message", ""))
    channel, uniqueid = fields.get("channel", ""), fields.get("uniqueid", "")
    match fields.get("event", "").lower():
        case "dtmfend" if fields.get("direction", "").lower() == "received":
            key = fields.get("digit", "").upper()
            if len(key) == 1 and key in "0123456789*#ABCD":
                return KeyPressed(channel, uniqueid, key)
        case "channeltalkingstart":
            return TalkStarted(channel, uniqueid)
    return None
