"""What is left of an engine's time, and for how many calls that is enough."""

from __future__ import annotations

import pytest

from model.engine.load_meter import CallMeter, LoadMeter, calls_served


def test_busy_time_is_that_of_the_window() -> None:
    meter = LoadMeter(window_s=10)
    assert meter.busy_share(0) == 0
    for second in range(20):
        meter.note_step(second, second + 0.25)
    assert meter.busy_share(20) == pytest.approx(0.25)
    assert meter.busy_share(25) == pytest.approx(0.125)
    assert meter.busy_share(100) == 0
    assert meter.step_ms(100) == 0


def test_the_slow_steps_count() -> None:
    meter = LoadMeter(window_s=1000)
    for number in range(100):
        meter.note_step(number, number + (0.5 if number % 10 == 0 else 0.001))
    assert meter.step_ms(100) == pytest.approx(500)


def test_a_window_of_nothing_but_steps_is_wholly_busy() -> None:
    meter = LoadMeter(window_s=1)
    meter.note_step(0, 5)
    assert meter.busy_share(5) == 1


def test_calls_are_counted_by_how_long_they_were_there() -> None:
    meter = CallMeter(window_s=10)
    assert meter.call_seconds(5) == 0
    meter.note_calls(0, 1)
    meter.note_calls(8, 3)
    meter.note_calls(9, 2)
    assert meter.call_seconds(10) == pytest.approx(8 + 3 + 2)
    assert meter.call_seconds(14) == pytest.approx(4 + 3 + 10)
    meter.note_calls(20, 0)
    assert meter.call_seconds(20) == pytest.approx(20)
    assert meter.call_seconds(30) == 0


@pytest.mark.parametrize(
    ("busy_s", "call_seconds", "served"),
    [
        (3.0, 150.0, 40),  # ten calls take a fifth of the time: forty take 0.8
        (14.0, 15.0, 1),  # one call takes nearly all of it, and stays
        (0.0, 150.0, None),
        (1.0, 2.0, None),  # too early to tell
    ],
)
def test_calls_served(busy_s: float, call_seconds: float, served: int | None) -> None:
    assert calls_served(busy_s, call_seconds, 0.8) == served
