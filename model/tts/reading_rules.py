"""A reading rule: where a written form is, and what to say for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from re import Match, Pattern
from typing import TypeAlias

Reading: TypeAlias = Callable[[Match[str]], str]
Rule: TypeAlias = tuple[Pattern[str], Reading]


def rule(pattern: str | Pattern[str], said: str | Reading, flags: int = 0) -> Rule:
    """`said` is the words, or what makes them from the match."""
    compiled = re.compile(pattern, flags) if isinstance(pattern, str) else pattern
    return compiled, (lambda _match: said) if isinstance(said, str) else said


def apply_rules(text: str, rules: Iterable[Rule]) -> str:
    for pattern, reading in rules:
        text = pattern.sub(reading, text)
    return text


def any_of(words: Iterable[str]) -> str:
    """A pattern for any of `words`, the longest first."""
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))
