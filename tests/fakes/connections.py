"""A TCP server for fakes whose connections do not outlive it."""

from __future__ import annotations

import asyncio
import socket
from types import TracebackType
from typing import Self


class ConnectionServer:
    """Listens on loopback while it is entered; a task for each connection.

    What derives from it says in `serve` what happens on a connection, and in `listen`
    how the socket is set up when that matters.
    """

    limit_bytes = 1 << 16
    """Of what one reader holds."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def listen(self) -> socket.socket:
        """The listening socket."""
        return socket.create_server(("127.0.0.1", 0))

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """One connection, to its end."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._begin, sock=self.listen(), limit=self.limit_bytes
        )
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    def _begin(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.create_task(self.serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
