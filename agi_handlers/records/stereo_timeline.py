"""Both sides of a call on one time axis: caller left, bot right, sample by sample.

The axis is the caller's audio.  What the bot has queued is moved onto it as far as the
leg says it went out, so an interrupted reply ends where it was cut.  Where no caller
audio comes while the bot speaks (half duplex) the axis goes on with a silent caller.
Pure: pcm16 and milliseconds in, interleaved pcm16 out.
"""

from __future__ import annotations

import numpy as np

from model.audio.frames import SAMPLES_PER_MS

_BYTES_PER_MS = 2 * SAMPLES_PER_MS
# Frames of both directions come in small bursts; more bot than this without a caller
# means that none is coming.
_MAX_LEAD_MS = 200


class StereoTimeline:
    """The axis of one call."""

    def __init__(self, *, is_full_duplex: bool) -> None:
        self._is_full_duplex = is_full_duplex
        self._queued = bytearray()
        self._heard = bytearray()  # went out, has no place on the axis yet
        self._counted_ms = 0  # of the current speech
        self._ends_at_bytes: int | None = None  # of the queue: the end of the speech
        self._ready = bytearray()
        self.is_muted = False
        """What comes onto the axis is silence, both sides; time goes on."""

    def skip(self, heard_ms: int) -> None:
        """So much of what is queued was heard before the axis begins."""
        self._advance(heard_ms)
        self._heard.clear()

    def mute_ready(self) -> None:
        """Silence what is ready and was not taken yet."""
        self._ready[:] = bytes(len(self._ready))

    def queue(self, pcm16: bytes) -> None:
        """The bot's next speech is given to the leg."""
        self._queued += pcm16

    def end_of_speech(self) -> None:
        """What is queued now is a whole speech."""
        self._ends_at_bytes = len(self._queued)

    def stopped(self, heard_ms: int) -> None:
        """The bot fell silent; the rest of the queue was never heard."""
        self._advance(heard_ms)
        self._queued.clear()
        self._counted_ms, self._ends_at_bytes = 0, None
        self._emit_lead()

    def finished(self) -> None:
        """The speech was heard to its end."""
        end = len(self._queued) if self._ends_at_bytes is None else self._ends_at_bytes
        self._move(end)
        self._counted_ms, self._ends_at_bytes = 0, None
        self._emit_lead()

    def caller(self, pcm16: bytes, heard_ms: int) -> None:
        """Caller audio came; so much of the current speech has gone out by now."""
        self._advance(heard_ms)
        if not self._is_full_duplex:
            self._emit(b"", bytes(self._heard))
            self._heard.clear()
            self._emit(pcm16, b"")
            return
        bot = bytes(self._heard[: len(pcm16)])
        del self._heard[: len(pcm16)]
        self._emit(pcm16, bot)
        self._emit_lead()

    def ended(self) -> None:
        """Nothing follows: what was heard gets its place."""
        self._emit(b"", bytes(self._heard))
        self._heard.clear()

    def take(self, keep_bytes: int = 0) -> bytes:
        """Interleaved pcm16, left right, that is ready, but for the last of it."""
        end = max(0, len(self._ready) - keep_bytes)
        ready = bytes(self._ready[:end])
        del self._ready[:end]
        return ready

    @property
    def num_ready_bytes(self) -> int:
        return len(self._ready)

    def _advance(self, heard_ms: int) -> None:
        gone_ms = heard_ms - self._counted_ms
        if gone_ms > 0:
            self._counted_ms = heard_ms
            self._move(gone_ms * _BYTES_PER_MS)

    def _move(self, num_bytes: int) -> None:
        moved = self._queued[:num_bytes]
        self._heard += moved
        del self._queued[:num_bytes]
        if self._ends_at_bytes is not None:
            self._ends_at_bytes = max(0, self._ends_at_bytes - len(moved))

    def _emit_lead(self) -> None:
        lead = len(self._heard) - (
            _MAX_LEAD_MS * _BYTES_PER_MS if self._is_full_duplex else 0
        )
        if lead > 0:
            self._emit(b"", bytes(self._heard[:lead]))
            del self._heard[:lead]

    def _emit(self, caller: bytes, bot: bytes) -> None:
        num_samples = max(len(caller), len(bot)) // 2
        if not num_samples:
            return
        both = np.zeros((num_samples, 2), dtype="<i2")
        if self.is_muted:
            caller = bot = b""
        for channel, pcm16 in enumerate((caller, bot)):
            samples = np.frombuffer(pcm16[: len(pcm16) // 2 * 2], dtype="<i2")
            both[: samples.size, channel] = samples
        self._ready += both.tobytes()
