from __future__ import annotations

from benchmarks.segment import Segment
from benchmarks.turn_score import TurnScore


def found(start: float, end: float, wait: float = 0.5) -> Segment:
    return Segment(start, end, start + 0.1, end + wait)


def score(turns: list[tuple[float, float]], *segments: Segment) -> dict[str, float]:
    total = TurnScore()
    total.add(turns, segments, heard_s=60.0)
    return total.summary()


def test_every_turn_found_alone_is_perfect() -> None:
    summary = score([(1, 2), (4, 5)], found(1.0, 2.0), found(4.0, 5.1, 0.6))
    assert summary == {
        "missed_pct": 0.0,
        "cut_pct": 0.0,
        "merged_pct": 0.0,
        "false_starts_per_minute": 0.0,
        "end_known_p50_ms": 600,
        "end_known_p95_ms": 690,
        "end_known_p99_ms": 698,
    }


def test_a_turn_without_a_segment_is_missed() -> None:
    assert score([(1, 2), (4, 5)], found(1, 2))["missed_pct"] == 50.0


def test_a_turn_with_two_segments_is_cut() -> None:
    summary = score([(1, 3)], found(1, 1.5, 0.2), found(2, 3))
    assert summary["cut_pct"] == 100.0
    assert summary["end_known_p50_ms"] == 500  # of the last of them


def test_a_segment_over_two_turns_merges_the_second_into_the_first() -> None:
    summary = score([(1, 2), (3, 4)], found(1, 4))
    assert summary["merged_pct"] == 50.0
    assert summary["end_known_p50_ms"] == 500  # of the second; the first has none


def test_a_segment_over_no_turn_is_a_false_start() -> None:
    assert score([(1, 2)], found(1, 2), found(7, 8))["false_starts_per_minute"] == 1.0
