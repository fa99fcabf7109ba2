"""Silence where Asterisk sends nothing of the caller, so that audio keeps time.

The detector and the turns count in the caller's samples.  Asterisk sends none during a
key (180 ms), while the call is held, or when a telephone suppresses silence.
"""

from __future__ import annotations

import logging
import time
from contextvars import copy_context
from typing import Final

from agi_handlers.audio_leg.event_queue import LegEventQueue
from agi_handlers.audio_leg.leg import CallerMissing
from model.audio.frames import FRAME_MS, SILENCE_FRAME
from telemetry import fields

logger = logging.getLogger(__name__)

_MISSING_S: Final = 1.0  # nobody is muted so completely that not a packet comes


class CallerClock:
    """Watches when caller audio comes, and fills gaps of a full-duplex leg."""

    def __init__(self, events: LegEventQueue, gap_after_ms: int) -> None:
        self.num_gap_frames = 0
        self._events = events
        self._gap_after_ms = gap_after_ms
        self._heard_until_s = self._last_heard_s = time.monotonic()
        self._is_missing = False
        self._context = copy_context()  # the call's, for its log lines

    def heard(self) -> None:
        """Audio has come just now."""
        now_s = time.monotonic()
        if self._is_missing:
            self._is_missing = False
            missed_ms = round((now_s - self._last_heard_s) * 1000)
            self._tell("caller_audio_back", missed_ms)
            self._events.put(CallerMissing(False))
        self._heard_until_s = self._last_heard_s = now_s

    def on_frame_time(self, num_frames: int) -> None:
        """Called at each tick of the wheel: fill a gap that is there now."""
        if num_frames > 1:
            # A late tick: what the caller sent may lie unread (uvloop runs timers
            # before sockets).
            return
        missing_s = time.monotonic() - self._last_heard_s
        if missing_s >= _MISSING_S and not self._is_missing:
            self._is_missing = True
            self._tell("caller_audio_missing", round(missing_s * 1000))
            self._events.put(CallerMissing(True))
        quiet_ms = (time.monotonic() - self._heard_until_s) * 1000
        if quiet_ms < self._gap_after_ms:
            return
        num_gap_frames = int(quiet_ms) // FRAME_MS
        self._events.put_audio(SILENCE_FRAME * num_gap_frames)
        self.num_gap_frames += num_gap_frames
        self._heard_until_s += num_gap_frames * FRAME_MS / 1000

    def _tell(self, event: str, missed_ms: int) -> None:
        self._context.run(logger.warning, event, extra=fields(missed_ms=missed_ms))
