"""Callback times, as models and people say them."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agi_handlers.vicidial.callback_time import parse_callback_time, spoken_time

NOW = datetime(2026, 11, 22, 11, 30, 12)  # a Sunday


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-23 10:00", "2026-11-23 10:00"),
        ("2026-11-23T10:00:00", "2026-11-23 10:00"),
        ("2026-11-23", "2026-11-23 10:00"),
        ("tomorrow 10 am", "2026-11-23 10:00"),
        ("Tomorrow at 3:30 p.m.", "2026-11-23 15:30"),
        ("tomorrow", "2026-11-23 10:00"),
        ("tomorrow afternoon", "2026-11-23 15:00"),
        ("tuesday 3 pm", "2026-11-24 15:00"),
        ("on tuesday at 3", "2026-11-24 15:00"),
        ("sunday 11 am", "2026-11-29 11:00"),
        ("sunday 2 pm", "2026-11-22 14:00"),
        ("today 12 pm", "2026-11-22 12:00"),
        ("15:45", "2026-11-22 15:45"),
        ("09:00", "2026-11-23 09:00"),
        ("in 2 hours", "2026-11-22 13:31"),
        ("+45m", "2026-11-22 12:16"),
        ("in half an hour", "2026-11-22 12:01"),
        ("in 3 days", "2026-11-25 11:31"),
        ("in 2 days at 4 pm", "2026-11-24 16:00"),
        ("the day after tomorrow", "2026-11-24 11:31"),
        ("next week", "2026-11-29 11:31"),
        ("this afternoon", "2026-11-22 15:00"),
        ("10 in the morning tomorrow", "2026-11-23 10:00"),
        ("half past three", "2026-11-22 15:30"),
        ("ten o'clock on monday", "2026-11-23 10:00"),
        ("ma\u00f1ana a las 10", "2026-11-23 10:00"),
        ("ma\u00f1ana por la tarde", "2026-11-23 15:00"),
        ("el martes a las 3 de la tarde", "2026-11-24 15:00"),
        ("el lunes a las 10 y media de la ma\u00f1ana", "2026-11-23 10:30"),
        ("en 2 horas", "2026-11-22 13:31"),
        ("en una hora", "2026-11-22 12:31"),
        ("hoy a las 5", "2026-11-22 17:00"),
    ],
)
def test_times_that_are_understood(text: str, expected: str) -> None:
    found = parse_callback_time(text, NOW)
    assert found is not None
    assert found.strftime("%Y-%m-%d %H:%M") == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "later", "2026-11-21 10:00", "today 9 am", "2027-11-22 10:00"),
        *("2026-13-40 10:00", "tomorrow 25:00", "tomorrow 13 pm", "0000-00-00", "99"),
    ],
)
def test_what_is_not_understood_is_no_time(text: str) -> None:
    assert parse_callback_time(text, NOW) is None


@pytest.mark.parametrize(
    ("at", "language", "expected"),
    [
        ("2026-11-22 15:00", "en-us", "today at 3 PM"),
        ("2026-11-23 10:00", "en", "tomorrow, Monday, at 10 AM"),
        ("2026-12-01 00:05", "en", "on Tuesday, December 1, at 12:05 AM"),
        ("2026-11-22 12:30", "es-mx", "hoy a las 12 y 30 de la tarde"),
        ("2026-11-23 10:00", "es", "ma\u00f1ana, lunes, a las 10 de la ma\u00f1ana"),
        ("2026-12-01 13:00", "es", "el martes 1 de diciembre, a la 1 de la tarde"),
    ],
)
def test_a_time_is_read_back_as_people_say_it(
    at: str, language: str, expected: str
) -> None:
    moment = datetime.strptime(at, "%Y-%m-%d %H:%M")
    assert spoken_time(moment, NOW, language) == expected


@given(st.text(alphabet="0123456789:-+ tminhdayomorwpa.", max_size=24))
def test_any_text_is_a_time_ahead_or_none(text: str) -> None:
    found = parse_callback_time(text, NOW)
    assert found is None or found > NOW
