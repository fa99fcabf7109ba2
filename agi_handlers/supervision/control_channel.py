"""Messages between the supervisor and a phone half, over a pair of local sockets.

    phone half ─▶ supervisor   beat · ready · stray
    supervisor ─▶ phone half   drain · retire · reload · siblings · stray

One packet is one message: a word and its values, in JSON; a stray connection travels as
a file descriptor beside it.  Neither side ever waits for the other: what does not fit
is dropped, and the end of either process is an end of file for the other.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import ClassVar, Final, Self, TypeAlias

from telemetry import fields

logger = logging.getLogger(__name__)

_MAX_PACKET_BYTES: Final = 128 << 10
MAX_STRAY_BYTES: Final = 64 << 10
"""Of a connection's first bytes; a first message is much shorter."""


@dataclass(frozen=True, slots=True)
class Beat:
    """The loop turns."""

    word: ClassVar[str] = "beat"


@dataclass(frozen=True, slots=True)
class Ready:
    """Calls are taken."""

    word: ClassVar[str] = "ready"


@dataclass(frozen=True, slots=True)
class Drain:
    """Refuse new calls; running ones have so long to end, then people take over."""

    within_s: float
    word: ClassVar[str] = "drain"


@dataclass(frozen=True, slots=True)
class Retire:
    """Another phone half takes the new calls; end with the last of yours."""

    word: ClassVar[str] = "retire"


@dataclass(frozen=True, slots=True)
class Reload:
    """Read campaigns again."""

    word: ClassVar[str] = "reload"


@dataclass(frozen=True, slots=True)
class Siblings:
    """So many other phone halves share the ports."""

    num: int
    word: ClassVar[str] = "siblings"


@dataclass(frozen=True, slots=True)
class Restarts:
    """How often a half was replaced since the service began, for the metrics."""

    half: str
    reason: str
    num: int
    word: ClassVar[str] = "restarts"


@dataclass(frozen=True, slots=True)
class Stray:
    """An audio connection of somebody else's call, with what came on it already."""

    num_asked: int
    """Phone halves that do not know it."""
    received: str
    """Base64."""
    word: ClassVar[str] = "stray"

    @classmethod
    def of(cls, num_asked: int, received: bytes) -> Self:
        return cls(num_asked, b64encode(received).decode("ascii"))

    @property
    def received_bytes(self) -> bytes:
        return b64decode(self.received)


Message: TypeAlias = (
    Beat | Ready | Drain | Retire | Reload | Siblings | Restarts | Stray
)
_KINDS: Final = {
    kind.word: kind
    for kind in (Beat, Ready, Drain, Retire, Reload, Siblings, Restarts, Stray)
}
OnMessage: TypeAlias = Callable[[Message, socket.socket | None], None]
"""The socket, there with a stray only, is the receiver's to close."""


class MessageUnreadable(ValueError):
    """Not a message of this version."""


def to_packet(message: Message) -> bytes:
    return json.dumps([message.word, asdict(message)]).encode()


def from_packet(packet: bytes) -> Message:
    """Raises MessageUnreadable."""
    try:
        word, values = json.loads(packet)
        return _KINDS[word](**values)
    except (ValueError, TypeError, KeyError) as exc:
        raise MessageUnreadable(str(exc)) from exc


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """The supervisor's end, the phone half's end."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class ControlChannel:
    """One end; use `start` within a running loop, `close` at the end."""

    def __init__(
        self, end: socket.socket, on_message: OnMessage, on_closed: Callable[[], None]
    ) -> None:
        """`on_closed` is called once, when the other process has ended."""
        end.setblocking(False)
        self._end = end
        self._on_message = on_message
        self._on_closed = on_closed
        self._is_open = False

    def start(self) -> None:
        self._is_open = True
        asyncio.get_running_loop().add_reader(self._end.fileno(), self._receive)

    def send(self, message: Message, connection: socket.socket | None = None) -> bool:
        """Whether it went; the connection stays the caller's."""
        packet = to_packet(message)
        try:
            if connection is None:
                self._end.send(packet)
            else:
                socket.send_fds(self._end, [packet], [connection.fileno()])
        except OSError:  # the other one is stuck or gone: its own watch sees to that
            return False
        return True

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            asyncio.get_running_loop().remove_reader(self._end.fileno())
        self._end.close()

    def _receive(self) -> None:
        while self._is_open:
            try:
                packet, descriptors, _, _ = socket.recv_fds(
                    self._end, _MAX_PACKET_BYTES, 4
                )
            except BlockingIOError:
                return
            except OSError:
                packet, descriptors = b"", []
            if not packet:
                self.close()
                self._on_closed()
                return
            self._take(packet, [socket.socket(fileno=one) for one in descriptors])

    def _take(self, packet: bytes, connections: list[socket.socket]) -> None:
        try:
            message = from_packet(packet)
        except MessageUnreadable as exc:
            logger.error("control_message_unreadable", extra=fields(reason=str(exc)))
            message = None
        if isinstance(message, Stray) and len(connections) == 1:
            self._on_message(message, connections[0])
            return
        for connection in connections:
            connection.close()
        if message is not None and not isinstance(message, Stray):
            self._on_message(message, None)
