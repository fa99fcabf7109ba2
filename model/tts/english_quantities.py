"""English sums of money, measures, percentages and fractions."""

from __future__ import annotations

import re
from re import Match

from model.tts import written_forms as forms
from model.tts.english_numbers import EnglishNumbers
from model.tts.english_tables import CURRENCIES, PER, PLURALS, SCALES, UNITS
from model.tts.reading_rules import Rule, any_of, rule

_SIGN = {"-": "minus ", "+": "plus "}
_N = forms.NUMBER
_SUM = rf"\d+,\d{{2}}(?![\d.])|{_N}"
"""€12,50 is twelve euros fifty, whatever the language around it."""
_PER = r"(?:\s?/\s?(sq ft|[A-Za-z]+))?"


def quantity_rules(numbers: EnglishNumbers) -> list[Rule]:
    quantities = _Quantities(numbers)
    units = any_of(UNITS)
    money = any_of(CURRENCIES)
    iso_money = any_of(code for code in CURRENCIES if code.isalpha())
    return [
        rule(
            rf"({money})\s?({_N})\s?[-–]\s?(?:{money})?\s?({_N})(?![\w.,]*\d)",
            quantities.money_range,
        ),
        rule(
            rf"(-?)({money})\s?({_SUM})"
            rf"(?:\s?(thousand|million|billion|trillion|bn|mm|[kKmMbBtT])\b)?{_PER}",
            lambda m: quantities.money(m[1], m[2], m[3], m[4], m[5]),
        ),
        rule(
            rf"(?<![\w.,])(-?)({_SUM})\s?(?:(thousand|million|billion|k|K)\s)?"
            rf"({iso_money}|[€£¥₹])(?!\w){_PER}",
            lambda m: quantities.money(m[1], m[4], m[2], m[3], m[5]),
        ),
        rule(rf"(?<![\w.,])({_N})\s?¢", lambda m: numbers.counted(m[1], "cent")),
        rule(
            rf"(?<![\w.,])([-+]?)({_N})\s?(?:[-–]\s?({_N})\s?)?"
            r"(?:%|percent\b|per cent\b)",
            quantities.percent,
        ),
        rule(
            rf"(?<![\w.,])(-?)({_N})\s?°\s?([CF]?)(?![A-Za-z])",
            quantities.temperature,
        ),
        rule(r"(?<!\w)(\d)'\s?(\d{1,2})\"(?!\w)", quantities.feet_and_inches),
        rule(
            rf"(?<![\w.,/-])({_N})\s?[-–]\s?({_N})(?= ?(?:{units})(?!\w))",
            lambda m: f"{numbers.number(m[1])} to {m[2]}",
        ),
        rule(
            rf"(?<![\w.,])({_N})\s?({units})(?![\w/'])(?:\.(?= [a-z]))?",
            lambda m: numbers.counted(m[1], UNITS[m[2]]),
        ),
        rule(
            r"(?<![\w.,])(\d{1,3}(?:,\d{3})+|\d{1,6})(?:st|nd|rd|th)\b",
            lambda m: numbers.ordinal(int(m[1].replace(",", ""))),
            re.IGNORECASE,
        ),
        rule(r"(?<![\w/])24/7(?![\w/])", "twenty-four seven"),
        rule(
            r"(?<![\w/.,])(?:(\d{1,3}) )?(\d{1,2})/(\d{1,2})(?![\w/])",
            quantities.fraction,
        ),
    ]


class _Quantities:
    def __init__(self, numbers: EnglishNumbers) -> None:
        self._numbers = numbers

    def money(
        self, sign: str, currency: str, number: str, scale: str | None, per: str | None
    ) -> str:
        unit, cent = CURRENCIES[currency]
        if re.fullmatch(r"\d+,\d{2}", number):
            number = number.replace(",", ".")
        amount = forms.amount(number, scale or "")
        if amount.cents is None:
            scale_word = SCALES.get(amount.scale.lower(), amount.scale)
            said = " ".join(filter(None, (self._numbers.number(number), scale_word)))
            said += f" {PLURALS.get(unit, unit + 's')}"
        else:
            parts = []
            if int(amount.whole) or not amount.cents:
                parts.append(self._numbers.counted(str(int(amount.whole)), unit))
            if amount.cents:
                parts.append(self._numbers.counted(str(amount.cents), cent))
            said = " and ".join(parts)
        if per:
            said += " each" if per == "ea" else f" per {PER.get(per, per)}"
        return f"minus {said}" if sign else said

    def money_range(self, match: Match[str]) -> str:
        low, unit = match[2], CURRENCIES[match[1]][0]
        if "." in low + match[3]:
            both = (self.money("", match[1], n, None, None) for n in (low, match[3]))
            return " to ".join(both)
        return f"{self._numbers.number(low)} to {self._numbers.counted(match[3], unit)}"

    def percent(self, match: Match[str]) -> str:
        said = self._numbers.number(match[2])
        if match[3]:
            said += f" to {self._numbers.number(match[3])}"
        return signed(match[1], said) + " percent"

    def temperature(self, match: Match[str]) -> str:
        scale = {"C": " Celsius", "F": " Fahrenheit", "": ""}[match[3]]
        said = self._numbers.counted(match[2], "degree")
        return signed(match[1], said) + scale

    def feet_and_inches(self, match: Match[str]) -> str:
        feet = self._numbers.counted(match[1], "foot")
        inches = str(int(match[2]))
        if inches == "0":
            return feet
        return f"{feet} {self._numbers.counted(inches, 'inch')}"

    def fraction(self, match: Match[str]) -> str:
        whole, top, bottom = match[1], int(match[2]), int(match[3])
        before = f"{whole} " if whole else ""
        if not 2 <= bottom <= 20 or top >= bottom:
            return f"{before}{match[2]} over {match[3]}"
        name = {2: "half", 4: "quarter"}.get(bottom) or self._numbers.ordinal(bottom)
        if top > 1:
            name += "s"  # never "halves": 2/2 is not under one
        if not whole:
            return f"{self._numbers.cardinal(top)} {name}"
        article = "an" if name[0] == "e" else "a"
        few = article if top == 1 else self._numbers.cardinal(top)
        return f"{self._numbers.cardinal(int(whole))} and {few} {name}"


def signed(sign: str, words: str) -> str:
    """("-", "five") -> "minus five"."""
    return _SIGN.get(sign, "") + words
