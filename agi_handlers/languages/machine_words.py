"""Whether words are those of an answering machine, a menu, or a person."""

from __future__ import annotations

from typing import Literal, TypeAlias

from agi_handlers.languages.english import ENGLISH
from agi_handlers.languages.known import language_of
from agi_handlers.languages.language import matches_any, plain_words

WordsKind: TypeAlias = Literal["machine", "menu", "hint", "person", "none"]


def words_kind(text: str, language: str) -> WordsKind:
    """What the words of an answer tell; "hint" alone proves nothing.

    language: a tag such as en-us.  One without patterns of its own gets the English.
    """
    known = language_of(language) or ENGLISH
    plain = plain_words(text)
    if not plain:
        return "none"
    if matches_any(known.person_sign, plain):
        return "person"
    if matches_any(known.menu, plain):
        return "menu"
    if matches_any(known.machine, plain):
        return "machine"
    num_hints = sum(matches_any((hint,), plain) for hint in known.machine_hint)
    if num_hints >= 2:
        return "machine"
    return "hint" if num_hints else "none"
