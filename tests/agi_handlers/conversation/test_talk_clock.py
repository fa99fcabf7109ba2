"""A talk's warning comes before its end, once, and its last words have an end."""

from __future__ import annotations

from agi_handlers.conversation.talk_clock import TalkClock
from agi_handlers.conversation.turn_actions import TurnTakingOptions


def clock(max_call_ms: int = 100_000) -> TalkClock:
    talk = TalkClock(TurnTakingOptions(max_call_ms=max_call_ms, time_warning_ms=30_000))
    talk.begin(1000)
    return talk


def test_the_warning_is_due_before_the_limit_and_taken_once() -> None:
    talk = clock()
    assert talk.due_ms() == 71_000
    assert not talk.take_warning(70_999)
    assert talk.take_warning(71_000)
    assert not talk.take_warning(71_001)
    assert talk.due_ms() == 101_000
    assert not talk.is_over(100_999)
    assert talk.is_over(101_000)


def test_a_short_call_needs_no_warning() -> None:
    talk = clock(60_000)
    assert talk.due_ms() == 61_000
    assert not talk.take_warning(60_500)


def test_last_words_that_never_end_are_stuck_unless_taken_back() -> None:
    talk = clock()
    talk.begin_last_words(5000)
    assert talk.is_ending
    assert not talk.is_over(200_000)
    assert not talk.take_warning(200_000)
    stuck_ms = talk.due_ms()
    assert not talk.are_last_words_stuck(stuck_ms - 1)
    assert talk.are_last_words_stuck(stuck_ms)
    talk.take_back_last_words()
    assert not talk.are_last_words_stuck(stuck_ms)
    assert talk.due_ms() == 71_000
