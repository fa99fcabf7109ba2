"""Events of a leg: joined, ordered, bounded."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

from agi_handlers.audio_leg.event_queue import (
    MAX_UNREAD_AUDIO_BYTES,
    MAX_UNREAD_KEYS,
    LegEventQueue,
)
from agi_handlers.audio_leg.leg import (
    CallerAudio,
    CallerKey,
    LegClosed,
    LegEvent,
    PlaybackFinished,
)

CLOSED = LegClosed("caller_hung_up")


async def all_events(queue: LegEventQueue) -> list[LegEvent]:
    async with asyncio.timeout(5):
        return [event async for event in queue.events()]


async def test_audio_that_waited_is_joined_and_keeps_its_place_among_keys() -> None:
    queue = LegEventQueue()
    queue.put_audio(b"aa")
    queue.put_audio(b"bb")
    queue.put(CallerKey("1"))
    queue.put_audio(b"cc")
    queue.put(CLOSED)
    assert await all_events(queue) == [
        CallerAudio(b"aabb"),
        CallerKey("1"),
        CallerAudio(b"cc"),
        CLOSED,
    ]


async def test_nothing_comes_after_the_end() -> None:
    queue = LegEventQueue()
    queue.put(CLOSED)
    queue.put_audio(b"aa")
    queue.put(CallerKey("1"))
    queue.put(LegClosed("lost"))
    assert await all_events(queue) == [CLOSED]
    assert queue.closed == CLOSED


async def test_a_waiting_reader_gets_each_event_as_it_comes() -> None:
    queue = LegEventQueue()
    events = queue.events()
    reading = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    queue.put_audio(b"aa")
    assert await reading == CallerAudio(b"aa")
    reading = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    queue.put(CLOSED)
    assert await reading == CLOSED


async def test_a_reader_may_be_cancelled_and_come_back() -> None:
    queue = LegEventQueue()
    reading = asyncio.ensure_future(anext(queue.events()))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    queue.put(CallerKey("7"))
    queue.put(CLOSED)
    assert await all_events(queue) == [CallerKey("7"), CLOSED]


async def test_the_oldest_audio_is_dropped_when_nobody_reads() -> None:
    queue = LegEventQueue()
    queue.put_audio(b"\1" * 1000)
    queue.put(CallerKey("1"))
    for _ in range(MAX_UNREAD_AUDIO_BYTES // 1000):
        queue.put_audio(b"\2" * 1000)
    queue.put(CLOSED)
    assert queue.num_dropped_bytes == 1000
    events = await all_events(queue)
    assert events == [
        CallerKey("1"),
        CallerAudio(b"\2" * MAX_UNREAD_AUDIO_BYTES),
        CLOSED,
    ]


async def test_a_flood_of_keys_is_cut_off_but_nothing_else_is_lost() -> None:
    queue = LegEventQueue()
    for _ in range(MAX_UNREAD_KEYS + 50):
        queue.put(CallerKey("1"))
    queue.put(PlaybackFinished(20))
    queue.put(CLOSED)
    events = await all_events(queue)
    assert events[:-2] == [CallerKey("1")] * MAX_UNREAD_KEYS
    assert events[-2:] == [PlaybackFinished(20), CLOSED]


async def test_empty_audio_is_no_event() -> None:
    queue = LegEventQueue()
    queue.put_audio(b"")
    queue.put(CLOSED)
    assert await all_events(queue) == [CLOSED]


async def test_a_listener_gets_audio_at_once_but_not_before_what_waits() -> None:
    queue, heard = LegEventQueue(), list[bytes]()
    queue.put_audio(b"aa")  # nobody listens yet
    queue.hand_audio_to(heard.append)
    queue.put_audio(b"bb")
    reading = queue.events()
    assert await anext(reading) == CallerAudio(b"aabb")
    queue.put_audio(b"cc")
    assert heard == [b"cc"]
    queue.put(CallerKey("1"))
    queue.put_audio(b"dd")
    assert [await anext(reading) for _ in range(2)] == [
        CallerKey("1"),
        CallerAudio(b"dd"),
    ]
    queue.put_audio(b"ee")
    queue.hand_audio_to(None)
    queue.put_audio(b"ff")
    queue.put(CLOSED)
    assert [event async for event in reading] == [CallerAudio(b"ff"), CLOSED]
    assert heard == [b"cc", b"ee"]


async def test_a_listener_is_called_in_the_context_it_was_given_in() -> None:
    call_id: ContextVar[str] = ContextVar("call_id", default="")
    queue, heard_in = LegEventQueue(), list[str]()

    async def listen() -> None:
        call_id.set("ours")
        queue.hand_audio_to(lambda _: heard_in.append(call_id.get()))

    await asyncio.create_task(listen())
    queue.put_audio(b"aa")
    assert heard_in == ["ours"]
