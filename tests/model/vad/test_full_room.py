from __future__ import annotations

import pytest

from model.vad.full_room import FullRoom


def heard(*parts: tuple[int, float, float]) -> FullRoom:
    """So many windows of a probability and a level each."""
    room = FullRoom()
    for num_windows, probability, level_db in parts:
        for _ in range(num_windows):
            room.hear(probability, level_db)
    return room


def test_voices_that_never_stop_fill_a_room() -> None:
    assert heard((300, 0.5, -35.0)).is_full


def test_it_takes_a_while_to_tell() -> None:
    assert not heard((90, 0.5, -35.0)).is_full


@pytest.mark.parametrize("level_db", [-70.0, -35.0])
def test_silence_and_hiss_are_no_room(level_db: float) -> None:
    assert not heard((300, 0.02, level_db)).is_full


def test_a_caller_who_speaks_and_pauses_is_no_room() -> None:
    turn = ((60, 0.95, -20.0), (30, 0.02, -60.0))
    assert not heard(*turn * 6).is_full


def test_a_long_turn_before_hiss_does_not_become_the_floor() -> None:
    room = heard((100, 0.02, -50.0), (300, 0.95, -20.0))
    assert not room.is_full


def test_a_room_that_has_emptied_is_full_no_more() -> None:
    room = heard((300, 0.5, -35.0), (300, 0.02, -60.0))
    assert not room.is_full


def test_only_a_room_near_the_callers_level_is_mistaken_for_him() -> None:
    room = heard((300, 0.5, -35.0))
    assert room.is_near(None)
    assert room.is_near(-25.0)
    assert not room.is_near(-15.0)
    assert not heard((300, 0.02, -35.0)).is_near(None)


def test_one_loud_window_hardly_raises_the_smoothed_level() -> None:
    room = heard((10, 0.5, -35.0))
    assert room.smoothed_db == pytest.approx(-35.0)
    room.hear(0.9, -29.0)
    assert -33.0 < room.smoothed_db < -32.0
    assert FullRoom().smoothed_db < -100
