"""Speech of fixed phrases, made once and kept within bounds: in memory, and on disk.

A phrase goes to disk when it is asked for again: what is said in every call stays, the
greeting of one caller by his name does not.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from model.tts.phrase_files import PhraseFiles
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


@dataclass(slots=True)
class _Kept:
    pcm16: bytes
    is_on_disk: bool = False


class PhraseCache:
    """Least recently used phrases go first; the same phrase is made once at a time."""

    def __init__(
        self, max_bytes: int = 32 << 20, files: PhraseFiles | None = None
    ) -> None:
        """32 MiB hold half an hour of speech at 8 kHz; files None: memory only."""
        self._max_bytes = max_bytes
        self._files = files
        self._phrases: OrderedDict[PhraseKey, _Kept] = OrderedDict()
        self._saving: set[asyncio.Future[None]] = set()
        self._making: dict[PhraseKey, _Making] = {}
        self.num_bytes = 0
        self.num_hits = 0
        self.num_misses = 0

    def get(self, key: PhraseKey) -> bytes | None:
        kept = self._phrases.get(key)
        if kept is None:
            self.num_misses += 1
            return None
        self.num_hits += 1
        self._phrases.move_to_end(key)
        return kept.pcm16

    def put(self, key: PhraseKey, pcm16: bytes) -> None:
        """Keep a phrase; one that is larger than the whole cache is not kept."""
        if len(pcm16) > self._max_bytes:
            return
        self.drop(key)
        self.num_bytes += len(pcm16)
        self._phrases[key] = _Kept(pcm16)
        while self.num_bytes > self._max_bytes:
            _, dropped = self._phrases.popitem(last=False)
            self.num_bytes -= len(dropped.pcm16)

    def drop(self, key: PhraseKey) -> None:
        """Forget a phrase, if it is kept."""
        kept = self._phrases.pop(key, None)
        if kept is not None:
            self.num_bytes -= len(kept.pcm16)

    async def get_or_make(
        self, key: PhraseKey, make: Callable[[], Awaitable[bytes]]
    ) -> bytes:
        """The phrase from memory or disk, or made now; who asks meanwhile waits for
        the same.

        One who is cancelled does not take it from the others; the last one does.

        Raises:
            Whatever `make` raises, to all who wait; nothing is kept then.
        """
        if (pcm16 := self.get(key)) is not None:
            self._save(key)
            return pcm16
        making = self._making.get(key)
        if making is None:
            made = asyncio.ensure_future(self._load_or_make(key, make))
            making = self._making[key] = _Making(made)
            making.task.add_done_callback(lambda task: self._finish(key, task))
        making.num_waiting += 1
        try:
            return await asyncio.shield(making.task)
        finally:
            making.num_waiting -= 1
            if making.num_waiting == 0 and not making.task.done():
                del self._making[key]  # who asks from now on makes it anew
                making.task.cancel()
                await asyncio.wait([making.task])

    async def aclose(self) -> None:
        """Wait for what is being written."""
        if self._saving:
            await asyncio.wait(self._saving)

    async def _load_or_make(
        self, key: PhraseKey, make: Callable[[], Awaitable[bytes]]
    ) -> bytes:
        if self._files is not None:
            pcm16 = await asyncio.to_thread(self._files.load, key)
            if pcm16 is not None:
                self.put(key, pcm16)
                if (kept := self._phrases.get(key)) is not None:
                    kept.is_on_disk = True
                return pcm16
        pcm16 = await make()
        self.put(key, pcm16)
        return pcm16

    def _save(self, key: PhraseKey) -> None:
        """Said a second time: worth a place on disk."""
        kept = self._phrases.get(key)
        if self._files is None or kept is None or kept.is_on_disk:
            return
        kept.is_on_disk = True
        writing = asyncio.to_thread(self._files.save, key, kept.pcm16)
        saving = asyncio.ensure_future(writing)
        self._saving.add(saving)
        saving.add_done_callback(self._saving.discard)

    def _finish(self, key: PhraseKey, task: asyncio.Future[bytes]) -> None:
        making = self._making.get(key)
        if making is not None and making.task is task:
            del self._making[key]
        if not task.cancelled():
            task.exception()  # told to who waits; nobody may
