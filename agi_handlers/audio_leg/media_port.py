"""The media port: one listener for everything Asterisk connects back with.

The first bytes tell what a connection is: an AudioSocket call id (0x01), or a text
line `WORD TOKEN` sent by the shell lines of the other legs.  Only what a live AGI
dialogue has announced is let in, once, within seconds; whatever else connects is
closed, counted and logged with one line.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import secrets
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias, TypeVar, cast
from uuid import UUID

from agi_handlers.audio_leg.audiosocket_protocol import (
    HEADER_BYTES,
    UUID_BYTES,
    Kind,
    call_id_message,
)
from agi_handlers.errors import ListenFailed
from telemetry import ERRORS, fields

logger = logging.getLogger(__name__)

RefusalReason: TypeAlias = Literal[
    "not_allowed",  # an address outside the allow-list
    "too_many",  # more half-open arrivals than we keep
    "silent",  # no complete first message in time
    "cut_short",  # closed before its first message was complete
    "junk",  # neither an AudioSocket call id nor a line of ours
    "unannounced",  # a call id or token nobody expects, or no longer
    "taken",  # the one that was announced is already connected
]
# What the shell lines of the legs begin with.
LineWord: TypeAlias = Literal["AGI", "EAR", "FILES"]
_LINE_WORDS: Mapping[bytes, LineWord] = {
    b"AGI": "AGI",
    b"EAR": "EAR",
    b"FILES": "FILES",
}
_MAX_LINE_BYTES = 80  # the longest word, a space, a token of 32 letters; room to spare
_CALL_ID_BYTES = HEADER_BYTES + UUID_BYTES
_CALL_ID_START = call_id_message(UUID(int=0))[:HEADER_BYTES]

P = TypeVar("P", bound=asyncio.Protocol)
PassOn: TypeAlias = Callable[[socket.socket, bytes, int], bool]
"""(connection, what came on it, phone halves that do not know it) -> taken or not."""


@dataclass(frozen=True, slots=True)
class MediaPortOptions:
    host: str = "0.0.0.0"
    port: int = 9092  # Asterisk's own examples use it for AudioSocket
    backlog: int = 2048  # a burst of 400 connects overran asyncio's default of 100
    # Asterisk sends the call id in the first packet; slow trunks are no factor here
    hello_timeout_s: float = 5.0
    max_arrivals: int = 512  # connections that have not said yet what they are
    allowed_peers: tuple[str, ...] = ()  # addresses or networks; empty: any


class Announcement(Generic[P]):
    """One connection that may come; made by MediaPort, which also withdraws it."""

    def __init__(self, key: str, make_protocol: Callable[[], P]) -> None:
        self.key = key
        self._make_protocol = make_protocol
        self._arrived: asyncio.Future[P] = asyncio.get_running_loop().create_future()

    @property
    def is_taken(self) -> bool:
        return self._arrived.done()

    async def arrived(self) -> P:
        """The protocol that serves the connection, once it is there."""
        return await asyncio.shield(self._arrived)

    def accept(self, transport: asyncio.Transport, received: bytes) -> None:
        """Hand the connection over, with the bytes that came already."""
        protocol = self._make_protocol()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if received:
            protocol.data_received(received)
        self._arrived.set_result(protocol)

    def withdraw(self) -> None:
        self._arrived.cancel()


class MediaPort:
    """The open port; use `open_media_port`."""

    def __init__(
        self, options: MediaPortOptions, listener: socket.socket | None = None
    ) -> None:
        """`listener`: a port that is open already, instead of the options'."""
        self.options = options
        self.port = options.port
        self._listener = listener
        self.pass_on: PassOn | None = None
        """Takes a connection nobody here expects to a phone half on the same port."""
        self.num_siblings = 0
        self.num_refused: Counter[RefusalReason] = Counter()
        self.num_accepted = 0
        self._allowed = tuple(
            ipaddress.ip_network(peer, strict=False) for peer in options.allowed_peers
        )
        self._announced: dict[str, Announcement[asyncio.Protocol]] = {}
        self._arrivals: set[_Arrival] = set()
        self._server: asyncio.Server | None = None

    @contextmanager
    def announce_audiosocket(
        self, call_id: UUID, make_protocol: Callable[[], P]
    ) -> Iterator[Announcement[P]]:
        """Let one AudioSocket connection with this call id in while the block lasts.

        The protocol sees the stream from its first byte, the call id included.
        """
        with self._announce(_audiosocket_key(call_id), make_protocol) as announcement:
            yield announcement

    @contextmanager
    def announce_line(
        self, word: LineWord, make_protocol: Callable[[], P]
    ) -> Iterator[tuple[str, Announcement[P]]]:
        """Let one connection in that begins with `WORD TOKEN`; yields that line.

        The protocol sees what follows the line.
        """
        token = secrets.token_hex(16)
        with self._announce(_line_key(word, token), make_protocol) as announcement:
            yield f"{word} {token}", announcement

    @contextmanager
    def _announce(
        self, key: str, make_protocol: Callable[[], P]
    ) -> Iterator[Announcement[P]]:
        assert key not in self._announced, "a call id or token is used once"
        announcement = Announcement(key, make_protocol)
        self._announced[key] = cast("Announcement[asyncio.Protocol]", announcement)
        try:
            yield announcement
        finally:
            del self._announced[key]
            announcement.withdraw()

    # --- for _Arrival ---

    def allows(self, host: str) -> bool:
        if not self._allowed:
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped  # a listener on :: shows IPv4 peers so
        return any(address in network for network in self._allowed)

    def arrival(self, arrival: _Arrival) -> bool:
        """Keep track of a new connection; False: there are too many."""
        self._arrivals.add(arrival)
        return len(self._arrivals) <= self.options.max_arrivals

    def settled(self, arrival: _Arrival) -> None:
        self._arrivals.discard(arrival)

    def admit(self, key: str) -> Announcement[asyncio.Protocol] | RefusalReason:
        announcement = self._announced.get(key)
        if announcement is None:
            return "unannounced"
        if announcement.is_taken:
            return "taken"
        self.num_accepted += 1
        return announcement

    def count_refused(self, reason: RefusalReason, peer: str) -> None:
        self.num_refused[reason] += 1
        ERRORS.labels(kind=f"media_{reason}").inc()
        logger.warning("media_refused", extra=fields(reason=reason, peer=peer))

    # --- for open_media_port ---

    async def open(self) -> None:
        """Raises: ListenFailed."""
        loop = asyncio.get_running_loop()
        options = self.options
        try:
            if self._listener is not None:
                self._server = await loop.create_server(
                    lambda: _Arrival(self), sock=self._listener, backlog=options.backlog
                )
            else:
                self._server = await loop.create_server(
                    lambda: _Arrival(self),
                    options.host,
                    options.port,
                    backlog=options.backlog,
                )
        except OSError as exc:
            raise ListenFailed(
                f"audio port {options.host}:{options.port} cannot be opened: {exc}"
            ) from exc
        self.port = self._server.sockets[0].getsockname()[1]
        logger.info("media_port_open", extra=fields(host=options.host, port=self.port))

    async def take_over(
        self, connection: socket.socket, received: bytes, num_asked: int
    ) -> None:
        """Serve a connection that another phone half accepted.

        num_asked: phone halves that do not know it.
        """
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                lambda: _Arrival(self, received, num_asked), connection
            )
        except OSError as exc:  # the peer has left meanwhile
            connection.close()
            logger.info("stray_gone", extra=fields(error=str(exc)))

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for arrival in list(self._arrivals):
            arrival.abort()
        # Connections that were handed over belong to their calls, which end first.
        # From 3.12 on this would wait for them; a second is enough for ours.
        try:
            async with asyncio.timeout(1.0):
                await self._server.wait_closed()
        except TimeoutError:
            logger.warning("media_port_closed_with_connections")


