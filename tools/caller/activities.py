"""What a channel does for one AGI command, slot by slot.  Pure: 20 ms at a time.

Each ends in the response Asterisk gives, checked against 16.28 and 22.10.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import numpy as np

from model.audio.frames import FRAME_BYTES, FRAME_MS, RATE_HZ, SAMPLE_BYTES
from tools.caller.ear import Ear
from tools.caller.mouth import Slot

# ast_dsp's default: the mean of absolute samples below which a frame is silence.
_SILENCE_LEVEL: Final = 256
# What RECORD FILE cuts off the end, where the key was still to be heard.
_KEY_REWIND_SAMPLES: Final = 200 * RATE_HZ // 1000


class Activity(Protocol):
    """Something a command does that takes time."""

    is_interruptible: bool
    """A new command, or its end of file, stops it."""
    feeds_eagi: bool
    """An EAGI script gets the caller's audio meanwhile."""

    def on_slot(self, at_s: float, slot: Slot, ear: Ear) -> str | None:
        """20 ms of call; the response when it is over."""
        ...

    def on_interrupt(self) -> str | None:
        """A new command came; the response, where there is one."""
        ...

    def on_hangup(self) -> str:
        """The caller left."""
        ...


class PlayFile:
    """STREAM FILE: ends at its end, by a key, or unanswered by the next command."""

    is_interruptible = True
    feeds_eagi = True

    def __init__(self, pcm16: bytes, keys: str, offset_samples: int = 0) -> None:
        self._pcm16 = pcm16
        self._keys = keys
        self._position = min(offset_samples * SAMPLE_BYTES, len(pcm16))

    def on_slot(self, at_s: float, slot: Slot, ear: Ear) -> str | None:
        if slot.key is not None and slot.key in self._keys:
            return self._response(ord(slot.key))
        if self._position >= len(self._pcm16):
            return self._response(0)
        ear.on_audio(at_s, self._pcm16[self._position : self._position + FRAME_BYTES])
        self._position = min(self._position + FRAME_BYTES, len(self._pcm16))
        return None

    def on_interrupt(self) -> str | None:
        return None

    def on_hangup(self) -> str:
        return self._response(-1)

    def _response(self, result: int) -> str:
        return f"200 result={result} endpos={self._position // SAMPLE_BYTES}"


class PlayToEnd(PlayFile):
    """EXEC Playback: nothing stops it but a hang-up."""

    is_interruptible = False
    feeds_eagi = False

    def __init__(self, pcm16: bytes) -> None:
        super().__init__(pcm16, keys="")

    def _response(self, result: int) -> str:
        return f"200 result={result}"


class WaitForDigit:
    """WAIT FOR DIGIT."""

    is_interruptible = True
    feeds_eagi = True

    def __init__(self, timeout_ms: int) -> None:
        self._left_ms = float("inf") if timeout_ms < 0 else timeout_ms

    def on_slot(self, at_s: float, slot: Slot, ear: Ear) -> str | None:
        if slot.key is not None:
            return f"200 result={ord(slot.key)}"
        if self._left_ms <= 0:
            return "200 result=0"
        self._left_ms -= FRAME_MS
        return None

    def on_interrupt(self) -> str | None:
        return "200 result=1"

    def on_hangup(self) -> str:
        return "200 result=-1"


class WaitSeconds:
    """EXEC Wait, and a conversation somewhere else: silence for a time."""

    is_interruptible = False
    feeds_eagi = False

    def __init__(self, for_s: float) -> None:
        self._left_ms = for_s * 1000

    def on_slot(self, at_s: float, slot: Slot, ear: Ear) -> str | None:
        self._left_ms -= FRAME_MS
        return "200 result=0" if self._left_ms < 0 else None

    def on_interrupt(self) -> str | None:
        raise AssertionError("not interruptible")

    def on_hangup(self) -> str:
        return "200 result=-1"


class RecordFile:
    """RECORD FILE: the caller's audio until a key, silence, time or hang-up.

    save: writes pcm16, returns its samples in the file's own format.
    """

    is_interruptible = False
    feeds_eagi = False

    def __init__(
        self,
        save: Callable[[bytes], int],
        keys: str,
        timeout_ms: int,
        silence_s: int = 0,
    ) -> None:
        self._save = save
        self._keys = keys
        self._timeout_ms = timeout_ms
        self._silence_ms = silence_s * 1000
        self._recorded = bytearray()
        self._elapsed_ms = 0
        self._quiet_ms = 0

    def on_slot(self, at_s: float, slot: Slot, ear: Ear) -> str | None:
        if slot.key is not None and slot.key in self._keys:
            kept = max(0, len(self._recorded) - _KEY_REWIND_SAMPLES * SAMPLE_BYTES)
            return self._response(ord(slot.key), "dtmf", bytes(self._recorded[:kept]))
        self._elapsed_ms += FRAME_MS
        if slot.pcm16 is not None:
            self._recorded += slot.pcm16
            self._quiet_ms = 0 if _is_voice(slot.pcm16) else self._quiet_ms + FRAME_MS
        if 0 < self._silence_ms < self._quiet_ms:
            # Of the silence that ended it, one second is kept.
            cut = (self._silence_ms - 1000) * RATE_HZ // 1000 * SAMPLE_BYTES
            kept = max(0, len(self._recorded) - cut)
            left_ms = self._timeout_ms - self._elapsed_ms
            return self._response(left_ms, "timeout", bytes(self._recorded[:kept]))
        if 0 <= self._timeout_ms <= self._elapsed_ms:
            return self._response(0, "timeout", bytes(self._recorded))
        return None

    def on_interrupt(self) -> str | None:
        raise AssertionError("not interruptible")

    def on_hangup(self) -> str:
        return self._response(-1, "hangup", bytes(self._recorded))

    def _response(self, result: int, word: str, pcm16: bytes) -> str:
        try:
            num_samples = self._save(pcm16)
        except OSError:
            return "200 result=-1 (writefile)"
        return f"200 result={result} ({word}) endpos={num_samples}"


def _is_voice(pcm16: bytes) -> bool:
    samples = np.frombuffer(pcm16, dtype="<i2").astype(np.int32)
    return bool(np.abs(samples).mean() >= _SILENCE_LEVEL)
