"""Events pass from maker to taker in order, bounded, and end in one way."""

from __future__ import annotations

import asyncio

import pytest

from model.errors import GenerationFailed, SpeechUnavailable
from model.reply_stream import ReplyStream
from model.speech import ReplyAudio, ReplyText

HELLO = ReplyText(1, "hello")


def audio(n_bytes: int) -> ReplyAudio:
    return ReplyAudio(1, 0, "", bytes(n_bytes))


async def test_events_come_out_in_order_then_the_end() -> None:
    stream = ReplyStream(10_000)
    await stream.put(HELLO)
    await stream.put(audio(2))
    stream.end()
    assert [await stream.get() for _ in range(3)] == [HELLO, audio(2), None]


async def test_what_came_before_an_error_is_still_delivered() -> None:
    stream = ReplyStream(10_000)
    await stream.put(HELLO)
    stream.end(GenerationFailed("x"))
    assert await stream.get() == HELLO
    with pytest.raises(GenerationFailed):
        await stream.get()


async def test_the_first_end_counts() -> None:
    stream = ReplyStream(10_000)
    stream.end()
    stream.end(GenerationFailed("late"))
    assert await stream.get() is None


async def test_a_full_stream_makes_its_maker_wait_until_something_is_taken() -> None:
    stream = ReplyStream(1000)
    await stream.put(audio(2000))
    waiting = asyncio.create_task(stream.put(HELLO))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert await stream.get() == audio(2000)
    await waiting
    assert await stream.get() == HELLO


async def test_many_small_events_fill_it_too() -> None:
    stream = ReplyStream(1000)

    async def make() -> int:
        for count in range(1_000_000):
            before = asyncio.current_task()
            await stream.put(ReplyText(1, ""))
            assert before is asyncio.current_task()
            made[0] = count
        return made[0]

    made = [0]
    making = asyncio.create_task(make())
    await asyncio.sleep(0)
    assert made[0] < 10
    stream.close()
    making.cancel()
    await asyncio.wait([making])


async def test_closing_wakes_a_waiting_maker_and_drops_what_it_brings() -> None:
    stream = ReplyStream(1000)
    await stream.put(audio(2000))
    waiting = asyncio.create_task(stream.put(HELLO))
    await asyncio.sleep(0)
    stream.close()
    await waiting
    assert await stream.get() is None


async def test_silence_beyond_the_timeout_is_unavailability() -> None:
    with pytest.raises(SpeechUnavailable, match="nothing came"):
        await ReplyStream(1000).get(timeout_s=0.01)


async def test_an_error_wakes_a_waiting_taker() -> None:
    stream = ReplyStream(1000)
    waiting = asyncio.create_task(stream.get(timeout_s=30))
    await asyncio.sleep(0)
    stream.end(SpeechUnavailable("gone"))
    with pytest.raises(SpeechUnavailable, match="gone"):
        await waiting
