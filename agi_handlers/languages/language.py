"""What the phone half must know of a language; one module beside this for each.

Phrases the bot says by itself, and patterns of what people and machines say to it.  How
figures and dates are read aloud in a language is `model.tts`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_MAX_CHARS: Final = 2000
# However a model spells them; the same in most languages.
HUMS: Final = ("m+(?: ?h+m+)*", "h+m+", "mh+", "a+h+", "o+h+")


@dataclass(frozen=True, slots=True)
class Language:
    """One language.  Patterns are matched against `plain_words` of what was said."""

    tag: str
    """Its primary tag: "en" also serves en-gb."""
    instructions: str
    """For campaigns that have none of their own."""
    phrases: Mapping[str, str]
    """Every fixed phrase by its name, for campaigns that leave one out."""
    opt_out: tuple[str, ...]
    """Requests to be called no more."""
    person: tuple[str, ...]
    """Requests for a human being."""
    listening: tuple[str, ...]
    """What a listener says so that the other goes on: "mhm"; whole, as patterns."""
    machine: tuple[str, ...]
    """What no person says who answers a telephone."""
    menu: tuple[str, ...]
    """The same of machines that want keys."""
    machine_hint: tuple[str, ...]
    """What machines say and people sometimes."""
    person_sign: tuple[str, ...]
    """What only people say to whoever calls: outweighs hints."""


def plain_words(text: str) -> str:
    """Lower case, without accents, punctuation and the apostrophe of "don't"."""
    decomposed = unicodedata.normalize("NFKD", text[:_MAX_CHARS].lower())
    kept = "".join(c for c in decomposed if not unicodedata.combining(c))
    kept = kept.replace("'", "").replace("\u2019", "")
    return " ".join(re.sub(r"[^a-z0-9 ]", " ", kept).split())


def matches_any(patterns: tuple[str, ...], plain: str) -> bool:
    """Whether one of the patterns is in what `plain_words` made."""
    return any(re.search(pattern, plain) for pattern in patterns)
