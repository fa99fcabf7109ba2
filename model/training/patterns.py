"""Phrasing templates: read, drawn from at random, and recognised.

``(a|b)`` is a choice, ``[a]`` or ``[a|b]`` may be left out, ``<piece>`` stands for one
of a shared list of ways; they may be nested. A word in braces stays as it is: a slot.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator, Mapping

_TOKEN = re.compile(r"<\w+>|\{\w+\}|[()\[\]|]|[^\s()\[\]|<>{}]+")
_CLOSING = {"(": ")", "[": "]"}


@dataclass(frozen=True, slots=True)
class Choice:
    """One of these; an empty one is nothing said."""

    ways: tuple[Pattern, ...]


Pattern: TypeAlias = "tuple[str | Choice, ...]"


def parse(template: str, pieces: Mapping[str, tuple[str, ...]]) -> Pattern:
    """Read a template.

    Raises:
        ValueError: a bracket is not closed, or there is no such piece.
    """
    tokens = _TOKEN.findall(template)
    pattern, end = _parse(tokens, 0, template, pieces)
    if end != len(tokens):
        raise ValueError(f"a bracket too many in {template!r}")
    return pattern


def _parse(
    tokens: list[str], at: int, template: str, pieces: Mapping[str, tuple[str, ...]]
) -> tuple[Pattern, int]:
    items: list[str | Choice] = []
    while at < len(tokens) and tokens[at] not in {")", "]", "|"}:
        item = tokens[at]
        at += 1
        if item in _CLOSING:
            ways: list[Pattern] = [()] if item == "[" else []
            while True:
                way, at = _parse(tokens, at, template, pieces)
                ways.append(way)
                if at >= len(tokens) or tokens[at] not in {"|", _CLOSING[item]}:
                    raise ValueError(f"a bracket is not closed in {template!r}")
                at += 1
                if tokens[at - 1] != "|":
                    break
            items.append(Choice(tuple(ways)))
        elif item.startswith("<"):
            if item[1:-1] not in pieces:
                raise ValueError(f"no piece {item} for {template!r}")
            ways = [parse(way, pieces) for way in pieces[item[1:-1]]]
            items.append(Choice(tuple(ways)))
        else:
            items.append(item)
    return tuple(items), at


def draw(rng: random.Random, pattern: Pattern) -> list[str]:
    """One way to say it, slots still open."""
    said: list[str] = []
    for item in pattern:
        said += [item] if isinstance(item, str) else draw(rng, rng.choice(item.ways))
    return said


def words(pattern: Pattern) -> Iterator[str]:
    """Every word and slot in it."""
    for item in pattern:
        if isinstance(item, str):
            yield item
        else:
            for way in item.ways:
                yield from words(way)


class Recogniser:
    """Says whether some words are a whole one of the patterns.

    `slots` says how those slots may be filled; any other slot is a word like others.
    A finite automaton over words, made deterministic as far as it is used.
    """

    def __init__(
        self,
        patterns: Iterable[Pattern],
        slots: Mapping[str, Pattern],
        before: Pattern = (),
    ) -> None:
        """Take in the patterns, each with `before` before it."""
        self._by_word: list[dict[str, list[int]]] = [{}]
        self._free: list[list[int]] = [[]]
        self._slots = slots
        self._end = self._new()
        begin = self._add(before, 0)
        for pattern in patterns:
            self._join(self._add(pattern, self._via(begin)), self._end)
        self._leads: dict[frozenset[int], dict[str, set[int]]] = {}
        self._next: dict[tuple[frozenset[int], str], frozenset[int]] = {}
        self._start = self._closure({0})

    def accepts(self, said: Iterable[str]) -> bool:
        """Whether the words are a whole one."""
        states = self._start
        for word in said:
            key = (states, word)
            found = self._next.get(key)
            if found is None:
                moved = self._leads_from(states).get(word)
                found = self._closure(moved) if moved else frozenset()
                self._next[key] = found
            if not found:
                return False
            states = found
        return self._end in states

    def _leads_from(self, states: frozenset[int]) -> dict[str, set[int]]:
        found = self._leads.get(states)
        if found is None:
            found = self._leads[states] = {}
            for state in states:
                for word, to in self._by_word[state].items():
                    found.setdefault(word, set()).update(to)
        return found

    def _new(self) -> int:
        self._by_word.append({})
        self._free.append([])
        return len(self._free) - 1

    def _join(self, state: int, to: int) -> None:
        self._free[state].append(to)

    def _via(self, state: int) -> int:
        new = self._new()
        self._join(state, new)
        return new

    def _add(self, pattern: Pattern, state: int) -> int:
        """States for a pattern from `state` on; the last one."""
        for item in pattern:
            if isinstance(item, Choice):
                end = self._new()
                for way in item.ways:
                    self._join(self._add(way, self._via(state)), end)
                state = end
            elif item.strip("{}") in self._slots and item.startswith("{"):
                state = self._add(self._slots[item[1:-1]], state)
            else:
                new = self._new()
                self._by_word[state].setdefault(item, []).append(new)
                state = new
        return state

    def _closure(self, states: set[int]) -> frozenset[int]:
        """With what can be reached without a word; only states that lead on."""
        seen, waiting = set(states), list(states)
        while waiting:
            for free in self._free[waiting.pop()]:
                if free not in seen:
                    seen.add(free)
                    waiting.append(free)
        return frozenset(s for s in seen if self._by_word[s] or s == self._end)
