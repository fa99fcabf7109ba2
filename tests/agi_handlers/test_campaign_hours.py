"""Hours of a campaign: spans, days, dates, and whose clock counts."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from agi_handlers.campaign_hours import Hours, read_spans

SATURDAY = datetime(2026, 11, 28)


def test_without_a_table_it_is_always_open() -> None:
    assert Hours().is_open(SATURDAY.replace(hour=3))


@pytest.mark.parametrize(
    ("at", "is_open"),
    [
        ("07:59", False), ("08:00", True), ("11:59", True), ("12:00", False),
        ("13:00", True), ("20:59", True), ("21:00", False),
    ],
)  # fmt: skip
def test_a_span_begins_with_its_first_minute_and_ends_before_its_last(
    at: str, is_open: bool
) -> None:
    hours = Hours(every_day="08:00-12:00, 13:00-21:00")
    hour, minute = map(int, at.split(":"))
    assert hours.is_open(SATURDAY.replace(hour=hour, minute=minute)) == is_open


def test_a_day_of_its_own_goes_before_every_day() -> None:
    hours = Hours(every_day="00:00-24:00", saturday="", sunday="10:00-11:00")
    assert not hours.is_open(SATURDAY.replace(hour=10))
    assert hours.is_open(SATURDAY.replace(day=29, hour=10))
    assert hours.is_open(SATURDAY.replace(day=30, hour=23, minute=59))


def test_a_closed_date_is_closed_all_day() -> None:
    hours = Hours.model_validate({"closed_dates": ["2026-12-25"]})
    assert not hours.is_open(datetime(2026, 12, 25, 12))
    assert hours.is_open(datetime(2026, 12, 26, 12))


@pytest.mark.parametrize(
    "wrong", ["8-21", "08:00", "25:00-26:00", "12:00-08:00", "08:60-09:00", "noon"]
)
def test_what_is_no_span_is_refused(wrong: str) -> None:
    with pytest.raises(ValidationError):
        Hours(every_day=wrong)
    with pytest.raises(ValueError, match=r"wanted|ends before|must be in"):
        read_spans(wrong)


def test_an_unknown_zone_is_refused() -> None:
    with pytest.raises(ValidationError, match="no time zone"):
        Hours(clock="Mars/Olympus")


def test_the_clock_that_counts() -> None:
    utc = datetime(2026, 11, 28, 12, tzinfo=UTC)
    lead_s, server_s = -8 * 3600, -5 * 3600
    assert Hours(clock="lead").local_time(utc, lead_s, server_s).hour == 4
    assert Hours(clock="lead").local_time(utc, None, server_s).hour == 7
    assert Hours(clock="server").local_time(utc, lead_s, server_s).hour == 7
    assert Hours(clock="Europe/Madrid").local_time(utc, lead_s, server_s).hour == 13
    own = utc.astimezone().replace(tzinfo=None)
    assert Hours().local_time(utc, None, None) == own
