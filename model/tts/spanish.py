"""Written Spanish -> the words a person would say, in Spain or in the Americas."""

from __future__ import annotations

import re
from re import Match

from model.tts import written_forms as forms
from model.tts.number_words import (
    cardinal,
    decimal,
    digit_by_digit,
    grouped_digits,
    ordinal,
)
from model.tts.reading_rules import Reading, Rule, any_of, apply_rules, rule
from model.tts.spanish_tables import (
    ABBREVIATIONS,
    CODE_WORDS,
    CURRENCIES,
    FEMININE,
    MONTH_NAMES,
    MONTH_PATTERN,
    SYMBOLS,
    UNITS,
)

_ADDRESS_SIGNS = {
    ".": "punto",
    "/": "barra",
    "-": "guion",
    "_": "guion bajo",
    "+": "más",
    "%": "por ciento",
}
_N = forms.NUMBER
_SCALES = {"mil": "mil", "millón": "millón de", "millones": "millones de"}
_EUROPEAN_NUMBER = re.compile(
    r"(?<![\w.,])(?:(\d{1,3}(?:\.\d{3})+)(?:,(\d+))?|(\d+),(\d+))(?![\w]|[.,]\d)"
)
_PLURAL_HUNDREDTHS_ENDING = "s"


class Spanish:
    """Reads written Spanish aloud, in words only."""

    def __init__(
        self, *, has_decimal_comma: bool = False, dollar_sign: str = "$"
    ) -> None:
        """`dollar_sign`: the currency that "$" means there, "MX$" for pesos."""
        self._has_decimal_comma = has_decimal_comma
        self._dollar_sign = dollar_sign
        self._rules = [
            *self._address_rules(),
            *self._calendar_rules(),
            *self._telephone_rules(),
            *self._quantity_rules(),
            *self._number_rules(),
            *(rule(pattern, words) for pattern, words in SYMBOLS),
        ]

    def read(self, text: str) -> str:
        if self._has_decimal_comma:
            text = _EUROPEAN_NUMBER.sub(_american_number, text)
        text = re.sub(r"(?<![A-Za-z])\$", self._dollar_sign, text)
        return apply_rules(text, self._rules)

    def _address_rules(self) -> list[Rule]:
        return [
            rule(
                forms.EMAIL,
                lambda m: f"{_spell_address(m[1])} arroba {_spell_address(m[2])}",
            ),
            rule(forms.URL, _url),
            *(
                rule(pattern, _abbreviation(words), re.IGNORECASE)
                for pattern, words in ABBREVIATIONS
            ),
        ]

    def _calendar_rules(self) -> list[Rule]:
        return [
            rule(forms.ISO_DATE, lambda m: _date(m, m[1], m[2], m[3])),
            rule(forms.SLASHED_DATE, lambda m: _date(m, m[3], m[2], m[1])),
            rule(
                rf"\b(\d{{1,2}})(?:\.?º)? (?:de )?{MONTH_PATTERN}(?!\w)"
                r"(?:(?: del?|,)? (\d{4})(?!\d))?",
                lambda m: _date(m, m[3], str(_month_number(m[2])), m[1]),
                re.IGNORECASE,
            ),
            rule(forms.CLOCK, _clock),
            rule(forms.HOUR, lambda m: _clock_words(int(m[1]), 0, m[2].lower())),
        ]

    def _telephone_rules(self) -> list[Rule]:
        return [
            rule(forms.PHONE, _digit_groups),
            rule(forms.LOCAL_PHONE, _digit_groups),
            rule(forms.WORLD_PHONE, _digit_groups),
            rule(forms.DIGIT_GROUPS, _digit_groups),
            rule(
                r"(?<![\w.,/-])\d{2,3}(?: \d{2,4}){2,3}(?![\w/-]|[.,]\d)", _digit_groups
            ),
        ]

    def _quantity_rules(self) -> list[Rule]:
        money, units = any_of(CURRENCIES), any_of(UNITS)
        scale = r"(?:\s?(mil|millón|millones)\b(?: de)?)?"
        return [
            rule(
                rf"(-?)({money})\s?({_N}){scale}",
                lambda m: _money(m[1], m[2], m[3], m[4]),
            ),
            rule(
                rf"(?<![\w.,])(-?)({_N}){scale}\s?({money})(?!\w)",
                lambda m: _money(m[1], m[4], m[2], m[3]),
            ),
            rule(
                rf"(?<![\w.,])([-+]?)({_N})\s?%",
                lambda m: _sign(m[1]) + _number(m[2]) + " por ciento",
            ),
            rule(
                rf"(?<![\w.,])(-?)({_N})\s?°\s?([CF]?)(?![A-Za-z])",
                lambda m: (
                    _sign(m[1])
                    + _counted(m[2], "grado", "grados")
                    + {"C": " centígrados", "F": " Fahrenheit", "": ""}[m[3]]
                ),
            ),
            rule(
                rf"(?<![\w.,])({_N})\s?({units})(?![\w/])",
                lambda m: _counted(m[1], *UNITS[m[2]]),
            ),
            rule(r"(?<![\w.,])(\d{1,4})\.?(?:º|°|er|ero)(?!\w)", _ordinal),
            rule(r"(?<![\w.,])(\d{1,4})\.?(?:ª|ra|da|ta)(?!\w)", _feminine_ordinal),
            rule(r"(?<![\w/])24/7(?![\w/])", "las veinticuatro horas"),
            rule(r"(?<![\w/.,])1/2(?![\w/])", "medio"),
            rule(r"(?<![\w/.,])(\d{1,3})/(\d{1,3})(?![\w/])", _over),
        ]

    def _number_rules(self) -> list[Rule]:
        return [
            rule(
                rf"\b({CODE_WORDS}(?: (?:de|número|es|orden|pedido|cuenta)){{0,3}}"
                r"[:#]? ?#? ?)"
                r"(\d{3,})(?![\w%]|[.,:/-]\d)",
                lambda m: m[1].replace("#", "número ") + grouped_digits(m[2], "es"),
                re.IGNORECASE,
            ),
            rule(r"#\s?(?=\d)|#(?=\w)", "número "),
            rule(r"(?<!\w)#(?!\w)", "numeral"),
            rule(
                forms.DOTTED_NUMBER,
                lambda m: " punto ".join(_number(n) for n in re.findall(r"\d+", m[0])),
            ),
            rule(forms.MIXED_TOKEN, _mixed_token),
            rule(forms.LONG_DIGITS, _digit_groups),
            rule(forms.LEADING_ZERO, _digit_groups),
            rule(forms.RANGE, lambda m: f"{m[1]} a {m[2]}"),
            rule(forms.PLAIN_NUMBER, lambda m: _sign(m[1]) + _number(m[2])),
            rule(
                forms.ANY_DIGITS,
                lambda m: f" {grouped_digits(m[0], 'es')} ",
            ),
        ]


