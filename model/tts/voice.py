"""Which voice speaks; its form is checked here, its existence by the synthesiser."""

from __future__ import annotations

import re
from dataclasses import dataclass

from model.tts.errors import VoiceUnknown

_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[a-z0-9]{1,12}){0,3}\Z")
# espeak: "en-us+f3"; piper: "en_US-lessac-medium"; servers: "alloy", "af_bella".
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,79}\Z")


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice by language and, where the synthesiser has several, by name.

    Raises:
        VoiceUnknown: a value is malformed or out of range.
    """

    language: str = "en-us"
    """Lower case; also decides how figures are read."""
    name: str = ""
    """The synthesiser's own name for it; empty: its first voice for the language."""
    speed_wpm: int = 165
    """Words a minute.  espeak's default of 175 is hard to follow on a telephone."""
    pitch: int = 50
    """0 to 99, 50 is the voice's own; synthesisers other than espeak ignore it."""

    def __post_init__(self) -> None:
        if not _LANGUAGE.match(self.language):
            raise VoiceUnknown(f"language {self.language!r} is not like en-us or es")
        if self.name and not _NAME.match(self.name):
            raise VoiceUnknown(f"voice name {self.name[:80]!r} has odd characters")
        if not 80 <= self.speed_wpm <= 400:
            raise VoiceUnknown(
                f"speed {self.speed_wpm} is outside 80 to 400 words a min"
            )
        if not 0 <= self.pitch <= 99:
            raise VoiceUnknown(f"pitch {self.pitch} is outside 0 to 99")
