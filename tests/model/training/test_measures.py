"""How replies and transcripts are judged."""

from __future__ import annotations

import pytest

from model.training import measures


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Shall I book Tuesday at three pm?", "Shall I book Friday at noon?", True),
        ("On Tuesday. At what time?", "Tomorrow. At what time?", True),
        (
            "Shall I book tomorrow at three thirty pm?",
            "Shall I book Friday at ten am?",
            True,
        ),
        (
            "We will call you back on Monday at noon. [[callback monday 12 pm]]",
            "We will call you back tomorrow at two pm. [[callback tomorrow 2 pm]]",
            True,
        ),
        ("You said one two three four.", "You said nine nine nine nine.", True),
        ("Goodbye. [[hangup]]", "Goodbye.", False),
        ("Sure, take your time.", "Yes, go on.", False),
    ],
)
def test_sense_ignores_slots_and_nothing_else(one: str, other: str, same: bool) -> None:
    assert (measures.sense(one) == measures.sense(other)) is same


@pytest.mark.parametrize(
    ("said", "heard", "errors"),
    [
        ("one two three", "one two three", 0),
        ("one two three", "one three", 1),
        ("one two", "one two two", 1),
        ("a b c", "x y z", 3),
        ("", "x", 1),
        ("x y", "", 2),
    ],
)
def test_word_errors(said: str, heard: str, errors: int) -> None:
    assert measures.word_errors(said, heard) == errors


def test_area_under_roc() -> None:
    assert measures.area_under_roc([0.9, 0.8], [0.1, 0.2]) == 1.0
    assert measures.area_under_roc([0.1, 0.2], [0.9, 0.8]) == 0.0
    assert measures.area_under_roc([0.5, 0.5], [0.5]) == 0.5
    assert measures.area_under_roc([0.9, 0.3], [0.5]) == 0.5
    with pytest.raises(ValueError, match="both"):
        measures.area_under_roc([], [0.5])


def test_threshold_lets_few_negatives_through() -> None:
    negatives = [i / 100 for i in range(100)]
    threshold = measures.threshold_for(negatives, 0.03)
    assert sum(n > threshold for n in negatives) == 3
