"""Silence where Asterisk sends nothing of the caller, so that audio keeps time.

The detector and the turns count in the caller's samples.  Asterisk sends none during a
key (180 ms), while the call is held, or when a telephone suppresses silence.
"""

from __future__ import annotations

import time

from agi_handlers.audio_leg.event_queue import LegEventQueue
from model.audio.frames import FRAME_MS, SILENCE_FRAME


class CallerClock:
    """Watches when caller audio comes, and fills gaps of a full-duplex leg."""

    def __init__(self, events: LegEventQueue, gap_after_ms: int) -> None:
        self.num_gap_frames = 0
        self._events = events
        self._gap_after_ms = gap_after_ms
        self._heard_until_s = time.monotonic()

    def heard(self) -> None:
        """Audio has come just now."""
        self._heard_until_s = time.monotonic()

    def on_frame_time(self, num_frames: int) -> None:
        """Called at each tick of the wheel: fill a gap that is there now."""
        if num_frames > 1:
            # A late tick: what the caller sent may lie unread (uvloop runs timers
            # before sockets).
            return
        quiet_ms = (time.monotonic() - self._heard_until_s) * 1000
        if quiet_ms < self._gap_after_ms:
            return
        num_gap_frames = int(quiet_ms) // FRAME_MS
        self._events.put_audio(SILENCE_FRAME * num_gap_frames)
        self.num_gap_frames += num_gap_frames
        self._heard_until_s += num_gap_frames * FRAME_MS / 1000
