"""The callers' clock: every 20 ms, for all calls of this process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from model.audio.frames import FRAME_MS

_FRAME_S: Final = FRAME_MS / 1000
# Looks at the clock so often within a frame: a process that is stopped for a frame and
# wakes just in time for the next one would not be noticed otherwise.
_NUM_LOOKS: Final = 4
_BEHIND_S: Final = 0.008


class Wheel:
    """Turns on absolute deadlines, so that it does not drift.

    lateness_s: how late this process itself was; the bot is not to blame for it.
    """

    def __init__(self) -> None:
        self.lateness_s: list[float] = []
        self._looks_late_s: deque[float] = deque([0.0], maxlen=2 * _NUM_LOOKS)
        self._next_look_s = float("inf")
        self._turns: list[Callable[[], None]] = []

    def is_behind(self) -> bool:
        """Whether this process was held up just now, or within the last two frames.

        What came together then need not have been sent together.
        """
        late_s = asyncio.get_running_loop().time() - self._next_look_s
        return max(*self._looks_late_s, late_s) > _BEHIND_S

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
            for look in range(1, _NUM_LOOKS + 1):
                self._next_look_s = due_s + look * _FRAME_S / _NUM_LOOKS
                await asyncio.sleep(max(0.0, self._next_look_s - loop.time()))
                late_s = max(0.0, loop.time() - self._next_look_s)
                self._looks_late_s.append(late_s)
            due_s += _FRAME_S
            self.lateness_s.append(late_s)
            for on_turn in tuple(self._turns):
                on_turn()
