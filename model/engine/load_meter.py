"""How much of its time an engine spends on callers: what is left is head-room.

Pure: time comes in as an argument. Steps without a caller in them do not count, since
callers go first; REST replies and transcripts fill what they leave over.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from threading import Lock

# Long enough for a turn and its answer: a caller's reply is a burst.
WINDOW_S = 15.0
# Of the newest steps, for the percentile; 15 s of small steps are thousands.
_MAX_STEPS = 1024
# One call's turn or two: less says nothing about the next ones.
_MIN_CALL_SECONDS = 10.0


@dataclass(slots=True)
class LoadMeter:
    """The steps of the last seconds.  Any thread."""

    window_s: float = WINDOW_S
    _steps: deque[tuple[float, float]] = field(
        default_factory=lambda: deque[tuple[float, float]]()  # end, duration
    )
    _busy_s: float = 0.0
    _lock: Lock = field(default_factory=Lock)

    def note_step(self, began_s: float, ended_s: float) -> None:
        """A step in which a caller took part."""
        with self._lock:
            self._steps.append((ended_s, ended_s - began_s))
            self._busy_s += ended_s - began_s
            self._forget(ended_s)

    def busy_share(self, now_s: float) -> float:
        """Of the window, 0 to 1."""
        with self._lock:
            self._forget(now_s)
            return min(1.0, max(0.0, self._busy_s / self.window_s))

    def step_ms(self, now_s: float) -> float:
        """The 95th percentile of the newest steps; 0 if there were none."""
        with self._lock:
            self._forget(now_s)
            count = len(self._steps)
            newest = range(max(0, count - _MAX_STEPS), count)
            durations = sorted(self._steps[index][1] for index in newest)
        return 1000 * durations[int(0.95 * (len(durations) - 1))] if durations else 0.0

    def _forget(self, now_s: float) -> None:
        while self._steps and self._steps[0][0] <= now_s - self.window_s:
            self._busy_s -= self._steps.popleft()[1]
        if not self._steps:
            self._busy_s = 0.0  # and with it what rounding left


@dataclass(slots=True)
class CallMeter:
    """How long how many calls were on the line, within the same window."""

    window_s: float = WINDOW_S
    # When their number changed, and to what; the first may lie before the window.
    _changes: deque[tuple[float, int]] = field(
        default_factory=lambda: deque[tuple[float, int]]()
    )

    def note_calls(self, now_s: float, num_calls: int) -> None:
        """So many from now on."""
        self._changes.append((now_s, num_calls))
        start_s = now_s - self.window_s
        while len(self._changes) > 1 and self._changes[1][0] <= start_s:
            self._changes.popleft()

    def call_seconds(self, now_s: float) -> float:
        """Of all of them together, in the window."""
        start_s, total, until_s = now_s - self.window_s, 0.0, now_s
        for at_s, num_calls in reversed(self._changes):
            total += num_calls * max(0.0, until_s - max(at_s, start_s))
            until_s = max(at_s, start_s)
        return total


def calls_served(
    busy_s: float, call_seconds: float, max_busy_share: float
) -> int | None:
    """How many calls like those of the last seconds the engine has time for.

    None: too little was seen to tell. Each call takes an equal part of the busy time,
    which is on the safe side: the more there are, the more of them share a step.
    """
    if call_seconds < _MIN_CALL_SECONDS or busy_s <= 0:
        return None
    return max(1, int(max_busy_share * call_seconds / busy_s))
