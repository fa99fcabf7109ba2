"""A call's own time: milliseconds since it began, and the one moment it waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class CallClock:
    """That of one call; before `begin` it has no time to tell."""

    def __init__(self, on_due: Callable[[int], None]) -> None:
        """`on_due`: called at the moment waited for, with the time in milliseconds."""
        self._on_due = on_due
        self._timer: asyncio.TimerHandle | None = None
        self._due_ms: int | None = None

    def begin(self) -> None:
        """The call begins now, on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._zero_s = self._loop.time()

    def now_s(self) -> float:
        """On the loop's clock."""
        return self._loop.time()

    def now_ms(self) -> int:
        """Since the call began."""
        return round((self._loop.time() - self._zero_s) * 1000)

    def ms_at(self, at_s: float) -> int:
        """A moment of the loop's clock, since the call began."""
        return round((at_s - self._zero_s) * 1000)

    def wait_for(self, due_ms: int | None) -> None:
        """The moment to wait for, in place of the one before; None: for nothing."""
        if due_ms == self._due_ms:
            return
        self.stop()
        self._timer, self._due_ms = None, due_ms
        if due_ms is not None:
            at_s = self._zero_s + due_ms / 1000
            self._timer = self._loop.call_at(at_s, self._on_timer)

    def stop(self) -> None:
        """The call is over: nothing is waited for any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _on_timer(self) -> None:
        self._timer = self._due_ms = None
        # call_at may fire a clock tick early; what is due is in whole milliseconds
        self._on_due(self.now_ms() + 1)
