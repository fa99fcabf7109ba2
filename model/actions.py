"""In-band actions of a reply, `[[name argument]]`, taken out while it streams.

A model that wants something done writes it between double square brackets:
`I'll connect you now. [[transfer sales]]`.  The text goes on without it.

    [[name]]  [[name argument]]     name: a letter, then letters, digits, _ (32 at most)
                                    argument: up to 300 characters on one line

Rules: a name the campaign doesn't allow is taken out as well, and logged.  Whatever
else has brackets is text and passes unchanged.  A reply that ends inside an action
(the length limit cut it) loses that action: half an action is neither carried out nor
spoken; a mere `[` or `[[` at the end is text.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from telemetry import fields

logger = logging.getLogger(__name__)

MAX_ARGUMENT_CHARS: Final = 300
"""A note is a sentence or two; beyond it the brackets were not meant as an action."""
_ACTION: Final = re.compile(r"\[\[ {0,3}([A-Za-z]\w{0,31})(?: +(.*?))? *\]\]", re.ASCII)
# Whether what is held so far can still become an action.
_PREFIX: Final = re.compile(
    r"\[(?:\[ {0,3}(?:[A-Za-z]\w{0,31}(?:\]| +[^\n]{0,300}\]?)?)?)?", re.ASCII
)
_NAMED: Final = re.compile(r"\[\[ {0,3}[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Action:
    """Something the model asks for; the name in lower case."""

    name: str
    argument: str


Part: TypeAlias = str | Action


class ActionParser:
    """One reply's text in, however it is cut; speakable text and actions out."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(name.lower() for name in allowed)
        self._held = ""

    def receive_text(self, text: str) -> list[Part]:
        """Parts that are decided; text next to text is joined."""
        parts: list[Part] = []
        for char in text:
            # Outside brackets, nearly always: no regular expression is run.
            if not self._held and char != "[":
                parts.append(char)
            else:
                self._held += char
                self._decide(parts)
        return _joined(parts)

    def flush(self) -> list[Part]:
        """The reply is over: what was held, unless it is half an action."""
        held, self._held = self._held, ""
        if _NAMED.match(held):
            logger.warning("action_cut_off", extra=fields(name=_name_in(held)))
            return []
        return [held] if held else []

    def _decide(self, parts: list[Part]) -> None:
        """Release from the front whatever cannot become an action any more."""
        while self._held:
            if found := _ACTION.fullmatch(self._held):
                self._held = ""
                self._take(found[1].lower(), found[2] or "", parts)
            elif _PREFIX.fullmatch(self._held):
                return
            else:
                rest = self._held.find("[", 1)
                cut = len(self._held) if rest < 0 else rest
                parts.append(self._held[:cut])
                self._held = self._held[cut:]

    def _take(self, name: str, argument: str, parts: list[Part]) -> None:
        if name in self._allowed:
            parts.append(Action(name, argument.strip()))
        else:
            logger.warning("action_not_allowed", extra=fields(name=name))


def _joined(parts: list[Part]) -> list[Part]:
    joined: list[Part] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    return joined


def _name_in(held: str) -> str:
    return re.split(r"\W", held.lstrip("[ "), maxsplit=1)[0]
