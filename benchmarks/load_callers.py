"""The callers of a load: who they are, what they do, when they leave."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.caller.say_items import (
    HangUp,
    Item,
    Pause,
    Press,
    Say,
    WaitForQuiet,
    WaitForSound,
    recording,
    spoken,
)

_HEARD_RMS: Final = 200.0
_LINES: Final = (
    "What are your opening hours?",
    "I would like to book an appointment for Tuesday at three.",
    "Where are you located?",
    "Can you repeat that please?",
    "How much does it cost?",
    "Thank you, that is all I wanted to know.",
)
SHARES: Final = {
    "talks": 50,
    "interrupts": 20,
    "leaves_suddenly": 15,
    "presses_keys": 8,
    "wants_a_person": 7,
}
"""Kinds of callers, and how many of a hundred each has."""


@dataclass(frozen=True, slots=True)
class Caller:
    """One call's plan."""

    kind: str
    items: Sequence[Item]


class Callers:
    """Makes callers, each of its own: the same seed, the same callers."""

    def __init__(
        self, seed: int, human: Path | None = None, campaign: str = "default"
    ) -> None:
        """`human`: a folder of recordings, said by every other caller."""
        self._chance = random.Random(seed)
        self.campaign = campaign
        self._synthetic = [Say(text, spoken(text)) for text in _LINES]
        files = sorted(human.glob("*.wav")) if human is not None else []
        self._human = [recording(path) for path in files]

    @property
    def num_human(self) -> int:
        return len(self._human)

    def next(self) -> Caller:
        """The next one to call."""
        chance = self._chance
        (kind,) = chance.choices(list(SHARES), weights=list(SHARES.values()))
        speech = self._synthetic
        if self._human and chance.random() < 0.5:
            speech = self._human
        items: list[Item] = [WaitForSound(_HEARD_RMS, 0.2)]
        match kind:
            case "leaves_suddenly":
                # anywhere: in the greeting, in his own words, in a reply
                items += [chance.choice(speech), Pause(chance.uniform(0.0, 3.0))]
                items = items[chance.randint(0, 1) :]
            case "presses_keys":
                items += [WaitForQuiet(_HEARD_RMS, 0.6), Press("12#"), Pause(2.0)]
            case "wants_a_person":
                items += [chance.choice(speech), Pause(1.0), Press("0"), Pause(8.0)]
            case _:
                for _ in range(chance.randint(2, 4)):
                    items += self._turn(chance.choice(speech), kind)
        return Caller(kind, [*items, HangUp()])

    def _turn(self, said: Say, kind: str) -> list[Item]:
        if kind == "interrupts":
            return [said, WaitForSound(_HEARD_RMS, self._chance.uniform(0.3, 1.5))]
        return [
            WaitForQuiet(_HEARD_RMS, self._chance.uniform(0.4, 1.2)),
            said,
            WaitForSound(_HEARD_RMS, 0.3),
        ]
