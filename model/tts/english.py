"""Written English -> the words a person would say, American or British."""

from __future__ import annotations

import re
from re import Match

from model.tts import written_forms as forms
from model.tts.english_calendar import calendar_rules
from model.tts.english_numbers import EnglishNumbers
from model.tts.english_quantities import quantity_rules, signed
from model.tts.english_tables import (
    ABBREVIATIONS,
    BEFORE_NAME,
    CODE_WORDS,
    COMPASS,
    SPELLED,
    STREETS,
    SYMBOLS,
)
from model.tts.reading_rules import Reading, Rule, any_of, apply_rules, rule

_ADDRESS_SIGNS = {
    ".": "dot",
    "/": "slash",
    "-": "dash",
    "_": "underscore",
    "+": "plus",
    "%": "percent",
}


class English:
    """Reads written English aloud, in words only."""

    def __init__(self, *, is_british: bool = False) -> None:
        self._numbers = EnglishNumbers(is_british)
        self._rules: list[Rule] = [
            *self._address_rules(),
            *calendar_rules(self._numbers),
            # Telephone numbers before sums: "555-1234" is no range.
            *self._telephone_rules(),
            *quantity_rules(self._numbers),
            *self._code_rules(),
            *self._number_rules(),
            *(rule(pattern, words) for pattern, words in SYMBOLS),
            *(rule(rf"\b{word}\b", said) for word, said in SPELLED.items()),
        ]

    def read(self, text: str) -> str:
        return apply_rules(text, self._rules)

    def _address_rules(self) -> list[Rule]:
        streets, compass = any_of(STREETS), any_of(COMPASS)
        return [
            rule(forms.EMAIL, self._email),
            rule(forms.URL, self._url),
            *(
                rule(pattern, _abbreviation(words), re.IGNORECASE)
                for pattern, words in ABBREVIATIONS
            ),
            rule(
                rf"(?<!\w)(\d{{1,6}}) ((?:(?:{compass})\.? )?(?:[A-Z][a-z]+ |"
                rf"\d{{1,3}}(?:st|nd|rd|th) ){{1,3}})({streets})\b\.?",
                self._house,
            ),
            rule(
                rf"\b([A-Z][a-z]+ )({streets})(?:\.(?!\w)|(?=,|$))",
                lambda m: m[1] + STREETS[m[2]] + _final_stop(m),
            ),
            rule(
                rf"\b({any_of(BEFORE_NAME)})\.?(?= [A-Z])", lambda m: BEFORE_NAME[m[1]]
            ),
        ]

    def _telephone_rules(self) -> list[Rule]:
        return [
            rule(forms.PHONE, self._phone),
            rule(forms.LOCAL_PHONE, lambda m: self._numbers.groups(m[0])),
            rule(forms.WORLD_PHONE, self._world_phone),
            rule(forms.DIGIT_GROUPS, lambda m: self._numbers.groups(m[0])),
        ]

    def _code_rules(self) -> list[Rule]:
        grouped = self._numbers.grouped
        return [
            rule(
                rf"\b({CODE_WORDS}(?: (?:number|code|id|is|no\.?|of)){{0,3}}"
                r"[:#]?\s?#?\s?)"
                r"(\d{3,})(?![\w%]|[.,:/-]\d)",
                lambda m: m[1].replace("#", "number ") + grouped(m[2]),
                re.IGNORECASE,
            ),
            rule(
                r"\b((?:call|dial|text) )(\d{3,6})(?![\w-])",
                lambda m: m[1] + grouped(m[2]),
                re.IGNORECASE,
            ),
            rule(r"(?<![\w.,-])(?:911|988)(?![\w-]|[.,]\d)", lambda m: grouped(m[0])),
            rule(r"#\s?(?=\d)|#(?=\w)", "number "),
            rule(r"(?<!\w)#(?!\w)", "hash" if self._numbers.is_british else "pound"),
            rule(forms.DOTTED_NUMBER, self._dotted),
            rule(forms.MIXED_TOKEN, self._mixed_token),
            rule(forms.LONG_DIGITS, lambda m: grouped(m[0])),
            rule(forms.LEADING_ZERO, lambda m: grouped(m[0])),
        ]

    def _number_rules(self) -> list[Rule]:
        numbers = self._numbers
        return [
            rule(forms.RANGE, self._range),
            rule(
                r"(?<![\w:])(\d{1,3}):(\d{1,3})(?![\w:])", lambda m: f"{m[1]} to {m[2]}"
            ),
            rule(
                r"\b((?:in|since|until|by|year|of|from) )(1[1-9]\d\d)(?!\w|[.,]\d)",
                lambda m: m[1] + numbers.year(int(m[2])),
            ),
            rule(
                r"(?<![\w.,$-])((?:19|20)\d\d)(?!\w|[.,]\d)",
                lambda m: numbers.year(int(m[1])),
            ),
            rule(forms.PLAIN_NUMBER, lambda m: signed(m[1], numbers.number(m[2]))),
            rule(r"(?<!\w)\.(\d+)", lambda m: "point " + numbers.digits(m[1])),
            rule(forms.ANY_DIGITS, lambda m: f" {numbers.grouped(m[0])} "),
        ]

    def _email(self, match: Match[str]) -> str:
        return f"{self._spell_address(match[1])} at {self._spell_address(match[2])}"

    def _url(self, match: Match[str]) -> str:
        url = re.sub(r"^https?://(?:www\.)?|^www\.", "", match[0])
        stripped = url.rstrip(".,;:!?)'\"")
        path = re.split(r"[?#]", stripped)[0].rstrip("/")  # nobody writes a query down
        return self._spell_address(path) + url[len(stripped) :]

    def _spell_address(self, address: str) -> str:
        parts = re.findall(r"[^\W\d_]+|\d+|[./_+%-]", address)
        return " ".join(
            self._numbers.digits(part)
            if part.isdigit()
            else _ADDRESS_SIGNS.get(part, part)
            for part in parts
        )

    def _house(self, match: Match[str]) -> str:
        number, names = match[1], match[2]
        names = re.sub(
            rf"^({any_of(COMPASS)})\.? ", lambda m: COMPASS[m[1]] + " ", names
        )
        if len(number) >= 5:
            said = self._numbers.grouped(number) + ","
        elif len(number) in (3, 4) and number[-2:] != "00":
            hundreds = self._numbers.cardinal(int(number[:-2]))
            said = f"{hundreds} {self._numbers.two_digits(int(number[-2:]))}"
        else:
            said = self._numbers.cardinal(int(number))
        return f"{said} {names}{STREETS[match[3]]}{_final_stop(match)}"

    def _phone(self, match: Match[str]) -> str:
        country = match[1] or match[2]
        groups = [match[3] or match[4], match[5], match[6]]
        said = ", ".join(self._numbers.digits(group) for group in groups)
        if not country:
            return said
        plus = "plus " if country.startswith("+") else ""
        return f"{plus}{self._numbers.digits(country)}, {said}"

    def _world_phone(self, match: Match[str]) -> str:
        groups = re.findall(r"\d+", match[1])
        if len(groups) == 1:
            return "plus " + self._numbers.grouped(groups[0])
        return "plus " + ", ".join(self._numbers.digits(group) for group in groups)

    def _dotted(self, match: Match[str]) -> str:
        numbers = match[0].lstrip("v").split(".")
        is_ip = len(numbers) == 4
        read = self._numbers.digits if is_ip else self._numbers.number
        said = (" dot " if is_ip else " point ").join(read(n) for n in numbers)
        before = match.string[: match.start()].lower()
        names_it = match[0][0] == "v" and not before.endswith("version ")
        return f"version {said}" if names_it else said

    def _range(self, match: Match[str]) -> str:
        low, high = match[1], match[2]
        if int(low) >= int(high) and max(len(low), len(high)) > 3:
            return self._numbers.groups(f"{low}-{high}")
        return f"{low} to {high}"

    def _mixed_token(self, match: Match[str]) -> str:
        """ "AB-1234" -> "A-B one two three four"; "COVID-19" -> "COVID nineteen"."""
        parts = forms.letters_and_digits(match[0])
        is_code = any(part.isupper() and len(part) <= 4 for part in parts)
        words: list[str] = []
        for part in parts:
            if part.isdigit():
                words.append(self._part_of_token(part, is_code=is_code))
            elif part.isupper() and len(part) <= 4:
                # A lone "A" would be read as the article; a hyphen keeps it a letter.
                words.append("-".join(part) + ("-" if part == "A" else ""))
            else:
                words.append(part)
        return " ".join(words).replace("A- ", "A-").rstrip("-")

    def _part_of_token(self, digits: str, *, is_code: bool) -> str:
        if not is_code and re.fullmatch(r"(?:19|20)\d\d", digits):  # "mid-2026"
            return self._numbers.year(int(digits))
        if len(digits) > 2 or digits.startswith("0"):
            return self._numbers.grouped(digits)
        return self._numbers.number(digits)


def _abbreviation(words: str) -> Reading:
    return lambda match: words.rstrip(", ") + "." if _final_stop(match) else words


def _final_stop(match: Match[str]) -> str:
    """The point of "etc." at the very end is the sentence's as well."""
    return "." if match.end() == len(match.string) and match[0][-1] == "." else ""
