"""The written forms that are read alike in every language: where they are in a text.

Each pattern is linear in the text's length: no nested repeats, every repeat bounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
"""1,234.56 or 1234.56: the American and Mexican way of writing."""

EMAIL = re.compile(
    r"(?<![\w.+-])([A-Za-z0-9._%+-]{1,64})@([A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,6})"
)
_TLDS = (
    r"(?:com|org|net|edu|gov|io|co|us|uk|es|mx|de|fr|ca|au|in|info|biz|app|dev|ai|"
    r"me|tv|health|shop|store|online|tel)"
)
URL = re.compile(
    r"(?:https?://|(?<![\w@.])www\.)[^\s<>\"]{1,300}"
    rf"|(?<![\w@.-])(?:[A-Za-z0-9-]{{1,63}}\.){{1,4}}{_TLDS}(?![\w-])(?:/[^\s<>\"]{{0,300}})?"
)
ISO_DATE = re.compile(r"(?<![\d-])(\d{4})-(\d{1,2})-(\d{1,2})(?![\d-])(?:T(?=\d))?")
SLASHED_DATE = re.compile(r"(?<![\d/])(\d{1,2})[/.](\d{1,2})[/.](\d{4}|\d{2})(?![\d/])")
PHONE = re.compile(
    r"(?<![\w.,/$€£-])(?:(\+\d{1,3})[-. ]?|(1)[-. ])?"
    r"(?:\((\d{3})\) ?|(\d{3})[-. ])(\d{3})[-. ](\d{4})(?![\w/-]|[.,]\d)"
)
LOCAL_PHONE = re.compile(r"(?<![\w.,/$€£-])(\d{3})-(\d{4})(?![\w/%-]|[.,]\d)")
WORLD_PHONE = re.compile(r"(?<!\w)\+(\d{1,3}(?:[ .-]?\(?\d{1,4}\)?){2,6})(?!\w)")
DIGIT_GROUPS = re.compile(
    r"(?<![\w.,/-])(?:\d+(?:-\d+){2,}|\d{5,}-\d+|\d+-\d{5,})(?![\w/-]|[.,]\d)"
)
LONG_DIGITS = re.compile(r"(?<![\w.,])(?!\d+0{3}(?!\d))\d{5,}(?![\w]|[.,]\d)")
LEADING_ZERO = re.compile(r"(?<![\w.,:/-])0\d+(?![\w:/]|[.,]\d)")
CLOCK = re.compile(
    r"(?<![\d:.,])([01]?\d|2[0-4]):([0-5]\d)(?::([0-5]\d))?(?![\d:])"
    r"(?:\s?([ap])(?:\.\s?m\.|m\b))?",
    re.IGNORECASE,
)
HOUR = re.compile(
    r"(?<![\d:.,])(1[0-2]|0?[1-9])\s?([ap])(?:\.\s?m\.|m\b)", re.IGNORECASE
)
DOTTED_NUMBER = re.compile(r"(?<![\w.,])v?\d{1,5}(?:\.\d{1,5}){2,}(?![\w]|\.\d)")
RANGE = re.compile(r"(?<![\w.,/-])(\d{1,4})\s?[-–]\s?(\d{1,4})(?![\w/-]|[.,]\d)")
PLAIN_NUMBER = re.compile(rf"(?<![\w.,])([-+]?)({NUMBER})(?!\w)")
MIXED_TOKEN = re.compile(
    r"(?<![\w-])(?=[\w-]{0,60}[^\W\d_])(?=[\w-]{0,60}\d)\w+(?:-\w+)*(?![\w-])"
)
ANY_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Amount:
    """A sum of money, as written."""

    whole: str
    fraction: str
    scale: str
    """ "k", "million" … or empty."""

    @property
    def cents(self) -> int | None:
        """None where the fraction isn't cents."""
        if self.scale or len(self.fraction) > 2:
            return None
        return int((self.fraction + "00")[:2])


def amount(number: str, scale: str = "") -> Amount:
    whole, _, fraction = number.replace(",", "").partition(".")
    return Amount(whole or "0", fraction, scale)


def calendar_date(year: int, month: int, day: int) -> date | None:
    """None where there is no such day."""
    try:
        return date(year, month, day)
    except ValueError:
        return None


def full_year(year: str) -> int:
    """ "26" -> 2026, "98" -> 1998; two digits over 46 are the last century's."""
    value = int(year)
    if len(year) > 2:
        return value
    return 2000 + value if value <= 46 else 1900 + value


def letters_and_digits(token: str) -> list[str]:
    """ "AB-12c" -> ["AB", "12", "c"]."""
    return re.findall(r"\d+|[^\W\d_]+", token)
