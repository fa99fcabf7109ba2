"""Other words for the same: what training sentences are varied by.

Templates are few; callers have more words for a thing. `language/synonyms.txt` has
groups of words and phrases that stand for each other in any turn of this small world.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from model.training.phrasings import SYNONYMS

if TYPE_CHECKING:
    import random

_AGAIN = 0.4  # chance of one more
_LONGEST = max(len(phrase.split()) for group in SYNONYMS for phrase in group)


@functools.cache
def _groups() -> dict[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Phrase -> the phrases it may be replaced by."""
    found: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for group in SYNONYMS:
        phrases = [tuple(phrase.split()) for phrase in group]
        for phrase in phrases:
            others = found.setdefault(phrase, [])
            others += [other for other in phrases if other != phrase]
    return {phrase: tuple(others) for phrase, others in found.items()}


def vary(rng: random.Random, text: str) -> str:
    """The text with a phrase or more replaced by others."""
    words = text.split()
    groups = _groups()
    while True:
        places = [
            (first, last)
            for first in range(len(words))
            for last in range(first + 1, min(first + _LONGEST, len(words)) + 1)
            if tuple(words[first:last]) in groups
        ]
        if not places:
            break
        first, last = rng.choice(places)
        words[first:last] = rng.choice(groups[tuple(words[first:last])])
        if rng.random() >= _AGAIN:
            break
    return " ".join(words)
