"""Speech with the time of its words and phonemes, whichever synthesizer said it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    Wave = npt.NDArray[np.float32]
else:
    Wave = Any


@dataclass(frozen=True, slots=True)
class Span:
    """Something that lasts: a word or a phoneme, in seconds from the start."""

    label: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class AlignedSpeech:
    """A wave in [-1, 1]; `phones` and `words` are empty when times are unknown."""

    wave: Wave
    rate_hz: int
    phones: tuple[Span, ...]
    words: tuple[Span, ...]


def spread_words(
    words: Sequence[str], starts_s: Mapping[int, float], end_s: float
) -> tuple[Span, ...]:
    """Spans of all words from the start times of most of them.

    A synthesizer may treat two words as one ("do not"); a word without a time of its
    own shares its neighbour's span in proportion to letters.
    """
    known = sorted(i for i in starts_s if i < len(words))
    if not words or not known:
        return ()
    if known[0] != 0:
        known = [0, *known]
    spans: list[Span] = []
    for k, first in enumerate(known):
        start = starts_s.get(first, starts_s[known[1]] if len(known) > 1 else 0.0)
        after = known[k + 1] if k + 1 < len(known) else len(words)
        stop = starts_s[after] if after < len(words) else end_s
        group = words[first:after]
        letters = sum(len(w) for w in group)
        for word in group:
            span = max(stop - start, 0.0) * len(word) / letters
            spans.append(Span(word, start, start + span))
            start += span
            letters -= len(word)
    return tuple(spans)
