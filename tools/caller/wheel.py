"""The callers' clock: every 20 ms, for all calls of this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from model.audio.frames import FRAME_MS

_FRAME_S: Final = FRAME_MS / 1000


class Wheel:
    """Turns on absolute deadlines, so that it does not drift.

    lateness_s: how late this process itself was; the bot is not to blame for it.
    """

    def __init__(self) -> None:
        self.lateness_s: list[float] = []
        self._turns: list[Callable[[], None]] = []

    @contextmanager
    def turning(self, on_turn: Callable[[], None]) -> Iterator[None]:
        """Call on_turn every 20 ms for the block."""
        self._turns.append(on_turn)
        try:
            yield
        finally:
            self._turns.remove(on_turn)

    async def run(self) -> None:
        """Turn until cancelled."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            due_s += _FRAME_S
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            self.lateness_s.append(max(0.0, loop.time() - due_s))
            for on_turn in tuple(self._turns):
                on_turn()
