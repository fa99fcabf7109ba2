"""New turns put together from words as the ear heard them.

Late in a run the ear changes little and costs most. So it hears every clip once; what
it gave is cut up at the words' times, and any sentence can be put together from the
pieces. The language model so reads the ear's own mistakes in far more phrasings than
were ever spoken, at the price of text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from model.training.rows import TOKEN_S

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

_LONGEST = 3  # words that are taken together where they were said together
_LENGTHS = (3, 3, 3, 2, 2, 1)  # tried first
_MANY = 40  # places remembered of the same words


@dataclass(frozen=True, slots=True)
class _Place:
    """Where words lie: which clip's vectors, from and to which."""

    clip: int
    first: int
    last: int


class Splicer:
    """Knows what the ear gave for each word."""

    def __init__(self) -> None:
        self._clips: list[Tensor] = []
        self._places: dict[tuple[str, ...], list[_Place]] = {}
        self._silence: list[Tensor] = []

    def add(self, vectors: Tensor, words: Sequence[Sequence[Any]]) -> None:
        """One clip: vectors (T, E), and (word, start_s, end_s)."""
        if not words:
            return
        number = len(self._clips)
        self._clips.append(vectors)
        edges = [(int(s / TOKEN_S + 0.5), int(e / TOKEN_S + 0.5)) for _, s, e in words]
        labels = [str(word) for word, _, _ in words]
        for begin in range(len(words)):
            for end in range(begin + 1, min(begin + _LONGEST, len(words)) + 1):
                first = edges[begin][0]
                last = max(edges[end - 1][1], first + 1)
                places = self._places.setdefault(tuple(labels[begin:end]), [])
                # Too short to have a token to themselves: only if there is no other.
                is_clear = edges[end - 1][1] > first or not places
                if is_clear and last <= len(vectors) and len(places) < _MANY:
                    places.append(_Place(number, first, last))
        self._silence += vectors[: edges[0][0]].unbind(0)

    def say(self, rng: random.Random, text: str) -> Tensor | None:
        """Vectors (T, E) of a sentence; None when it has a word not heard yet."""
        parts = self._quiet(rng, rng.randint(0, 3))
        words = text.split()
        at = 0
        while at < len(words):
            # Short words share their tokens with neighbours: better taken together.
            longest = rng.choice(_LENGTHS)
            for length in range(min(longest, len(words) - at), 0, -1):
                places = self._places.get(tuple(words[at : at + length]))
                if places:
                    break
            else:
                return None
            place = rng.choice(places)
            parts.append(self._clips[place.clip][place.first : place.last])
            at += length
            if rng.random() < 0.04:
                parts += self._quiet(rng, rng.randint(1, 3))
        parts += self._quiet(rng, rng.randint(1, 4))
        return torch.cat(parts).float()

    def _quiet(self, rng: random.Random, count: int) -> list[Tensor]:
        if not self._silence:
            return []
        return [rng.choice(self._silence)[None] for _ in range(count)]
