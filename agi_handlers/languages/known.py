"""The languages the phone half speaks; a new one is named here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agi_handlers.languages.english import ENGLISH
from agi_handlers.languages.language import Language
from agi_handlers.languages.spanish import SPANISH

LANGUAGES: Final[Mapping[str, Language]] = {
    language.tag: language for language in (ENGLISH, SPANISH)
}


def primary_tag(tag: str) -> str:
    """ "es-MX" -> "es"."""
    return tag.replace("_", "-").split("-")[0].lower()


def language_of(tag: str) -> Language | None:
    """The language of a tag such as en-us; None: nothing is known of it here."""
    return LANGUAGES.get(primary_tag(tag))
