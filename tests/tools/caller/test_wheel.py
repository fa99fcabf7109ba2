"""The callers' clock: whether this process was held up."""

from __future__ import annotations

import asyncio
import time

from tools.caller.wheel import Wheel


async def test_a_process_that_was_held_up_knows_it_for_a_while() -> None:
    wheel = Wheel()
    assert not wheel.is_behind()  # it does not turn yet
    turns = asyncio.Event()
    with wheel.turning(turns.set):
        task = asyncio.ensure_future(wheel.run())
        async with asyncio.timeout(5):
            await turns.wait()
            time.sleep(0.03)  # noqa: ASYNC251 - that is what is looked for
            assert wheel.is_behind()
            await asyncio.sleep(0)
            assert wheel.is_behind()
            while wheel.is_behind():  # noqa: ASYNC110 - no event says so
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert max(wheel.lateness_s) > 0.0
