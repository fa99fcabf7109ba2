"""What a prompt holds of a call whose turns are settled, open, forgotten or dropped."""

from __future__ import annotations

from datetime import date

import pytest

from model.call_history import CallHistory
from model.engine.plain_chat import PlainChat
from model.ultravox.inputs import Dialogue

CHAT = PlainChat()


@pytest.fixture
def history() -> CallHistory:
    return CallHistory(lambda: Dialogue(CHAT, "Be brief.", today=date(2026, 1, 1)))


def ids(text: str) -> tuple[int, ...]:
    return tuple(CHAT.encode(text))


def answered(history: CallHistory, number: int, user: str, reply: str) -> None:
    turn = history.open(number, (user,))
    turn.token_ids, turn.said = ids(reply), reply


def seen(history: CallHistory, number: int, user: str) -> list[str]:
    """What the model reads when this is said next."""
    history.open(number, (user,))
    messages = history.prompt(number).messages
    history.forget(number)
    return [f"{message.role[0]}: {message.text}" for message in messages]


def test_a_settled_turn_is_read(history: CallHistory) -> None:
    answered(history, 1, "a", "One two.")
    history.settle(1, "One two.")
    assert seen(history, 2, "b") == ["s: Be brief.", "u: a", "a: One two.", "u: b"]


def test_ids_are_kept_as_they_were_produced(history: CallHistory) -> None:
    answered(history, 1, "a", "One two.")
    history.settle(1, "One two.")
    history.open(2, ("b",))
    before = history.prompt(2)
    assert "One two." in CHAT.decode(before.token_ids.tolist())


def test_only_what_was_heard_is_read(history: CallHistory) -> None:
    answered(history, 1, "a", "One two. Three.")
    history.settle(1, "One two.")
    assert seen(history, 2, "b")[2] == "a: One two."


def test_a_reply_of_actions_only_stays_as_it_was(history: CallHistory) -> None:
    turn = history.open(1, ("bye",))
    turn.token_ids, turn.said = ids("[[hangup]]"), ""
    history.settle(1, "")
    assert seen(history, 2, "b")[2] == "a: [[hangup]]"


def test_an_open_turn_is_read_in_full_by_later_ones_only(history: CallHistory) -> None:
    answered(history, 1, "a", "One.")
    answered(history, 2, "b", "Two.")
    assert seen(history, 3, "c")[1:] == ["u: a", "a: One.", "u: b", "a: Two.", "u: c"]
    assert [m.text for m in history.prompt(1).messages] == ["Be brief.", "a"]


def test_turns_are_settled_in_any_order(history: CallHistory) -> None:
    answered(history, 1, "a", "One.")
    answered(history, 2, "b", "Two.")
    history.settle(1, "")
    history.settle(2, "Two.")
    assert seen(history, 3, "c")[1:] == ["u: a", "u: b", "a: Two.", "u: c"]


def test_given_words_are_the_bots(history: CallHistory) -> None:
    history.open(1).said = "Welcome."
    history.settle(1, "Welcome.")
    assert seen(history, 2, "a")[1:] == ["a: Welcome.", "u: a"]


def test_given_words_that_are_still_open_are_not_read(history: CallHistory) -> None:
    history.open(1).said = "One moment."
    assert seen(history, 2, "a")[1:] == ["u: a"]


def test_a_forgotten_turn_is_not_read(history: CallHistory) -> None:
    answered(history, 1, "a", "One.")
    history.forget(1)
    history.settle(1, "One.")
    assert seen(history, 2, "b")[1:] == ["u: b"]


def test_the_older_half_is_dropped_until_nothing_is_left(history: CallHistory) -> None:
    for number, word in enumerate("abcde"):
        answered(history, number, word, word.upper())
        history.settle(number, word.upper())
    assert history.drop_oldest()
    assert seen(history, 9, "x")[1:] == ["u: d", "a: D", "u: e", "a: E", "u: x"]
    assert history.drop_oldest()
    assert history.drop_oldest()
    assert seen(history, 10, "x") == ["s: Be brief.", "u: x"]
    assert not history.drop_oldest()
