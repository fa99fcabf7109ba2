"""The phrase cache: its bound, and that a phrase is made once at a time."""

from __future__ import annotations

import asyncio

import pytest

from model.errors import SynthesisFailed
from model.tts.cache import PhraseCache, PhraseKey
from model.tts.voice import Voice


def key(text: str, voice: Voice | None = None, rate_hz: int = 8000) -> PhraseKey:
    return PhraseKey("espeak", "1", text, voice or Voice(), rate_hz)


class Maker:
    """Makes a phrase when it is let go."""

    def __init__(self) -> None:
        self.num_calls = 0
        self.was_cancelled = False
        self.go = asyncio.Event()

    async def __call__(self) -> bytes:
        self.num_calls += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        return b"speech"


def test_least_recently_used_phrases_go_first() -> None:
    cache = PhraseCache(max_bytes=300)
    for text in "abc":
        cache.put(key(text), bytes(100))
    assert cache.get(key("a")) is not None
    cache.put(key("d"), bytes(100))
    assert cache.get(key("b")) is None
    assert cache.get(key("a")) == bytes(100)
    assert cache.num_bytes == 300


def test_replacing_a_phrase_counts_its_bytes_once() -> None:
    cache = PhraseCache(max_bytes=300)
    cache.put(key("a"), bytes(100))
    cache.put(key("a"), bytes(50))
    assert cache.num_bytes == 50


def test_a_phrase_larger_than_the_cache_is_not_kept() -> None:
    cache = PhraseCache(max_bytes=10)
    cache.put(key("a"), bytes(11))
    assert cache.num_bytes == 0


def test_voice_and_rate_make_a_difference() -> None:
    cache = PhraseCache()
    cache.put(key("a"), b"1")
    assert cache.get(key("a", Voice(speed_wpm=200))) is None
    assert cache.get(key("a", rate_hz=16_000)) is None


async def test_a_phrase_asked_for_twice_at_once_is_made_once() -> None:
    cache, make = PhraseCache(), Maker()
    both = [asyncio.create_task(cache.get_or_make(key("a"), make)) for _ in range(2)]
    await asyncio.sleep(0)
    make.go.set()
    assert await asyncio.gather(*both) == [b"speech", b"speech"]
    assert make.num_calls == 1
    assert await cache.get_or_make(key("a"), make) == b"speech"
    assert make.num_calls == 1


async def test_one_who_gives_up_does_not_take_it_from_the_others() -> None:
    cache, make = PhraseCache(), Maker()
    first = asyncio.create_task(cache.get_or_make(key("a"), make))
    second = asyncio.create_task(cache.get_or_make(key("a"), make))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    make.go.set()
    assert first.cancelled()
    assert await second == b"speech"


async def test_the_last_one_who_gives_up_stops_the_making() -> None:
    cache, make = PhraseCache(), Maker()
    only = asyncio.create_task(cache.get_or_make(key("a"), make))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    only.cancel()
    await asyncio.wait([only])
    assert make.was_cancelled
    again = Maker()
    again.go.set()
    assert await cache.get_or_make(key("a"), again) == b"speech"


async def test_a_failure_is_told_to_all_and_not_kept() -> None:
    async def fail() -> bytes:
        await asyncio.sleep(0)
        raise SynthesisFailed("broken")

    cache = PhraseCache()
    both = [cache.get_or_make(key("a"), fail) for _ in range(2)]
    results = await asyncio.gather(*both, return_exceptions=True)
    assert [type(result) for result in results] == [SynthesisFailed, SynthesisFailed]
    make = Maker()
    make.go.set()
    assert await cache.get_or_make(key("a"), make) == b"speech"


async def test_a_key_is_free_again_after_a_making_that_never_began() -> None:
    cache, make = PhraseCache(), Maker()
    task = asyncio.create_task(cache.get_or_make(key("a"), make))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    make.go.set()
    assert await cache.get_or_make(key("a"), make) == b"speech"
