"""Asterisk's manager interface, as far as placing one call needs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from agi_handlers.ami.messages import AmiProtocolError, AmiReader, Response

_CONNECT_S: Final = 3.0
_ANSWER_S: Final = 5.0


class AmiFailed(Exception):
    """Not reachable, not logged in, or refused; one line that says why."""


class Manager:
    """A logged-in connection; use `manager`."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._messages = AmiReader()

    async def act(self, action: str, **values: str) -> None:
        """Send an action and wait for its response.

        Raises:
            AmiFailed: refused, no answer, or a value that would be another line.
        """
        told = {"Action": action, **values}
        if any("\r" in value or "\n" in value for value in told.values()):
            raise AmiFailed("a value with a line break in it")
        lines = [f"{key}: {value}" for key, value in told.items()]
        try:
            async with asyncio.timeout(_ANSWER_S):
                self._writer.write("\r\n".join([*lines, "", ""]).encode())
                await self._writer.drain()
                response = await self._response()
        except TimeoutError as exc:
            raise AmiFailed(f"{action}: no answer in {_ANSWER_S:g} s") from exc
        except (OSError, EOFError, AmiProtocolError) as exc:
            raise AmiFailed(f"{action}: {exc}") from exc
        if not response.is_success:
            raise AmiFailed(f"{action}: {response.message or 'refused'}")

    async def _response(self) -> Response:
        while received := await self._reader.read(65_536):
            for message in self._messages.receive_data(received):
                if isinstance(message, Response):
                    return message
        raise EOFError("closed by Asterisk")


@asynccontextmanager
async def manager(
    host: str, port: int, user: str, secret: str
) -> AsyncIterator[Manager]:
    """Connect and log in, for the block.

    Raises:
        AmiFailed: see there.
    """
    try:
        async with asyncio.timeout(_CONNECT_S):
            reader, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as exc:
        raise AmiFailed(f"{host}:{port}: {exc or 'no answer'}") from exc
    try:
        connection = Manager(reader, writer)
        await connection.act("Login", Username=user, Secret=secret, Events="off")
        yield connection
    finally:
        writer.close()
