"""Digits taken out of what was said: card numbers, dates of birth, PINs.

Written digits become stars one by one; three or more number words in a row, as people
say a number, become stars as well.  English and Spanish.
"""

from __future__ import annotations

import re
from typing import Final

_ENGLISH: Final = (
    "zero oh one two three four five six seven eight nine ten eleven twelve thirteen "
    "fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty "
    "sixty seventy eighty ninety hundred thousand double triple"
)
_SPANISH: Final = (
    "cero uno una dos tres cuatro cinco seis siete ocho nueve diez once doce trece "
    "catorce quince dieciséis dieciseis diecisiete dieciocho diecinueve veinte treinta "
    "cuarenta cincuenta sesenta setenta ochenta noventa cien ciento mil"
)
_WORD: Final = f"(?:{'|'.join((_ENGLISH + ' ' + _SPANISH).split(' '))})"
_BETWEEN: Final = r"(?:[\s,.\-]+(?:and\s+|y\s+)?)"
_RUN: Final = re.compile(
    rf"\b{_WORD}(?:{_BETWEEN}{_WORD}){{2,}}\b", re.IGNORECASE
)  # fmt: skip
_DIGIT: Final = re.compile(r"\d")


def redact(text: str) -> str:
    """The text without its numbers."""
    return _DIGIT.sub("*", _RUN.sub("***", text))
