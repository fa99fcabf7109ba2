"""The FastAGI listener: one bulkhead per connection, dispatch by script name.

A connection that ends in any way but a handler's own return tells the dialplan so, by
BOT_STATUS and BOT_REASON, and closes: the dialplan goes on at its next priority, which
takes the caller to people.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeAlias

import telemetry
from agi_handlers.agi import commands
from agi_handlers.agi.connection import AgiConnection, AgiConnectionOptions
from agi_handlers.agi.messages import AgiRequest
from agi_handlers.dialplan_variables import BOT_REASON, BOT_STATUS, BotStatus
from agi_handlers.errors import (
    AgiConnectionLost,
    CallEnded,
    ChannelGone,
    ListenFailed,
    TelephonyError,
)

logger = logging.getLogger(__name__)

Handler: TypeAlias = Callable[[AgiRequest, AgiConnection], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call is not taken: values of BOT_STATUS and BOT_REASON."""

    status: str
    reason: str


Admit: TypeAlias = Callable[[AgiRequest], Refusal | None]


@dataclass(frozen=True, slots=True)
class AgiServerOptions:
    """Where to listen, and the limits of the listener."""

    host: str = "0.0.0.0"
    port: int = 4573  # FastAGI's own
    # asyncio's default of 100 was overrun by 400 calls at once: 1 s of retries.
    backlog: int = 2048
    # Beyond the calls a process can carry, so that calls are refused with a reason;
    # at this number connections are closed unread, before file descriptors run out.
    max_connections: int = 2000
    # A handler may still report to VICIdial after the caller left, then it must end:
    # Asterisk keeps the channel until the socket is closed.
    after_hangup_s: float = 60.0
    # A talk longer than this is a fault of ours.
    max_call_s: float = 14_400.0
    # For telling the dialplan why; a peer slower than this hears nothing.
    farewell_s: float = 2.0
    # Addresses and networks that may connect; none: any.
    allowed_peers: tuple[str, ...] = ()
    connection: AgiConnectionOptions = field(default_factory=AgiConnectionOptions)


