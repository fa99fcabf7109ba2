"""Keys a leg sends towards the caller's side, between two of its other commands."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agi_handlers.agi.commands import exec_
from agi_handlers.agi.connection import AgiConnection

KEYS: Final = frozenset("0123456789*#ABCDw")  # w: half a second's pause
_MAX_KEYS: Final = 64  # 20 s at Asterisk's pace; nothing dials more in one go


@dataclass(frozen=True, slots=True)
class _Request:
    keys: str
    sent: asyncio.Future[bool]


class SentKeys:
    """Requests for `EXEC SendDTMF`, in order, and their answers."""

    def __init__(self) -> None:
        self._requests: deque[_Request] = deque()

    @property
    def is_empty(self) -> bool:
        return not self._requests

    async def ask(self, keys: str, wake: Callable[[], None]) -> bool:
        """Wait until the keys have been sent; False when they cannot be."""
        if not keys or len(keys) > _MAX_KEYS or not KEYS.issuperset(keys):
            return False
        request = _Request(keys, asyncio.get_running_loop().create_future())
        self._requests.append(request)
        wake()
        return await request.sent

    def next(self) -> _Request | None:
        return self._requests.popleft() if self._requests else None

    async def send(self, agi: AgiConnection, request: _Request) -> None:
        """Send one request's keys.  Raises: what `execute` raises."""
        done = False
        try:
            ended = await agi.execute(exec_("SendDTMF", request.keys))
            done = ended.result == 0
        finally:
            _answer(request, done)

    def refuse_all(self) -> None:
        """The leg has ended."""
        while self._requests:
            _answer(self._requests.popleft(), False)


def _answer(request: _Request, done: bool) -> None:
    if not request.sent.done():
        request.sent.set_result(done)