def _american_number(match: Match[str]) -> str:
    """1.234,50 -> 1234.50"""
    whole = (match[1] or match[3]).replace(".", "")
    fraction = match[2] or match[4]
    return f"{whole}.{fraction}" if fraction else whole


def _number(text: str) -> str:
    whole, _, fraction = text.replace(",", "").partition(".")
    return decimal(whole, fraction, "punto", "es")


def _counted(number: str, one: str, many: str) -> str:
    """ "1" -> "un dólar", "21" -> "veintiún dólares", "200" -> "doscientas libras"."""
    if number == "1":
        return f"{'una' if one in FEMININE else 'un'} {one}"
    said = _number(number)
    if one in FEMININE:
        said = re.sub(r"uno$", "una", said.replace("cientos", "cientas"))
    elif "." not in number:
        said = re.sub(r"veintiuno$", "veintiún", said)
        said = re.sub(r"uno$", "un", said)
    of = "de " if re.search(r"(?:millón|millones|billón|billones)$", said) else ""
    return f"{said} {of}{many}"


def _sign(sign: str) -> str:
    return {"-": "menos ", "+": "más "}.get(sign, "")


def _money(sign: str, currency: str, number: str, scale: str | None) -> str:
    one, many, hundredths = CURRENCIES[currency]
    amount = forms.amount(number, scale or "")
    if amount.cents is None:
        scale_words = f" {_SCALES[scale]}" if scale else ""
        return f"{_sign(sign)}{_number(number)}{scale_words} {many}"
    parts = []
    if int(amount.whole) or not amount.cents:
        parts.append(_counted(str(int(amount.whole)), one, many))
    if amount.cents:
        one_hundredth = hundredths.removesuffix(_PLURAL_HUNDREDTHS_ENDING)
        parts.append(_counted(str(amount.cents), one_hundredth, hundredths))
    return _sign(sign) + " con ".join(parts)