@asynccontextmanager
async def open_media_port(
    options: MediaPortOptions | None = None, listener: socket.socket | None = None
) -> AsyncIterator[MediaPort]:
    """The media port, open for the block; on `listener` if there is one.

    Raises:
        ListenFailed: the port cannot be opened.
    """
    media_port = MediaPort(options or MediaPortOptions(), listener)
    await media_port.open()
    try:
        yield media_port
    finally:
        await media_port.close()


class _Arrival(asyncio.Protocol):
    """A connection that has yet to say what it is."""

    def __init__(
        self, media_port: MediaPort, received: bytes = b"", num_asked: int = 0
    ) -> None:
        self._media_port = media_port
        self._transport: asyncio.Transport | None = None
        self._peer = ""
        self._received = received
        self._num_asked = num_asked
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        name = transport.get_extra_info("peername") or ("", 0)
        self._peer = f"{name[0]}:{name[1]}"
        within_limit = self._media_port.arrival(self)
        if not self._media_port.allows(name[0]):
            self._refuse("not_allowed")
        elif not within_limit:
            self._refuse("too_many")
        else:
            send_small_messages_at_once(self._transport)
            self._timer = asyncio.get_running_loop().call_later(
                self._media_port.options.hello_timeout_s, self._refuse, "silent"
            )
            if self._received:  # by another phone half, before it came to us
                self.data_received(b"")

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        self._received += data
        found = first_message(self._received)
        if found is None:
            return
        if found == "junk":
            self._refuse("junk")
            return
        key, rest = found
        admitted = self._media_port.admit(key)
        if isinstance(admitted, str):
            if admitted != "unannounced" or not self._is_passed_on():
                self._refuse(admitted)
            return
        transport = self._transport
        self._settle()
        admitted.accept(transport, rest)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._refuse("cut_short")

    def _is_passed_on(self) -> bool:
        """Whether another phone half on this port was given the connection."""
        pass_on, transport = self._media_port.pass_on, self._transport
        if pass_on is None or self._num_asked >= self._media_port.num_siblings:
            return False
        assert transport is not None
        transport.pause_reading()
        sock = transport.get_extra_info("socket")
        with socket.socket(fileno=os.dup(sock.fileno())) as connection:
            if not pass_on(connection, self._received, self._num_asked + 1):
                return False
        self.abort()  # closes our descriptor only
        return True

    def abort(self) -> None:
        """Close without counting: the port itself is closing."""
        transport = self._transport
        self._settle()
        if transport is not None:
            transport.abort()

    def _refuse(self, reason: RefusalReason) -> None:
        self._media_port.count_refused(reason, self._peer)
        self.abort()

    def _settle(self) -> None:
        self._transport = None
        self._received = b""
        if self._timer is not None:
            self._timer.cancel()
        self._media_port.settled(self)


