"""All callers' ears together: one run of the speech detector for what came in 5 ms.

An ear with silero costs about 5 ms of CPU for a second of one caller's audio run call
by call, 1.3 ms when 8 calls are run together and 0.9 ms when 30 are; 200 calls would
not fit one core otherwise (benchmarks/results/media.md).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from model.vad.events import SpeechEvent
from model.vad.listener import CallerEar, feed_together

# What a decision is later at most; frames come every 20 ms from each call, so that a
# quarter of the calls meets in a batch. A frame that comes when nothing was heard for
# so long is heard at once: few calls wait for nobody.
BATCH_S: Final = 0.005


@dataclass(slots=True)
class _Hearing:
    ear: CallerEar
    pcm16: bytes
    heard: asyncio.Future[list[SpeechEvent]]


class BatchedEars:
    """Feeds the ears of all calls of a process; all have the same detector."""

    def __init__(self) -> None:
        self.num_runs = 0
        self._waiting: list[_Hearing] = []  # one a call at most: each waits its answer
        self._timer: asyncio.TimerHandle | None = None

    async def hear(self, ear: CallerEar, pcm16: bytes) -> list[SpeechEvent]:
        """`ear.feed(pcm16)`, together with other calls; one at a time for each ear."""
        if not ear.completes_window(pcm16):
            return ear.feed(pcm16)  # nothing to judge yet, and nothing to wait for
        loop = asyncio.get_running_loop()
        if self._timer is None:
            self._timer = loop.call_later(BATCH_S, self._feed)
            self.num_runs += 1
            [events] = feed_together([ear], [pcm16])
            return events
        hearing = _Hearing(ear, pcm16, loop.create_future())
        self._waiting.append(hearing)
        return await hearing.heard

    def _feed(self) -> None:
        self._timer = None
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(BATCH_S, self._feed)
        self.num_runs += 1
        try:
            events = feed_together(
                [hearing.ear for hearing in waiting],
                [hearing.pcm16 for hearing in waiting],
            )
        except Exception as exc:  # noqa: BLE001 - raised again in each of the calls
            for hearing in waiting:
                if not hearing.heard.done():
                    hearing.heard.set_exception(exc)
            return
        for hearing, heard in zip(waiting, events, strict=True):
            if not hearing.heard.done():  # the call may have ended meanwhile
                hearing.heard.set_result(heard)
