"""Who is logged in at the console: a key shown once, a cookie from then on.

The cookie is for this host only, for no script (HttpOnly), for no request that another
site began (SameSite=Strict), and under TLS never sent without it.  Whatever changes
something must also bring the session's token in a header, which only our own pages
know.  Sessions live in memory: a restart, or the key's revocation, ends them.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers

COOKIE: Final = "ultravox_session"
TOKEN_HEADER: Final = "X-CSRF-Token"  # noqa: S105 - the header's name
IDLE_S: Final = 12 * 3600.0
"""A shift; then the key is asked for again."""
MAX_SESSIONS: Final = 1000
"""One more, and the one longest unused is ended."""
_SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")


@dataclass(slots=True)
class Session:
    """Somebody logged in."""

    name: str
    """Of the key."""
    key_digest: bytes
    token: str
    """For `TOKEN_HEADER`."""
    used_s: float


class Sessions:
    """All of them, found by the cookie's digest."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[bytes, Session] = {}

    def begin(self, name: str, key_digest: bytes) -> tuple[str, Session]:
        """The cookie's value, and what belongs to it."""
        cookie = secrets.token_urlsafe(32)
        session = Session(name, key_digest, secrets.token_urlsafe(32), self._clock())
        self._known[_digest(cookie)] = session
        while len(self._known) > MAX_SESSIONS:
            oldest = min(self._known, key=lambda one: self._known[one].used_s)
            del self._known[oldest]
        return cookie, session

    def end(self, cookie: str) -> None:
        """Logged out."""
        self._known.pop(_digest(cookie), None)

    def find(self, cookie: str, keys: Mapping[str, bytes]) -> Session | None:
        """The session of a cookie; None: it is nobody's, too old, or its key gone."""
        digest = _digest(cookie)
        session = self._known.get(digest)
        if session is None:
            return None
        now_s = self._clock()
        if now_s - session.used_s > IDLE_S or keys.get(session.name) != (
            session.key_digest
        ):
            del self._known[digest]
            return None
        session.used_s = now_s
        return session


def may_act(
    session: Session, method: str, headers: Headers, *, is_socket: bool
) -> bool:
    """Whether a request with this cookie was made by one of our own pages.

    A WebSocket has no headers to add, but always an Origin.
    """
    origin, host = headers.get("origin"), headers.get("host", "")
    if origin is not None and urlsplit(origin).netloc != host:
        return False
    if is_socket:
        return origin is not None
    if method in _SAFE_METHODS:
        return True
    shown = headers.get(TOKEN_HEADER, "")
    return hmac.compare_digest(shown.encode(), session.token.encode())


def cookie_in(headers: Headers) -> str:
    """Its value; empty: there is none."""
    for part in headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


def _digest(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode()).digest()
