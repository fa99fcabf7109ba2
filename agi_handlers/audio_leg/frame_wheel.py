"""The frame wheel: one steady 20 ms clock for the audio of every call.

Deadlines are absolute, so it does not drift.  The calls are spread over a few phases
of the 20 ms, so that the writes of 200 calls do not hold up the event loop in one go.
A tick that comes late still sends what fits a jitter buffer and skips the rest; it
never works off a backlog.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from model.audio.frames import FRAME_MS
from telemetry import ERRORS, FRAME_LATENESS, FRAMES_LATE, fields

logger = logging.getLogger(__name__)

FRAME_S = FRAME_MS / 1000
LATE_S = 0.010  # what the metric calls late: half a frame
# From the caller's frame to what answers it: detector, decision, first frame queued.
ANSWER_S = 0.004
# The fullest phase may get so many legs more than the emptiest one by that.
MAX_UNEVEN = 2


class OnTheWheel(Protocol):
    """A leg that is told when frames are due."""

    def on_frame_time(self, num_frames: int) -> None:
        """Send this many frames now."""
        ...


@dataclass(frozen=True, slots=True)
class FrameWheelOptions:
    num_phases: int = 4  # groups of calls, 5 ms apart
    # Frames missed by a late tick go out with it, up to 60 ms of them. Measured on
    # Asterisk 22 with the loop blocked for 35 ms twice a second, at a caller with a
    # 40 ms jitter buffer: 311 ms of holes in 10 s with 1, none with 2; blocked for
    # 55 ms: 671 ms with 1, 274 ms with 2, 63 ms with 3.
    max_frames_per_tick: int = 3


@dataclass(slots=True)
class WheelStats:
    num_ticks: int = 0
    num_late_ticks: int = 0  # more than 10 ms after their time
    num_skipped_frames: int = 0  # frames of silence or delay put into calls by lateness
    max_lateness_s: float = 0.0


class FrameWheel:
    """Calls `on_frame_time` of every leg on it, 50 times a second."""

    def __init__(self, options: FrameWheelOptions) -> None:
        self.options = options
        self.stats = WheelStats()
        self._phases = [_Phase(self) for _ in range(options.num_phases)]
        self._epoch = time.monotonic()

    @property
    def num_legs(self) -> int:
        return sum(len(phase.legs) for phase in self._phases)

    def add(self, leg: OnTheWheel) -> None:
        """Give the leg its time from the next tick of the emptiest phase on."""
        self._put(leg, min(self._phases, key=lambda each: len(each.legs)))

    def follow_caller(self, leg: OnTheWheel) -> None:
        """The caller's audio has come just now: have the leg's frames soon after it.

        What is decided by a frame of his is then heard with the next tick, and not a
        whole frame later. Phases stay about equally full.
        """
        home = next((phase for phase in self._phases if leg in phase.legs), None)
        if home is None:
            return
        home.legs.remove(leg)
        ready_s = time.monotonic() + ANSWER_S - self._epoch
        best = min(
            (p for p in self._phases if p is home or self._stays_even(p)),
            key=lambda phase: (self._offset_s(phase) - ready_s) % FRAME_S,
        )
        self._put(leg, best)

    def remove(self, leg: OnTheWheel) -> None:
        """No more ticks for this leg; nothing happens if it was not there."""
        for phase in self._phases:
            if leg in phase.legs:
                phase.legs.remove(leg)

    def _put(self, leg: OnTheWheel, phase: _Phase) -> None:
        phase.legs.append(leg)
        if phase.timer is None:
            offset_s = self._offset_s(phase)
            turns = (time.monotonic() - self._epoch - offset_s) // FRAME_S + 1
            phase.start(self._epoch + offset_s + turns * FRAME_S)

    def _stays_even(self, with_one_more: _Phase) -> bool:
        sizes = [len(p.legs) + (p is with_one_more) for p in self._phases]
        return max(sizes) - min(sizes) <= MAX_UNEVEN

    def _offset_s(self, phase: _Phase) -> float:
        return self._phases.index(phase) * FRAME_S / len(self._phases)

    def close(self) -> None:
        for phase in self._phases:
            phase.legs.clear()
            phase.stop()


@contextmanager
def run_frame_wheel(options: FrameWheelOptions | None = None) -> Iterator[FrameWheel]:
    """A wheel that turns for the block, while there are legs on it."""
    wheel = FrameWheel(options or FrameWheelOptions())
    try:
        yield wheel
    finally:
        wheel.close()


def frames_due(lateness_s: float, max_frames: int) -> tuple[int, int]:
    """Frames to send at a tick this late, and frames to skip for good."""
    num_due = 1 + int(lateness_s / FRAME_S)
    num_frames = min(num_due, max_frames)
    return num_frames, num_due - num_frames


class _Phase:
    """The legs whose frames are due together."""

    def __init__(self, wheel: FrameWheel) -> None:
        self.legs: list[OnTheWheel] = []
        self.timer: asyncio.TimerHandle | None = None
        self._wheel = wheel
        self._due_s = 0.0

    def start(self, due_s: float) -> None:
        self._due_s = due_s
        delay_s = max(0.0, due_s - time.monotonic())
        self.timer = asyncio.get_running_loop().call_later(delay_s, self._tick)

    def stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _tick(self) -> None:
        self.timer = None
        if not self.legs:
            return
        lateness_s = max(0.0, time.monotonic() - self._due_s)
        num_frames, num_skipped = frames_due(
            lateness_s, self._wheel.options.max_frames_per_tick
        )
        self._count(lateness_s, num_skipped)
        for leg in list(self.legs):
            try:
                leg.on_frame_time(num_frames)
            except Exception:  # one call's fault must not stop every call's audio
                ERRORS.labels(kind="frame_wheel").inc()
                logger.exception("leg_failed_on_wheel", extra=fields(leg=repr(leg)))
                self._wheel.remove(leg)
        self.start(self._due_s + (num_frames + num_skipped) * FRAME_S)

    def _count(self, lateness_s: float, num_skipped: int) -> None:
        stats = self._wheel.stats
        stats.num_ticks += 1
        stats.max_lateness_s = max(stats.max_lateness_s, lateness_s)
        stats.num_skipped_frames += num_skipped * len(self.legs)
        FRAME_LATENESS.observe(lateness_s)
        if lateness_s > LATE_S:
            stats.num_late_ticks += 1
            FRAMES_LATE.inc(len(self.legs))
