"""How much one client may ask for: requests a second, and replies at once.

A client is the key it shows and the address it comes from; both have to have room.
Programs on this host without a key (the console, the phone half) are counted only in
what all may have at once.  Live dialogues have their own limit in the service.
"""

from __future__ import annotations

import ipaddress
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send
from throttled import MemoryStore, RateLimiterType, Throttled, rate_limiter

import telemetry
from rest_api.errors import error_response

_REPLY_PATHS: Final = ("/chat/", "/v1/chat/")
_FREE_PATHS: Final = ("/health", "/internal/")
_V6_CLIENT_BITS: Final = 64
"""A household or server gets at least this much; single addresses cost it nothing."""


@dataclass(frozen=True, slots=True)
class LimitOptions:
    """What each client may have."""

    requests_per_min: int = 1200
    """A dialler's CRM asks a few times a call; a hundred calls fit."""
    burst: int = 100
    replies_at_once: int = 32
    """Of one client; under the total, so that one leaves room for another."""
    all_replies_at_once: int = 128
    """Of all, on this host too: beyond that waiting only costs memory."""
    wrong_keys_per_min: int = 20
    """From one address: nobody guesses a key, but a loop with an old one is loud."""
    max_clients: int = 10_000
    """Remembered; the one not seen for longest is forgotten."""


class Rates:
    """Requests a minute, by client: bursts, then a steady rate (GCRA)."""

    def __init__(self, per_min: int, burst: int, max_clients: int = 10_000) -> None:
        self._limiter = Throttled(
            using=RateLimiterType.GCRA.value,
            quota=rate_limiter.per_min(per_min, burst=burst),
            store=MemoryStore(options={"MAX_SIZE": max_clients}),
        )

    def take(self, client: str) -> float:
        """Count one request: 0.0, or the seconds to wait when there is no room."""
        asked = self._limiter.limit(client)
        return asked.state.retry_after if asked.limited else 0.0


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
        self._rates = Rates(
            options.requests_per_min, options.burst, options.max_clients
        )
        self._places = Places(options.replies_at_once, options.all_replies_at_once)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(_FREE_PATHS):
            await self._app(scope, receive, send)
            return
        clients = clients_of(scope)
        wait_s = max((self._rates.take(client) for client in clients), default=0.0)
        if wait_s > 0.0:
            await _too_many(wait_s, "too many requests")(scope, receive, send)
            return
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

    What a proxy on this host says in X-Forwarded-For has been believed by then
    (uvicorn's part); what one elsewhere says is not: keys tell its clients apart.
    """
    client = scope.get("client")
    return _counted_as(client[0]) if client else ""


@lru_cache(maxsize=1024)
def _counted_as(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
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
