"""One run of EXEC AudioSocket, and the connection it brings.

::

    announce ──EXEC AudioSocket──▶ waiting ──call id comes──▶ open ──0x00──▶ ended
                                      └──EXEC answered, time over──▶ unavailable

The application's result is not to be trusted (-1 for a good end up to 20.13 and
22.3), so the channel itself is asked how things stand.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import assert_never, cast
from uuid import UUID

from agi_handlers.agi.commands import ExecEnded, channel_status, exec_audiosocket
from agi_handlers.agi.connection import AgiConnection
from agi_handlers.audio_leg.audiosocket_protocol import (
    FRAME_MESSAGE_BYTES,
    HANGUP_MESSAGE,
    Audio,
    AudioSocketDecoder,
    AudioSocketMessage,
    CallId,
    Digit,
    Hangup,
    PeerError,
)
from agi_handlers.audio_leg.media_port import MediaPort
from agi_handlers.errors import AgiTimeout, AudioLegUnavailable, TelephonyError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SessionOptions:
    # Asterisk itself gives up connecting after 2 s and then answers -1.
    connect_timeout_s: float = 4.0
    # From 0x00 to the answer of EXEC; measured 1-20 ms.
    end_timeout_s: float = 2.0
    # About 0.3 s of small packets; the system's default of megabytes would keep
    # minutes of speech that can no longer be stopped.
    send_buffer_bytes: int = 8192


class AudioSocketSession:
    """EXEC AudioSocket while it runs; opened and closed once.

    address: HOST:PORT of the media port as Asterisk reaches it.
    on_audio_or_key: takes each `Audio` and `Digit` as it comes.
    """

    def __init__(
        self,
        agi: AgiConnection,
        media_port: MediaPort,
        address: str,
        options: SessionOptions,
        on_audio_or_key: Callable[[Audio | Digit], None],
    ) -> None:
        self.transport: asyncio.Transport | None = None
        self.exec_task: asyncio.Task[ExecEnded] | None = None
        self.fault = ""  # how the audio ended, when it was not we who ended it
        self._agi = agi
        self._media_port = media_port
        self._address = address
        self._options = options
        self._on_audio_or_key = on_audio_or_key
        self._audio_lost = asyncio.Event()
        self._closing = False
        self._announced = ExitStack()

    @property
    def is_closing(self) -> bool:
        """Nothing may be sent any more."""
        return self._closing

    @property
    def num_unsent_frames(self) -> int:
        """Frames the system's buffer had no room for."""
        if self.transport is None or self.transport.is_closing():
            return 0
        return self.transport.get_write_buffer_size() // FRAME_MESSAGE_BYTES

    async def open(self, call_id: UUID) -> None:
        """Have Asterisk connect; the channel must be up. Close it whatever happens.

        Raises:
            AudioLegUnavailable: no such module, refused, or nobody connected.
            ChannelGone: the caller left meanwhile. AgiTimeout.
        """
        announcement = self._announced.enter_context(
            self._media_port.announce_audiosocket(call_id, lambda: _Connection(self))
        )
        self.exec_task = asyncio.create_task(
            self._agi.execute(exec_audiosocket(call_id, self._address)),
            name="exec AudioSocket",
        )
        arrived = asyncio.ensure_future(announcement.arrived())
        try:
            await asyncio.wait(
                (arrived, self.exec_task),
                timeout=self._options.connect_timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            arrived.cancel()
        if not announcement.is_taken:
            raise await self._why_unavailable(self.exec_task)

    async def ended(self) -> None:
        """Return when the audio is lost or EXEC was answered."""
        assert self.exec_task is not None
        lost = asyncio.ensure_future(self._audio_lost.wait())
        try:
            await asyncio.wait(
                (lost, self.exec_task), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            lost.cancel()

    def hang_up(self) -> None:
        """Ask Asterisk to end the application in order.

        Never a bare close: up to 20.13 and 22.3 Asterisk then spins on the EOF.
        """
        self._closing = True
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(HANGUP_MESSAGE)

    def lose_audio(self, fault: str) -> None:
        """The audio cannot go on."""
        if not self._audio_lost.is_set():
            self.fault = fault
            self._audio_lost.set()

    async def wait_answered(self) -> bool:
        """Wait for the answer of EXEC, which frees AGI; False: it did not come."""
        if self.exec_task is None:
            return True
        await asyncio.wait((self.exec_task,), timeout=self._options.end_timeout_s)
        return self.exec_task.done()

    async def close(self) -> None:
        """End in order, then leave nothing behind: no task, no socket."""
        try:
            if not self._closing:
                self.hang_up()
            await self.wait_answered()
        finally:
            self._announced.close()
            if self.transport is not None:
                self.transport.abort()
            if self.exec_task is not None:
                self.exec_task.cancel()
                _log_failure(
                    *await asyncio.gather(self.exec_task, return_exceptions=True)
                )

    async def _why_unavailable(
        self, exec_task: asyncio.Task[ExecEnded]
    ) -> AudioLegUnavailable:
        """EXEC was answered, or nobody came.  Raises: ChannelGone, AgiTimeout."""
        if not exec_task.done():
            return AudioLegUnavailable(
                f"AudioSocket: nobody connected to {self._address} within "
                f"{self._options.connect_timeout_s:g} s"
            )
        ended = await exec_task
        if ended.is_unknown_application:
            return AudioLegUnavailable("AudioSocket: Asterisk has no app_audiosocket")
        await self._agi.execute(channel_status())  # ChannelGone: no fault, a hang-up
        return AudioLegUnavailable(
            f"AudioSocket: Asterisk answered {ended.result} without a connection to "
            f"{self._address}: unreachable or refused"
        )

    # --- the connection's side ---

    def connected(self, transport: asyncio.Transport) -> None:
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(
                socket.SOL_SOCKET, socket.SO_SNDBUF, self._options.send_buffer_bytes
            )
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.transport = transport
        if self._closing:  # it came while we were leaving
            self.hang_up()

    def received(self, message: AudioSocketMessage) -> None:
        match message:
            case Audio() | Digit():
                self._on_audio_or_key(message)
            case PeerError(code):
                self.lose_audio(f"Asterisk reports AudioSocket error {code}")
            case Hangup():
                self.lose_audio("Asterisk ended AudioSocket")
            case CallId():
                pass  # it has brought the connection here
            case _:
                assert_never(message)

    def disconnected(self, fault: str) -> None:
        self.transport = None
        self.lose_audio(fault)


def _log_failure(outcome: object) -> None:
    if isinstance(outcome, AgiTimeout):
        logger.warning("audiosocket_end_unanswered")
    elif isinstance(outcome, Exception) and not isinstance(outcome, TelephonyError):
        logger.error("audiosocket_exec_failed", exc_info=outcome)


class _Connection(asyncio.Protocol):
    """Bytes between Asterisk and the session."""

    def __init__(self, session: AudioSocketSession) -> None:
        self._session = session
        self._decoder = AudioSocketDecoder()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._session.connected(self._transport)

    def data_received(self, data: bytes) -> None:
        self._decoder.receive_data(data)
        self._pass_on()

    def eof_received(self) -> None:
        self._decoder.receive_eof()
        self._pass_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._session.disconnected(
            self._decoder.fault or str(exc or "EOF on the audio")
        )
        self._transport = None

    def _pass_on(self) -> None:
        for message in self._decoder.events_received():
            self._session.received(message)
        if self._decoder.fault is not None and self._transport is not None:
            self._transport.abort()