def _ordinal(match: Match[str]) -> str:
    said = ordinal(int(match[1]), "es")
    return said.removesuffix("o") if match[0].endswith("er") else said


def _feminine_ordinal(match: Match[str]) -> str:
    return re.sub(r"o\b", "a", ordinal(int(match[1]), "es"))


def _over(match: Match[str]) -> str:
    return f"{match[1]} sobre {match[2]}"


def _date(match: Match[str], year: str | None, month: str, day: str) -> str:
    full = forms.full_year(year) if year else 0
    if forms.calendar_date(full or 2024, int(month), int(day)) is None:
        return match[0]
    said = "primero" if int(day) == 1 else cardinal(int(day), "es")
    said += f" de {MONTH_NAMES[int(month) - 1]}"
    return f"{said} de {cardinal(full, 'es')}" if full else said


def _month_number(name: str) -> int:
    return 1 + [month[:3] for month in MONTH_NAMES].index(name[:3].lower())


def _clock(match: Match[str]) -> str:
    return _clock_words(int(match[1]), int(match[2]), (match[4] or "").lower())


def _clock_words(hour: int, minute: int, half: str) -> str:
    said = "una" if hour == 1 else re.sub("uno$", "una", cardinal(hour, "es"))
    if minute:
        said += f" {'cero ' if minute < 10 else 'y '}{cardinal(minute, 'es')}"
    elif not half:
        return f"{said} {'hora' if hour == 1 else 'horas'}"
    if half == "a":
        return f"{said} de la mañana"
    if half == "p":
        return f"{said} de la {'noche' if 8 <= hour < 12 else 'tarde'}"
    return said


def _digit_groups(match: Match[str]) -> str:
    groups = re.findall(r"\d+", match[0])
    plus = "más " if match[0].startswith("+") else ""
    if len(groups) == 1:
        return plus + grouped_digits(groups[0], "es")
    return plus + ", ".join(digit_by_digit(group, "es") for group in groups)


def _mixed_token(match: Match[str]) -> str:
    words = []
    for part in forms.letters_and_digits(match[0]):
        if part.isdigit():
            by_digit = len(part) > 2 or part.startswith("0")
            words.append(grouped_digits(part, "es") if by_digit else _number(part))
        elif part.isupper() and len(part) <= 4:
            words.append("-".join(part))
        else:
            words.append(part)
    return " ".join(words)


def _url(match: Match[str]) -> str:
    url = re.sub(r"^https?://(?:www\.)?|^www\.", "", match[0])
    stripped = url.rstrip(".,;:!?)'\"")
    path = re.split(r"[?#]", stripped)[0].rstrip("/")
    return _spell_address(path) + url[len(stripped) :]


def _spell_address(address: str) -> str:
    parts = re.findall(r"[^\W\d_]+|\d+|[./_+%-]", address)
    return " ".join(
        digit_by_digit(part, "es") if part.isdigit() else _ADDRESS_SIGNS.get(part, part)
        for part in parts
    )


def _abbreviation(words: str) -> Reading:
    def said(match: Match[str]) -> str:
        is_last = match.end() == len(match.string) and match[0].endswith(".")
        return words.rstrip(", ") + "." if is_last else words

    return said
