"""English numbers as words, in the American or the British manner."""

from __future__ import annotations

from dataclasses import dataclass

from model.tts.english_tables import PLURALS
from model.tts.number_words import (
    cardinal,
    decimal,
    digit_by_digit,
    grouped_digits,
    ordinal,
)


@dataclass(frozen=True, slots=True)
class EnglishNumbers:
    is_british: bool
    """ "one hundred and five" and "the fifth of May" against "one hundred five"."""

    def cardinal(self, value: int) -> str:
        return self._localised(cardinal(value, "en"))

    def ordinal(self, value: int) -> str:
        return self._localised(ordinal(value, "en"))

    def number(self, text: str) -> str:
        """ "1,234.5" -> words."""
        whole, _, fraction = text.replace(",", "").partition(".")
        return self._localised(decimal(whole, fraction, "point", "en"))

    def counted(self, number: str, unit: str) -> str:
        """("2", "mile per hour") -> "two miles per hour"."""
        if number == "1":
            return f"one {unit}"
        head, _, tail = unit.partition(" per ")
        *first, last = head.split(" ")
        plural = " ".join([*first, PLURALS.get(last, last + "s")])
        return f"{self.number(number)} {plural}" + (f" per {tail}" if tail else "")

    def year(self, year: int) -> str:
        century, rest = divmod(year, 100)
        if year % 1000 < 10 or not 1000 < year < 3000:
            return self.cardinal(year)
        if rest == 0:
            return f"{self.cardinal(century)} hundred"
        return f"{self.cardinal(century)} {self.two_digits(rest)}"

    def two_digits(self, value: int) -> str:
        """5 -> "oh five", as in years, times and house numbers."""
        return f"oh {self.cardinal(value)}" if value < 10 else self.cardinal(value)

    @staticmethod
    def digits(text: str) -> str:
        """ "4821" -> "four eight two one"."""
        return digit_by_digit(text, "en")

    @staticmethod
    def grouped(text: str) -> str:
        """Digit by digit with a pause after each group."""
        return grouped_digits(text, "en")

    def groups(self, text: str) -> str:
        """ "123-45" -> "one two three, four five": grouped as written."""
        return ", ".join(self.digits(group) for group in text.split("-"))

    def _localised(self, words: str) -> str:
        return words if self.is_british else words.replace(" and ", " ")
