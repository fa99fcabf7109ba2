"""What a caller's own words ask for, whatever the model makes of them.

Two wishes need nobody's consent: to speak with a person, and not to be called again.
They are looked for in the transcript of each utterance.  The patterns want a request,
not a mention: "I talked to an agent yesterday" is none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

Wish: TypeAlias = Literal["person", "opt_out"]

_PERSON_EN: Final = (
    r"(?:(?:a|an|the|your|any|another) )?(?:real |live |human |actual )?"
    r"(?:person|people|human|human being|agent|representative|operator|somebody|"
    r"someone|supervisor|manager)(?: real| else)?"
)
_PERSON_ES: Final = (
    r"(?:(?:un|una|el|la|con|a|algun|alguna) )*(?:persona|humano|agente|operador|"
    r"operadora|representante|alguien|supervisor|supervisora|ser humano)"
)
_ENGLISH: Final[Mapping[Wish, tuple[str, ...]]] = {
    "opt_out": (
        r"(?:stop|quit) (?:calling|phoning|ringing|bothering)\b",
        r"(?:do not|dont|never) (?:ever )?(?:call|phone|ring|contact) "
        r"(?:me|us|here|this number|again|anymore|any more|back)\b",
        r"(?:take|remove|delete|get) (?:me|us|my (?:phone )?number|this number)"
        r"(?: off| out of| from) (?:of )?(?:your|the|this|that) "
        r"(?:\w+ )?(?:list|lists|database|system)\b",
        r"(?:put|add|place) (?:me|us|my number|this number) (?:on|to) "
        r"(?:your|the) do not call\b",
        r"(?:do not|dont) call list\b",
    ),
    "person": (
        r"(?:speak|talk|chat)(?: with| to) " + _PERSON_EN + r"\b",
        r"(?:give|get|find|put|pass|transfer|connect|switch) me"
        r"(?: over| through| on)?(?: to| with)? " + _PERSON_EN + r"\b",
        r"(?:want|need|like|prefer)(?: to have)? (?:a|an) (?:real |live |human )?"
        r"(?:person|human|agent|representative|operator)\b",
        r"^(?:(?:a|an|the) )?(?:real |live |human )?"
        r"(?:person|human|agent|representative|operator)(?: please)?$",
    ),
}
_SPANISH: Final[Mapping[Wish, tuple[str, ...]]] = {
    "opt_out": (
        r"(?:no|nunca) (?:me|nos) (?:vuelva|vuelvan|vuelvas) a (?:llamar|molestar)\b",
        r"(?:no|nunca) (?:me|nos) (?:llame|llamen|llames|molesten|contacten)\b",
        r"(?:dejen|deje|paren|pare|deja|basta) de (?:llamar|molestar)",
        r"(?:quiten|quite|borren|borre|saquen|saque|eliminen)(?:me|nos| mi numero)"
        r" de (?:su|la|esa|esta) lista\b",
    ),
    "person": (
        r"hablar (?:con )?" + _PERSON_ES + r"\b",
        r"(?:paseme|pasenme|paseme|pongame|comuniqueme|transfierame|conecteme)"
        r"(?: con)? " + _PERSON_ES + r"\b",
        r"(?:quiero|necesito|prefiero) (?:un|una) "
        r"(?:persona|humano|agente|operador|operadora|representante)\b",
        r"^(?:un |una )?(?:persona|agente|operador|operadora|representante)"
        r"(?: por favor)?$",
    ),
}
_BY_LANGUAGE: Final = {"en": _ENGLISH, "es": _SPANISH}
# An opt-out outweighs everything: "give me a person, and stop calling me".
_ORDER: Final[tuple[Wish, ...]] = ("opt_out", "person")


def wish_in(text: str, language: str) -> Wish | None:
    """The wish in what a caller said, if there is one.

    language: a tag such as en-us; one without patterns of its own gets the English.
    """
    patterns = _BY_LANGUAGE.get(language.split("-")[0].lower(), _ENGLISH)
    plain = _plain(text)
    for wish in _ORDER:
        if any(re.search(pattern, plain) for pattern in patterns[wish]):
            return wish
    return None


def _plain(text: str) -> str:
    """Lower case, without accents, punctuation and the apostrophe of "don't"."""
    decomposed = unicodedata.normalize("NFKD", text[:2000].lower())
    kept = "".join(c for c in decomposed if not unicodedata.combining(c))
    kept = kept.replace("'", "").replace("\u2019", "")
    return " ".join(re.sub(r"[^a-z0-9 ]", " ", kept).split())
