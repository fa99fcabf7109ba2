"""Who may use the HTTP port: API keys, asked of every address but loopback.

A request on loopback passes without a key unless a web page of another origin made it
(a browser on this host runs everybody's pages) or a proxy passed it on.  Open to all:
the health checks, and the documentation.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import logging
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from rest_api.console.pages import PATHS as CONSOLE_PATHS
from rest_api.console.pages import SESSION_PATH
from rest_api.console.sessions import Session, Sessions, cookie_in, may_act
from rest_api.errors import error_response
from rest_api.limits import Rates, address_of
from rest_api.talk.pages import PATHS as TALK_PATHS
from telemetry import fields

logger = logging.getLogger(__name__)

OPEN_PATHS: Final = frozenset(
    {
        *("/health", "/health/live", "/health/ready"),
        *("/docs", "/docs/docs.js", "/docs/docs.css", "/openapi.json"),
        *CONSOLE_PATHS,
        SESSION_PATH,
        *TALK_PATHS,
    }
)
LIVE_SUBPROTOCOL: Final = "chat-live"
LISTEN_SUBPROTOCOL: Final = "listen"
_KEY_SUBPROTOCOL: Final = "key."
"""A browser's WebSocket has no headers: it offers "chat-live" and "key.<KEY>"."""
_KEY64_SUBPROTOCOL: Final = "key64."
"""The same in base64url without padding: a protocol's name takes few characters."""
_HASH_FILE: Final = "api_key.sha256"
_HASHED: Final = "sha256:"
_DEFAULT_NAME: Final = "default"
_WRONG_KEYS_PER_MIN: Final = 20
"""From one address; with the burst below a mistyped key harms nobody."""
_WRONG_KEYS_BURST: Final = 20
# What a proxy on this host adds to requests from elsewhere.
_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-real-ip")
MIN_KEY_CHARS: Final = 16


class ApiKeysInvalid(ValueError):
    """The setting is not `name:key,name:key`."""


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Keys by name, as digests; a key is compared in constant time."""

    digests: Mapping[str, bytes]

    @classmethod
    def parse(cls, setting: str) -> KeyRing:
        """`name:key,name:key`; a key may be given as `sha256:` and its hash in hex.

        Raises:
            ApiKeysInvalid: without showing any key.
        """
        digests: dict[str, bytes] = {}
        for number, entry in enumerate(
            filter(None, map(str.strip, setting.split(",")))
        ):
            name, colon, key = (part.strip() for part in entry.partition(":"))
            if not colon or not name or not key:
                raise ApiKeysInvalid(f"entry {number + 1} is not name:key")
            if name in digests:
                raise ApiKeysInvalid(f"the name {name!r} is there twice")
            if key.startswith(_HASHED):
                digests[name] = _hash_in(name, key.removeprefix(_HASHED))
                continue
            if len(key) < MIN_KEY_CHARS:
                raise ApiKeysInvalid(
                    f"the key of {name!r} has fewer than {MIN_KEY_CHARS} characters"
                )
            if not key.isascii() or not key.isprintable() or " " in key:
                raise ApiKeysInvalid(
                    f"the key of {name!r} has blanks or letters beyond ASCII, which "
                    "no HTTP header carries safely"
                )
            digests[name] = digest(key)
        return cls(digests)

    def name_of(self, key: str) -> str | None:
        """Whose key it is; None: nobody's."""
        shown = digest(key)
        found = None
        for name, known in self.digests.items():  # all of them: equal time
            if hmac.compare_digest(shown, known):
                found = name
        return found


def digest(key: str) -> bytes:
    """SHA-256: keys are long and random, so a slow hash would protect nothing."""
    return hashlib.sha256(key.encode()).digest()


def _hash_in(name: str, text: str) -> bytes:
    try:
        known = bytes.fromhex(text)
    except ValueError:
        known = b""
    if len(known) != hashlib.sha256().digest_size:
        raise ApiKeysInvalid(f"the hash of {name!r} is not 64 hexadecimal digits")
    return known


@dataclass(slots=True)
class LiveKeys:
    """The keys that count now; replacing them revokes what is no longer there."""

    ring: KeyRing | None
    """None: everybody may come in."""


def load_or_make_key(data_dir: Path) -> tuple[KeyRing, str | None]:
    """The keys of an installation that set none; a key itself only when it is new.

    Raises:
        OSError: the folder cannot be written.
    """
    path = data_dir / _HASH_FILE
    try:
        return KeyRing(_read_hashes(path)), None
    except FileNotFoundError:
        pass
    except ApiKeysInvalid:
        logger.warning("api_key_file_broken", extra=fields(path=str(path)))
    return add_key(data_dir, _DEFAULT_NAME, anew=True)


def add_key(data_dir: Path, name: str, *, anew: bool = False) -> tuple[KeyRing, str]:
    """Make a key and keep its hash; the ring with it, and the key itself.

    `anew`: it is the only one.

    Raises:
        ApiKeysInvalid: the name is odd or taken, or the file cannot be understood.
        OSError: the folder cannot be written.
    """
    if not name.replace("-", "").replace("_", "").isalnum():
        raise ApiKeysInvalid("a name has letters, digits, - and _")
    path = data_dir / _HASH_FILE
    known: dict[str, bytes] = {}
    if not anew and path.exists():
        known = _read_hashes(path)
    if name in known:
        raise ApiKeysInvalid(f"there is a key named {name!r} already")
    key = secrets.token_urlsafe(32)
    known[name] = digest(key)
    _write_hashes(path, known)
    return KeyRing(known), key


