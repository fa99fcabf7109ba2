"""VICIdial's clock: what time its web server thinks it is.

Callbacks are in the web server's local time, and "in ten minutes" counts from now by
its clock, not by ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from agi_handlers.vicidial.look_ups import ApiVersion


@dataclass(frozen=True, slots=True)
class ServerClock:
    """Read off an answer of the `version` function."""

    utc_offset_s: int
    ahead_s: int = 0
    """Of our clock; a network's delay and a second's rounding are no difference."""

    def now(self, own_utc: datetime) -> datetime:
        """UTC by its clock, when ours says `own_utc`."""
        return own_utc + timedelta(seconds=self.ahead_s)

    def local(self, utc: datetime) -> datetime:
        """UTC -> its local time, without a zone."""
        there = utc.astimezone(UTC).replace(tzinfo=None)
        return there + timedelta(seconds=self.utc_offset_s)


def utc_now(clock: ServerClock | None) -> datetime:
    """UTC by VICIdial's clock, or by ours while that is not known."""
    own_utc = datetime.now(UTC)
    return clock.now(own_utc) if clock is not None else own_utc


_SAME_CLOCK_S = 3


def read_clock(version: ApiVersion, own_epoch_s: float) -> ServerClock | None:
    """None: the answer does not tell."""
    if version.utc_offset_s is None or version.epoch_s is None:
        return None
    ahead_s = round(version.epoch_s - own_epoch_s)
    if abs(ahead_s) <= _SAME_CLOCK_S:
        ahead_s = 0
    return ServerClock(version.utc_offset_s, ahead_s)
