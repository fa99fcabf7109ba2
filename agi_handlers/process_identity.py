"""Which process wrote something, so that another can tell whether it still runs.

A number alone is given out again; number and start time are not.
"""

from __future__ import annotations

import os
from pathlib import Path


def own_identity() -> str:
    """Of this process, e.g. "4711.8829431"."""
    return f"{os.getpid()}.{_start_ticks(os.getpid())}"


def is_running(identity: str) -> bool:
    """Whether that process of this host is still there."""
    pid, _, ticks = identity.partition(".")
    return pid.isdecimal() and ticks != "" and _start_ticks(int(pid)) == ticks


def _start_ticks(pid: int) -> str:
    """Clock ticks from boot to its start; empty when there is none.

    Source: man 5 proc, /proc/PID/stat, field 22; a zombie counts as ended.
    """
    try:
        stat = (Path("/proc") / str(pid) / "stat").read_text()
    except OSError:
        return ""
    found = stat.rpartition(")")[2].split()
    return "" if found[0] in "ZX" else found[19]
