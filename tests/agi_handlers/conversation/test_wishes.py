"""Requests that need nobody's consent, told from mere mentions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agi_handlers.conversation.wishes import Wish, wish_in


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("Stop calling me!", "opt_out"),
        ("please stop calling this number", "opt_out"),
        ("Don't call me again.", "opt_out"),
        ("do not ever call here", "opt_out"),
        ("Take me off your list", "opt_out"),
        ("remove my number from your calling list please", "opt_out"),
        ("put me on the do not call list", "opt_out"),
        ("Give me a person, and don\u2019t call me any more.", "opt_out"),
        ("I want to talk to a person", "person"),
        ("can i speak with a human being please", "person"),
        ("give me a real person", "person"),
        ("Transfer me to an agent.", "person"),
        ("let me talk to somebody else", "person"),
        ("I need a representative", "person"),
        ("operator", "person"),
        ("agent, please", "person"),
        ("connect me with your manager", "person"),
        ("I talked to an agent yesterday", None),
        ("someone stole my card", None),
        ("Can you call me back at three?", None),
        ("I am calling about my order", None),
        ("are you a real person", None),
        ("please call me again tomorrow", None),
        ("i do not need anything", None),
        ("", None),
    ],
)
def test_english_wishes(text: str, wish: Wish | None) -> None:
    assert wish_in(text, "en-us") == wish


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("¡No me llamen más!", "opt_out"),
        ("Deje de llamar", "opt_out"),
        ("no me vuelvan a llamar por favor", "opt_out"),
        ("Quítenme de su lista", "opt_out"),
        ("Quiero hablar con una persona", "person"),
        ("páseme con un agente", "person"),
        ("necesito un operador", "person"),
        ("hablé con un agente ayer", None),
        ("me puede llamar mañana", None),
    ],
)
def test_spanish_wishes(text: str, wish: Wish | None) -> None:
    assert wish_in(text, "es-mx") == wish


@given(st.text(max_size=4000), st.sampled_from(["en", "es", "de", ""]))
def test_any_text_gets_an_answer_in_bounded_time(text: str, language: str) -> None:
    assert wish_in(text, language) in (None, "person", "opt_out")
