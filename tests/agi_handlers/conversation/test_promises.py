"""Words that announce a transfer are told from words about one."""

from __future__ import annotations

import pytest

from agi_handlers.conversation.promises import promises_transfer


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Sure. I'm transferring you to our sales team now.", "en-us"),
        ("One moment, I will connect you.", "en"),
        ("I\u2019ll transfer you to a colleague.", "en-gb"),
        ("Let me put you through to billing.", "en"),
        ("Please hold, transferring you now.", "en"),
        ("Claro. Le paso con un compa\u00f1ero.", "es-mx"),
        ("Un momento, lo voy a transferir a ventas.", "es"),
        ("Voy a pasarle con un agente.", "es"),
    ],
)
def test_an_announcement_is_heard(text: str, language: str) -> None:
    assert promises_transfer(text, language)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Shall I transfer you to a colleague?", "en"),
        ("If you like, I will transfer you to sales.", "en"),
        ("I can transfer you to a person at any time.", "en"),
        ("I'm not transferring you anywhere.", "en"),
        ("Your order is being transferred to the courier.", "en"),
        ("I will connect the router for you.", "en"),
        ("\u00bfQuiere que le pase con un agente?", "es"),
        ("No puedo pasarle con nadie.", "es"),
        ("Nos transferimos el dinero ayer.", "es"),
        ("", "en"),
    ],
)
def test_talk_about_transfers_is_no_promise(text: str, language: str) -> None:
    assert not promises_transfer(text, language)
