"""Is it a mere sign of listening? "Mhm" over the bot's words does not want them to end.

Short sounds over the bot are written down by the model before they count.  "Yes" and
"no" are answers and not among them: the bot may have just asked.
"""

from __future__ import annotations

import re

from agi_handlers.languages.english import ENGLISH
from agi_handlers.languages.known import language_of
from agi_handlers.languages.language import plain_words


def is_listening_sound(text: str, language: str) -> bool:
    """Whether all that was said is "mhm" and the like, or no word at all.

    language: a tag such as en-us; one without sounds of its own gets the English.
    """
    known = language_of(language) or ENGLISH
    plain = plain_words(text)
    if not plain:  # nothing, or the words of another script
        return not any(letter.isalnum() for letter in text)
    sounds = "|".join(known.listening)
    return re.fullmatch(rf"(?:(?:{sounds})(?: |$))+", plain) is not None
