"""HTTP connections under limits: uvicorn's protocol, which by itself has none of these.

uvicorn 0.54 waits for a request's head without end, keeps any number of header bytes,
and lets one address open every connection there may be.  Each of them is enough to
take the port from everybody else, without a key.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

import telemetry
from rest_api.limits import address_of

_READ_BYTES: Final = 262_144
"""What uvloop hands over at a time; a body may have begun in it."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one connection, and one address, may take."""

    head_timeout_s: float = 10.0
    """From the first byte, or the connection itself, to the end of the head."""
    rest_timeout_s: float = 10.0
    """For a body that nobody reads any more, since it was answered already."""
    max_head_bytes: int = 65_536
    max_body_bytes: int = 48 << 20
    per_address: int = 256
    """Of one address but this host; an integration has some tens."""
    spares_this_host: bool = True
    """The phone half and the console have as many as they want."""
    in_all: int = 4096
    """Under the usual limit of descriptors, calls included."""


class GuardedHttp(HttpToolsProtocol):
    """One connection; `guarded_http` makes the class with its limits."""

    limits: ConnectionLimits
    open_by_address: Counter[str]

    _timer: asyncio.TimerHandle | None = None
    _is_in_message = False
    _is_in_head = False
    _message_bytes = 0
    _trailer_bytes = 0
    _address: str | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._address = address_of({"client": self.client})
        self.open_by_address[self._address] += 1
        is_one_too_many = (
            bool(self._address or not self.limits.spares_this_host)
            and self.open_by_address[self._address] > self.limits.per_address
        )
        if is_one_too_many or self.open_by_address.total() > self.limits.in_all:
            self._give_up("too_many_connections")
        else:
            self._wait_at_most(self.limits.head_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        self._leave()  # a dialogue has limits of its own
        super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        self._message_bytes += len(data)
        super().data_received(data)
        limits = self.limits
        most = limits.max_head_bytes
        if self._is_in_message and not self._is_in_head:
            # Chunked, a byte of the body may cost six; endless trailers cost more.
            most += 6 * limits.max_body_bytes
        if self._message_bytes > most + _READ_BYTES:
            self._give_up("head_too_large")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_message = self._is_in_head = True
        self._message_bytes = self._trailer_bytes = 0
        self._wait_at_most(self.limits.head_timeout_s)

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._trailer_bytes += len(name) + len(value)
        if self._trailer_bytes > self.limits.max_head_bytes:
            self._give_up("head_too_large")

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_in_message = False
        self._message_bytes = 0
        self._stop_waiting()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_in_message:
            self._wait_at_most(self.limits.rest_timeout_s)

    def _wait_at_most(self, seconds: float) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(seconds, self._give_up, "too_slow")

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self, why: str) -> None:
        self._stop_waiting()
        if self.transport is not None and not self.transport.is_closing():
            telemetry.ERRORS.labels(kind=why).inc()
            self.transport.abort()

    def _leave(self) -> None:
        self._stop_waiting()
        if self._address is not None:
            self.open_by_address[self._address] -= 1
            if not self.open_by_address[self._address]:
                del self.open_by_address[self._address]
            self._address = None


def guarded_http(limits: ConnectionLimits | None = None) -> type[GuardedHttp]:
    """The protocol class for one server."""
    members: dict[str, Any] = {
        "limits": limits or ConnectionLimits(),
        "open_by_address": Counter(),
    }
    return type("GuardedHttp", (GuardedHttp,), members)
