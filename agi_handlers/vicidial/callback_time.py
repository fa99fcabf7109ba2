"""When to call back: the model's words -> a moment.  Pure; the time is an argument.

    2026-11-23 10:00   tomorrow 10 am   tuesday 3 pm   15:30   in 2 hours   +45m

A moment in the past, or more than a quarter of a year ahead, is a mistake, and so is
everything that is not understood: VICIdial stores nonsense as a date of zeros.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_ISO = re.compile(r"(\d{4})-(\d{2})-(\d{2})(?:[ t]+(\d{1,2}):(\d{2})(?::\d{2})?)?")
_CLOCK = re.compile(r"(?:at )?(\d{1,2})(?::(\d{2}))?\s*(am|pm|a\.m\.|p\.m\.)?")
_WORDS = {"noon": "12 pm", "midday": "12 pm", "morning": "10 am", "afternoon": "3 pm",
          "evening": "6 pm"}  # fmt: skip
_SPAN = re.compile(
    r"(?:in |\+)\s*(\d{1,3}|an?|half an)\s*(m|min|mins|minutes?|h|hours?|d|days?)"
)
_LONGEST = timedelta(days=92)
_DEFAULT_HOUR = 10  # a day without a time: in the morning, when offices are open


def parse_callback_time(text: str, now: datetime) -> datetime | None:
    """The moment meant, in the clock of `now`; None: not understood, or no use."""
    words = " ".join(text.lower().replace(",", " ").split())
    moment = _span(words, now) or _iso(words) or _day_and_time(words, now)
    if moment is None or not now < moment <= now + _LONGEST:
        return None
    return moment.replace(second=0, microsecond=0)


def _span(words: str, now: datetime) -> datetime | None:
    found = _SPAN.fullmatch(words)
    if found is None:
        return None
    number, unit = found[1], found[2][0]
    count = {"a": 1.0, "an": 1.0, "half an": 0.5}.get(number)
    count = float(number) if count is None else count
    seconds = count * {"m": 60, "h": 3600, "d": 86_400}[unit]
    # rounded up to the minute: "in a minute" must not be in the past
    return now + timedelta(seconds=seconds + 59)


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
    elif found[2] is None and 1 <= hour <= 7:
        hour += 12  # "at three": nobody wants a call at three in the night
    return (hour, minute) if hour < 24 and minute < 60 else None