def first_message(received: bytes) -> tuple[str, bytes] | Literal["junk"] | None:
    """What a connection says it is: (key, bytes for its protocol).

    None: more bytes are needed to tell.
    """
    if received[:1] == bytes((Kind.CALL_ID,)):
        if not received.startswith(_CALL_ID_START[: len(received)]):
            return "junk"
        if len(received) < _CALL_ID_BYTES:
            return None
        call_id = UUID(bytes=received[HEADER_BYTES:_CALL_ID_BYTES])
        return _audiosocket_key(call_id), received
    line, newline, rest = received.partition(b"\n")
    if len(line) > _MAX_LINE_BYTES:
        return "junk"
    word, space, token = line.partition(b" ")
    if not newline:
        is_possible = (
            word in _LINE_WORDS
            if space
            else any(known.startswith(word) for known in _LINE_WORDS)
        )
        return None if is_possible else "junk"
    if word not in _LINE_WORDS or not token.isalnum():
        return "junk"
    return _line_key(_LINE_WORDS[word], token.decode("ascii")), rest


def send_small_messages_at_once(transport: asyncio.Transport) -> None:
    """No Nagle: a 20 ms frame must not wait for the acknowledgement of the last."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _audiosocket_key(call_id: UUID) -> str:
    return f"audiosocket {call_id}"


def _line_key(word: LineWord, token: str) -> str:
    return f"{word} {token}"
