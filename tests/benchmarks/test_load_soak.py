from __future__ import annotations

from benchmarks.load_processes import Samples
from benchmarks.load_soak import Mark, Outcome, drift, minutes_of
from tools.caller.turns import Turn

MARKS = (
    Mark(0.0, {0.01: 10.0, float("inf"): 10.0}, 0),
    Mark(60.0, {0.01: 110.0, float("inf"): 110.0}, 2),
    Mark(120.0, {0.01: 110.0, float("inf"): 210.0}, 3),
)
OWN_LATE_S = (0.001, 0.003, 0.020, 0.9)


def call(over_s: float, *response_ms: int | None, num_late: int = 0) -> Outcome:
    turns = [Turn("yes", 1.0, 2.0, ms, None, is_cut=False) for ms in response_ms]
    return Outcome(
        over_s=over_s,
        ended="caller",
        came_to="bot",
        is_answered=True,
        greeting_ms=None,
        turns=turns,
        num_frames=100,
        num_late=num_late,
        status="done",
        reason="",
        errors=(),
    )


def samples() -> Samples:
    keys = ("phone_cpu_percent", "phone_rss_mb", "speech_cpu_percent", "speech_rss_mb")
    return Samples(
        [
            {"at_s": at_s, **dict.fromkeys(keys, 100.0 + at_s / 60)}
            for at_s in (30.0, 90.0, 150.0)
        ]
    )


def test_a_call_counts_in_the_minute_in_which_it_was_over() -> None:
    calls = [call(10, 500, None), call(70, 700, num_late=5), call(130, 9000)]
    first, last = minutes_of(MARKS, calls, samples(), OWN_LATE_S)
    assert first["response_ms"] == {"p50": 500, "p95": 500, "p99": 500, "n": 1}
    assert last["response_ms"] == {"p50": 700, "p95": 700, "p99": 700, "n": 1}
    assert (first["calls"], last["calls"]) == (1, 1)  # the third: after the last mark
    assert (first["late_frames_percent"], last["late_frames_percent"]) == (0.0, 5.0)


def test_lateness_and_memory_are_those_of_the_minute() -> None:
    first, last = minutes_of(MARKS, [], samples(), OWN_LATE_S)
    assert first["own_late_ms"]["n"] == 2
    assert last["own_late_ms"] == {"p50": 20, "p95": 20, "p99": 20, "n": 1}
    assert first["wheel_late_ms_at_most_p99"] == 10.0
    assert last["wheel_late_ms_at_most_p99"] == float("inf")
    assert (first["phone_rss_mb"], last["phone_rss_mb"]) == (100.5, 101.5)


def test_drift_is_the_last_minute_against_the_first() -> None:
    minutes = minutes_of(MARKS, [call(10, 500), call(70, 650)], samples(), OWN_LATE_S)
    assert drift(minutes) == {
        "phone_rss_percent": 1.0,
        "speech_rss_percent": 1.0,
        "response_p50_ms": 150,
        "response_p95_ms": 150,
    }


def test_where_nobody_was_answered_there_is_no_drift_of_the_delay() -> None:
    minutes = minutes_of(MARKS, [call(10, 500), call(70, None)], samples(), OWN_LATE_S)
    assert drift(minutes)["response_p50_ms"] is None
