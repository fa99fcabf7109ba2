"""The callback of one call: agreed in the lead's time, told in the web server's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from agi_handlers.conversation.outcome import CallOutcome
from agi_handlers.vicidial.call_facts import CallFacts
from agi_handlers.vicidial.callback_time import parse_callback_time, spoken_time
from agi_handlers.vicidial.duties import ScheduleCallback
from agi_handlers.vicidial.server_clock import ServerClock, utc_now
from telemetry import fields

logger = logging.getLogger(__name__)


class CallbackAgreement:
    """What the caller and the bot agreed on."""

    def __init__(
        self, facts: CallFacts, clock: Callable[[], ServerClock | None]
    ) -> None:
        self._facts = facts
        self._clock = clock
        self._at: datetime | None = None

    def read(self, words: str, language: str) -> str | None:
        """The model's words, as they are read back; None: not understood.

        The moment is fixed now: "in ten minutes" must not move while the talk goes on.
        """
        now = self._lead_now()
        moment = parse_callback_time(words, now)
        self._at = None
        if moment is None:
            return None
        self._at = utc_now(self._clock()) + (moment - now)
        return spoken_time(moment, now, language)

    def schedule(
        self, outcome: CallOutcome, lead_id: int | None
    ) -> ScheduleCallback | None:
        """What VICIdial is told; None: nothing was agreed, or it cannot be told."""
        if not outcome.callback or lead_id is None or outcome.is_opt_out:
            return None
        if self._at is None:
            self.read(outcome.callback, "en")
        clock, at = self._clock(), self._at
        if clock is None or at is None or not self._facts.campaign_id:
            logger.warning(
                "callback_not_scheduled",
                extra=fields(
                    is_time_understood=at is not None,
                    is_server_time_known=clock is not None,
                    campaign=self._facts.campaign_id,
                ),
            )
            return None
        # agreed for a moment that has passed while the talk went on: now, then
        at = max(at, utc_now(clock) + timedelta(minutes=1))
        return ScheduleCallback(
            lead_id,
            self._facts.campaign_id,
            clock.local(at).strftime("%Y-%m-%d %H:%M:00"),
            f"bot: {outcome.callback}"[:100],
        )

    def _lead_now(self) -> datetime:
        """The lead's local time, or the web server's, without a zone."""
        clock = self._clock()
        now, offset_s = utc_now(clock), self._facts.lead.utc_offset_s
        if offset_s is None and clock is not None:
            offset_s = clock.utc_offset_s
        if offset_s is None:
            return now.astimezone().replace(tzinfo=None)
        return now.replace(tzinfo=None) + timedelta(seconds=offset_s)
