"""How much one client may ask for: requests a second, and replies at once.

A client is the key it shows and the address it comes from; both have to have room.
Programs on this host without a key (the console, the phone half) are counted only in
what all may have at once.  Live dialogues have their own limit in the service.

Source: token bucket, as in ITU-T I.371.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

import telemetry
from rest_api.errors import error_response

_REPLY_PATHS: Final = ("/chat/", "/v1/chat/")
_FREE_PATHS: Final = ("/health", "/internal/")
_V6_CLIENT_BITS: Final = 64
"""A household or server gets at least this much; single addresses cost it nothing."""


@dataclass(frozen=True, slots=True)
class LimitOptions:
    """What each client may have."""

    rate_per_s: float = 20.0
    """A dialler's CRM asks a few times a call; a hundred calls fit."""
    burst: int = 100
    replies_at_once: int = 32
    """Of one client; under the total, so that one leaves room for another."""
    all_replies_at_once: int = 128
    """Of all, on this host too: beyond that waiting only costs memory."""
    wrong_keys_per_min: float = 20.0
    """From one address: nobody guesses a key, but a loop with an old one is loud."""
    max_clients: int = 10_000
    """Remembered; the one not seen for longest is forgotten."""


class TokenBuckets:
    """A bucket for each client; time comes from a clock, so tests need none."""

    def __init__(
        self,
        rate_per_s: float,
        burst: float,
        max_clients: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._max_clients = max_clients
        self._clock = clock
        # client -> tokens left, and when that was true
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_s(self, client: str) -> float:
        """How long until the client may come; 0.0: now."""
        return max(0.0, (1.0 - self._tokens(client)) / self._rate_per_s)

    def take(self, client: str) -> None:
        """One request has come; the bucket may go below empty by none."""
        left = max(0.0, self._tokens(client) - 1.0)
        self._buckets[client] = (left, self._clock())
        self._buckets.move_to_end(client)
        if len(self._buckets) > self._max_clients:
            self._buckets.popitem(last=False)

    def _tokens(self, client: str) -> float:
        left, at_s = self._buckets.get(client, (self._burst, self._clock()))
        return min(self._burst, left + (self._clock() - at_s) * self._rate_per_s)


class Places:
    """Replies under way, by client and in all."""

    def __init__(self, each: int, in_all: int) -> None:
        self._each = each
        self._in_all = in_all
        self._taken: Counter[str] = Counter()
        self.num_taken = 0

    @property
    def is_full(self) -> bool:
        """Whether nobody at all gets one."""
        return self.num_taken >= self._in_all

    def has_room(self, clients: Sequence[str]) -> bool:
        """Whether these may have one more."""
        return all(self._taken[client] < self._each for client in clients)

    @contextmanager
    def held(self, clients: Sequence[str]) -> Iterator[None]:
        """One place for as long as the block lasts."""
        self._taken.update(clients)
        self.num_taken += 1
        try:
            yield
        finally:
            self.num_taken -= 1
            self._taken.subtract(clients)
            for client in clients:
                if not self._taken[client]:
                    del self._taken[client]


class ClientLimits:
    """ASGI middleware behind the key gate: 429 to a client, 503 when all is full."""

    def __init__(self, app: ASGIApp, options: LimitOptions | None = None) -> None:
        options = options or LimitOptions()
        self._app = app
        self._rates = TokenBuckets(
            options.rate_per_s, options.burst, options.max_clients
        )
        self._places = Places(options.replies_at_once, options.all_replies_at_once)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(_FREE_PATHS):
            await self._app(scope, receive, send)
            return
        clients = clients_of(scope)
        wait_s = max((self._rates.wait_s(client) for client in clients), default=0.0)
        if wait_s > 0.0:
            await _too_many(wait_s, "too many requests")(scope, receive, send)
            return
        for client in clients:
            self._rates.take(client)
        if not scope["path"].startswith(_REPLY_PATHS):
            await self._app(scope, receive, send)
        elif not self._places.has_room(clients):
            refusal = _too_many(1.0, "too many replies at once for one client")
            await refusal(scope, receive, send)
        elif self._places.is_full:
            refusal = error_response(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "overloaded",
                "as many replies are under way as there may be",
            )
            await refusal(scope, receive, send)
        else:
            with self._places.held(clients):
                await self._app(scope, receive, send)


def clients_of(scope: Scope) -> list[str]:
    """By what names a request's client is counted; none for this host without key."""
    names = []
    key_name = scope.get("state", {}).get("key_name", "")
    if key_name:
        names.append(f"key {key_name}")
    if address := address_of(scope):
        names.append(f"address {address}")
    return names


def address_of(scope: Scope) -> str:
    """Where it comes from: an IPv4 address, an IPv6 network; empty for this host.

    What a proxy claims is not believed: behind one, keys tell clients apart.
    """
    client = scope.get("client")
    try:
        address = ipaddress.ip_address(client[0] if client else "")
    except ValueError:
        return ""
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_loopback:
        return ""
    if address.version == 4:
        return str(address)
    network = ipaddress.ip_network((address, _V6_CLIENT_BITS), strict=False)
    return str(network)


def _too_many(wait_s: float, message: str) -> ASGIApp:
    telemetry.ERRORS.labels(kind="too_many_requests").inc()
    return error_response(
        HTTPStatus.TOO_MANY_REQUESTS,
        "too_many_requests",
        message,
        headers={"Retry-After": str(math.ceil(wait_s))},
    )
