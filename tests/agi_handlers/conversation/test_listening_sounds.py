"""Signs of listening, told from short words that mean something."""

from __future__ import annotations

import pytest

from agi_handlers.conversation.listening_sounds import is_listening_sound


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "...", "Mhm.", "Mm-hmm.", "mm hm", "Hmm", "Mmmm.", "M-hm", "Uh-huh.",
        "Uh huh, uh huh", "Uh", "Um...", "Ah.", "Oh!", "Okay.", "OK", "Right.",
        "Mm, okay", "Alright.", "I see.", "Oh, I see.", "Got it.",
    ],
)  # fmt: skip
def test_a_listener_wants_the_bot_to_go_on(text: str) -> None:
    assert is_listening_sound(text, "en-us")


@pytest.mark.parametrize(
    "text",
    [
        "No.", "Yes.", "Yeah.", "Stop!", "Wait", "Huh?", "What?", "Hello?", "Help",
        "Okay, stop", "Um, no", "Right now", "Hm, five", "Uh, wait", "home", "a human",
        "\u505c",
    ],
)  # fmt: skip
def test_whoever_says_a_word_means_it(text: str) -> None:
    assert not is_listening_sound(text, "en-us")


def test_each_language_has_its_own() -> None:
    assert is_listening_sound("Ajá, claro.", "es-mx")
    assert is_listening_sound("Vale, ya", "es")
    assert not is_listening_sound("No.", "es")
    assert not is_listening_sound("Espere", "es")
    assert not is_listening_sound("Claro.", "en-us")
    assert is_listening_sound("Mhm", "xx")
