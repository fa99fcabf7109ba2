"""Who may use the HTTP port: API keys, asked of every address but loopback.

A request on loopback passes without a key unless a web page of another origin made it
(a browser on this host runs everybody's pages) or a proxy passed it on.  Open to all:
the health checks, and the documentation.
"""

from __future__ import annotations

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
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from rest_api.console.pages import PATHS as CONSOLE_PATHS
from rest_api.errors import error_response
from telemetry import fields

logger = logging.getLogger(__name__)

OPEN_PATHS: Final = frozenset(
    {
        *("/health", "/health/live", "/health/ready"),
        *("/docs", "/docs/docs.js", "/docs/docs.css", "/openapi.json"),
        *CONSOLE_PATHS,
    }
)
LIVE_SUBPROTOCOL: Final = "chat-live"
_KEY_SUBPROTOCOL: Final = "key."
"""A browser's WebSocket has no headers: it offers "chat-live" and "key.<KEY>"."""
_HASH_FILE: Final = "api_key.sha256"
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
        """`name:key,name:key`.

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
            if len(key) < MIN_KEY_CHARS:
                raise ApiKeysInvalid(
                    f"the key of {name!r} has fewer than {MIN_KEY_CHARS} characters"
                )
            if name in digests:
                raise ApiKeysInvalid(f"the name {name!r} is there twice")
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


def load_or_make_key(data_dir: Path) -> tuple[KeyRing, str | None]:
    """The key of an installation that set none; the key itself only when it is new.

    Raises:
        OSError: the folder cannot be written.
    """
    path = data_dir / _HASH_FILE
    try:
        return KeyRing({"default": bytes.fromhex(path.read_text().strip())}), None
    except FileNotFoundError:
        key = secrets.token_urlsafe(32)
    except ValueError:
        logger.warning("api_key_file_broken", extra=fields(path=str(path)))
        key = secrets.token_urlsafe(32)
    data_dir.mkdir(parents=True, exist_ok=True)
    path.write_text(digest(key).hex() + "\n")
    path.chmod(0o600)
    return KeyRing({"default": digest(key)}), key


class ApiKeyGate:
    """ASGI middleware: lets in whoever may come in, HTTP and WebSocket alike."""

    def __init__(
        self, app: ASGIApp, keys: KeyRing | None, allowed_origins: Iterable[str] = ()
    ) -> None:
        """`keys` None: everybody may come in."""
        self._app = app
        self._keys = keys
        self._origins = frozenset(allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or self._keys is None:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        name = self._name_of(headers)
        scope.setdefault("state", {})["is_trusted"] = True
        scope["state"]["key_name"] = name or ""
        if name is not None or self._is_local(scope, headers):
            await self._app(scope, receive, send)
        elif scope["type"] == "http" and (
            scope["path"] in OPEN_PATHS or scope["method"] == "OPTIONS"
        ):
            scope["state"]["is_trusted"] = False
            await self._app(scope, receive, send)
        else:
            await self._refuse(scope, receive, send)

    def _name_of(self, headers: Headers) -> str | None:
        assert self._keys is not None
        key = _key_in(headers)
        return self._keys.name_of(key) if key else None

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
        if offered.strip().startswith(_KEY_SUBPROTOCOL):
            return offered.strip().removeprefix(_KEY_SUBPROTOCOL)
    return ""


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:127.0.0.1
    return (mapped or address).is_loopback