def revoke_key(data_dir: Path, name: str) -> None:
    """Forget a key's hash; a server that runs has to be told (SIGHUP).

    Raises:
        ApiKeysInvalid: there is none of that name.
        OSError: the folder cannot be written.
    """
    path = data_dir / _HASH_FILE
    known = _read_hashes(path) if path.exists() else {}
    if name not in known:
        raise ApiKeysInvalid(f"there is no key named {name!r}")
    del known[name]
    _write_hashes(path, known)


def _read_hashes(path: Path) -> dict[str, bytes]:
    """A line `name hash` for each key; one hash alone is the first start's."""
    known = {}
    for line in path.read_text().splitlines():
        *name, hashed = line.split() or [""]
        if hashed:
            known["".join(name) or _DEFAULT_NAME] = _hash_in("".join(name), hashed)
    return known


def _write_hashes(path: Path, known: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{name} {hashed.hex()}\n" for name, hashed in known.items())
    unready = path.with_suffix(".new")
    unready.touch(mode=0o600)
    unready.write_text(text)
    unready.replace(path)  # a crash leaves the old file whole


class ApiKeyGate:
    """ASGI middleware: lets in whoever may come in, HTTP and WebSocket alike."""

    def __init__(
        self,
        app: ASGIApp,
        keys: KeyRing | LiveKeys | None,
        allowed_origins: Iterable[str] = (),
        wrong_keys_per_min: int = _WRONG_KEYS_PER_MIN,
        sessions: Sessions | None = None,
    ) -> None:
        """`keys` None: everybody may come in.  `sessions`: of the console."""
        self._app = app
        self._keys = keys if isinstance(keys, LiveKeys) else LiveKeys(keys)
        self._origins = frozenset(allowed_origins)
        self._sessions = sessions or Sessions()
        self._wrong = Rates(wrong_keys_per_min, _WRONG_KEYS_BURST)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        if self._keys.ring is None:
            scope.setdefault("state", {})["is_open_to_all"] = True
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        key = _key_in(headers)
        address = address_of(scope)
        session = None if key else self._session(scope, headers)
        name = self._keys.ring.name_of(key) if key else None
        if session is not None:
            name = session.name
        if key and name is None and address and self._wrong.take(address) > 0.0:
            await self._refuse_guesses(scope, receive, send)
            return
        scope.setdefault("state", {})["is_trusted"] = True
        scope["state"]["key_name"] = name or ""
        scope["state"]["session"] = session
        if name is not None or self._is_local(scope, headers):
            await self._app(scope, receive, send)
        elif scope["type"] == "http" and (
            scope["path"] in OPEN_PATHS or scope["method"] == "OPTIONS"
        ):
            scope["state"]["is_trusted"] = False
            await self._app(scope, receive, send)
        else:
            await self._refuse(scope, receive, send)

    def _session(self, scope: Scope, headers: Headers) -> Session | None:
        """Who is logged in; a request that another site's page made has nobody."""
        assert self._keys.ring is not None
        if not (cookie := cookie_in(headers)):
            return None
        session = self._sessions.find(cookie, self._keys.ring.digests)
        is_socket = scope["type"] == "websocket"
        method = scope.get("method", "")
        if session is None or not may_act(
            session, method, headers, is_socket=is_socket
        ):
            return None
        return session

    def _is_local(self, scope: Scope, headers: Headers) -> bool:
        client = scope.get("client")
        if not client or not _is_loopback(client[0]):
            return False
        if any(name in headers for name in _FORWARDED):
            return False
        origin = headers.get("origin")
        return (
            origin is None
            or origin in self._origins
            or _is_loopback(urlsplit(origin).hostname or "")
        )

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = error_response(
            HTTPStatus.UNAUTHORIZED,
            "unauthorized",
            "an API key is needed: Authorization: Bearer KEY, or X-API-Key: KEY",
            headers={"WWW-Authenticate": "Bearer"},
        )
        await self._deny(response, scope, receive, send)

    async def _refuse_guesses(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = error_response(
            HTTPStatus.TOO_MANY_REQUESTS,
            "too_many_requests",
            "too many wrong keys from this address",
            headers={"Retry-After": "60"},
        )
        await self._deny(response, scope, receive, send)

    async def _deny(
        self, response: Response, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if scope["type"] == "websocket":
            await WebSocket(scope, receive, send).send_denial_response(response)
        else:
            await response(scope, receive, send)


def _key_in(headers: Headers) -> str:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    if key := headers.get("x-api-key", ""):
        return key.strip()
    for offered in headers.get("sec-websocket-protocol", "").split(","):
        name = offered.strip()
        if name.startswith(_KEY_SUBPROTOCOL):
            return name.removeprefix(_KEY_SUBPROTOCOL)
        if name.startswith(_KEY64_SUBPROTOCOL):
            return _decoded(name.removeprefix(_KEY64_SUBPROTOCOL))
    return ""


def _decoded(text: str) -> str:
    """A key in base64url; what cannot be one is the wrong key that it is."""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except ValueError:
        return text


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:127.0.0.1
    return (mapped or address).is_loopback
