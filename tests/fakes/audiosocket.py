"""Asterisk's AudioSocket application: what EXEC AudioSocket does on the other side."""

from __future__ import annotations

import asyncio
from typing import Literal, TypeAlias
from uuid import UUID

from tests.fakes.asterisk import FakeAudioSocket

AppBehaviour: TypeAlias = Literal[
    "modern",  # 20.14, 22.4 and later: 0 for an end by the bot
    "old",  # 18, 20.13, 22.3: -1 for every end
    "never_connects",  # a firewall that drops: -1 without a connection
    "refused",  # -1 at once
    "absent",  # no such application
    "stuck",  # connects, and never answers
]


class AudioSocketApplication:
    """The answer to "EXEC AudioSocket" of a `FakeAsterisk`; use as a response.

    `media` is the connection once it is there; `caller_leaves` ends the application as
    a hang-up of the caller does (without the HANGUP line, which the test sends).
    """

    def __init__(self, behaviour: AppBehaviour = "modern") -> None:
        self.media: FakeAudioSocket | None = None
        self.call_id: UUID | None = None
        self.address = ""
        self.connected = asyncio.Event()
        self._behaviour = behaviour
        self._left = asyncio.Event()

    async def __call__(self, words: list[str]) -> str:
        self.connected.clear()
        call_id, self.address = words[2].split(",")
        self.call_id = UUID(call_id)
        match self._behaviour:
            case "absent":
                return "200 result=-2"
            case "refused" | "never_connects":
                return "200 result=-1"
            case "stuck":
                return await self._talk("SILENCE", "SILENCE")
            case "modern":
                return await self._talk("200 result=0", "200 result=-1")
            case "old":
                return await self._talk("200 result=-1", "200 result=-1")

    async def the_media(self) -> FakeAudioSocket:
        async with asyncio.timeout(5):
            await self.connected.wait()
        assert self.media is not None
        return self.media

    def caller_leaves(self) -> None:
        self._left.set()

    async def _talk(self, ended_by_bot: str, ended_by_caller: str) -> str:
        assert self.call_id is not None
        host, _, port = self.address.rpartition(":")
        self.media = await FakeAudioSocket.connect(
            host.strip("[]"), int(port), self.call_id
        )
        self.connected.set()
        left = asyncio.ensure_future(self._left.wait())
        ended = asyncio.ensure_future(self._ended_by_bot())
        try:
            await asyncio.wait((left, ended), return_when=asyncio.FIRST_COMPLETED)
            return ended_by_caller if left.done() else ended_by_bot
        finally:
            left.cancel()
            ended.cancel()
            await self.media.hang_up()

    async def _ended_by_bot(self) -> None:
        media = self.media
        assert media is not None
        await media.wait_for(
            lambda: media.has_hangup or media.is_closed, timeout_s=3600.0
        )