class AgiServer:
    """Serves AGI scripts to Asterisk.

    handlers: script name -> handler. fallback: for every other name.
    admit: asked before a handler is started; quick, does not wait.
    listener: a port that is open already, instead of the options'.
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        options: AgiServerOptions | None = None,
        *,
        admit: Admit | None = None,
        fallback: Handler | None = None,
        listener: socket.socket | None = None,
    ) -> None:
        self._handlers = dict(handlers)
        self._options = options or AgiServerOptions()
        self._admit = admit
        self._fallback = fallback
        self._allowed = [ipaddress.ip_network(p) for p in self._options.allowed_peers]
        self._shared = listener
        self._listener: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._num_calls = 0
        self._no_calls = asyncio.Event()
        self._no_calls.set()
        self._is_closing = False
        self.draining = False

    @property
    def port(self) -> int:
        """The port listened on, also where the system picked it."""
        assert self._listener is not None, "not started"
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    @property
    def num_calls(self) -> int:
        """Handlers running now."""
        return self._num_calls

    async def start(self) -> None:
        """Open the port.

        Raises:
            ListenFailed: in use, not permitted, no such address.
        """
        options = self._options
        loop = asyncio.get_running_loop()

        def connection() -> AgiConnection:
            return AgiConnection(
                options.connection, on_connected=self._accept_connection
            )

        try:
            if self._shared is not None:
                self._listener = await loop.create_server(
                    connection, sock=self._shared, backlog=options.backlog
                )
            else:
                self._listener = await loop.create_server(
                    connection, options.host, options.port, backlog=options.backlog
                )
        except OSError as exc:
            raise ListenFailed(_listen_problem(options, exc)) from exc
        logger.info(
            "agi_listening", extra=telemetry.fields(host=options.host, port=self.port)
        )

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new calls, let the running ones end; True when all have.

        The port stays open: a refused call falls through at once, with a reason.
        """
        self.draining = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._no_calls.wait()
        except TimeoutError:
            return False
        return True

    async def retire(self) -> None:
        """Accept no more, and wait until every connection has ended by itself.

        A port that other processes share stays open in them.
        """
        assert self._listener is not None, "not started"
        self._listener.close()
        await asyncio.sleep(0.1)  # what was accepted a moment ago is served as well
        while self._connections:
            await asyncio.wait(tuple(self._connections))

    async def close(self) -> None:
        """Close the port, end every connection; nothing is left when it returns."""
        self.draining = self._is_closing = True
        if self._listener is not None:
            self._listener.close()
        await asyncio.sleep(0.1)  # what was accepted a moment ago is served as well
        while self._connections:
            tasks = tuple(self._connections)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._listener is not None:
            await self._listener.wait_closed()
            self._listener = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # --- one connection ---

    def _accept_connection(self, connection: AgiConnection) -> None:
        if self._is_closing:  # it was already waiting when the port was closed
            connection.abort()
            return
        is_full = len(self._connections) >= self._options.max_connections
        if is_full or not self._is_allowed(connection.peer_host):
            reason = "connections" if is_full else "address"
            telemetry.CALLS_REFUSED.labels(reason=reason).inc()
            logger.warning(
                "agi_connection_refused",
                extra=telemetry.fields(peer=connection.peer, reason=reason),
            )
            connection.abort()
            return
        task = asyncio.get_running_loop().create_task(
            self._serve_connection(connection), name=f"agi {connection.peer}"
        )
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    def _is_allowed(self, host: str) -> bool:
        if not self._allowed:
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in self._allowed)

    async def _serve_connection(self, connection: AgiConnection) -> None:
        """The bulkhead: whatever happens to this call happens to no other."""
        try:
            request = await connection.receive_request()
            with telemetry.call_context(
                uniqueid=request.uniqueid, channel=request.channel
            ):
                await self._serve_request(request, connection)
        except AgiConnectionLost:
            logger.debug("agi_probe", extra=telemetry.fields(peer=connection.peer))
        except TelephonyError as exc:
            telemetry.ERRORS.labels(kind=type(exc).__name__).inc()
            logger.warning(
                "agi_request_unusable",
                extra=telemetry.fields(peer=connection.peer, reason=str(exc)),
            )
        finally:
            await connection.close()

    async def _serve_request(
        self, request: AgiRequest, connection: AgiConnection
    ) -> None:
        handler = self._handlers.get(request.script, self._fallback)
        refusal = self._refusal(request, handler)
        if handler is None or refusal is not None:
            assert refusal is not None
            telemetry.CALLS_REFUSED.labels(reason=refusal.status).inc()
            logger.warning(
                "agi_call_refused",
                extra=telemetry.fields(
                    script=request.script, status=refusal.status, reason=refusal.reason
                ),
            )
            await self._tell_dialplan(connection, refusal)
            return
        self._num_calls += 1
        self._no_calls.clear()
        try:
            fault = await self._run_handler(handler, request, connection)
            if fault is not None:
                await self._tell_dialplan(connection, fault)
        finally:
            self._num_calls -= 1
            if not self._num_calls:
                self._no_calls.set()

    def _refusal(self, request: AgiRequest, handler: Handler | None) -> Refusal | None:
        if self.draining:
            return Refusal(BotStatus.DRAINING, "the bot is going down")
        if handler is None:
            return Refusal(
                BotStatus.UNKNOWN_SCRIPT, f"no AGI script named {request.script!r}"
            )
        return self._admit(request) if self._admit is not None else None

    async def _run_handler(
        self, handler: Handler, request: AgiRequest, connection: AgiConnection
    ) -> Refusal | None:
        """Run a handler under both watchdogs; what the dialplan must be told."""
        loop = asyncio.get_running_loop()
        limit = asyncio.timeout(self._options.max_call_s)

        def give_it_time_to_end() -> None:
            ends_at = loop.time() + self._options.after_hangup_s
            limit.reschedule(min(ends_at, limit.when() or ends_at))

        try:
            async with limit:
                connection.on_hangup = give_it_time_to_end
                if connection.hung_up:
                    give_it_time_to_end()
                try:
                    await handler(request, connection)
                finally:
                    connection.on_hangup = None
        except Exception as exc:  # noqa: BLE001 - the bulkhead of a call
            if limit.expired() and isinstance(exc, TimeoutError):
                return _fault("handler overdue", connection)
            return _judged(exc, connection)
        return None

    async def _tell_dialplan(self, connection: AgiConnection, what: Refusal) -> None:
        reason = commands.dialplan_text(what.reason)
        try:
            async with asyncio.timeout(self._options.farewell_s):
                await connection.execute(commands.set_variable(BOT_STATUS, what.status))
                await connection.execute(commands.set_variable(BOT_REASON, reason))
                await connection.execute(
                    commands.verbose(f"voice bot: {what.status}: {reason}")
                )
        except (TelephonyError, TimeoutError) as exc:
            logger.info("agi_dialplan_not_told", extra=telemetry.fields(why=str(exc)))


def _judged(exc: Exception, connection: AgiConnection) -> Refusal | None:
    """What an exception that left a handler means; None: the call just ended."""
    leaves = list(_leaves(exc))
    faults = [leaf for leaf in leaves if not isinstance(leaf, CallEnded | ChannelGone)]
    if not faults:
        reason = str(leaves[0])
        logger.info("agi_call_ended", extra=telemetry.fields(reason=reason))
        if any(isinstance(leaf, ChannelGone) for leaf in leaves):
            return Refusal(BotStatus.HANGUP, reason)
        return None
    telemetry.ERRORS.labels(kind=type(faults[0]).__name__).inc()
    summary = f"{type(faults[0]).__name__}: {faults[0]}"
    is_ours = not isinstance(faults[0], TelephonyError)  # then the trace is wanted
    logger.error(
        "agi_handler_failed",
        extra=telemetry.fields(reason=summary, hung_up=connection.hung_up),
        exc_info=exc if is_ours else None,
    )
    return Refusal(BotStatus.FAILED, summary)


def _fault(reason: str, connection: AgiConnection) -> Refusal:
    telemetry.ERRORS.labels(kind="handler_overdue").inc()
    logger.error(
        "agi_handler_overdue", extra=telemetry.fields(hung_up=connection.hung_up)
    )
    return Refusal(BotStatus.FAILED, reason)


def _leaves(exc: BaseException) -> Iterator[BaseException]:
    """The exceptions a task group wrapped."""
    if isinstance(exc, BaseExceptionGroup):
        for inner in exc.exceptions:
            yield from _leaves(inner)
    else:
        yield exc


def _listen_problem(options: AgiServerOptions, exc: OSError) -> str:
    where = f"AGI port {options.host}:{options.port}"
    if exc.errno == errno.EADDRINUSE:
        return f"{where} is in use by another process"
    if exc.errno == errno.EACCES:
        return f"{where} may not be opened by this user"
    return f"{where} cannot be opened: {os.strerror(exc.errno) if exc.errno else exc}"
