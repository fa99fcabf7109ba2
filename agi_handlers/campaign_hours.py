"""When a campaign talks: hours of the week, closed days, and whose clock counts.  Pure.

[hours]
every_day = "08:00-21:00"
saturday = "10:00-14:00, 15:00-18:00"
sunday = ""                    # closed
closed_dates = ["2026-12-25"]
clock = "lead"                 # or "server", or a zone such as "Europe/Madrid"
outside = "people"             # or "message": phrases.closed, then the bot hangs up
"""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from typing import Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, field_validator

_SPAN: Final = re.compile(r"([0-2]\d):([0-5]\d)\s*-\s*([0-2]\d):([0-5]\d)")
_DAYS: Final = (
    "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday",
)  # fmt: skip


class Hours(BaseModel):
    """The `[hours]` of a campaign file; without any it is always open."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    every_day: str = "00:00-24:00"
    monday: str | None = None
    tuesday: str | None = None
    wednesday: str | None = None
    thursday: str | None = None
    friday: str | None = None
    saturday: str | None = None
    sunday: str | None = None
    closed_dates: tuple[date, ...] = ()
    clock: str = "server"
    """`lead`: where the called party is, by the lead's time zone; `server`: VICIdial's
    web server, or this host without one; else the name of a time zone."""
    outside: Literal["people", "message"] = "people"

    @field_validator("every_day", *_DAYS)
    @classmethod
    def _spans(cls, value: str | None) -> str | None:
        if value is not None:
            read_spans(value)
        return value

    @field_validator("clock")
    @classmethod
    def _zone(cls, value: str) -> str:
        if value not in ("lead", "server"):
            try:
                ZoneInfo(value)
            except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
                raise ValueError(f"{value!r} is no time zone") from exc
        return value

    def is_open(self, local: datetime) -> bool:
        """Whether the bot talks at that moment of the clock that counts."""
        if local.date() in self.closed_dates:
            return False
        of_day: str | None = getattr(self, _DAYS[local.weekday()])
        spans = read_spans(self.every_day if of_day is None else of_day)
        minute = local.hour * 60 + local.minute
        return any(first <= minute < end for first, end in spans)

    def local_time(
        self, utc: datetime, lead_offset_s: int | None, server_offset_s: int | None
    ) -> datetime:
        """`utc` (aware) on the clock that counts, without a zone.

        An offset that is not known gives way to the next best: the server's, then
        this host's.
        """
        if self.clock not in ("lead", "server"):
            return utc.astimezone(ZoneInfo(self.clock)).replace(tzinfo=None)
        offset_s = lead_offset_s if self.clock == "lead" else None
        offset_s = server_offset_s if offset_s is None else offset_s
        if offset_s is None:
            return utc.astimezone().replace(tzinfo=None)
        return utc.replace(tzinfo=None) + timedelta(seconds=offset_s)


def read_spans(text: str) -> list[tuple[int, int]]:
    """`08:00-12:00, 13:00-17:00` -> minutes of the day, the end not included.

    Raises:
        ValueError: it is something else.
    """
    spans = []
    for part in text.split(","):
        if not part.strip():
            continue
        found = _SPAN.fullmatch(part.strip())
        if found is None:
            raise ValueError(f"{part.strip()!r}: HH:MM-HH:MM is wanted")
        first, end = _minute(found[1], found[2]), _minute(found[3], found[4])
        if not first < end:
            raise ValueError(f"{part.strip()!r} ends before it begins")
        spans.append((first, end))
    return spans


def _minute(hour: str, minute: str) -> int:
    if (hour, minute) == ("24", "00"):
        return 24 * 60
    at = time(int(hour), int(minute))  # raises ValueError for 25:00
    return at.hour * 60 + at.minute
