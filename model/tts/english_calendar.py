"""English dates, years and times of day."""

from __future__ import annotations

import re
from re import Match

from model.tts import written_forms as forms
from model.tts.english_numbers import EnglishNumbers
from model.tts.english_tables import DAYS, MONTH_NAMES, MONTH_PATTERN
from model.tts.reading_rules import Rule, any_of, rule

_YEAR = r"(?:,? (\d{4})(?!\d))?"
_NTH = r"(\d{1,2})(?:st|nd|rd|th)?"


def calendar_rules(numbers: EnglishNumbers) -> list[Rule]:
    calendar = _Calendar(numbers)
    days = any_of(DAYS)
    return [
        rule(rf"\b({days})\.?(?=\s?[-–]\s?(?:{days})\b)", lambda m: DAYS[m[1]]),
        rule(rf"(?<=day)\s?[-–]\s?({days})\b\.?", lambda m: f" to {DAYS[m[1]]}"),
        rule(
            rf"\b({days})(?:\.,?|,)(?= (?:{MONTH_PATTERN}|\d))",
            lambda m: DAYS[m[1]] + ",",
        ),
        rule(forms.ISO_DATE, calendar.iso_date),
        rule(forms.SLASHED_DATE, calendar.slashed_date),
        rule(
            r"\b((?:on|by|until|before|after|since|from|due|dated|of) )"
            r"(\d{1,2})/(\d{1,2})(?![\d/])",
            calendar.short_date,
        ),
        # 11/22 alone is a date, 11/16 an odd fraction, 3/4 a common one.
        rule(
            r"(?<![\w/.,$-])()(1[0-2]|0?[1-9])/(1[3-57-9]|2\d|3[01])(?![\w/]|[.,]\d)",
            calendar.short_date,
        ),
        rule(
            rf"\b{MONTH_PATTERN} {_NTH}(?![\d:%]|[.,]\d){_YEAR}",
            calendar.month_and_day,
        ),
        rule(rf"\b{_NTH}( of)? {MONTH_PATTERN}(?!\w){_YEAR}", calendar.day_and_month),
        rule(rf"\b{MONTH_PATTERN},? (\d{{4}})(?![\d%])", calendar.month_and_year),
        rule(r"(?<!\w)(?:'|(19|20))(\d)0s\b", calendar.decade),
        rule(
            r"(?<=\d)\s?([ap])\.?m?\.?\s?[-–]\s?(?=\d)",
            lambda m: f" {m[1].lower()}.m. to ",
            re.IGNORECASE,
        ),
        rule(r"(?<=:\d\d)\s?[-–]\s?(?=\d)", " to "),
        rule(forms.CLOCK, calendar.clock),
        rule(forms.HOUR, lambda m: f"{numbers.number(m[1])} {m[2].lower()}.m."),
    ]


class _Calendar:
    def __init__(self, numbers: EnglishNumbers) -> None:
        self._numbers = numbers

    def date(self, year: int, month: int, day: int) -> str | None:
        """None where there is no such day; `year` 0: not said."""
        if forms.calendar_date(year or 2024, month, day) is None:  # 2024 has a 29 Feb
            return None
        name, nth = MONTH_NAMES[month - 1], self._numbers.ordinal(day)
        british = self._numbers.is_british
        said = f"the {nth} of {name}" if british else f"{name} {nth}"
        return f"{said}, {self._numbers.year(year)}" if year else said

    def iso_date(self, match: Match[str]) -> str:
        said = self.date(int(match[1]), int(match[2]), int(match[3]))
        if said is None:
            return self._numbers.groups(match[0])
        return f"{said}, " if match[0].endswith("T") else said

    def slashed_date(self, match: Match[str]) -> str:
        first, second, year = int(match[1]), int(match[2]), forms.full_year(match[3])
        orders = [(first, second), (second, first)]
        for month, day in reversed(orders) if self._numbers.is_british else orders:
            if said := self.date(year, month, day):
                return said
        return match[0]

    def short_date(self, match: Match[str]) -> str:
        first, second = int(match[2]), int(match[3])
        month, day = (second, first) if self._numbers.is_british else (first, second)
        said = self.date(0, month, day) or self.date(0, day, month)
        return match[1] + said if said else match[0]

    def month_and_day(self, match: Match[str]) -> str:
        year = int(match[3]) if match[3] else 0
        return self.date(year, _month_number(match[1]), int(match[2])) or match[0]

    def day_and_month(self, match: Match[str]) -> str:
        month, day = _month_number(match[3]), int(match[1])
        year = int(match[4]) if match[4] else 0
        said = self.date(year, month, day)
        if said is None:
            return match[0]
        if match[2]:  # "the 4th of July" stays the fourth of July
            said = f"{self._numbers.ordinal(day)} of {MONTH_NAMES[month - 1]}"
            return f"{said}, {self._numbers.year(year)}" if year else said
        follows_the = match.string[: match.start()].lower().endswith("the ")
        return said.removeprefix("the ") if follows_the else said

    def month_and_year(self, match: Match[str]) -> str:
        name = MONTH_NAMES[_month_number(match[1]) - 1]
        return f"{name} {self._numbers.year(int(match[2]))}"

    def decade(self, match: Match[str]) -> str:
        """1990s -> "nineteen nineties"; '80s -> "eighties"."""
        century, tens = match[1] or "", int(match[2]) * 10
        if century == "20" and tens == 0:
            return "two thousands"
        said = {0: "hundreds", 10: "tens"}.get(tens)
        said = said or self._numbers.cardinal(tens)[:-1] + "ies"
        return f"{self._numbers.cardinal(int(century))} {said}" if century else said

    def clock(self, match: Match[str]) -> str:
        hour, minute = int(match[1]), int(match[2])
        half = (match[4] or "").lower()
        if not half and (hour > 12 or hour == 0):
            half = "p" if 12 < hour < 24 else "a"
        said = self._numbers.cardinal(hour % 12 or 12)
        if minute:
            said += f" {self._numbers.two_digits(minute)}"
        elif not half:
            said += " o'clock"
        if match[3] and int(match[3]):
            said += f" and {self._numbers.counted(str(int(match[3])), 'second')}"
        return f"{said} {half}.m." if half else said


def _month_number(name: str) -> int:
    return 1 + [month[:3].lower() for month in MONTH_NAMES].index(name[:3].lower())
