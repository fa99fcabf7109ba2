"""A FastAGI server that misbehaves on purpose: what the dialplan must survive."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_ANSWER_TIMEOUT_S = 10.0


class Dialogue:
    """One AGI dialogue, from the bot's side; knows just enough for tests."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._reader = reader
        self._writer = writer
        self.environment: dict[str, str] = {}
        self.num_hangups = 0
        self.released = asyncio.Event()

    @property
    def script(self) -> str:
        """The script's name, as in agi://host/NAME?query."""
        return urlsplit(self.environment["agi_network_script"]).path

    @property
    def query(self) -> str:
        return urlsplit(self.environment["agi_network_script"]).query

    async def read_environment(self) -> None:
        while line := (await self._reader.readline()).decode().strip():
            name, _, value = line.partition(": ")
            self.environment[name] = value

    async def command(self, command: str) -> str:
        """Send a command; its answer's line."""
        self._writer.write(f"{command}\n".encode())
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            while line := (await self._reader.readline()).decode().strip():
                if line != "HANGUP":
                    return line
                self.num_hangups += 1
        raise ConnectionError(f"closed by Asterisk, not answered: {command}")

    async def set(self, name: str, value: str) -> None:
        assert await self.command(f'SET VARIABLE {name} "{value}"') == "200 result=1"

    async def wait_for_hangup(self) -> None:
        """Until the HANGUP line."""
        while (await self._reader.readline()).decode().strip() != "HANGUP":
            assert not self._reader.at_eof(), "closed without a HANGUP line"
        self.num_hangups += 1

    def release(self) -> None:
        """The test is over: let go of the connection, whatever it does."""
        self.released.set()
        self._writer.close()

    async def wait_for_close(self) -> None:
        """Until Asterisk closes the connection."""
        while await self._reader.readline():
            pass


Behaviour = Callable[[Dialogue], Awaitable[None]]


async def is_ready(dialogue: Dialogue) -> None:
    """What agi://bot/health does when a call would be taken."""
    await dialogue.set("BOT_STATUS", "ready")


async def never_ends(dialogue: Dialogue) -> None:
    """Says nothing and never closes, whatever Asterisk does: a frozen process."""
    await dialogue.released.wait()


async def crashes(dialogue: Dialogue) -> None:
    """Closes the connection in mid-call."""


class StubBot:
    """Listens for as long as its block; one behaviour for each AGI script."""

    def __init__(
        self, *, health: Behaviour = is_ready, talk: Behaviour = crashes
    ) -> None:
        self._health = health
        self._talk = talk
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server
        self.requests: list[Dialogue] = []

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def scripts(self) -> list[str]:
        """Names of the scripts asked for, in order."""
        return [dialogue.script for dialogue in self.requests]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        for dialogue in self.requests:
            dialogue.release()
        done = await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        if value is None:
            for problem in done:
                if isinstance(problem, Exception):
                    raise problem

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            dialogue = Dialogue(reader, writer)
            await dialogue.read_environment()
            self.requests.append(dialogue)
            is_health = dialogue.script == "health"
            await (self._health if is_health else self._talk)(dialogue)
        finally:
            writer.close()
