"""The caller's side: slots, determinism, held-out phrasings stay held out."""

from __future__ import annotations

import random

import pytest

from model.training import grammar
from model.training.dialogue import draw_opening
from model.training.phrasings import SYNONYMS
from model.training.synonyms import vary

# "One more time" stands for "again".
_TIMES = frozenset(grammar.HOURS) - {"one"}


def test_the_same_seed_says_the_same() -> None:
    def say(seed: int) -> list[grammar.Spoken]:
        rng = random.Random(seed)
        return [grammar.draw(rng, rng.choice(grammar.INTENTS)) for _ in range(200)]

    assert say(4) == say(4)
    assert say(4) != say(5)


@pytest.mark.parametrize("intent", grammar.INTENTS)
def test_every_intent_has_many_phrasings_of_both_splits(intent: str) -> None:
    train, held_out = (
        grammar.templates(intent, split) for split in ("train", "held_out")
    )
    assert len(train) >= 30
    assert len(held_out) >= 4
    assert not set(train) & set(held_out)
    rng = random.Random(9)
    ways = {grammar.draw(rng, intent).text for _ in range(300)}
    assert len(ways) >= 60


def test_training_never_says_a_held_out_phrasing() -> None:
    rng = random.Random(1)
    held_out = {
        grammar.draw(rng, rng.choice(grammar.INTENTS), "held_out").text
        for _ in range(1500)
    }
    without_slots = {
        text for text in held_out if not set(text.split()) & grammar.SLOT_WORDS
    }
    said = {grammar.draw(rng, rng.choice(grammar.INTENTS)).text for _ in range(8000)}
    assert len(without_slots) > 500
    assert not said & without_slots


def test_neither_do_its_variations() -> None:
    rng = random.Random(2)
    held_out = {
        grammar.draw(rng, rng.choice(grammar.INTENTS), "held_out").text
        for _ in range(3000)
    }
    said = {draw_opening(rng).transcript for _ in range(8000)}
    assert not said & {t for t in held_out if not set(t.split()) & grammar.SLOT_WORDS}


def test_synonyms_are_words_of_the_grammar_and_vary_the_text() -> None:
    for group in SYNONYMS:
        assert len(set(group)) == len(group) > 1
        assert {w for phrase in group for w in phrase.split()} <= grammar.vocabulary()
    rng = random.Random(3)
    ways = {vary(rng, "can you connect me to a person") for _ in range(900)}
    assert len(ways) > 30
    assert {
        "could you connect me to a person",
        "can you transfer me to a person",
        "can you connect me to an agent",
    } <= ways
    assert vary(rng, "three") == "three"


def test_no_words_mean_two_things() -> None:
    rng = random.Random(11)
    meant: dict[str, set[str]] = {}
    for intent in grammar.INTENTS:
        for split in ("train", "held_out"):
            for _ in range(150):
                spoken = grammar.draw(rng, intent, split)
                meant.setdefault(spoken.text, set()).add(intent)
    twice = {text: intents for text, intents in meant.items() if len(intents) > 1}
    assert not twice


def test_slots_hold_what_is_said() -> None:
    rng = random.Random(2)
    for _ in range(500):
        spoken = grammar.draw(rng, "order_number")
        assert spoken.slots.number is not None
        digits = spoken.slots.number.split()
        assert len(digits) == grammar.NUMBER_DIGITS
        assert " ".join(digits) in spoken.text.replace("oh", "zero")


def test_a_time_is_said_in_many_ways_and_means_one() -> None:
    rng = random.Random(3)
    heard: dict[str, set[str | None]] = {}
    for _ in range(3000):
        spoken = grammar.draw(rng, "time")
        assert spoken.slots.time is not None
        heard.setdefault(spoken.text, set()).add(spoken.slots.time)
    assert all(len(times) == 1 for times in heard.values())


@pytest.mark.parametrize(
    ("said", "for_action"),
    [("three pm", "3 pm"), ("nine thirty am", "9:30 am"), ("noon", "12 pm")],
)
def test_times_for_actions_are_digits(said: str, for_action: str) -> None:
    assert grammar.digits_for_action(said) == for_action


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("i want to book an appointment", True),
        ("um i want to book an appointment", True),
        ("i want to book an appointment on tuesday", True),
        ("i want to book an appointment on", False),
        ("my order number is one two three", False),
        ("my order number is one two three four", True),
        ("where is", False),
        ("half past three", True),
        ("half past", False),
    ],
)
def test_complete_turns_are_told_from_beginnings(text: str, complete: bool) -> None:
    assert grammar.is_complete(text) is complete


def test_a_turn_is_never_cut_where_it_is_complete() -> None:
    rng = random.Random(5)
    num_cuts = 0
    for _ in range(300):
        spoken = grammar.draw(rng, rng.choice(grammar.INTENTS))
        words = spoken.text.split()
        for count in grammar.cut_points(spoken):
            num_cuts += 1
            assert count < spoken.core_words
            assert not grammar.is_complete(" ".join(words[:count]))
    assert num_cuts > 300


def test_loosened_turns_keep_their_slots_and_their_sense() -> None:
    rng = random.Random(6)
    num_changed = 0
    for _ in range(400):
        spoken = grammar.draw(rng, "callback_day_time")
        loose = grammar.loosen(rng, spoken.text)
        num_changed += loose != spoken.text
        assert spoken.slots.day is not None
        assert spoken.slots.day in loose.split()
        hours = [w for w in spoken.text.split() if w in _TIMES]
        assert [w for w in loose.split() if w in _TIMES] == hours
    assert 80 < num_changed < 390


def test_words_in_no_order_are_words_of_the_training_phrasings() -> None:
    rng = random.Random(7)
    drawn = {word for _ in range(400) for word in grammar.draw_words(rng).split()}
    assert len(drawn) > 400
    assert drawn <= grammar.vocabulary()


def test_what_is_outside_is_made_of_other_words_or_in_another_language() -> None:
    rng = random.Random(8)
    spoken = [grammar.outside(rng) for _ in range(300)]
    assert {s.language for s in spoken} >= {"en", "es", "de", "fr"}
    assert not any(grammar.is_complete(said.text) for said in spoken)
    strange = [said for said in spoken if set(said.text.split()) - grammar.vocabulary()]
    assert len(strange) > 0.95 * len(spoken)


def test_a_slip_of_the_tongue_leaves_what_was_put_right() -> None:
    rng = random.Random(10)
    slips = 0
    for _ in range(2000):
        spoken = grammar.draw(rng, "day")
        days = [w for w in spoken.text.split() if w in grammar.DAYS]
        slips += len(days) > 1
        assert days[-1] == spoken.slots.day
    assert slips > 20
