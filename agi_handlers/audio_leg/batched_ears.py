"""All callers' ears together: one run of the speech detector for what came in 5 ms.

An ear with silero costs about 4 ms of CPU for a second of one caller's audio run call
by call, 1.3 ms when 8 calls are run together and 0.9 ms when 30 are; 200 calls would
not fit one core otherwise (benchmarks/results/media.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Final, TypeAlias

from model.vad.events import SpeechEvent
from model.vad.listener import CallerEar, judge_together

# What a decision is later at most; frames come every 20 ms from each call, so that a
# quarter of the calls meets in a batch. A frame that comes when nothing was heard for
# so long is heard at once: few calls wait for nobody.
BATCH_S: Final = 0.005

Heard: TypeAlias = "list[SpeechEvent] | Exception"
"""What an ear has to say, or why the detector could not tell."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Whom to tell, in the context in which he asked."""

    tell: Callable[[Heard], None]
    context: Context


class BatchedEars:
    """Feeds the ears of all calls of a process; all have the same detector."""

    def __init__(self) -> None:
        self.num_runs = 0
        self._waiting: dict[CallerEar, _Waiting] = {}
        self._timer: asyncio.TimerHandle | None = None

    def hear(
        self, ear: CallerEar, pcm16: bytes, tell: Callable[[Heard], None]
    ) -> list[SpeechEvent] | None:
        """`ear.feed(pcm16)`, together with other calls.

        None: `tell` is called with the events when they are known; it must not raise.
        """
        found = ear.add(pcm16)
        if found:  # an end: nobody waits for that
            self._waiting.pop(ear, None)
            return found + _judged(ear)
        if not ear.has_window:
            return found
        if self._timer is None:
            self._arm()
            return _judged(ear)
        if ear not in self._waiting:
            self._waiting[ear] = _Waiting(tell, copy_context())
        return None

    def finish(self, ear: CallerEar) -> list[SpeechEvent] | None:
        """What this ear waits to be told, now; None: nothing."""
        return None if self._waiting.pop(ear, None) is None else _judged(ear)

    def forget(self, ear: CallerEar) -> None:
        """Its call is over."""
        self._waiting.pop(ear, None)

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(BATCH_S, self._judge)
        self.num_runs += 1

    def _judge(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        self._arm()
        waiting, self._waiting = self._waiting, {}
        outcomes: Sequence[Heard]
        try:
            outcomes = judge_together(list(waiting))
        except Exception as exc:  # noqa: BLE001 - told to each of the calls
            outcomes = [exc] * len(waiting)
        for asked, heard in zip(waiting.values(), outcomes, strict=True):
            asked.context.run(asked.tell, heard)


def _judged(ear: CallerEar) -> list[SpeechEvent]:
    [events] = judge_together([ear])
    return events
