"""Speech that waits for the caller's ear: chunks in, 20 ms frames out, heard counted.

Pure: whoever owns the clock takes one frame each 20 ms.
"""

from __future__ import annotations

from collections import deque

from agi_handlers.audio_leg.leg import PlaybackFinished
from model.audio.frames import (
    FRAME_BYTES,
    FRAME_MS,
    SAMPLE_BYTES,
    SAMPLES_PER_MS,
)

_BYTES_PER_MS = SAMPLES_PER_MS * SAMPLE_BYTES


class PlaybackQueue:
    """What is queued, and how much of the current speech was taken from it."""

    def __init__(self, max_queued_ms: int) -> None:
        self._max_frames = max(1, max_queued_ms // FRAME_MS)
        self._frames: deque[bytes] = deque()  # the last of a speech may be short
        self._rest = b""  # what does not fill a frame yet
        self._num_added = 0
        self._num_taken = 0
        self._ends: deque[int] = deque()  # frames added at each end_of_speech
        self._heard_bytes = 0

    @property
    def is_full(self) -> bool:
        return len(self._frames) >= self._max_frames

    @property
    def is_empty(self) -> bool:
        return not self._frames and not self._rest

    @property
    def queued_ms(self) -> int:
        return len(self._frames) * FRAME_MS + len(self._rest) // _BYTES_PER_MS

    @property
    def heard_ms(self) -> int:
        """Taken since the speech began, that is since the last stop or finish."""
        return self._heard_bytes // _BYTES_PER_MS

    def add(self, pcm16: bytes) -> None:
        """Queue speech; an odd byte waits for its other half."""
        stream = self._rest + pcm16 if self._rest else pcm16
        whole = len(stream) - len(stream) % FRAME_BYTES
        for at in range(0, whole, FRAME_BYTES):
            self._frames.append(stream[at : at + FRAME_BYTES])
        self._num_added += whole // FRAME_BYTES
        self._rest = stream[whole:]

    def end_of_speech(self) -> None:
        """Mark this place: taking past it finishes the speech."""
        self._flush_rest()
        self._rest = b""  # half a sample of nothing
        if not self._ends or self._ends[-1] != self._num_added:
            self._ends.append(self._num_added)

    def finished(self) -> PlaybackFinished | None:
        """The end of a speech, if all of it has been taken; asked before each take."""
        if not self._ends or self._ends[0] > self._num_taken:
            return None
        self._ends.popleft()
        heard_ms, self._heard_bytes = self.heard_ms, 0
        return PlaybackFinished(heard_ms)

    def take(self) -> bytes | None:
        """The next frame of 320 bytes, padded with silence; None: nothing queued."""
        frame = self._pop()
        if frame is None:
            return None
        self._heard_bytes += len(frame)
        return frame if len(frame) == FRAME_BYTES else frame.ljust(FRAME_BYTES, b"\0")

    def skip(self) -> bool:
        """Lose the next frame unheard; False: nothing queued."""
        return self._pop() is not None

    def stop(self) -> int:
        """Drop everything; returns the milliseconds heard of the speech."""
        heard_ms, self._heard_bytes = self.heard_ms, 0
        self._frames.clear()
        self._ends.clear()
        self._rest = b""
        self._num_added = self._num_taken
        return heard_ms

    def _pop(self) -> bytes | None:
        if not self._frames:
            # the synthesiser is behind: what there is goes out now
            self._flush_rest()
            if not self._frames:
                return None
        self._num_taken += 1
        return self._frames.popleft()

    def _flush_rest(self) -> None:
        whole = len(self._rest) - len(self._rest) % SAMPLE_BYTES
        if whole:
            self._frames.append(self._rest[:whole])
            self._num_added += 1
            self._rest = self._rest[whole:]
