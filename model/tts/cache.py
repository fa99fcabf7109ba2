"""Speech of fixed phrases, made once and kept in memory within a bound."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from model.tts.voice import Voice


@dataclass(frozen=True, slots=True)
class PhraseKey:
    """Everything that makes a difference to the ear."""

    backend: str
    version: str
    text: str
    """In its spoken form."""
    voice: Voice
    rate_hz: int


@dataclass(slots=True)
class _Making:
    task: asyncio.Future[bytes]
    num_waiting: int = 0


class PhraseCache:
    """Least recently used phrases go first; the same phrase is made once at a time."""

    def __init__(self, max_bytes: int = 32 << 20) -> None:
        """32 MiB hold half an hour of speech at 8 kHz."""
        self._max_bytes = max_bytes
        self._phrases: OrderedDict[PhraseKey, bytes] = OrderedDict()
        self._making: dict[PhraseKey, _Making] = {}
        self.num_bytes = 0
        self.num_hits = 0
        self.num_misses = 0

    def get(self, key: PhraseKey) -> bytes | None:
        pcm16 = self._phrases.get(key)
        if pcm16 is None:
            self.num_misses += 1
            return None
        self.num_hits += 1
        self._phrases.move_to_end(key)
        return pcm16

    def put(self, key: PhraseKey, pcm16: bytes) -> None:
        """Keep a phrase; one that is larger than the whole cache is not kept."""
        if len(pcm16) > self._max_bytes:
            return
        self.num_bytes += len(pcm16) - len(self._phrases.pop(key, b""))
        self._phrases[key] = pcm16
        while self.num_bytes > self._max_bytes:
            _, dropped = self._phrases.popitem(last=False)
            self.num_bytes -= len(dropped)

    async def get_or_make(
        self, key: PhraseKey, make: Callable[[], Awaitable[bytes]]
    ) -> bytes:
        """The phrase from memory, or made now; who asks meanwhile waits for the same.

        One who is cancelled does not take it from the others; the last one does.

        Raises:
            Whatever `make` raises, to all who wait; nothing is kept then.
        """
        if (pcm16 := self.get(key)) is not None:
            return pcm16
        making = self._making.get(key)
        if making is None:
            making = self._making[key] = _Making(asyncio.ensure_future(make()))
            making.task.add_done_callback(lambda task: self._keep(key, task))
        making.num_waiting += 1
        try:
            return await asyncio.shield(making.task)
        finally:
            making.num_waiting -= 1
            if making.num_waiting == 0 and not making.task.done():
                del self._making[key]  # who asks from now on makes it anew
                making.task.cancel()
                await asyncio.wait([making.task])

    def _keep(self, key: PhraseKey, task: asyncio.Future[bytes]) -> None:
        making = self._making.get(key)
        if making is not None and making.task is task:
            del self._making[key]
        if not task.cancelled() and task.exception() is None:
            self.put(key, task.result())
