"""The caller's side of the small world: phrasings with slots, as spoken words.

A template is written in `phrasings.py`; here it is filled, and a text can be asked
whether it is a whole utterance of the grammar or only the beginning of one.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from model.training import patterns
from model.training.patterns import Choice, Pattern, Recogniser
from model.training.phrasings import (
    BARE_INTENTS,
    CLOSERS,
    COMMONEST,
    FOREIGN_SENTENCES,
    HELD_OUT,
    OPENERS,
    OUTSIDE_SENTENCES,
    OUTSIDE_WORDS,
    PHRASINGS,
    PIECES,
)
from model.training.synonyms import vary

if TYPE_CHECKING:
    import random

Split = Literal["train", "held_out"]
INTENTS = tuple(PHRASINGS)

DIGITS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
)
HOURS = (*DIGITS[1:], "ten", "eleven", "twelve")
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday")
DAYS = (*WEEKDAYS, "saturday", "sunday", "today", "tomorrow")
FIRST_HOUR, LAST_HOUR = 8, 18
NUMBER_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Slots:
    """What a caller's turn carries besides its intent.

    `number` is digits as words ("one two three four"), `day` a word of `DAYS`,
    `time` the bot's way to say it ("three pm", "nine thirty am", "noon").
    """

    number: str | None = None
    day: str | None = None
    time: str | None = None


@dataclass(frozen=True, slots=True)
class Spoken:
    """One caller's turn: the words, what they mean, where the sense is complete.

    `core_words` counts the words up to the end of the template: what follows
    ("please", "thanks") adds nothing, so only before it can a turn be cut short.
    """

    text: str
    intent: str
    slots: Slots
    template: str
    core_words: int
    language: str = "en"


def templates(intent: str, split: Split) -> tuple[str, ...]:
    """Templates of an intent."""
    return (PHRASINGS if split == "train" else HELD_OUT)[intent]


@functools.cache
def pattern(template: str) -> Pattern:
    """A template, read."""
    return patterns.parse(template, PIECES)


def draw(
    rng: random.Random, intent: str, split: Split = "train", *, common: bool = False
) -> Spoken:
    """One random turn of an intent.

    A held-out turn is one that the training templates do not hold in any way. A
    `common` one has a phrasing that callers use most; none of them is held out.
    """
    choices = PHRASINGS[intent][:COMMONEST] if common else templates(intent, split)
    while True:
        template = rng.choice(choices)
        said = patterns.draw(rng, pattern(template))
        if split == "train" or not _training_turns().accepts(said):
            break
    words: list[str] = []
    slots = Slots()
    for word in said:
        if word.startswith("{"):
            filled, slots = _fill(rng, word[1:-1], slots)
            words += filled.split()
        else:
            words.append(word)
    if intent not in BARE_INTENTS and rng.random() < 0.2:
        opener = rng.choice(OPENERS).split()
        if words[0] not in {*opener, "no", "yes", "hi", "hello", "okay", "sorry"}:
            words = opener + words
    core_words = len(words)
    if intent not in BARE_INTENTS and rng.random() < 0.12 and words[-1] != "please":
        words += rng.choice(CLOSERS).split()
    return Spoken(" ".join(words), intent, slots, template, core_words)


def outside(rng: random.Random, split: Split = "train") -> Spoken:
    """Speech the grammar does not hold; the bot must ask again."""
    kept = OUTSIDE_SENTENCES[-6:]
    sentences = OUTSIDE_SENTENCES[:-6] if split == "train" else kept
    luck, language = rng.random(), "en"
    if luck < 0.25:
        language = rng.choice(tuple(FOREIGN_SENTENCES))
        text = rng.choice(FOREIGN_SENTENCES[language])
    elif luck < 0.55:
        text = rng.choice(sentences)
    else:
        count = rng.randint(3, 8)
        text = " ".join(rng.choice(OUTSIDE_WORDS) for _ in range(count))
    return Spoken(text, "outside", Slots(), "", len(text.split()), language)


# Words that may be missing, and words that may be added, without changing the sense.
_MAY_BE_MISSING = frozenset(
    {"i", "to", "the", "a", "an", "my", "me", "is", "are", "do", "please", "can"}
    | {"could", "you", "of", "your", "at", "on", "have", "would", "for", "with"}
    | {"that", "this"}
)
_MAY_BE_ADDED = ("just", "really", "actually", "please", "now", "then", "also", "um")
SLOT_WORDS = frozenset((*DIGITS, *HOURS, *DAYS, "oh", "thirty", "past", "half", "am"))


def loosen(rng: random.Random, text: str) -> str:
    """The same turn in words that no template has, most of the time.

    Templates are few; real callers have other words, leave words out and put words in.
    What is kept for tests stays out.
    """
    varied = vary(rng, text) if rng.random() < 0.75 else text
    varied = _loosen(rng, varied)
    return text if _held_out_turns().accepts(varied.split()) else varied


def _loosen(rng: random.Random, text: str) -> str:
    words = text.split()
    if rng.random() < 0.3:
        spare = [i for i, w in enumerate(words) if w in _MAY_BE_MISSING]
        if len(words) > 3 and spare:
            del words[rng.choice(spare)]
    if rng.random() < 0.25:
        at = rng.randint(0, len(words))
        around = {*words[max(at - 1, 0) : at + 1]}
        if not around & SLOT_WORDS:
            words.insert(at, rng.choice(_MAY_BE_ADDED))
    return " ".join(words)


def draw_words(rng: random.Random) -> str:
    """Words without sense: for hearing words, not sentences.

    Half of the time single words in no order, else pieces of turns put together, so
    that words also run into each other as they do in speech.
    """
    if rng.random() < 0.5:
        count = rng.randint(2, 8)
        return " ".join(rng.choice(_word_list()) for _ in range(count))
    words: list[str] = []
    for _ in range(rng.randint(2, 4)):
        said = draw(rng, rng.choice(INTENTS)).text.split()
        long = rng.randint(1, 3)
        at = rng.randint(0, max(len(said) - long, 0))
        words += said[at : at + long]
    return " ".join(words)


@functools.cache
def vocabulary() -> frozenset[str]:
    """The words of the training templates and of the slots."""
    words = {
        word
        for intent in INTENTS
        for template in templates(intent, "train")
        for word in patterns.words(pattern(template))
        if not word.startswith("{")
    }
    for part in (*OPENERS, *CLOSERS, *_time_ways()):
        words.update(part.split())
    return frozenset(words | {*DIGITS, "oh", *DAYS, *HOURS} | set(_MAY_BE_ADDED))


@functools.cache
def _word_list() -> tuple[str, ...]:
    """The vocabulary; digits and days more than once."""
    slots = (*DIGITS, "oh", *DAYS, *HOURS, "thirty", "am", "pm", "noon", "o'clock")
    return (*sorted(vocabulary()), *slots * 4)


def cut_points(spoken: Spoken) -> list[int]:
    """Word counts after which the turn can be broken off and is not yet complete."""
    words = spoken.text.split()
    return [
        n
        for n in range(1, spoken.core_words)
        if not is_complete(" ".join(words[:n])) and words[n - 1] not in _ALONE
    ]


# Openers that are turns of their own: a caller who said only these has said something.
_ALONE = frozenset({"yes", "no", "okay", "hello", "hi", "sorry", "oh"})


def is_complete(text: str) -> bool:
    """Whether the words are a whole turn of the grammar (held-out phrasings too)."""
    return _whole_turns().accepts(text.split())


@functools.cache
def _whole_turns() -> Recogniser:
    whole = (
        pattern(t) for intent in INTENTS for t in PHRASINGS[intent] + HELD_OUT[intent]
    )
    return Recogniser(whole, _slot_patterns(), before=(_perhaps(OPENERS),))


def _perhaps(phrases: tuple[str, ...]) -> Choice:
    """One of them, or nothing."""
    return Choice(((), *(tuple(phrase.split()) for phrase in phrases)))


@functools.cache
def _training_turns() -> Recogniser:
    """What training can say, slots left open."""
    found = (pattern(t) for intent in INTENTS for t in templates(intent, "train"))
    return Recogniser(found, {})


@functools.cache
def _held_out_turns() -> Recogniser:
    """What is kept for tests, with whatever opener and closer."""
    closing = _perhaps(CLOSERS)
    found = (
        (*pattern(t), closing)
        for intent in INTENTS
        for t in templates(intent, "held_out")
    )
    return Recogniser(found, _slot_patterns(), before=(_perhaps(OPENERS),))


def _slot_patterns() -> dict[str, Pattern]:
    day = Choice(tuple((d,) for d in DAYS))
    digit = Choice(tuple((d,) for d in (*DIGITS, "oh")))
    time = Choice(tuple(tuple(way.split()) for way in _time_ways()))
    before = Choice(((), ("on",), ("this",), ("next",), ("for",)))
    at = Choice(((), ("at",)))
    return {
        "num": (digit,) * NUMBER_DIGITS,
        "day": (day,),
        "onday": (before, day),
        "time": (time,),
        "attime": (at, time),
    }


@functools.cache
def _time_ways() -> dict[str, str]:
    """Spoken time -> the bot's way to say it."""
    ways: dict[str, str] = {"noon": "noon", "twelve noon": "noon"}
    for hour24 in range(FIRST_HOUR, LAST_HOUR + 1):
        if hour24 == 12:
            continue
        hour = HOURS[(hour24 - 1) % 12]
        half = "am" if hour24 < 12 else "pm"
        part = ["in the morning"] if half == "am" else ["in the afternoon"]
        if hour24 > 16:
            part = ["in the evening"]
        for minutes, forms in (
            ("", (hour,)),
            (" thirty", (f"{hour} thirty", f"half past {hour}")),
        ):
            said = f"{hour}{minutes} {half}"
            for form in forms:
                ways[f"{form} {half}"] = said
                for p in part:
                    ways[f"{form} {p}"] = said
                if 8 <= hour24 <= 17 and hour != "eight":
                    ways[form] = said
            if not minutes and 9 <= hour24 <= 17:
                ways[f"{hour} o'clock"] = said
    return ways


