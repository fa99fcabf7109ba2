"""A call's time, and the moment it waits for, in virtual time."""

from __future__ import annotations

import asyncio

from agi_handlers.conversation.call_clock import CallClock
from tests.fakes.clock import run_in_virtual_time


def announced(*waits: tuple[float, int | None], until_s: float = 1.0) -> list[int]:
    """What a clock announces that is told to wait, each time after so many seconds."""
    due: list[int] = []

    async def run() -> None:
        await asyncio.sleep(5)  # a call's time is not the loop's
        clock = CallClock(due.append)
        clock.begin()
        for after_s, due_ms in waits:
            await asyncio.sleep(after_s)
            clock.wait_for(due_ms)
        await asyncio.sleep(until_s)
        clock.stop()
        await asyncio.sleep(60)

    run_in_virtual_time(run())
    return due


def test_moment_is_announced_when_it_has_come_for_sure() -> None:
    assert announced((0, 300)) == [301]


def test_moment_that_is_put_off_is_announced_once() -> None:
    assert announced((0, 300), (0.2, 500), (0.2, 500)) == [501]


def test_moment_that_has_passed_is_announced_at_once_and_again_if_asked() -> None:
    assert announced((0.4, 300), (0.1, 300)) == [401, 501]


def test_nothing_is_announced_that_is_no_longer_waited_for() -> None:
    assert announced((0, 300), (0.1, None)) == []
    assert announced((0, 30_000)) == [], "the call was over before"


def test_moments_of_the_loop_are_told_in_the_calls_time() -> None:
    async def run() -> None:
        await asyncio.sleep(5)
        clock = CallClock(lambda at_ms: None)
        clock.begin()
        await asyncio.sleep(0.25)
        assert (clock.now_s(), clock.now_ms()) == (5.25, 250)
        assert clock.ms_at(5.1) == 100

    run_in_virtual_time(run())
