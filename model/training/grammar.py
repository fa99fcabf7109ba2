"""The caller's side of the small world: phrasings with slots, as spoken words.

A template is written in `phrasings.py`; here it is filled, and a text can be asked
whether it is a whole utterance of the grammar or only the beginning of one.
"""

from __future__ import annotations

import functools
import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from model.training.phrasings import (
    BARE_INTENTS,
    CLOSERS,
    NAMES,
    OPENERS,
    OUTSIDE_SENTENCES,
    OUTSIDE_WORDS,
    PHRASINGS,
)

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

_SLOT = re.compile(r"\{(\w+)\}")
_CHOICE = re.compile(r"\(([^()]*)\)|\[([^\[\]]*)\]")


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


def templates(intent: str, split: Split) -> tuple[str, ...]:
    """Templates of an intent, with choices still in them, without the mark."""
    held_out = split == "held_out"
    return tuple(
        t.removeprefix("~") for t in PHRASINGS[intent] if t.startswith("~") == held_out
    )


@functools.cache
def expansions(template: str) -> tuple[str, ...]:
    """Every way to read a template's choices and options, slots still open."""
    found = _CHOICE.search(template)
    if found is None:
        return (" ".join(template.split()),)
    choice, option = found.groups()
    ways = choice.split("|") if choice is not None else ("", *option.split("|"))
    head, tail = template[: found.start()], template[found.end() :]
    rest = itertools.chain.from_iterable(expansions(head + w + tail) for w in ways)
    return tuple(dict.fromkeys(rest))


def draw(rng: random.Random, intent: str, split: Split = "train") -> Spoken:
    """One random turn of an intent."""
    template = rng.choice(templates(intent, split))
    words: list[str] = []
    slots = Slots()
    for word in _SLOT.sub(r" {\1} ", rng.choice(expansions(template))).split():
        if word.startswith("{"):
            said, slots = _fill(rng, word[1:-1], slots)
            words += said.split()
        else:
            words.append(word)
    if intent not in BARE_INTENTS and rng.random() < 0.18:
        opener = rng.choice(OPENERS).split()
        if words[: len(opener)] != opener and words[0] not in {"no", "yes", "hi"}:
            words = opener + words
    core_words = len(words)
    if intent not in BARE_INTENTS and rng.random() < 0.12 and words[-1] != "please":
        words += rng.choice(CLOSERS).split()
    return Spoken(" ".join(words), intent, slots, template, core_words)


def outside(rng: random.Random, split: Split = "train") -> Spoken:
    """Speech the grammar does not hold; the bot must ask again."""
    sentences = OUTSIDE_SENTENCES[:-6] if split == "train" else OUTSIDE_SENTENCES[-6:]
    if rng.random() < 0.4:
        text = rng.choice(sentences)
    else:
        text = " ".join(rng.choice(OUTSIDE_WORDS) for _ in range(rng.randint(3, 7)))
    return Spoken(text, "outside", Slots(), "", len(text.split()))


# Words that may be missing, and words that may be added, without changing the sense.
_MAY_BE_MISSING = frozenset(
    {"i", "to", "the", "a", "an", "my", "me", "is", "are", "do", "please", "can"}
    | {"could", "you", "of", "your", "at", "on", "have", "would", "for", "with"}
    | {"that", "this"}
)
_MAY_BE_ADDED = ("just", "really", "actually", "please", "now", "then", "also", "um")
_SLOT_WORDS = frozenset((*DIGITS, *HOURS, *DAYS, "oh", "thirty", "past", "half", "am"))


def loosen(rng: random.Random, text: str) -> str:
    """The same turn in words that no template has, half of the time.

    Templates are few; real callers leave words out and put words in.
    """
    words = text.split()
    if rng.random() < 0.3:
        spare = [i for i, w in enumerate(words) if w in _MAY_BE_MISSING]
        if len(words) > 3 and spare:
            del words[rng.choice(spare)]
    if rng.random() < 0.25:
        at = rng.randint(0, len(words))
        around = {*words[max(at - 1, 0) : at + 1]}
        if not around & _SLOT_WORDS:
            words.insert(at, rng.choice(_MAY_BE_ADDED))
    return " ".join(words)


def draw_words(rng: random.Random) -> str:
    """Words of the grammar in no order: for hearing words, not sentences."""
    return " ".join(rng.choice(_vocabulary()) for _ in range(rng.randint(2, 8)))


@functools.cache
def _vocabulary() -> tuple[str, ...]:
    """The words of the training templates; digits and days more than once."""
    words = {
        word
        for intent in INTENTS
        for template in templates(intent, "train")
        for way in expansions(template)
        for word in way.split()
        if not word.startswith("{")
    }
    slots = (*DIGITS, "oh", *DAYS, *HOURS, "thirty", "am", "pm", "noon", "o'clock")
    return (*sorted(words), *slots, *slots)


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
    words = text.split()
    for skip in range(min(3, len(words))):
        if skip and " ".join(words[:skip]) not in OPENERS:
            continue
        if any(p.fullmatch(" ".join(words[skip:])) for p in _whole_turns()):
            return True
    return False


@functools.cache
def _whole_turns() -> tuple[re.Pattern[str], ...]:
    one_day = "(?:" + "|".join(DAYS) + ")"
    on_day = f"(?:(?:on |this |next |for )?{one_day})"
    time = "(?:" + "|".join(sorted(_time_ways(), key=len, reverse=True)) + ")"
    digit = "(?:" + "|".join((*DIGITS, "oh")) + ")"
    patterns = {
        "num": f"{digit}(?: {digit}){{{NUMBER_DIGITS - 1}}}",
        "day": one_day,
        "onday": on_day,
        "time": time,
        "attime": f"(?:at )?{time}",
        "name": "(?:" + "|".join(NAMES) + ")",
    }
    literal: list[str] = []
    for intent in INTENTS:
        for marked in PHRASINGS[intent]:
            for way in expansions(marked.removeprefix("~")):
                parts = _SLOT.split(way)
                literal.append(
                    "".join(
                        patterns[p] if i % 2 else re.escape(p)
                        for i, p in enumerate(parts)
                    )
                )
    size = 60
    return tuple(
        re.compile("|".join(literal[i : i + size]))
        for i in range(0, len(literal), size)
    )


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
    if slot == "name":
        return rng.choice(NAMES), slots
    if slot == "num":
        digits = [rng.choice(DIGITS) for _ in range(NUMBER_DIGITS)]
        spoken = ["oh" if d == "zero" and rng.random() < 0.4 else d for d in digits]
        return " ".join(spoken), Slots(" ".join(digits), slots.day, slots.time)
    if slot in {"time", "attime"}:
        said = rng.choice(tuple(_ways_by_time()))
        spoken_time = rng.choice(_ways_by_time()[said])
        if slot == "attime" and rng.random() < 0.75:
            spoken_time = f"at {spoken_time}"
        return spoken_time, Slots(slots.number, slots.day, said)
    day = rng.choice(DAYS)
    spoken_day = day
    if slot == "onday" and day not in {"today", "tomorrow"}:
        spoken_day = rng.choice(("on", "on", "on", "this", "next", "for")) + " " + day
    return spoken_day, Slots(slots.number, day, slots.time)


def digits_for_action(said_time: str) -> str:
    """A time for an action's argument: "nine thirty am" -> "9:30 am"."""
    words = said_time.split()
    if words == ["noon"]:
        return "12 pm"
    hour = HOURS.index(words[0]) + 1
    return f"{hour}:30 {words[-1]}" if "thirty" in words else f"{hour} {words[-1]}"
