"""How right replies and transcripts are. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.training.grammar import DAYS, DIGITS, HOURS

if TYPE_CHECKING:
    from collections.abc import Sequence

_DIGITS = frozenset(DIGITS)
_DAYS = frozenset(d.lower() for d in DAYS)
_TIMES = frozenset(HOURS) | {"thirty", "am", "pm", "noon"}


def sense(reply: str) -> str:
    """A reply without its slots: two replies of one sense differ only in slots."""
    words: list[str] = []
    for token in reply.replace("[[", " [[ ").replace("]]", " ]] ").split():
        bare = token.strip(".,?!").lower()
        if bare in _DAYS:
            word = "DAY"
        elif bare in _DIGITS or bare in _TIMES or bare.replace(":", "").isdigit():
            word = "SLOT"
        else:
            word = token
        # "on Tuesday" but "tomorrow"; and any number of words to a slot.
        if word == "DAY" and words and words[-1].lower() == "on":
            words[-1] = "DAY"
        elif not (word == "SLOT" and words and words[-1] == "SLOT"):
            words.append(word)
    return " ".join(words).replace("[[ ", "[[").replace(" ]]", "]]")


def word_errors(said: str, heard: str) -> int:
    """Substitutions, insertions and deletions between two word sequences."""
    a, b = said.split(), heard.split()
    row = list(range(len(b) + 1))
    for i, word in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            diagonal, row[j] = (
                row[j],
                min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other)),
            )
    return row[-1]


def area_under_roc(positives: Sequence[float], negatives: Sequence[float]) -> float:
    """Chance that a random positive scores above a random negative."""
    if not positives or not negatives:
        raise ValueError("a ROC needs both kinds")
    ordered = sorted([(p, 1) for p in positives] + [(n, 0) for n in negatives])
    rank_sum, i = 0.0, 0
    while i < len(ordered):
        j = i
        while j < len(ordered) and ordered[j][0] == ordered[i][0]:
            j += 1
        mean_rank = (i + j + 1) / 2
        rank_sum += mean_rank * sum(kind for _, kind in ordered[i:j])
        i = j
    n = len(positives)
    return (rank_sum - n * (n + 1) / 2) / (n * len(negatives))


def threshold_for(negatives: Sequence[float], false_share: float) -> float:
    """The lowest threshold that at most `false_share` of the negatives reach."""
    ordered = sorted(negatives, reverse=True)
    allowed = int(false_share * len(ordered))
    return ordered[allowed] if allowed < len(ordered) else 0.0
