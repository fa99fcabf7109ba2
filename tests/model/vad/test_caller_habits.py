from __future__ import annotations

import pytest

from model.vad.caller_habits import CallerLevel, LineFloor, PauseHabit
from model.vad.options import EndpointingOptions

OPTIONS = EndpointingOptions()


def say(level: CallerLevel, *levels_db: float) -> None:
    for level_db in levels_db:
        level.hear(level_db)
    level.end_utterance()


def lowest_taken_for_him(level: CallerLevel) -> float:
    """In half decibels from full scale down."""
    drop_db = OPTIONS.open_drop_db
    levels_db = [-step / 2 for step in range(200)]
    return min(db for db in levels_db if level.may_be_caller(db, drop_db))


def test_anybody_may_be_the_caller_before_he_has_spoken() -> None:
    assert CallerLevel(OPTIONS).may_be_caller(-90.0, OPTIONS.open_drop_db)


def test_what_is_much_softer_than_his_loud_sounds_is_not_him() -> None:
    level = CallerLevel(OPTIONS)
    say(level, *[-30.0] * 9, -20.0, -20.0)
    assert lowest_taken_for_him(level) == -20.0 - OPTIONS.open_drop_db


def test_a_bang_does_not_set_the_standard() -> None:
    level = CallerLevel(OPTIONS)
    say(level, 0.0, *[-25.0] * 30)
    assert lowest_taken_for_him(level) == -25.0 - OPTIONS.open_drop_db


def test_a_louder_utterance_counts_at_once_and_a_softer_one_by_half() -> None:
    level = CallerLevel(OPTIONS)
    say(level, *[-30.0] * 10)
    say(level, *[-20.0] * 10)
    assert lowest_taken_for_him(level) == -20.0 - OPTIONS.open_drop_db
    say(level, *[-26.0] * 10)
    assert lowest_taken_for_him(level) == -23.0 - OPTIONS.open_drop_db


def test_his_level_is_forgotten_slowly_and_not_altogether() -> None:
    level = CallerLevel(OPTIONS)
    say(level, *[-20.0] * 10)
    level.wait(10.0)
    ten_seconds_db = 10 * OPTIONS.forget_level_db_s
    assert lowest_taken_for_him(level) == -20.0 - OPTIONS.open_drop_db - ten_seconds_db
    level.wait(10_000.0)
    assert lowest_taken_for_him(level) == (
        -20.0 - OPTIONS.open_drop_db - OPTIONS.max_forget_level_db
    )


def test_an_utterance_without_a_single_window_teaches_nothing() -> None:
    level = CallerLevel(OPTIONS)
    level.end_utterance()
    assert level.may_be_caller(-90.0, OPTIONS.open_drop_db)


def test_a_new_caller_is_waited_for_until_going_on_is_as_unlikely_as_accepted() -> None:
    options = EndpointingOptions(
        prior_pauses=1.0, prior_ends=3.0, mean_pause_ms=300, accepted_risk=0.05
    )
    # 0.25 * exp(-(w - 200) / 100) = 0.05
    assert PauseHabit(options).hangover_ms() == pytest.approx(360.9, abs=0.1)


def test_each_pause_lengthens_the_wait_and_a_long_one_more() -> None:
    short, long = PauseHabit(OPTIONS), PauseHabit(OPTIONS)
    new_ms = short.hangover_ms()
    short.paused(250)
    long.paused(600)
    assert new_ms < short.hangover_ms() < long.hangover_ms()


def test_each_turn_without_a_pause_shortens_the_wait() -> None:
    habit = PauseHabit(OPTIONS)
    waits_ms = []
    for _ in range(60):
        habit.end_utterance()
        waits_ms.append(habit.hangover_ms())
    assert waits_ms == sorted(waits_ms, reverse=True)
    assert waits_ms[-1] == OPTIONS.min_hangover_ms


def test_pauses_without_end_lengthen_the_wait_to_the_limit_only() -> None:
    habit = PauseHabit(OPTIONS)
    for _ in range(100):
        habit.paused(900)
    assert habit.hangover_ms() == OPTIONS.max_hangover_ms


def test_what_was_taken_for_an_end_counts_as_several_pauses_and_no_end() -> None:
    options = EndpointingOptions(pause_memory=1.0, cut_pause_weight=3.0)
    rejoined, paused = PauseHabit(options), PauseHabit(options)
    rejoined.end_utterance()
    rejoined.rejoined(500)
    for _ in range(3):
        paused.paused(500)
    assert rejoined.hangover_ms() == pytest.approx(paused.hangover_ms())


def test_silence_within_a_word_is_no_pause() -> None:
    habit = PauseHabit(OPTIONS)
    new_ms = habit.hangover_ms()
    habit.paused(OPTIONS.min_pause_ms - 1)
    assert habit.hangover_ms() == new_ms


def heard_line(*levels_db: float) -> LineFloor:
    floor = LineFloor(OPTIONS)
    for level_db in levels_db:
        floor.hear(level_db)
    return floor


def test_on_a_quiet_line_only_the_callers_own_level_counts() -> None:
    floor = heard_line(*[-70.0] * 300, *[-20.0] * 100)
    assert floor.loud_from_db(-20.0) == -20.0 - OPTIONS.loud_drop_db


def test_in_a_full_room_speech_must_stand_out() -> None:
    floor = heard_line(*[-40.0] * 1000)
    assert floor.loud_from_db(-20.0) == pytest.approx(
        -40.0 + OPTIONS.above_floor_db, abs=1.0
    )


def test_a_room_as_loud_as_the_caller_leaves_him_some_room() -> None:
    floor = heard_line(*[-22.0] * 1000)
    assert floor.loud_from_db(-20.0) == -20.0 - OPTIONS.least_drop_db
