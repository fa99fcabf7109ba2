"""Choosing the number of threads by what is faster."""

from __future__ import annotations

from model.training.threads import ThreadChoice


def _run(choice: ThreadChoice, rates: dict[int, float], steps: int) -> list[int]:
    used = []
    for _ in range(steps):
        used.append(choice.threads)
        choice.step_done(30.0, 30.0 / rates[choice.threads])
    return used


def test_the_faster_number_is_kept() -> None:
    choice = ThreadChoice(2, trial_steps=3, settled_steps=10)
    used = _run(choice, {1: 30.0, 2: 90.0}, 16)
    assert used == [2] * 3 + [1] * 3 + [2] * 10


def test_a_busy_neighbour_is_noticed_at_the_next_trial() -> None:
    choice = ThreadChoice(2, trial_steps=3, settled_steps=10)
    _run(choice, {1: 30.0, 2: 90.0}, 16)
    used = _run(choice, {1: 30.0, 2: 15.0}, 16)
    assert used == [2] * 3 + [1] * 13


def test_one_thread_is_never_questioned() -> None:
    choice = ThreadChoice(1, trial_steps=1, settled_steps=1)
    assert _run(choice, {1: 1.0}, 20) == [1] * 20
