"""Written text -> its spoken form: figures, signs and abbreviations as words.

    "Pay $12.50 by 11/22/2026"  ->
    "Pay twelve dollars and fifty cents by November twenty-second, twenty twenty-six"

Markup and emoji are removed first and never interpreted.  English and Spanish are read
in full; in other languages long digit strings are spaced out and the rest is left to
the synthesiser, which knows its language's numbers.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Protocol

from model.tts.english import English
from model.tts.markup import plain_text
from model.tts.reading_rules import Rule, apply_rules, rule
from model.tts.spanish import Spanish
from model.tts.written_forms import LONG_DIGITS

_MAX_CHARS = 10_000
"""Far above any reply; bounds the work one request can ask for."""

# Signs no reading rule has turned into words; nobody misses them.
_UNSAID = re.compile(r"[<>*_|`$€£¥₹¢%#@&^~\\{}\[\]=+/\"°§¶¦¤©®™≤≥±≈×÷|]")
_TIDY: tuple[Rule, ...] = (
    rule(r"[()\[\]{}|•·]|[—–]|\s-+\s", ", "),
    rule(_UNSAID, " "),
    rule(r"(?<!\w)-+|-+(?!\w)", " "),
    rule(r" ?\n ?", ". "),
    rule(r"\s+", " "),
    rule(r" (?=[,.;:!?])", ""),
    rule(
        r"(?<![.,;:!?])(?:[!?][.,;:!?]+|[.,;:]+[!?][.,;:!?]*)",
        lambda m: "?" if "?" in m[0] else "!",
    ),
    rule(r"\.{3,}", "..."),
    rule(r"(?<!\.)\.\.(?!\.)", "."),
    # "5 p.m., then": that point is part of the word.
    rule(r"(?<!\.m)(?<!\.)(\.+)[,;:][.,;:]*", lambda m: m[1]),
    rule(r"(?<![,;:])[,;:]+\.", "."),
    rule(r"[,;:]{2,}", ","),
    rule(r"(?<=[^\W\d_]),(?=[^\W\d_])", ", "),
)


class SpokenLanguage(Protocol):
    """Reads one written language aloud."""

    def read(self, text: str) -> str:
        """Plain text in, the same with everything but words and punctuation said."""
        ...


class OtherLanguage:
    """A language without rules of its own here."""

    def read(self, text: str) -> str:
        return LONG_DIGITS.sub(lambda match: " ".join(match[0]), text)


def spoken_form(text: str, language: str = "en-us") -> str:
    """What a person would say who reads `text` aloud; "" if there is nothing to say.

    Longer texts than 10,000 characters are cut there.
    """
    plain = plain_text(text[:_MAX_CHARS])
    said = _reader(language.lower()).read(plain)
    said = apply_rules(said, _TIDY).lstrip(",;:.!? ").rstrip(",;: ")
    return said if any(char.isalnum() for char in said) else ""


@cache
def _reader(language: str) -> SpokenLanguage:
    match re.split(r"[-_]", language)[0]:
        case "en":
            return English(is_british=language not in ("en", "en-us", "en-us-nyc"))
        case "es":
            return Spanish(
                has_decimal_comma=language in ("es", "es-es"),
                dollar_sign="MX$" if language == "es-mx" else "$",
            )
        case _:
            return OtherLanguage()
