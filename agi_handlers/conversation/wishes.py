"""What a caller's own words ask for, whatever the model makes of them.

Two wishes need nobody's consent: to speak with a person, and not to be called again.
They are looked for in the transcript of each utterance.  The patterns want a request,
not a mention: "I talked to an agent yesterday" is none.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from agi_handlers.languages.english import ENGLISH
from agi_handlers.languages.known import language_of
from agi_handlers.languages.language import matches_any, plain_words

Wish: TypeAlias = Literal["person", "opt_out"]


def wish_in(text: str, language: str) -> Wish | None:
    """The wish in what a caller said, if there is one.

    language: a tag such as en-us; one without patterns of its own gets the English.
    """
    known = language_of(language) or ENGLISH
    plain = plain_words(text)
    # An opt-out outweighs everything: "give me a person, and stop calling me".
    if matches_any(known.opt_out, plain):
        return "opt_out"
    return "person" if matches_any(known.person, plain) else None
