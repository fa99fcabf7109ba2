"""The bot's side: what it answers, remembers, and never claims to know."""

from __future__ import annotations

import random
import re

from model.training.dialogue import (
    GREETING,
    NOT_HEARD,
    NOT_UNDERSTOOD,
    STILL_NOT_HEARD,
    Policy,
    draw_dialogue,
    without_actions,
)
from model.training.grammar import Slots

NONE = Slots()


def test_an_appointment_is_asked_for_bit_by_bit_and_confirmed() -> None:
    policy = Policy()
    assert policy.answer("book", NONE) == "Sure. Which day and time would you like?"
    assert policy.answer("day", Slots(day="tuesday")) == "On Tuesday. At what time?"
    shall = policy.answer("time", Slots(time="three pm"))
    assert shall == "Shall I book Tuesday at three pm?"
    assert policy.answer("yes", NONE) == (
        "I have noted Tuesday at three pm. Anything else? [[note book tuesday 3 pm]]"
    )
    assert policy.answer("recall_appointment", NONE) == (
        "I have noted Tuesday at three pm."
    )


def test_a_correction_replaces_what_was_heard() -> None:
    policy = Policy()
    policy.answer("book_day_time", Slots(day="tuesday", time="three pm"))
    shall = policy.answer("correct_day", Slots(day="friday"))
    assert shall == "Shall I book Friday at three pm?"
    shall = policy.answer("correct_time", Slots(time="nine thirty am"))
    assert shall == "Shall I book Friday at nine thirty am?"


def test_a_bare_number_is_confirmed_corrected_and_remembered() -> None:
    policy = Policy()
    asked = policy.answer("number", Slots(number="one two three four"))
    assert asked == "Is one two three four your order number?"
    policy.answer("correct_number", Slots(number="one two three five"))
    checked = policy.answer("yes", NONE)
    assert checked == "I will have order one two three five checked. Anything else?"
    assert policy.answer("recall_number", NONE) == "You said one two three five."


def test_what_only_the_operator_knows_is_offered_to_a_person() -> None:
    for intent in ("balance", "price", "payment", "recall_appointment"):
        policy = Policy()
        assert policy.answer(intent, NONE).endswith("connect you to a person?")
        assert policy.answer("yes", NONE).endswith("[[transfer]]")


def test_repeat_says_the_last_words_without_their_actions() -> None:
    policy = Policy()
    policy.answer("callback_day_time", Slots(day="tomorrow", time="noon"))
    assert policy.answer("repeat", NONE) == (
        "We will call you back tomorrow at noon. Anything else?"
    )
    assert Policy().answer("repeat", NONE) == GREETING


def test_noise_does_not_lose_the_thread() -> None:
    policy = Policy()
    policy.answer("cancel", NONE)
    policy.answer("noise", NONE)
    assert policy.answer("yes", NONE).endswith("[[note cancel appointment]]")


def test_asks_again_once_and_then_offers_a_person() -> None:
    policy = Policy()
    assert policy.answer("outside", NONE) == NOT_UNDERSTOOD
    assert policy.answer("noise", NONE) == STILL_NOT_HEARD
    assert policy.answer("yes", NONE).endswith("[[transfer]]")
    policy = Policy()
    policy.answer("noise", NONE)
    policy.answer("hours", NONE)
    assert policy.answer("noise", NONE) == NOT_HEARD


def test_do_not_call_is_an_action_and_the_end() -> None:
    reply = Policy().answer("dnc", NONE)
    assert reply.endswith("[[dnc]] [[hangup]]")
    assert "[[" not in without_actions(reply)


def test_dialogues_are_the_same_for_a_seed_and_well_formed() -> None:
    first = [draw_dialogue(random.Random(i)) for i in range(300)]
    assert first == [draw_dialogue(random.Random(i)) for i in range(300)]
    kinds = set()
    for dialogue in first:
        assert 1 <= len(dialogue.turns) <= 4
        for turn in dialogue.turns:
            kinds.add(turn.kind)
            assert (turn.rest is not None) == (turn.kind == "cut")
            assert re.sub(r"\[\[[a-zA-Z0-9: ]+\]\]", "", turn.reply).count("[") == 0
            if turn.kind == "cut":
                assert turn.spoken is not None
                whole = f"{turn.transcript} {turn.rest}"
                assert turn.spoken.text.startswith(whole)
    assert kinds == {"speech", "cut", "outside", "noise"}
