"""A running call's sound for operators: its levels, and both sides to listen in.

A tap on the call's leg.  While nobody listens it only remembers: the caller's last half
second and the bot's current speech.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Final

import numpy as np

from agi_handlers.records.stereo_timeline import StereoTimeline
from model.audio.frames import SAMPLES_PER_MS
from model.client import Listener

SILENCE_DBFS: Final = -96
_METER_MS: Final = 500
_FRAME_MS: Final = 20
_PIECE_BYTES: Final = 100 * SAMPLES_PER_MS * 4  # 100 ms of both sides: ten a second


class LiveAudio:
    """One call's sound."""

    def __init__(self, *, is_full_duplex: bool) -> None:
        self._is_full_duplex = is_full_duplex
        self._recent: deque[bytes] = deque(maxlen=_METER_MS // _FRAME_MS)
        self._speech = bytearray()
        self._heard_ms = 0
        self._timeline: StereoTimeline | None = None  # None: nobody listens
        self._listeners: list[Listener] = []

    @property
    def num_listeners(self) -> int:
        return len(self._listeners)

    def levels(self) -> tuple[int, int]:
        """dBFS of caller and bot: the loudest sample of the last half second."""
        end = self._heard_ms * SAMPLES_PER_MS * 2
        start = max(0, end - _METER_MS * SAMPLES_PER_MS * 2)
        return _peak(b"".join(self._recent)), _peak(bytes(self._speech[start:end]))

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Let somebody hear it from now on; returns what ends that."""
        if self._timeline is None:
            self._timeline = StereoTimeline(is_full_duplex=self._is_full_duplex)
            self._timeline.queue(bytes(self._speech))
            self._timeline.skip(self._heard_ms)
        self._listeners.append(listener)

        def stop() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)
            if not self._listeners:
                self._timeline = None

        return stop

    def close(self) -> None:
        """The call is over."""
        self._hand_out(at_least=1)
        listeners, self._listeners = self._listeners, []
        self._timeline = None
        for listener in listeners:
            listener.ended()

    # --- the tap ---

    def queue(self, pcm16: bytes) -> None:
        self._speech += pcm16
        if self._timeline is not None:
            self._timeline.queue(pcm16)

    def end_of_speech(self) -> None:
        if self._timeline is not None:
            self._timeline.end_of_speech()

    def stopped(self, heard_ms: int) -> None:
        self._speech.clear()
        self._heard_ms = 0
        if self._timeline is not None:
            self._timeline.stopped(heard_ms)

    def finished(self) -> None:
        self._speech.clear()
        self._heard_ms = 0
        if self._timeline is not None:
            self._timeline.finished()

    def caller(self, pcm16: bytes, heard_ms: int) -> None:
        self._recent.append(pcm16)
        self._heard_ms = heard_ms
        if self._timeline is not None:
            self._timeline.caller(pcm16, heard_ms)
            self._hand_out(_PIECE_BYTES)

    def _hand_out(self, at_least: int) -> None:
        timeline = self._timeline
        if timeline is not None and timeline.num_ready_bytes >= at_least:
            stereo = timeline.take()
            for listener in list(self._listeners):
                listener.heard(stereo)


def _peak(pcm16: bytes) -> int:
    samples = np.frombuffer(pcm16[: len(pcm16) // 2 * 2], dtype="<i2")
    loudest = int(np.abs(samples.astype(np.int32)).max()) if samples.size else 0
    if loudest == 0:
        return SILENCE_DBFS
    return max(SILENCE_DBFS, round(20 * math.log10(loudest / 32768)))
