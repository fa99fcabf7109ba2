"""Is a process frozen, or only short of CPU?  Pure: time and counters come in.

::

    beats    | | | |                     | |
    ticks    . . . . . . . . . . . . . . . .
    stood          0 1 2 3 4 ... limit        -> frozen

What counts against a process is time that it could have used and did not: the machine
was awake, we were on time ourselves, and the kernel did not keep it waiting for a CPU.
So a stopped process and a hung loop are found within the limit, while load, a jump of
the clock and a suspended machine accuse nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_LATE_TICKS = 2.0
"""A tick later than so many intervals says more about us than about the process."""


@dataclass(frozen=True, slots=True)
class Activity:
    """What the kernel says of a process: of all its threads, since one may hold what
    another waits for, such as the interpreter's lock.

    Source: man 5 proc, /proc/PID/task/TID/stat and schedstat.
    """

    is_runnable: bool
    """A thread runs or waits for a CPU; else all sleep, or are stopped."""
    cpu_s: float
    """Spent on a CPU."""
    waited_s: float
    """Spent ready to run, with no CPU free; told when the wait is over."""


class FreezeWatch:
    """One process's time of standing still."""

    def __init__(self, limit_s: float, interval_s: float) -> None:
        self._limit_s = limit_s
        self._interval_s = interval_s
        self._stood_s = 0.0
        self._ticked_s: float | None = None
        self._before: Activity | None = None

    @property
    def stood_s(self) -> float:
        """How long it has stood still, its excuses taken off."""
        return self._stood_s

    @property
    def is_frozen(self) -> bool:
        return self._stood_s >= self._limit_s

    def beat(self) -> None:
        """It has shown that its loop turns."""
        self._stood_s = 0.0

    def tick(self, now_s: float, activity: Activity | None) -> None:
        """An interval has passed; `activity` None: the kernel does not tell."""
        before, self._before = self._before, activity
        ticked_s, self._ticked_s = self._ticked_s, now_s
        if ticked_s is None:
            return
        passed_s = now_s - ticked_s
        if passed_s > _LATE_TICKS * self._interval_s:
            passed_s = self._interval_s
        if activity is not None and before is not None:
            # a thread that ended takes its figures along
            passed_s -= max(0.0, activity.waited_s - before.waited_s)
            if activity.is_runnable and activity.cpu_s == before.cpu_s:
                return  # it still waits for its first moment on a CPU
        self._stood_s += max(0.0, passed_s)


def activity_of(pid: int) -> Activity | None:
    """What the kernel tells of a process now; None: nothing (it is gone)."""
    is_runnable, cpu_ns, waited_ns = False, 0, 0
    num_threads = 0
    try:
        for thread in (Path("/proc") / str(pid) / "task").iterdir():
            # the name before it may hold anything, a closing bracket included
            state = (thread / "stat").read_text().rpartition(")")[2].split()[0]
            on_cpu_ns, in_queue_ns, _ = (thread / "schedstat").read_text().split()
            is_runnable |= state == "R"
            cpu_ns += int(on_cpu_ns)
            waited_ns += int(in_queue_ns)
            num_threads += 1
    except (OSError, ValueError):
        if not num_threads:
            return None  # else one of them has just ended
    return Activity(is_runnable, cpu_ns / 1e9, waited_ns / 1e9)
