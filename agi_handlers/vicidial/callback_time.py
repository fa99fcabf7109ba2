"""When to call back: the model's words -> a moment, and how it is read back.  Pure.

    2026-11-23 10:00   tomorrow 10 am   tuesday 3 pm   15:30   in 2 hours   +45m
    mañana a las 10    el martes a las 3 de la tarde   en 2 horas

A moment in the past, or more than a quarter of a year ahead, is a mistake, and so is
everything that is not understood: VICIdial stores nonsense as a date of zeros.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime, timedelta
from typing import Final

_DAYS: Final = (
    "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday",
)  # fmt: skip
_ISO: Final = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})(?:[ t]+(\d{1,2}):(\d{2})(?::\d{2})?)?"
)
_CLOCK: Final = re.compile(r"(?:at )?(\d{1,2})(?:[:.](\d{2}))?\s*(am|pm)?")
_WORDS: Final = {"noon": "12 pm", "midday": "12 pm", "morning": "10 am",
                 "afternoon": "3 pm", "evening": "6 pm"}  # fmt: skip
_SPAN: Final = re.compile(
    r"(?:in |\+)\s*(\d{1,3}|an?|half an)\s*"
    r"(m|min|mins|minutes?|h|hours?|d|days?|w|weeks?)"
)
_NUMBERS: Final = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve",
)  # fmt: skip
# Other ways to say the same, in the order in which they are replaced; Spanish without
# its accents.
_SAID: Final = tuple(
    (re.compile(pattern), meant)
    for pattern, meant in (
        (r"\bde la manana\b", "am"),
        (r"\bde la (?:tarde|noche)\b", "pm"),
        (r"\bpor la manana\b", "in the morning"),
        (r"\bpor la tarde\b", "in the afternoon"),
        (r"\bpor la noche\b", "in the evening"),
        (r"\bpasado manana\b", "in 2 days"),
        (r"\bmanana\b", "tomorrow"),
        (r"\bhoy\b", "today"),
        (r"\b(?:al )?mediodia\b", "noon"),
        (r"\by media\b", ":30"),
        (r"\by cuarto\b", ":15"),
        (r"\ba las?\b", "at"),
        (r"\b(?:el )?proximo\b|\bel\b", "on"),
        (r"\bdentro de\b|\ben\b(?= (?:una?|media|\d))", "in"),
        (r"\bmedia hora\b", "half an hour"),
        (r"\buna?\b", "a"),
        (r"\bhoras?\b", "hours"),
        (r"\bminutos?\b", "minutes"),
        (r"\bdias?\b", "days"),
        (r"\bsemanas?\b", "weeks"),
        *(
            (rf"\b{spanish}\b", english)
            for spanish, english in zip(
                ("lunes", "martes", "miercoles", "jueves", "viernes", "sabado",
                 "domingo"),
                _DAYS,
                strict=True,
            )
        ),
        (r"\b(?:the )?day after tomorrow\b", "in 2 days"),
        (r"\bhalf past (\w+)", r"\1:30"),
        (r"\bquarter past (\w+)", r"\1:15"),
        *((rf"\b{word}\b", str(n)) for n, word in enumerate(_NUMBERS, 1)),
        (r"\bo ?clock\b", ""),
        (r"\b([ap]) ?m\b", r"\1m"),
        (r"\s+:", ":"),
        (r"(?<=\d) in the morning\b", " am"),
        (r"(?<=\d) in the (?:afternoon|evening)\b|(?<=\d) tonight\b", " pm"),
        (r"\bthis (?=morning|afternoon|evening)", "today "),
        (r"\bthis\b", "on"),
        (r"\btonight\b", "today evening"),
        (r"\bnext week\b", "in 1 week"),
    )
)  # fmt: skip
_LONGEST: Final = timedelta(days=92)
_DEFAULT_HOUR: Final = 10  # a day without a time: in the morning, when offices are open


def parse_callback_time(text: str, now: datetime) -> datetime | None:
    """The moment meant, in the clock of `now`; None: not understood, or no use."""
    words = _plain(text)
    moment = (
        _iso(words)
        or _span(words, now)
        or _days_ahead(words, now)
        or _day_and_time(words, now)
    )
    if moment is None or not now < moment <= now + _LONGEST:
        return None
    return moment.replace(second=0, microsecond=0)


def _plain(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text[:200].lower())
    words = "".join(c for c in decomposed if not unicodedata.combining(c))
    words = " ".join(words.replace(",", " ").replace("'", " ").split())
    if _ISO.fullmatch(words):
        return words
    words = words.replace("a.m.", "am").replace("p.m.", "pm").rstrip(".!")
    for pattern, meant in _SAID:
        words = pattern.sub(meant, words)
    return " ".join(words.split())


def _span(words: str, now: datetime) -> datetime | None:
    found = _SPAN.fullmatch(words)
    if found is None:
        return None
    seconds = _count(found[1]) * _SECONDS[found[2][0]]
    # rounded up to the minute: "in a minute" must not be in the past
    return now + timedelta(seconds=seconds + 59)


_SECONDS: Final = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def _count(number: str) -> float:
    return {"a": 1.0, "an": 1.0, "half an": 0.5}.get(number) or float(number)


def _days_ahead(words: str, now: datetime) -> datetime | None:
    """`in 2 days at 3 pm`: a day with a time of its own."""
    found = re.fullmatch(r"(in (?:\d{1,3}|a) (?:days?|weeks?)) (.+)", words)
    if found is None:
        return None
    span = _SPAN.fullmatch(found[1])
    clock = _clock(found[2])
    if span is None or clock is None:
        return None
    day = now + timedelta(seconds=_count(span[1]) * _SECONDS[span[2][0]])
    return day.replace(hour=clock[0], minute=clock[1], second=0, microsecond=0)


def _iso(words: str) -> datetime | None:
    found = _ISO.fullmatch(words)
    if found is None:
        return None
    year, month, day, hour, minute = found.groups()
    try:
        return datetime(
            int(year),
            int(month),
            int(day),
            int(hour or _DEFAULT_HOUR),
            int(minute or 0),
        )
    except ValueError:
        return None


def _day_and_time(words: str, now: datetime) -> datetime | None:
    rest = words.removeprefix("on ").removeprefix("next ")
    day, _, after = rest.partition(" ")
    if day in ("today", "tomorrow", *_DAYS):
        rest = after.strip()
        clock = _clock(rest) if rest else (_DEFAULT_HOUR, 0)
    elif (turned := _turned(rest)) is not None:
        return _day_and_time(turned, now)
    else:
        day, clock = "", _clock(rest)
    if clock is None:
        return None
    moment = now.replace(hour=clock[0], minute=clock[1], second=0, microsecond=0)
    if day == "tomorrow":
        return moment + timedelta(days=1)
    if day in _DAYS:
        ahead = (_DAYS.index(day) - now.weekday()) % 7
        moment += timedelta(days=ahead)
        return moment if moment > now else moment + timedelta(days=7)
    if not day and moment <= now:
        return moment + timedelta(days=1)
    return moment


def _turned(words: str) -> str | None:
    """`10 am tomorrow` -> `tomorrow 10 am`."""
    before, _, day = words.rpartition(" ")
    if before and day in ("today", "tomorrow", *_DAYS):
        return f"{day} {before.removesuffix(' on')}"
    return None


def _clock(words: str) -> tuple[int, int] | None:
    for word, meant in _WORDS.items():
        if words in (word, f"at {word}", f"in the {word}"):
            words = meant
    found = _CLOCK.fullmatch(words)
    if found is None:
        return None
    hour, minute, half = int(found[1]), int(found[2] or 0), (found[3] or "")[:1]
    if half and not 1 <= hour <= 12:
        return None
    if half:
        hour = hour % 12 + (12 if half == "p" else 0)
    elif 1 <= hour <= 7 and not found[1].startswith("0"):
        hour += 12  # "at three": nobody wants a call at three in the night
    return (hour, minute) if hour < 24 and minute < 60 else None


# --- read back -----------------------------------------------------------------------

_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June", "July", "August",
    "September", "October", "November", "December",
)  # fmt: skip
_DAYS_ES: Final = (
    "lunes", "martes", "mi\u00e9rcoles", "jueves", "viernes", "s\u00e1bado", "domingo",
)  # fmt: skip
_MONTHS_ES: Final = (
    "enero", "febrero", "marzo", "abril", "mayo", "junio", "julio", "agosto",
    "septiembre", "octubre", "noviembre", "diciembre",
)  # fmt: skip


def spoken_time(moment: datetime, now: datetime, language: str) -> str:
    """How a moment is said to the caller: `tomorrow, Tuesday, at 10 AM`."""
    days = (moment.date() - now.date()).days
    if language.split("-")[0].lower() == "es":
        return f"{_day_es(moment, days)} {_hour_es(moment)}"
    day = f"{_DAYS[moment.weekday()].capitalize()}, {_MONTHS[moment.month - 1]} "
    day = f"on {day}{moment.day}"
    if days == 0:
        day = "today"
    elif days == 1:
        day = f"tomorrow, {_DAYS[moment.weekday()].capitalize()}"
    minute = f":{moment.minute:02d}" if moment.minute else ""
    half = "AM" if moment.hour < 12 else "PM"
    comma = "" if days == 0 else ","
    return f"{day}{comma} at {(moment.hour - 1) % 12 + 1}{minute} {half}"


def _day_es(moment: datetime, days: int) -> str:
    weekday = _DAYS_ES[moment.weekday()]
    if days == 0:
        return "hoy"
    if days == 1:
        return f"ma\u00f1ana, {weekday},"
    return f"el {weekday} {moment.day} de {_MONTHS_ES[moment.month - 1]},"


def _hour_es(moment: datetime) -> str:
    hour = (moment.hour - 1) % 12 + 1
    article = "a la" if hour == 1 else "a las"
    minute = f" y {moment.minute}" if moment.minute else ""
    part = "de la ma\u00f1ana" if moment.hour < 12 else "de la tarde"
    part = "de la noche" if moment.hour >= 20 else part
    return f"{article} {hour}{minute} {part}"
