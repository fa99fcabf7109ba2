"""The shipped demo checkpoint, asked over a telephone line by a synthetic caller."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

import model
from model.training import greedy, telephone
from model.training.calibrate import opening_turn
from model.training.corpus import CorpusOptions, Studio
from model.training.dialogue import GREETING, Turn
from model.training.espeak import EspeakVoice
from model.training.grammar import Slots, Spoken
from model.training.prompts import (
    DEMO_INSTRUCTIONS,
    TRANSCRIBE_PROMPTS,
    default_instructions,
)
from model.ultravox.checkpoint import Checkpoint, LoadOptions, load_checkpoint
from model.ultravox.clip import AudioClip
from model.ultravox.inputs import Dialogue

FOLDER = Path(model.__file__).parent / "checkpoints" / "demo"
CALLER = EspeakVoice("en-us", "f4", rate=150)  # a voice it was not trained on
MAX_BYTES = 40_000_000


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(str(FOLDER), LoadOptions(device="cpu"))


@pytest.fixture
def studio() -> Studio:
    """Its own for each test: what one draws is no matter of the tests before it."""
    return Studio(1, CorpusOptions(is_clean=True))


def _turn(text: str, intent: str, slots: Slots | None = None) -> Turn:
    slots = slots or Slots()
    return opening_turn(Spoken(text, intent, slots, "", len(text.split())))


def _say(studio: Studio, turn: Turn) -> AudioClip:
    return AudioClip(studio.record(turn, CALLER, telephone.clean_line()).wave)


def test_it_is_small_and_says_what_it_is(checkpoint: Checkpoint) -> None:
    assert checkpoint.weights_kind == "demo"
    assert sum(p.stat().st_size for p in FOLDER.iterdir()) < MAX_BYTES
    assert "demo" in (FOLDER / "MODEL_CARD.md").read_text().lower()


@pytest.mark.parametrize(
    "instructions",
    [DEMO_INSTRUCTIONS, default_instructions()],
    ids=["campaign demo", "campaign default"],
)
def test_it_answers_what_it_was_taught(
    checkpoint: Checkpoint, studio: Studio, instructions: str
) -> None:
    turns = [
        _turn("what are your opening hours", "hours"),
        _turn("i want to speak to a person", "person"),
        _turn("please stop calling me", "dnc"),
        _turn("are you a robot", "robot"),
        _turn("i'd like to book an appointment", "book"),
        _turn("what is my balance", "balance"),
        _turn("where is my order", "order"),
        _turn("goodbye", "goodbye"),
        _turn("i'm not interested", "not_interested"),
        _turn("you have the wrong number", "wrong_number"),
    ]
    prompts = []
    for turn in turns:
        dialogue = Dialogue(checkpoint.chat, instructions, today=date(2026, 1, 1))
        dialogue.append_assistant_text(GREETING)
        dialogue.append_user_clip(_say(studio, turn))
        prompts.append(dialogue.prompt())
    replies = [checkpoint.chat.decode(i) for i in greedy.reply(checkpoint, prompts)]
    right = [r == t.reply for r, t in zip(replies, turns, strict=True)]
    # espeak-ng's own noise differs from run to run; one slip is not a broken model.
    assert sum(right) >= len(turns) - 1, list(zip(turns, replies, strict=True))


def _call(checkpoint: Checkpoint, studio: Studio, *said: str) -> list[str]:
    """The replies of one call."""
    dialogue = Dialogue(checkpoint.chat, DEMO_INSTRUCTIONS, today=date(2026, 1, 1))
    dialogue.append_assistant_text(GREETING)
    heard = []
    for text in said:
        dialogue.append_user_clip(_say(studio, _turn(text, "hours")))
        (ids,) = greedy.reply(checkpoint, [dialogue.prompt()])
        dialogue.append_assistant_tokens(ids)
        heard.append(checkpoint.chat.decode(ids))
    return heard


def test_it_remembers_what_was_said(checkpoint: Checkpoint, studio: Studio) -> None:
    heard = _call(
        checkpoint,
        studio,
        "i'd like to book an appointment",
        "on friday at three pm",
        "yes please",
    )
    assert heard == [
        "Sure. Which day and time would you like?",
        "Shall I book Friday at three pm?",
        "I have noted Friday at three pm. Anything else? [[note book friday 3 pm]]",
    ]


def test_a_corrected_digit_is_read_back(checkpoint: Checkpoint, studio: Studio) -> None:
    said = ("my order number is one two three four", "no it's one two three five")
    assert _call(checkpoint, studio, *said) == [
        "I will have order one two three four checked. Anything else?",
        "Is one two three five your order number?",
    ]


def test_it_writes_down_what_was_said(checkpoint: Checkpoint, studio: Studio) -> None:
    dialogue = Dialogue(checkpoint.chat, None, today=date(2026, 1, 1))
    clip = _say(studio, _turn("i want to speak to a person", "person"))
    before, after = TRANSCRIBE_PROMPTS[0]
    dialogue.append_user_clip(clip, before, after)
    (ids,) = greedy.reply(checkpoint, [dialogue.prompt()])
    assert checkpoint.chat.decode(ids) == "i want to speak to a person"


def test_it_knows_a_whole_turn_from_one_broken_off(
    checkpoint: Checkpoint, studio: Studio
) -> None:
    text = "i want to book an appointment on tuesday"
    spoken = Spoken(text, "book_day", Slots(day="tuesday"), "", 8)
    turns = [opening_turn(spoken)]
    for said, more in (
        ("i want to book", "an"),
        ("i want to book an", "appointment"),
        ("i want to book an appointment on", "tuesday"),
        ("where is", "my"),
    ):
        turns.append(Turn("cut", spoken, "unfinished", said, "", more))
    prompts = []
    for turn in turns:
        dialogue = Dialogue(checkpoint.chat, DEMO_INSTRUCTIONS, today=date(2026, 1, 1))
        dialogue.append_user_clip(_say(studio, turn))
        prompts.append(dialogue.prompt())
    over, *going_on = greedy.turn_end_probabilities(checkpoint, prompts)
    bounds = checkpoint.config.turn_end
    assert bounds is not None  # what calls act on
    assert bounds.more_below is not None
    # It waits longer for half of those who are broken off, never for who is not.
    assert over > max(*going_on, bounds.more_below)
    assert sum(p < bounds.more_below for p in going_on) >= 2
