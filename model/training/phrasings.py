"""What callers say: phrasing templates, read from `language/*.txt`.

In a template ``(a|b)`` is a choice, ``[a]`` may be left out, ``<piece>`` is one of the
shared ways of `pieces.txt` and ``{slot}`` is filled by the grammar. The first phrasings
of an intent are the commonest. Those of `held_out.txt` are for tests only.
"""

from __future__ import annotations

from pathlib import Path

COMPANY = "Riverside Services"
AGENT = "Robin"
COMMONEST = 6

_FOLDER = Path(__file__).parent / "language"


def _lines(name: str) -> list[str]:
    raw = (_FOLDER / f"{name}.txt").read_text().splitlines()
    return [" ".join(x.split()) for x in raw if x.strip() and not x.startswith("#")]


def _sections(name: str) -> dict[str, tuple[str, ...]]:
    """The lines under each ``== title``."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in _lines(name):
        if line.startswith("== "):
            lines = found.setdefault(line.removeprefix("== "), [])
        else:
            lines.append(line)
    return {title: tuple(lines) for title, lines in found.items()}


def _pieces() -> dict[str, tuple[str, ...]]:
    pairs = (line.split(" = ") for line in _lines("pieces"))
    return {name: tuple(w.strip() for w in ways.split("|")) for name, ways in pairs}


PIECES = _pieces()
PHRASINGS: dict[str, tuple[str, ...]] = {
    intent: phrasings
    for name in ("talk", "service", "scheduling", "endings")
    for intent, phrasings in _sections(name).items()
}
HELD_OUT = _sections("held_out")
SYNONYMS: tuple[tuple[str, ...], ...] = tuple(
    tuple(phrase.strip() for phrase in line.split(" | ")) for line in _lines("synonyms")
)
_OUTSIDE = _sections("outside")
OUTSIDE_WORDS = tuple(" ".join(_OUTSIDE["words"]).split())
OUTSIDE_SENTENCES = _OUTSIDE["sentences"]
# Language -> sentences, without accents: espeak-ng's word times count bytes.
FOREIGN_SENTENCES = {
    name: sentences
    for name, sentences in _OUTSIDE.items()
    if name not in {"words", "sentences"}
}

# Openers and closers a caller may add, with the intents that take none.
OPENERS = (
    *("um", "uh", "well", "hi", "hello", "okay", "so", "excuse me", "oh", "yes"),
    *("yeah", "alright", "right", "sorry", "look", "listen", "hi there", "hey"),
    *("good morning", "good afternoon", "um hi", "oh hi", "okay so", "ah", "hm"),
    *("hello there", "yes hello", "um yes", "well um", "so um", "just", "and"),
)
CLOSERS = (
    *("please", "thanks", "thank you", "if possible", "if you can", "okay"),
    *("if that's okay", "if you don't mind", "thank you very much", "for me"),
)
BARE_INTENTS = frozenset(
    {
        "greeting",
        "how_are_you",
        "yes",
        "no",
        "done",
        "thanks",
        "goodbye",
        "voicemail",
        "correct_number",
        "correct_day",
        "correct_time",
        "repeat",
        "hold",
        "not_interested",
        "can_you_hear",
    }
)
