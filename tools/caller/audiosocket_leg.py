"""EXEC AudioSocket: the media leg, both ways in real time, as Asterisk 22 does it."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Final, cast
from uuid import UUID

from model.audio.frames import FRAME_BYTES
from tools.caller.audiosocket_wire import (
    KIND_AUDIO,
    KIND_HANGUP,
    MessageReader,
    audio_message,
    dtmf_message,
    uuid_message,
)
from tools.caller.channel import PretendChannel
from tools.caller.mouth import Slot

_CONNECT_TIMEOUT_S: Final = 2.0  # fixed in app_audiosocket
# A longer message leaves Asterisk as a burst that telephones cannot hold.
_MAX_AUDIO_BYTES: Final = 4 * FRAME_BYTES
# The bot not reading does Asterisk no harm until the kernel's buffers are full; then
# audio is lost. This is about what those hold.
_MAX_UNREAD_BYTES: Final = 1 << 20


async def exec_audiosocket(channel: PretendChannel, arguments: str) -> int:
    """Run the application; what it returns: 0 ended by the bot, -1 all the rest."""
    target = _target(arguments)
    if target is None or not channel.is_up:
        return -1
    call_id, host, port = target
    loop = asyncio.get_running_loop()
    leg = _Leg(channel)
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            await loop.create_connection(lambda: leg, host, port)
    except (OSError, TimeoutError):
        channel.journal.event("leg-refused", leg="audiosocket", address=arguments)
        return -1
    channel.legs_used.append("audiosocket")
    channel.journal.event("leg-connected", leg="audiosocket", uuid=str(call_id))
    leg.write(uuid_message(call_id))
    stop_listening = channel.listen(leg.on_slot)
    hangup = asyncio.ensure_future(channel.hung_up.wait())
    try:
        await asyncio.wait((leg.ended, hangup), return_when=asyncio.FIRST_COMPLETED)
        result = leg.ended.result() if leg.ended.done() else -1
    finally:
        stop_listening()
        hangup.cancel()
        with suppress(asyncio.CancelledError):
            await hangup
        await leg.close()
    channel.journal.event("leg-ended", leg="audiosocket", result=result)
    return result


def _target(arguments: str) -> tuple[UUID, str, int] | None:
    """uuid,host:port"""
    uuid_text, _, address = arguments.partition(",")
    host, _, port = address.rpartition(":")
    try:
        return UUID(uuid_text), host.strip("[]"), int(port)
    except ValueError:
        return None


class _Leg(asyncio.Protocol):
    """Asterisk's end of the connection."""

    def __init__(self, channel: PretendChannel) -> None:
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._channel = channel
        self._reader = MessageReader()
        self._transport: asyncio.Transport | None = None
        self._lost = asyncio.Event()

    def write(self, message: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > _MAX_UNREAD_BYTES:
            self._channel.journal.error("the bot does not read its audio socket")
            return
        self._transport.write(message)

    def on_slot(self, slot: Slot) -> None:
        if slot.pcm16 is not None:
            self.write(audio_message(slot.pcm16))
        if slot.key is not None:
            self.write(dtmf_message(slot.key))

    async def close(self) -> None:
        """End of file, without a message: so the bot sees a caller leave."""
        if self._transport is not None:
            self._transport.abort() if self._lost.is_set() else self._transport.close()
            await self._lost.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        at_s = self._channel.journal.now()
        for kind, payload in self._reader.receive_data(data):
            if not self.ended.done():
                self._on_message(at_s, kind, payload)

    def _on_message(self, at_s: float, kind: int, payload: bytes) -> None:
        if kind == KIND_HANGUP:
            self.ended.set_result(0)
        elif kind != KIND_AUDIO or not payload or len(payload) % 2:
            self._channel.journal.error(
                f"AudioSocket message of kind {kind:#04x}, {len(payload)} bytes"
            )
            self.ended.set_result(-1)
        else:
            if len(payload) > _MAX_AUDIO_BYTES:
                self._channel.journal.error(
                    f"AudioSocket message of {len(payload)} bytes leaves as a burst"
                )
            self._channel.ear.on_arrival(at_s, payload)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set()
        if not self.ended.done():
            self.ended.set_result(0 if exc is None else -1)