@functools.cache
def _ways_by_time() -> dict[str, tuple[str, ...]]:
    by_time: dict[str, list[str]] = {}
    for spoken, said in _time_ways().items():
        by_time.setdefault(said, []).append(spoken)
    return {said: tuple(spoken) for said, spoken in by_time.items()}


def _fill(rng: random.Random, slot: str, slots: Slots) -> tuple[str, Slots]:
    """Spoken words for one slot, and the slots with it noted."""
    if slot == "num":
        digits = [rng.choice(DIGITS) for _ in range(NUMBER_DIGITS)]
        spoken = ["oh" if d == "zero" and rng.random() < 0.4 else d for d in digits]
        return " ".join(spoken), Slots(" ".join(digits), slots.day, slots.time)
    first = ""
    if rng.random() < 0.04:  # a slip of the tongue, put right at once
        slip, _ = _fill(rng, slot, slots)
        first = f"{slip} {rng.choice(_SLIPS)} "
    if slot in {"time", "attime"}:
        said = rng.choice(tuple(_ways_by_time()))
        spoken_time = rng.choice(_ways_by_time()[said])
        if slot == "attime" and rng.random() < 0.75:
            spoken_time = f"at {spoken_time}"
        return first + spoken_time, Slots(slots.number, slots.day, said)
    day = rng.choice(DAYS)
    spoken_day = day
    if slot == "onday" and day not in {"today", "tomorrow"}:
        spoken_day = rng.choice(("on", "on", "on", "this", "next", "for")) + " " + day
    return first + spoken_day, Slots(slots.number, day, slots.time)


_SLIPS = ("no", "sorry", "i mean", "um no", "no wait", "no sorry")


def digits_for_action(said_time: str) -> str:
    """A time for an action's argument: "nine thirty am" -> "9:30 am"."""
    words = said_time.split()
    if words == ["noon"]:
        return "12 pm"
    hour = HOURS.index(words[0]) + 1
    return f"{hour}:30 {words[-1]}" if "thirty" in words else f"{hour} {words[-1]}"
