"""Response delay and barge-in as arithmetic."""

from __future__ import annotations

from tools.caller.ear import Sound
from tools.caller.mouth import Said
from tools.caller.turns import (
    is_answered,
    longest_silence_s,
    measured_turns,
    percentile,
)


def said(start_s: float, end_s: float) -> Said:
    return Said("a", start_s, start_s, end_s)


def test_an_answer_is_timed_from_the_last_voiced_sample() -> None:
    (turn,) = measured_turns([said(1, 2)], [Sound(0, 0.8), Sound(2.5, 4)])
    assert turn.response_ms == 500
    assert turn.barge_in_stop_ms is None
    assert not turn.is_cut


def test_a_turn_without_an_answer_before_the_next_is_unanswered() -> None:
    first, second = measured_turns([said(1, 2), said(3, 4)], [Sound(4.4, 5)])
    assert first.response_ms is None
    assert second.response_ms == 400


def test_talking_over_the_bot_is_a_barge_in() -> None:
    (turn,) = measured_turns([said(1, 2)], [Sound(0, 1.25), Sound(2.6, 3)])
    assert turn.barge_in_stop_ms == 250
    assert turn.response_ms == 600


def test_a_bot_that_talks_on_is_timed_to_its_end() -> None:
    (turn,) = measured_turns([said(1, 2)], [Sound(0, 3)])
    assert turn.barge_in_stop_ms == 2000
    assert turn.response_ms is None


def test_an_answer_before_the_caller_had_finished_is_a_cut() -> None:
    (turn,) = measured_turns([said(1, 2)], [Sound(1.5, 3)])
    assert turn.is_cut
    assert turn.response_ms is None


def test_nothing_said_is_no_turn() -> None:
    assert measured_turns([], [Sound(0, 1)]) == []


def test_answered() -> None:
    assert is_answered([], [])
    assert not is_answered([said(1, 2)], [Sound(0, 1.5)])
    assert is_answered([said(1, 2)], [Sound(0, 1.5), Sound(2.5, 3)])


def test_percentiles() -> None:
    assert percentile([], 50) is None
    assert percentile([3.0], 95) == 3.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 50) == 2.5
    assert percentile([4.0, 1.0, 3.0, 2.0], 100) == 4.0


def test_longest_silence() -> None:
    assert longest_silence_s([Sound(0, 1), Sound(4, 5), Sound(5.5, 6)]) == 3
    assert longest_silence_s([]) == 0
