"""A long load minute by minute: does the bot get slower or bigger with time?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from benchmarks.bench_turn_latency import spread
from benchmarks.load_processes import Samples, quantile
from tools.caller.turns import Turn

MINUTE_S: Final = 60.0
_LATE_TICK_SHARE: Final = 0.99


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call."""

    over_s: float
    """Since the phase began."""
    ended: str
    came_to: str
    is_answered: bool
    greeting_ms: int | None
    turns: Sequence[Turn]
    num_frames: int
    num_late: int
    status: str
    reason: str
    errors: Sequence[str]


@dataclass(frozen=True, slots=True)
class Mark:
    """What was counted so far when a minute began or ended."""

    at_s: float
    """Since the phase began."""
    ticks: Mapping[float, float]
    """Of the bot's audio wheels: bucket's bound in seconds -> number."""
    num_own_ticks: int
    """Of the callers' own wheel."""


def response_ms(calls: Iterable[Outcome]) -> dict[str, float] | None:
    """Response delays of all their turns that were answered, spread out."""
    turns = (turn for call in calls for turn in call.turns)
    return spread([turn.response_ms for turn in turns if turn.response_ms])


def late_frames_percent(calls: Sequence[Outcome]) -> float:
    """Of the frames that the callers heard."""
    num_frames = sum(call.num_frames for call in calls)
    num_late = sum(call.num_late for call in calls)
    return round(100 * num_late / max(1, num_frames), 3)


def minutes_of(
    marks: Sequence[Mark],
    calls: Sequence[Outcome],
    samples: Samples,
    own_late_s: Sequence[float],
) -> list[dict[str, Any]]:
    """One row for each time between two marks; of the calls that were over in it."""
    rows = []
    for begins, ends in pairwise(marks):
        over = [call for call in calls if begins.at_s <= call.over_s < ends.at_s]
        looks = Samples(
            [row for row in samples.rows if begins.at_s <= row["at_s"] < ends.at_s]
        )
        ticks = [
            (bound, number - begins.ticks.get(bound, 0.0))
            for bound, number in sorted(ends.ticks.items())
        ]
        own = slice(begins.num_own_ticks, ends.num_own_ticks)
        rows.append(
            {
                "ends_at_s": round(ends.at_s, 1),
                "calls": len(over),
                "errors": sum(len(call.errors) for call in over),
                "response_ms": response_ms(over),
                "late_frames_percent": late_frames_percent(over),
                "wheel_late_ms_at_most_p99": 1000 * quantile(ticks, _LATE_TICK_SHARE),
                "own_late_ms": spread([1000 * late for late in own_late_s[own]]),
                **{
                    f"{half}_{what}": round(looks.mean(f"{half}_{what}"), 1)
                    for half in ("phone", "speech")
                    for what in ("cpu_percent", "rss_mb")
                },
            }
        )
    return rows


def drift(minutes: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """The last minute against the first: growth in per cent, delay in ms.

    None where one of the two has nothing to compare.
    """
    first, last = minutes[0], minutes[-1]
    found: dict[str, float | None] = {
        f"{half}_rss_percent": _growth_percent(
            first[f"{half}_rss_mb"], last[f"{half}_rss_mb"]
        )
        for half in ("phone", "speech")
    }
    for which in ("p50", "p95"):
        both = first["response_ms"], last["response_ms"]
        found[f"response_{which}_ms"] = (
            both[1][which] - both[0][which] if all(both) else None
        )
    return found


def _growth_percent(before: float, after: float) -> float | None:
    return round(100 * (after / before - 1), 2) if before > 0 else None
