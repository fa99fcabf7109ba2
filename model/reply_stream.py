"""Reply events on their way from whoever makes them to the one who takes them.

Bounded by the bytes inside: `put` waits while it is full.  The maker ends it,
with or without an error; what was put before is still delivered.  The taker closes it.
Used on one event loop, with one taker.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from model.errors import SpeechError, SpeechUnavailable
from model.speech import ReplyAudio, ReplyEvent

_EVENT_BYTES: Final = 200


class ReplyStream:
    """The events of one reply between two tasks."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._events: deque[ReplyEvent] = deque()
        self._num_bytes = 0
        self._has_ended = False
        self._is_closed = False
        self._error: SpeechError | None = None
        self._changed = asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Ended or closed: nothing more goes in."""
        return self._has_ended or self._is_closed

    async def put(self, event: ReplyEvent) -> None:
        """Add an event, waiting while full; into a stream that is over, nothing."""
        while self._num_bytes >= self._max_bytes and not self.is_over:
            self._changed.clear()
            await self._changed.wait()
        if self.is_over:
            return
        self._events.append(event)
        self._num_bytes += _size(event)
        self._changed.set()

    def end(self, error: SpeechError | None = None) -> None:
        """No more events; `error` is raised after those already in."""
        if not self._has_ended:
            self._has_ended, self._error = True, error
            self._changed.set()

    def close(self) -> None:
        """The taker has gone: whatever is in or comes is dropped."""
        self._is_closed = True
        self._events.clear()
        self._num_bytes = 0
        self._changed.set()

    async def get(self, timeout_s: float | None = None) -> ReplyEvent | None:
        """The next event; None at the end.

        Raises:
            SpeechError: what `end` was given.
            SpeechUnavailable: nothing came within `timeout_s`.
        """
        if not self._events and not self.is_over:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._wait_for_event()
            except TimeoutError as exc:
                raise SpeechUnavailable(f"nothing came for {timeout_s} s") from exc
        if self._events:
            event = self._events.popleft()
            self._num_bytes -= _size(event)
            self._changed.set()
            return event
        if self._error is not None and not self._is_closed:
            raise self._error
        return None

    async def _wait_for_event(self) -> None:
        while not self._events and not self.is_over:
            self._changed.clear()
            await self._changed.wait()


def _size(event: ReplyEvent) -> int:
    """Bytes an event costs, near enough that no flood of small ones gets by."""
    return _EVENT_BYTES + (len(event.pcm16) if isinstance(event, ReplyAudio) else 0)
