"""One AGI dialogue over a socket: ``await connection.execute(command)``.

The protocol decides; this class reads, writes and waits. It is used by one call: its
handler, and for ``interrupt()`` and ``wait_hangup()`` by tasks of that handler.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, TypeAlias, TypeVar, cast

from agi_handlers.agi.commands import ALL_KEYS, Command, PlaybackEnded, stream_file
from agi_handlers.agi.protocol import (
    AgiEvent,
    AgiLimits,
    AgiProtocol,
    AgiRequest,
    AgiResponse,
    DialogueClosed,
    DialogueState,
    HangupNotice,
    PlaybackInterrupted,
)
from agi_handlers.errors import (
    AgiCommandRefused,
    AgiConnectionLost,
    AgiProtocolError,
    AgiTimeout,
    ChannelGone,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")
_Outcome: TypeAlias = AgiResponse | PlaybackInterrupted | DialogueClosed


@dataclass(frozen=True, slots=True)
class AgiConnectionOptions:
    """Waiting times and limits of a dialogue."""

    # Asterisk answers at once; a loaded dialer was seen to need tenths of a second.
    response_timeout_s: float = 5.0
    # An interrupt right behind its playback might share a segment with it, where
    # Asterisk does not see it (seen on 16 and 22, on loopback).
    interrupt_after_s: float = 0.02
    # An interrupt is answered in 1 ms and the network's delay; one that is not was
    # not seen and is sent again, then with ever longer waits.
    interrupt_retry_s: float = 0.1
    # The environment comes in one go after the connect.
    environment_timeout_s: float = 5.0
    # A peer that takes no bytes any more is cut off after this.
    close_timeout_s: float = 1.0
    # A dialer that lost power sends nothing, not even EOF: noticed after about
    # idle + 3 * interval seconds, also while a long EXEC is running.
    keepalive_idle_s: int = 30
    keepalive_interval_s: int = 10
    limits: AgiLimits = field(default_factory=AgiLimits)


class AgiConnection(asyncio.Protocol):
    """Asterisk's AGI dialogue for one call."""

    def __init__(
        self,
        options: AgiConnectionOptions | None = None,
        *,
        on_connected: Callable[[AgiConnection], None] | None = None,
    ) -> None:
        self._options = options or AgiConnectionOptions()
        self._on_connected = on_connected
        self._protocol = AgiProtocol(self._options.limits)
        self._transport: asyncio.Transport | None = None
        self._request: AgiRequest | None = None
        self._opened = asyncio.Event()  # environment complete, or closed
        self._hangup = asyncio.Event()
        self._lost = asyncio.Event()
        self._settled = asyncio.Event()  # no command in flight
        self._settled.set()
        self._turn = asyncio.Lock()
        self._waiter: asyncio.Future[_Outcome] | None = None
        self._end: DialogueClosed | None = None
        self._interrupt_timer: asyncio.TimerHandle | None = None
        self._sent_at = self._ended_at = 0.0
        self.peer = ""
        self.peer_host = ""
        self.local_host = ""  # the address at which the peer reached us
        self.on_hangup: Callable[[], None] | None = None

    # --- what a handler uses ---

    @property
    def request(self) -> AgiRequest:
        """The call; there once ``receive_request`` has returned."""
        assert self._request is not None, "the environment has not come yet"
        return self._request

    @property
    def hung_up(self) -> bool:
        """The channel hung up or was redirected, or the socket is closed."""
        return self._hangup.is_set()

    @property
    def closed(self) -> bool:
        return self._protocol.is_closed

    async def receive_request(self) -> AgiRequest:
        """Wait for the environment.

        Raises:
            AgiTimeout, AgiProtocolError: it did not come, or was none.
            AgiConnectionLost: closed without a byte, as port probes do.
        """
        try:
            async with asyncio.timeout(self._options.environment_timeout_s):
                await self._opened.wait()
        except TimeoutError as exc:
            raise AgiTimeout("no complete AGI environment in time") from exc
        if self._request is None:
            self._raise_end("environment")
        return self.request

    async def execute(
        self, command: Command[T], *, timeout_s: float | None = None
    ) -> T:
        """Send a command, return what its response means.

        timeout_s: default is the command's own ``may_take_s`` and the response
        timeout. A second caller waits its turn within its own limit. When it is
        cancelled, a playback is stopped at once; the late response is thrown away,
        and the next command waits for it.

        Raises:
            AgiTimeout, AgiCommandRefused, AgiProtocolError.
            ChannelGone: 511; AgiConnectionLost: the dialogue is closed.
        """
        if timeout_s is None:
            timeout_s = command.may_take_s + self._options.response_timeout_s
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit, self._turn:
                await self._settled.wait()
                outcome = await self._exchange(command)
        except TimeoutError as exc:
            raise AgiTimeout(f"{command.name}: no response in {timeout_s:g} s") from exc
        return self._meaning(command, outcome)

    async def play_interruptible(
        self,
        name: str,
        *,
        escape_keys: str = ALL_KEYS,
        offset_samples: int = 0,
        timeout_s: float | None = None,
    ) -> PlaybackEnded:
        """Play a sound file until its end, a key, ``interrupt()`` or cancellation."""
        command = stream_file(name, escape_keys, offset_samples)
        ended = await self.execute(command, timeout_s=timeout_s)
        played_ms = round((self._ended_at - self._sent_at) * 1000)
        return replace(ended, played_ms=played_ms)

    def request_interrupt(self) -> bool:
        """Stop the playback, without waiting; False when none is running."""
        is_on_its_way = self._interrupt_timer is not None
        if is_on_its_way or self._protocol.state is DialogueState.INTERRUPTING:
            return True
        if not self._protocol.can_interrupt:
            return False
        loop = asyncio.get_running_loop()
        wait_s = self._sent_at + self._options.interrupt_after_s - loop.time()
        if wait_s > 0:
            self._interrupt_timer = loop.call_later(wait_s, self._send_interrupt)
        else:
            self._send_interrupt()
        return True

    async def interrupt(self, *, timeout_s: float | None = None) -> bool:
        """Stop the playback and wait until it has ended; False when none is running.

        Raises:
            AgiTimeout: Asterisk did not answer the interrupt.
        """
        if not self.request_interrupt():
            return False
        limit_s = self._options.response_timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(limit_s):
                await self._settled.wait()
        except TimeoutError as exc:
            raise AgiTimeout(f"interrupt: no response in {limit_s:g} s") from exc
        return True

    async def wait_hangup(self) -> None:
        """Return when the caller has hung up, or when the dialogue is closed."""
        await self._hangup.wait()

    def abort(self) -> None:
        """Cut the connection off at once, without a word."""
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Close and wait; what a dialplan waits for. Safe to call again."""
        if self._transport is None:
            return
        self._transport.close()
        try:
            async with asyncio.timeout(self._options.close_timeout_s):
                await self._lost.wait()
        except TimeoutError:
            logger.debug("agi_peer_takes_no_bytes")
        finally:
            self._transport.abort()
        await self._lost.wait()

    # --- one command ---

    async def _exchange(self, command: Command[Any]) -> _Outcome:
        if self._protocol.is_closed:
            self._raise_end(command.name)
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        self._settled.clear()
        self._protocol.send_command(
            command.line, interruptible=command.interrupted is not None
        )
        self._sent_at = loop.time()
        self._flush()
        try:
            return await self._waiter
        except asyncio.CancelledError:
            self.request_interrupt()  # nothing is left playing for nobody
            raise
        finally:
            self._waiter = None

    def _send_interrupt(self, retry_s: float | None = None) -> None:
        """Send a marker, and the next one if it is not answered soon."""
        loop = asyncio.get_running_loop()
        if retry_s is None:
            retry_s = self._options.interrupt_retry_s
            self._ended_at = loop.time()
        self._protocol.send_interrupt(f"interrupt{secrets.token_hex(8)}")
        self._flush()
        self._interrupt_timer = loop.call_later(
            retry_s, self._send_interrupt, 2 * retry_s
        )

    def _meaning(self, command: Command[T], outcome: _Outcome) -> T:
        if isinstance(outcome, DialogueClosed):
            self._raise_end(command.name)
        if isinstance(outcome, AgiResponse):
            response = outcome
        elif outcome.ended_first is not None:
            response = outcome.ended_first
        else:  # only commands that have this meaning can be interrupted
            return cast("T", command.interrupted)
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("agi_response %s: %s", command.name, response.code)
        if response.code == 511:
            raise ChannelGone(f"{command.name}: the channel is gone")
        if response.code >= 300:
            raise AgiCommandRefused(command.name, response.code, response.text)
        return command.interpret(response)

    def _raise_end(self, during: str) -> NoReturn:
        error = self._end.error if self._end else None
        if error is not None and self._request is None:
            raise AgiProtocolError(f"{self.peer}: {error}") from error
        raise AgiConnectionLost(f"{during}: Asterisk closed the dialogue") from error

    # --- asyncio's side ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.peer_host, self.peer = _address(transport.get_extra_info("peername"))
        self.local_host, _ = _address(transport.get_extra_info("sockname"))
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            _set_socket_options(sock, self._options)
        if self._on_connected is not None:
            self._on_connected(self)

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        self._take_events()

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._take_events()

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.receive_eof()
        self._take_events()
        self._lost.set()

    def _take_events(self) -> None:
        for event in self._protocol.events_received():
            self._take_event(event)

    def _take_event(self, event: AgiEvent) -> None:
        match event:
            case AgiRequest():
                self._request = event
                self._opened.set()
            case HangupNotice():
                self._notice_hangup()
            case AgiResponse():
                self._ended_at = asyncio.get_running_loop().time()
                self._settle(event)
            case PlaybackInterrupted():  # it ended when the interrupt was sent
                self._settle(event)
            case DialogueClosed():
                self._end = event
                self._opened.set()
                self._notice_hangup()
                self._settle(event)
                if self._transport is not None:
                    self._transport.close()

    def _notice_hangup(self) -> None:
        if not self._hangup.is_set():
            self._hangup.set()
            if self.on_hangup is not None:
                self.on_hangup()

    def _settle(self, outcome: _Outcome) -> None:
        self._settled.set()
        if self._interrupt_timer is not None:
            self._interrupt_timer.cancel()
            self._interrupt_timer = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(outcome)

    def _flush(self) -> None:
        for segment in self._protocol.data_to_send():
            if self._transport is not None:
                self._transport.write(segment)


def _set_socket_options(sock: socket.socket, options: AgiConnectionOptions) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    keepalive = {
        "TCP_KEEPIDLE": options.keepalive_idle_s,
        "TCP_KEEPINTVL": options.keepalive_interval_s,
        "TCP_KEEPCNT": 3,
    }
    for name, value in keepalive.items():
        if hasattr(socket, name):  # not every system has all three
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _address(peername: object) -> tuple[str, str]:
    """Host, and host with port, of a socket's peer; empty for a socket pair."""
    match peername:
        case (str(host), int(port), *_):
            return host, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case _:
            return "", str(peername or "")
