"""The last line of ``tools.place_call``: what was measured, as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from tools.caller.call import CallReport
from tools.caller.ear import Ear
from tools.caller.turns import longest_silence_s, percentile


def summary_of_one(
    report: CallReport, own_lateness_s: Sequence[float]
) -> dict[str, object]:
    """One call."""
    return {
        "ended": report.ended,
        "leg": "+".join(report.legs) or None,
        "answered": report.answered_s is not None,
        "greeting_ms": report.greeting_ms,
        "turns": [asdict(turn) for turn in report.turns],
        "response_ms": _spread(_responses([report])),
        "unanswered_turns": sum(t.response_ms is None for t in report.turns),
        "barge_in_stop_ms": [
            t.barge_in_stop_ms for t in report.turns if t.barge_in_stop_ms is not None
        ],
        **_audio(report.ear),
        "longest_silence_s": round(longest_silence_s(report.ear.sounds), 3),
        "keys_heard": report.keys_heard,
        "variables": dict(report.variables),
        "goes_on_at": dict(report.goes_on_at),
        "own_late_ms": _spread(own_lateness_s, scale=1000),
        "errors": list(report.errors),
    }


def summary_of_many(
    reports: Sequence[CallReport], own_lateness_s: Sequence[float]
) -> dict[str, object]:
    """Calls placed together."""
    late = [r.ear.cadence for r in reports]
    return {
        "calls": len(reports),
        "answered": sum(r.answered_s is not None for r in reports),
        "ended": dict(Counter(r.ended for r in reports)),
        "legs": dict(Counter("+".join(r.legs) or "none" for r in reports)),
        "greeting_ms": _spread(
            [r.greeting_ms for r in reports if r.greeting_ms is not None]
        ),
        "response_ms": _spread(_responses(reports)),
        "unanswered_turns": sum(
            t.response_ms is None for r in reports for t in r.turns
        ),
        "barge_in_stop_ms": _spread(
            [
                t.barge_in_stop_ms
                for r in reports
                for t in r.turns
                if t.barge_in_stop_ms is not None
            ]
        ),
        "frames_heard": sum(c.num_frames for c in late),
        "late_frames": sum(c.num_late for c in late),
        "lateness_ms": _spread([s for c in late for s in c.lateness_s], scale=1000),
        "bot_status": dict(Counter(r.variables.get("BOT_STATUS", "") for r in reports)),
        "own_late_ms": _spread(own_lateness_s, scale=1000),
        "errors": dict(Counter(e for r in reports for e in r.errors)),
    }


def _audio(ear: Ear) -> dict[str, object]:
    cadence = ear.cadence
    return {
        "frames_heard": cadence.num_frames,
        "late_frames": cadence.num_late,
        "lateness_ms": _spread(cadence.lateness_s, scale=1000),
        "max_gap_ms": round(cadence.max_gap_s * 1000),
        "pauses": cadence.num_pauses,
        "lost_ms": round(ear.lost_s * 1000),
        "heard_s": round(sum(s.end_s - s.start_s for s in ear.sounds), 2),
    }


def _responses(reports: Sequence[CallReport]) -> list[float]:
    return [
        t.response_ms for r in reports for t in r.turns if t.response_ms is not None
    ]


def _spread(values: Sequence[float], scale: float = 1.0) -> dict[str, float] | None:
    """p50, p95, p99 and max; None of nothing."""
    if not values:
        return None
    points = {"p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0}
    return {
        name: round((percentile(values, at) or 0.0) * scale, 1)
        for name, at in points.items()
    }
