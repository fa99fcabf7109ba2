"""A TCP line that can be made bad while it is used: late, jittery, stalled, cut."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Callable
from typing import Final

from tests.fakes.connections import ConnectionServer

_CHUNK_BYTES: Final = 16384
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, no time: close sends RST


class FaultProxy(ConnectionServer):
    """Forwards to `target` whatever it gets, as well as the line is just then.

    delay_s and jitter_s hold every chunk back (order is kept, as TCP keeps it); a lost
    packet is what TCP makes of it: a pause of `loss_pause_s` with `loss` probability.
    """

    def __init__(
        self,
        target: tuple[str, int],
        port: int = 0,
        *,
        buffer_bytes: int | None = None,
        seed: int = 1,
    ) -> None:
        """buffer_bytes: of the kernel, each way; small, a stall is felt at once."""
        super().__init__()
        self.limit_bytes = buffer_bytes or _CHUNK_BYTES
        self._target = target
        self._port = port
        self._buffer_bytes = buffer_bytes
        self._random = random.Random(seed)
        self._lines: set[asyncio.StreamWriter] = set()
        self._is_open = asyncio.Event()
        self._is_open.set()
        self.delay_s = 0.0
        self.jitter_s = 0.0
        self.loss = 0.0
        self.loss_pause_s = 0.3
        self.num_connections = 0

    def listen(self) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", self._port))
        self._shrink(listener)  # before it listens: the window is agreed on then
        return listener

    def stall(self) -> None:
        """Nothing passes any more, in either direction; connections stay open."""
        self._is_open.clear()

    def go_on(self) -> None:
        """What was held back passes."""
        self._is_open.set()

    def cut(self) -> None:
        """Every connection ends, both ways, in order (FIN)."""
        self._each(lambda writer: writer.close())

    def reset(self) -> None:
        """Every connection is reset (RST)."""
        self._each(_reset)

    def half_close(self) -> None:
        """Both ends see the other's FIN; nothing else is closed."""
        self._each(lambda writer: writer.write_eof())

    def _each(self, act: Callable[[asyncio.StreamWriter], None]) -> None:
        self._is_open.set()
        for writer in list(self._lines):
            if not writer.is_closing():
                act(writer)

    def _shrink(self, line: socket.socket) -> None:
        if self._buffer_bytes is not None:
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                line.setsockopt(socket.SOL_SOCKET, option, self._buffer_bytes)

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.num_connections += 1
        try:
            far = socket.socket()
            self._shrink(far)
            far.setblocking(False)
            await asyncio.get_running_loop().sock_connect(far, self._target)
            far_reader, far_writer = await asyncio.open_connection(
                sock=far, limit=self.limit_bytes
            )
        except OSError:
            writer.close()
            return
        self._lines |= {writer, far_writer}
        try:
            await asyncio.gather(
                self._pass_on(reader, far_writer), self._pass_on(far_reader, writer)
            )
        finally:
            for one in (writer, far_writer):
                self._lines.discard(one)
                one.close()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while chunk := await reader.read(_CHUNK_BYTES):
                await self._hold_back()
                writer.write(chunk)
                await writer.drain()
            writer.write_eof()
        except (ConnectionError, OSError, RuntimeError):
            writer.close()

    async def _hold_back(self) -> None:
        pause_s = self.delay_s + self._random.uniform(0, self.jitter_s)
        if self._random.random() < self.loss:
            pause_s += self.loss_pause_s
        if pause_s:
            await asyncio.sleep(pause_s)
        await self._is_open.wait()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
