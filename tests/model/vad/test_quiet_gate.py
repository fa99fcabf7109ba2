from __future__ import annotations

from model.audio.pcm import SILENCE_DBFS
from model.vad.quiet_gate import QuietGate


def after(num_windows: int, level_db: float, probability: float = 0.02) -> QuietGate:
    """A gate that has heard so much of one level."""
    gate = QuietGate()
    for _ in range(num_windows):
        if gate.is_open(level_db):
            gate.judged(probability)
    return gate


def test_steady_noise_is_not_worth_a_run() -> None:
    gate = after(40, -60.0)
    assert not gate.is_open(-60.0)
    assert not gate.is_open(-58.0)


def test_whatever_stands_out_of_the_noise_is() -> None:
    assert after(40, -60.0).is_open(-54.0)


def test_a_call_that_begins_with_speech_is_heard_from_the_start() -> None:
    gate = QuietGate()
    for _ in range(60):
        assert gate.is_open(-20.0)
        gate.judged(0.95)


def test_speech_is_followed_through_its_soft_moments() -> None:
    gate = after(40, -60.0)
    assert gate.is_open(-30.0)
    gate.judged(0.9)
    assert [gate.is_open(-60.0) for _ in range(5)] == [True] * 4 + [False]


def test_noise_that_has_come_to_stay_becomes_the_floor() -> None:
    gate = after(40, -60.0)
    assert gate.is_open(-45.0)
    for _ in range(300):
        gate.is_open(-45.0)
    assert not gate.is_open(-45.0)


def test_noise_that_has_gone_no_longer_hides_anything() -> None:
    gate = after(2000, -30.0)
    assert not gate.is_open(-30.0)
    for _ in range(10):
        gate.is_open(-60.0)
    assert gate.is_open(-50.0)


def test_silence_put_where_nothing_came_is_not_taken_for_the_line() -> None:
    gate = after(40, -60.0)
    for _ in range(40):
        assert not gate.is_open(SILENCE_DBFS)
    assert not gate.is_open(-60.0)
    assert gate.is_open(-54.0)
