"""The speech half over the network: `SpeechService` on the WebSocket `/chat/live`.

One dialogue is one connection.  Several addresses are used in turn; one that fails is
tried last for a while.  This module is the phone half's: it imports no torch.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus, WebSocketException

from model.control_link import ControlLink
from model.control_messages import (
    MAX_SAY_CHARS,
    Calls,
    CallState,
    ControlRefused,
    DialerState,
    Do,
    Listener,
)
from model.errors import SpeechError, SpeechOverloaded, SpeechUnavailable
from model.failover import FailoverSession
from model.heartbeat import Heartbeat, HeartbeatSender
from model.live_messages import (
    MAX_AUDIO_BYTES,
    LiveError,
    LiveProtocolError,
    Ready,
    Start,
)
from model.live_wire import ServerMessages, encode_client
from model.remote_session import (
    RemoteSession,
    SpeechClientOptions,
    error_from,
    one_line,
)
from model.sidecar_address import (
    checked_url,
    http_client,
    key_headers,
    tls_context,
)
from model.speech import SessionOptions, SpeechStatus
from telemetry import fields

__all__ = [
    "MAX_SAY_CHARS",
    "CallState",
    "Calls",
    "ControlLink",
    "ControlRefused",
    "DialerState",
    "Do",
    "FailoverSession",
    "Heartbeat",
    "HeartbeatSender",
    "Listener",
    "RemoteSpeechService",
    "SpeechClientOptions",
    "tls_context",
]

logger = logging.getLogger(__name__)

LIVE_PATH: Final = "/chat/live"
HEALTH_PATH: Final = "/health"


@dataclass(slots=True)
class _Sidecar:
    """One address and whether it is worth trying first."""

    url: str
    http: httpx.AsyncClient
    avoid_until: float = 0.0


class RemoteSpeechService:
    """Opens dialogues at one of several sidecars."""

    def __init__(
        self,
        urls: Sequence[str],
        api_key: str = "",
        options: SpeechClientOptions | None = None,
    ) -> None:
        """`urls` as `http://host:port` or `https://…`.

        Raises:
            ValueError: no address, or one that isn't a URL of that kind.
        """
        self._options = options or SpeechClientOptions()
        if not urls:
            raise ValueError("at least one address is needed")
        self._headers = key_headers(api_key)
        self._sidecars = [
            _Sidecar(url, http_client(url, api_key, self._options.connect_timeout_s))
            for url in map(checked_url, urls)
        ]
        self._num_opened = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close what `status` keeps open; sessions end with their own contexts."""
        for sidecar in self._sidecars:
            await sidecar.http.aclose()

    @asynccontextmanager
    async def open_session(
        self, options: SessionOptions
    ) -> AsyncGenerator[FailoverSession]:
        """A dialogue at the first address that takes it, and at the next should it die.

        Raises:
            SpeechOverloaded: at least one answered, none has room.
            SpeechUnavailable: none answered.
            InvalidRequest: the options were refused.
        """
        session = FailoverSession(
            lambda: self._connect_anywhere(options),
            self._note_failure,
            options,
            self._options,
        )
        await session.open()
        try:
            yield session
        finally:
            await session.aclose()

    async def status(self) -> SpeechStatus:
        """What the first address with room for a dialogue says of itself, or else the
        first that is ready, or that answers; never raises."""
        detail, best = "", None
        for sidecar in self._in_order():
            try:
                response = await sidecar.http.get(HEALTH_PATH)
                status = _status_from(response.json())
                if status.has_room:
                    return status
                if best is None or status.is_ready > best.is_ready:
                    best = status
            except (httpx.HTTPError, ValueError, KeyError, TypeError) as exc:
                detail = detail or f"{sidecar.url}: {one_line(exc)}"
        if best is not None:
            return best
        return SpeechStatus(is_ready=False, model="", weights="remote", detail=detail)

    def _in_order(self) -> list[_Sidecar]:
        """Healthy addresses first, beginning with another one each time."""
        first = self._num_opened % len(self._sidecars)
        turned = self._sidecars[first:] + self._sidecars[:first]
        now = time.monotonic()
        return sorted(turned, key=lambda sidecar: sidecar.avoid_until > now)

    async def _connect_anywhere(self, options: SessionOptions) -> RemoteSession:
        overloaded: SpeechOverloaded | None = None
        unreachable: SpeechUnavailable | None = None
        order = self._in_order()
        self._num_opened += 1
        for sidecar in order:
            try:
                session = await self._connect(sidecar.url, options)
                session.start()
                return session
            except SpeechOverloaded as exc:
                overloaded = exc
            except SpeechUnavailable as exc:
                unreachable = exc
                sidecar.avoid_until = time.monotonic() + self._options.retry_after_s
                reason = str(exc)
                logger.warning(
                    "sidecar_unavailable", extra=fields(url=sidecar.url, reason=reason)
                )
        failure = overloaded or unreachable
        assert failure is not None
        raise failure

    def _note_failure(self, session: RemoteSession) -> bool:
        """Try this session's sidecar last for a while; whether there is another."""
        for sidecar in self._sidecars:
            if sidecar.url == session.url:
                sidecar.avoid_until = time.monotonic() + self._options.retry_after_s
        return len(self._sidecars) > 1

    async def _connect(self, url: str, options: SessionOptions) -> RemoteSession:
        """Raises SpeechError: refused, or not there in time."""
        timeout_s = self._options.connect_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                connection = await connect(
                    _live_url(url),
                    ssl=tls_context(url),
                    additional_headers=self._headers,
                    ping_interval=self._options.ping_interval_s,
                    ping_timeout=self._options.ping_timeout_s,
                    close_timeout=1.0,
                    max_size=MAX_AUDIO_BYTES,
                    compression=None,  # speech shrinks little, and it costs CPU
                    proxy=None,
                    open_timeout=None,
                )
        except InvalidStatus as exc:
            raise _refusal(url, exc) from exc
        except (OSError, TimeoutError, WebSocketException) as exc:
            raise SpeechUnavailable(f"{url}: {one_line(exc)}") from exc
        decoder = ServerMessages()
        try:
            async with asyncio.timeout(timeout_s):
                for wire in encode_client(Start(options)):
                    await connection.send(wire)
                _check_ready(url, decoder.receive(await connection.recv()))
        except (TimeoutError, WebSocketException, LiveProtocolError) as exc:
            await connection.close()
            raise SpeechUnavailable(f"{url}: {one_line(exc)}") from exc
        except BaseException:
            await connection.close()
            raise
        return RemoteSession(
            url,
            connection,
            decoder,
            self._options,
            transcribes=options.transcribe,
        )


def _live_url(url: str) -> str:
    return "ws" + url.removeprefix("http") + LIVE_PATH


def _check_ready(url: str, answer: object) -> None:
    if isinstance(answer, LiveError):
        raise error_from(answer.code, answer.message)
    if not isinstance(answer, Ready):
        raise SpeechUnavailable(f"{url}: {type(answer).__name__} came before ready")


def _refusal(url: str, exc: InvalidStatus) -> SpeechError:
    status = exc.response.status_code
    if status in (401, 403):
        return SpeechUnavailable(f"{url}: our key was refused (HTTP {status})")
    return SpeechUnavailable(f"{url}: HTTP {status} in place of a WebSocket")


def _status_from(health: Any) -> SpeechStatus:
    """Of `/health`'s JSON; raises KeyError or TypeError where it is something else."""
    model = health["model"]
    return SpeechStatus(
        is_ready=bool(model["is_ready"]),
        model=str(model["name"]),
        weights=model["weights"] or "remote",
        device=str(model["device"]),
        detail=str(model["detail"]),
        version=str(model.get("version", "")),
        voice=str(model.get("voice", "")),
        max_sessions=int(health["sessions"]["max"]),
        num_sessions=int(health["sessions"]["now"]),
    )
