"""What counts as frozen: in arithmetic, then on real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from agi_handlers.supervision.freeze_watch import Activity, FreezeWatch, activity_of

TICK_S = 0.25
LIMIT_S = 2.0
ASLEEP = Activity(False, cpu_s=1.0, waited_s=0.0)


def watch() -> FreezeWatch:
    return FreezeWatch(LIMIT_S, TICK_S)


def ticks(
    one: FreezeWatch, activities: Sequence[Activity | None], from_s: float = 100.0
) -> float | None:
    """Time of the tick that found it frozen, from the first on; None: none did."""
    for number, activity in enumerate(activities):
        one.tick(from_s + number * TICK_S, activity)
        if one.is_frozen:
            return number * TICK_S
    return None


def test_no_beat_for_the_limit_is_frozen() -> None:
    assert ticks(watch(), [ASLEEP] * 20) == LIMIT_S


def test_without_the_kernels_word_silence_alone_counts() -> None:
    assert ticks(watch(), [None] * 20) == LIMIT_S


def test_a_beat_begins_anew() -> None:
    one = watch()
    assert ticks(one, [ASLEEP] * 8) is None
    one.beat()
    assert one.stood_s == 0
    assert ticks(one, [ASLEEP] * 20, from_s=102.0) == LIMIT_S - TICK_S


def test_our_own_lateness_accuses_nobody() -> None:
    """The machine slept for an hour, or we were stopped as well."""
    one = watch()
    one.tick(100.0, ASLEEP)
    one.tick(3700.0, ASLEEP)
    assert one.stood_s == TICK_S


def test_a_process_that_waits_for_a_cpu_is_not_frozen() -> None:
    starving = Activity(True, cpu_s=1.0, waited_s=0.0)
    assert ticks(watch(), [starving] * 100) is None


def test_waiting_for_a_cpu_is_taken_off() -> None:
    """Of every 250 ms it ran for 50: it needs five times as long to be accused."""
    slowed = [Activity(True, 1 + 0.05 * n, 0.2 * n) for n in range(100)]
    found_s = ticks(watch(), slowed)
    assert found_s == pytest.approx(LIMIT_S * 5, abs=2 * TICK_S)


def test_a_loop_that_spins_is_frozen() -> None:
    spinning = [Activity(True, 1 + TICK_S * n, 0.0) for n in range(20)]
    assert ticks(watch(), spinning) == LIMIT_S


@contextmanager
def child(code: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_the_kernel_tells_of_a_stopped_and_of_a_spinning_process() -> None:
    with child("while True: pass") as process:
        time.sleep(0.2)
        first = activity_of(process.pid)
        time.sleep(0.3)
        second = activity_of(process.pid)
        assert first is not None
        assert second is not None
        assert second.is_runnable
        used_s = second.cpu_s - first.cpu_s
        waited_s = second.waited_s - first.waited_s
        assert used_s + waited_s > 0  # how much of each is the machine's affair
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        stopped = activity_of(process.pid)
        assert stopped is not None
        assert not stopped.is_runnable


def test_nothing_is_told_of_a_process_that_is_gone() -> None:
    with child("pass") as process:
        process.wait()
    assert activity_of(process.pid) is None
