"""Model output -> plain text: markup, emoji and invisible characters taken out.

Nothing is ever interpreted: a tag is dropped, a link keeps its words, an entity becomes
its character.  What is left is text as one would write it in a letter.
"""

from __future__ import annotations

import html
import re
import unicodedata

_TAG = re.compile(r"</?[A-Za-z!?][^<>]{0,500}>")
_CODE_FENCE = re.compile(r"^[ \t]*(?:```|~~~).*$", re.MULTILINE)
_IMAGE_OR_LINK = re.compile(
    r"!?\[([^\[\]]{0,300})\]\([^()\s]{0,500}(?:\s[^()]{0,200})?\)"
)
_AUTOLINK = re.compile(r"<((?:https?://|mailto:)?[^\s<>@]{1,200}[@.][^\s<>]{1,300})>")
_LINE_MARKS = re.compile(
    r"^[ \t]*(?:#{1,6}[ \t]+|>[ \t]?|[-*+•‣▪·][ \t]+|(?:[-*_][ \t]*){3,}$)",
    re.MULTILINE,
)
_TABLE_RULE = re.compile(r"^[ \t]*\|?[ \t:|-]*-{2,}[ \t:|-]*$", re.MULTILINE)
_EMPHASIS = re.compile(r"(\*{1,3}|_{1,3}|~~)(?=\S)([^*_~\n]{1,400}?)(?<=\S)\1(?!\w)")
_KEYCAP = re.compile(r"([0-9#*])\ufe0f?\u20e3")
_EMOJI = re.compile(
    "[\u200d\ufe00-\ufe0f\U0001f000-\U0001faff\U0001fb00-\U0001ffff"
    "\u2600-\u27bf\u2b00-\u2bff\u2190-\u21ff\u2300-\u23ff\u25a0-\u25ff\u3030\u303d"
    "\u3297\u3299\U000e0020-\U000e007f]+"
)
_LINES = re.compile(r" ?\n[ \n]*")
_SPACES = re.compile(r"[^\S\n]+")
_TYPOGRAPHY = str.maketrans(
    {
        "’": "'",
        "‘": "'",
        "‛": "'",
        "“": '"',
        "”": '"',
        "„": '"',
        "«": '"',
        "»": '"',
        "‐": "-",
        "‑": "-",
        "‒": "–",
        "−": "-",
        "…": "...",
        "⁄": "/",
    }
)
# Arrows say "then" in writing; heard, they are a pause.
_ARROW = re.compile(r"\s*(?:->|=>|[→⇒➔➜])\s*")


def plain_text(text: str) -> str:
    """Any text -> its words, figures and punctuation, in NFC, one space at most."""
    text = _one_space(unicodedata.normalize("NFC", text))
    text = _CODE_FENCE.sub(" ", text)
    text = _AUTOLINK.sub(r" \1 ", text)
    text = _TAG.sub(" ", text)
    text = _TAG.sub(" ", html.unescape(text))
    text = _visible(text)
    text = _IMAGE_OR_LINK.sub(r"\1", text)
    text = _TABLE_RULE.sub(" ", text)
    text = _LINE_MARKS.sub("", text)
    for _ in range(2):  # bold italics nest once
        text = _EMPHASIS.sub(r"\2", text)
    text = text.replace("`", "").replace("**", "").replace("|", ", ")
    text = _ARROW.sub(", ", text)
    text = _KEYCAP.sub(r"\1 ", text)
    text = _EMOJI.sub(" ", text)
    return _one_space(text)


def _one_space(text: str) -> str:
    return _LINES.sub("\n", _SPACES.sub(" ", text)).strip()


def _visible(text: str) -> str:
    """Controls, format marks, private and unassigned characters out; figures to ASCII.

    espeak reads commands after U+0001 (its embedded-command marker), so a control
    character is never merely ugly.
    """
    return "".join(_visible_char(char) for char in text.translate(_TYPOGRAPHY))


def _visible_char(char: str) -> str:
    if char.isascii():
        return char if char.isprintable() or char == "\n" else " "
    category = unicodedata.category(char)
    if category == "Nd":
        return str(unicodedata.decimal(char))
    if category == "No":
        plain = unicodedata.normalize("NFKC", char)
        # "2½" is two and a half, not 21/2.
        return " " + plain.replace("⁄", "/") if "⁄" in plain else plain
    if category == "Cf":
        # The joiners belong to emoji and to some scripts' spelling; the rest
        # (direction marks, byte order mark, soft hyphen) nobody hears.
        return char if char in "\u200c\u200d" else ""
    if category in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp"):
        return " "
    return char
