"""Figures -> words: cardinals, ordinals, digit by digit, and how digits are grouped."""

from __future__ import annotations

from functools import lru_cache

from num2words import num2words

# Past this nobody follows a number by ear; it is read digit by digit.
_MAX_CARDINAL = 10**15 - 1


@lru_cache(maxsize=4096)
def cardinal(value: int, language: str) -> str:
    """1234 -> "one thousand two hundred and thirty-four" (`language`: "en", "es")."""
    if abs(value) > _MAX_CARDINAL:
        return digit_by_digit(str(value), language)
    return str(num2words(value, lang=language)).replace(",", "")


@lru_cache(maxsize=1024)
def ordinal(value: int, language: str) -> str:
    if not 0 < value <= _MAX_CARDINAL:
        return cardinal(value, language)
    return str(num2words(value, lang=language, to="ordinal")).replace(",", "")


def digit_by_digit(digits: str, language: str) -> str:
    """Figures in `digits` one at a time; everything else in it is passed over."""
    return " ".join(cardinal(int(d), language) for d in digits if d in "0123456789")


def decimal(whole: str, fraction: str, point: str, language: str) -> str:
    """("3", "14", "point") -> "three point one four"; a fraction is read by digit."""
    words = cardinal(int(whole or "0"), language)
    return (
        f"{words} {point} {digit_by_digit(fraction, language)}" if fraction else words
    )


def group_digits(digits: str) -> list[str]:
    """A long digit string in the groups in which people say it."""
    match len(digits):
        case 0 | 1 | 2 | 3 | 4:
            sizes: tuple[int, ...] = (len(digits),)
        case 5:
            sizes = (5,)  # a US ZIP code
        case 7:
            sizes = (3, 4)
        case 8:
            sizes = (4, 4)
        case 10:
            sizes = (3, 3, 4)  # a North American telephone number
        case 11:
            sizes = (1, 3, 3, 4)
        case 16:
            sizes = (4, 4, 4, 4)  # a payment card
        case n:
            sizes = (3,) * (n // 3) + ((n % 3,) if n % 3 else ())
    groups: list[str] = []
    at = 0
    for size in sizes:
        groups.append(digits[at : at + size])
        at += size
    if len(groups) > 1 and len(groups[-1]) == 1:  # no lonely last digit
        groups[-2:] = [groups[-2] + groups[-1]]
    return groups


def grouped_digits(digits: str, language: str) -> str:
    """ "5551234567" -> "five five five, one two three, four five six seven"."""
    groups = group_digits("".join(d for d in digits if d in "0123456789"))
    return ", ".join(digit_by_digit(group, language) for group in groups)
