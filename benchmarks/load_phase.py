"""What one phase of a load measured, as a line of the table and as JSON."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.bench_turn_latency import spread
from benchmarks.load_processes import Samples, quantile
from benchmarks.load_soak import (
    Mark,
    Outcome,
    drift,
    late_frames_percent,
    minutes_of,
    response_ms,
)
from tools.caller.call import CallReport

_NOT_TAKEN: Final = ("busy", "failed", "not_ready")


@dataclass(slots=True)
class Phase:
    """What was measured in one.

    Of a call its figures are kept, not its sound: a soak must not fill the memory.
    """

    name: str
    calls: list[Outcome] = field(default_factory=list)
    samples: Samples = field(default_factory=Samples)
    seconds: float = 0.0
    ticks: list[tuple[float, float]] = field(default_factory=list)
    own_late_s: list[float] = field(default_factory=list)
    num_at_once: int = 0
    """Calls that were to be going on at once; 0: as many as came."""
    num_passed_on: int = 0
    """Not taken by the first bot, offered to the next."""
    began_s: float = field(default_factory=time.monotonic)
    kinds: Counter[str] = field(default_factory=Counter)
    """Callers by what they do."""
    marks: list[Mark] = field(default_factory=list)
    """One a minute; of a soak."""
    frame_late_s: array[float] = field(default_factory=lambda: array("f"))

    def add(self, report: CallReport) -> None:
        """A call is over."""
        self.calls.append(outcome(report, time.monotonic() - self.began_s))
        if report.answered_s is not None:
            self.frame_late_s.extend(report.ear.cadence.lateness_s)

    def row(self) -> dict[str, Any]:
        """As the last line has it."""
        minutes = minutes_of(self.marks, self.calls, self.samples, self.own_late_s)
        soak = {"minutes": minutes, "drift": drift(minutes)} if minutes else {}
        return self._summary() | soak

    def _summary(self) -> dict[str, Any]:
        calls, turns = self.calls, [turn for call in self.calls for turn in call.turns]
        mean_calls = self.samples.mean("calls")
        costs = {
            f"{half}_{what}": round(figure, 1)
            for half in ("phone", "speech")
            for what, figure in (
                ("cpu_percent", self.samples.mean(f"{half}_cpu_percent")),
                ("rss_mb_peak", self.samples.peak(f"{half}_rss_mb")),
            )
        }
        return {
            "phase": self.name,
            "calls_at_once": self.num_at_once,
            "seconds": round(self.seconds, 1),
            "calls": len(calls),
            "answered": sum(call.is_answered for call in calls),
            "passed_on": self.num_passed_on,
            "came_to": dict(Counter(call.came_to for call in calls)),
            "mean_at_once": round(mean_calls, 1),
            "response_ms": response_ms(calls),
            "unanswered_turns": sum(t.response_ms is None for t in turns),
            "barge_in_stop_ms": spread(
                [t.barge_in_stop_ms for t in turns if t.barge_in_stop_ms is not None]
            ),
            "greeting_ms": spread(
                [call.greeting_ms for call in calls if call.greeting_ms is not None]
            ),
            "frame_late_ms": spread([1000 * late for late in self.frame_late_s]),
            "late_frames_percent": late_frames_percent(calls),
            "wheel_late_ms_at_most": {
                f"p{round(100 * share)}": 1000 * quantile(self.ticks, share)
                for share in (0.5, 0.95, 0.99)
            },
            "own_late_ms": spread([1000 * late for late in self.own_late_s]),
            **costs,
            "phone_cpu_percent_per_call": round(
                self.samples.mean("phone_cpu_percent") / max(1.0, mean_calls), 2
            ),
            "ended": dict(Counter(call.ended for call in calls)),
            "status": dict(Counter(call.status for call in calls)),
            "reasons": dict(
                Counter(call.reason for call in calls if call.status in _NOT_TAKEN)
            ),
            "errors": dict(Counter(error for call in calls for error in call.errors)),
            "kinds": dict(self.kinds),
            "samples": self.samples.rows,
        }


def outcome(report: CallReport, over_s: float) -> Outcome:
    """`over_s`: when the call was over, since the phase began."""
    cadence = report.ear.cadence
    return Outcome(
        over_s=over_s,
        ended=report.ended,
        came_to=came_to(report),
        is_answered=report.answered_s is not None,
        greeting_ms=report.greeting_ms,
        turns=tuple(report.turns),
        num_frames=cadence.num_frames,
        num_late=cadence.num_late,
        status=report.variables.get("BOT_STATUS", ""),
        reason=report.variables.get("BOT_REASON", ""),
        errors=tuple(report.errors),
    )


def came_to(report: CallReport) -> str:
    """Who had the caller in the end."""
    if report.ended in ("caller", "bot"):
        return "bot"
    if report.variables.get("BOT_STATUS"):
        return "people"
    if report.ended in ("returned", "refused", "unreachable"):
        return "people, the bot broke off or was away"
    return "nobody"


def figures(spread_out: dict[str, float] | None) -> str:
    """p50/p95/p99, for a line of the table."""
    if spread_out is None:
        return "-"
    return "/".join(f"{spread_out[key]}" for key in ("p50", "p95", "p99"))


def show(row: dict[str, Any]) -> None:
    print(
        f"{row['phase']:<6} {row['calls']:>4} calls ({row['mean_at_once']:>5} at once) "
        f"answered {row['answered']:>4}  response {figures(row['response_ms'])}  "
        f"stop {figures(row['barge_in_stop_ms'])}  frames late "
        f"{row['late_frames_percent']} %, {figures(row['frame_late_ms'])} ms  "
        f"phone {row['phone_cpu_percent']} % {row['phone_rss_mb_peak']} MB  "
        f"speech {row['speech_cpu_percent']} % {row['speech_rss_mb_peak']} MB  "
        f"own late {figures(row['own_late_ms'])}  errors {sum(row['errors'].values())}",
        flush=True,
    )
    for number, minute in enumerate(row.get("minutes", ()), start=1):
        print(
            f"  minute {number:>3}: {minute['calls']:>4} calls  "
            f"response {figures(minute['response_ms'])}  "
            f"frames late {minute['late_frames_percent']} %  "
            f"phone {minute['phone_cpu_percent']} % {minute['phone_rss_mb']} MB  "
            f"speech {minute['speech_cpu_percent']} % {minute['speech_rss_mb']} MB",
            flush=True,
        )
