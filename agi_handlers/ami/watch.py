"""One connection to each dialer's manager interface, kept up; calls take its events.

Optional, and never in a call's way: while a manager is away, calls go on without what
it would have told.  We only read: of a manager's actions we know Login and Ping.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from agi_handlers.ami.messages import (
    AmiEvent,
    AmiProtocolError,
    AmiReader,
    Response,
    login,
    ping,
)
from telemetry import fields

logger = logging.getLogger(__name__)

_READ_BYTES: Final = 65_536
OnEvent: TypeAlias = Callable[[AmiEvent], None]


@dataclass(frozen=True, slots=True)
class AmiOptions:
    user: str
    password: str = field(repr=False)
    addresses: tuple[tuple[str, int], ...] = ()
    """Host and port of each dialer's manager."""
    connect_timeout_s: float = 3.0
    quiet_timeout_s: float = 20.0
    """Without a byte for so long we ask; without an answer the connection is dead."""
    first_retry_s: float = 1.0
    longest_retry_s: float = 30.0


class AmiRefused(Exception):
    """The manager does not let us in."""


class AmiWatch:
    """All dialers' managers; one for the whole process."""

    def __init__(self, options: AmiOptions) -> None:
        self._options = options
        self._login = login(options.user, options.password)
        self._calls: dict[tuple[str, str], OnEvent] = {}
        self._connected: set[tuple[str, int]] = set()

    @property
    def is_connected(self) -> bool:
        """At least one manager talks to us."""
        return bool(self._connected)

    @contextmanager
    def listening(
        self, channel: str, uniqueid: str, on_event: OnEvent
    ) -> Iterator[None]:
        """`on_event` hears of this channel for as long as the block lasts."""
        key = (channel, uniqueid)
        self._calls[key] = on_event
        try:
            yield
        finally:
            self._calls.pop(key, None)

    async def run(self) -> None:
        """Keep every connection up, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for address in self._options.addresses:
                tasks.create_task(self._keep(address))

    async def _keep(self, address: tuple[str, int]) -> None:
        pause_s, told = self._options.first_retry_s, ""
        where = f"{address[0]}:{address[1]}"
        while True:
            try:
                await self._converse(address)
                reason = "the manager closed the connection"
            except (OSError, TimeoutError, AmiProtocolError, AmiRefused) as exc:
                reason = f"{type(exc).__name__}: {exc}"
            if address in self._connected:
                self._connected.discard(address)
                pause_s, told = self._options.first_retry_s, ""
            if reason != told:  # an outage is told once
                told = reason
                logger.warning("ami_away", extra=fields(peer=where, reason=reason))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, self._options.longest_retry_s)

    async def _converse(self, address: tuple[str, int]) -> None:
        options = self._options
        async with asyncio.timeout(options.connect_timeout_s):
            reader, writer = await asyncio.open_connection(*address)
        try:
            writer.write(self._login)
            await self._read(address, reader, writer)
        finally:
            writer.close()

    async def _read(
        self,
        address: tuple[str, int],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        messages, is_in, is_asked = AmiReader(), False, False
        while True:
            try:
                async with asyncio.timeout(self._options.quiet_timeout_s):
                    data = await reader.read(_READ_BYTES)
            except TimeoutError:
                if is_asked or not is_in:
                    raise
                is_asked = True
                writer.write(ping())
                continue
            if not data:
                return
            is_asked = False
            for message in messages.receive_data(data):
                if not isinstance(message, Response):
                    self._tell(message)
                elif not is_in:
                    if not message.is_success:
                        raise AmiRefused(message.message or "login refused")
                    is_in = True
                    self._connected.add(address)
                    logger.info("ami_connected", extra=fields(peer=address[0]))

    def _tell(self, event: AmiEvent) -> None:
        on_event = self._calls.get((event.channel, event.uniqueid))
        if on_event is None:
            return  # a channel of others
        try:
            on_event(event)
        except Exception:
            logger.exception("ami_event_not_taken")


def parse_addresses(values: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """HOST or HOST:PORT of each; 5038 where no port is given.

    Raises:
        ValueError: no such address.
    """
    return tuple(_address(value) for value in values)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon:
        host, port = text, "5038"
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ValueError(f"{text!r} is no HOST or HOST:PORT")
    return host, int(port)
