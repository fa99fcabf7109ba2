"""What is counted and noted of the times a caller speaks over the bot."""

from __future__ import annotations

import logging

from agi_handlers.conversation.call_clock import CallClock
from agi_handlers.conversation.call_notes import CallNotes
from telemetry import BARGE_IN_STOP, BARGE_INS, BARGE_INS_UNDONE

logger = logging.getLogger(__name__)


class BargeIns:
    """Those of one call."""

    def __init__(self, clock: CallClock, notes: CallNotes) -> None:
        self._clock = clock
        self._notes = notes
        self._speech_started_s = 0.0
        self.num = 0

    def on_speech_started(self, at_s: float) -> None:
        """The caller's speech began then, on the loop's clock."""
        self._speech_started_s = at_s

    def bot_fell_silent(self) -> None:
        """For that speech."""
        BARGE_IN_STOP.observe(self._clock.now_s() - self._speech_started_s)

    def was_meant(self) -> None:
        """The caller wants the word: what the bot was saying is over."""
        self.num += 1
        BARGE_INS.inc()
        self._notes.happened(self._clock.now_ms(), "barge_in")
        logger.info("barge_in")

    def was_nothing(self) -> None:
        """A cough, or a mere "mhm": the bot goes on where it stopped."""
        self._notes.happened(self._clock.now_ms(), "went_on")
        BARGE_INS_UNDONE.inc()
