"""Whether a reply's words announce a transfer.

A model may say "I'm transferring you now" and forget the action.  The caller believes
the words, so they are held against it: where nothing was asked for, people take him.
Announcements count, questions and conditions do not: "shall I transfer you?".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Final

_ENGLISH: Final = (
    r"\bi(?:m| am)(?: now| just)? (?:transferring|connecting|forwarding|passing|"
    r"putting|handing|patching) (?:you|your call)\b",
    r"\b(?:let me|i(?:ll| will))(?: now| just| quickly)? (?:transfer|connect|forward|"
    r"patch|pass|hand) (?:you|your call)\b",
    r"\b(?:let me|i(?:ll| will))(?: now| just)? put you through\b",
    r"^(?:\w+ )?(?:one moment|please hold|hold on)\b.*"
    r"\b(?:transferring|connecting) you\b",
)
_SPANISH: Final = (
    r"\b(?:le|te|lo|la) (?:estoy )?(?:transfiero|transfiriendo|paso|pasando|comunico|"
    r"comunicando|conecto|conectando) (?:con|a|al|ahora|enseguida)\b",
    r"\b(?:le|te|lo|la) (?:voy a )?(?:transferire|pasare|comunicare|conectare|"
    r"transferir|pasar|comunicar|conectar) (?:con|a|al|ahora|enseguida)\b",
    r"\bvoy a (?:transferirle|pasarle|comunicarle|conectarle|transferirlo|pasarlo)\b",
)
_BY_LANGUAGE: Final[Mapping[str, tuple[str, ...]]] = {"en": _ENGLISH, "es": _SPANISH}
# "Shall I ...?", "if you like, I will ...", "I can't ..."
_NOT_YET: Final = re.compile(
    r"\?|\b(?:if|unless|when|after|before|would|shall|should|can|cannot|cant|could|not|"
    r"si|cuando|quiere|puedo|no)\b"
)


def promises_transfer(text: str, language: str) -> bool:
    """True when a sentence of the reply says that the caller is being passed on."""
    patterns = _BY_LANGUAGE.get(language.split("-")[0].lower(), _ENGLISH)
    for sentence in re.split(r"(?<=[.!?;])\s+", text[:4000]):
        plain = _plain(sentence)
        if _NOT_YET.search(plain):
            continue
        if any(re.search(pattern, plain) for pattern in patterns):
            return True
    return False


def _plain(text: str) -> str:
    """Lower case, without accents, signs and the apostrophe of "I'm"; `?` is kept."""
    decomposed = unicodedata.normalize("NFKD", text.lower())
    kept = "".join(c for c in decomposed if not unicodedata.combining(c))
    kept = kept.replace("'", "").replace("\u2019", "")
    return " ".join(re.sub(r"[^a-z0-9? ]", " ", kept).split())
