"""What a caller sends: items turned into one 20 ms slot after another.

Pure: time and what was heard come in. Silence is sent whenever nothing is due.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from model.audio.frames import FRAME_BYTES, FRAME_MS, FRAME_SAMPLES, SILENCE_FRAME
from tools.caller.ear import Ear
from tools.caller.line import TelephoneLine
from tools.caller.say_items import (
    HangUp,
    Item,
    Pause,
    Press,
    Say,
    SilentUntil,
    WaitForQuiet,
    WaitForSound,
)
from tools.caller.sound import voiced_span

_FRAME_S: Final = FRAME_MS / 1000
# A key: 160 ms of RFC 4733 packets, in which Asterisk gets no audio, then a gap.
_KEY_DOWN_SLOTS: Final = 8
_KEY_GAP_SLOTS: Final = 4
# Times are sums of 20 ms steps: a slot that is due is not missed by rounding.
_CLOCK_S: Final = 0.001


@dataclass(frozen=True, slots=True)
class Slot:
    """20 ms: audio, or none while a key is down; key: released in this slot."""

    pcm16: bytes | None
    key: str | None = None
    held: str | None = None
    """The key that is down in this slot and the next one."""


@dataclass(frozen=True, slots=True)
class Said:
    """A recording that was sent, with its voiced part, in seconds.

    A sample is sent when its frame is.
    """

    name: str
    start_s: float
    voiced_start_s: float
    voiced_end_s: float


@dataclass(frozen=True, slots=True)
class MouthEvent:
    """said-start, said-end, dtmf-sent, hanging-up."""

    name: str
    what: str = ""


class Mouth:
    """Does a caller's items one after another."""

    def __init__(
        self,
        items: Iterable[Item],
        threshold_rms: float = 200.0,
        line: TelephoneLine | None = None,
    ) -> None:
        self.said: list[Said] = []
        self.has_hung_up = False
        self._threshold_rms = threshold_rms
        self._line = line
        self._items: deque[Item] = deque(items)
        self._waiting: WaitForSound | WaitForQuiet | None = None
        self._waiting_since_s = 0.0
        self._silent_until_s = 0.0
        self._saying: Say | None = None
        self._said_bytes = 0
        self._keys = ""
        self._key_slot = 0
        self._events: list[MouthEvent] = []

    @property
    def is_done(self) -> bool:
        """Nothing is left to say, to press or to wait for."""
        return not (self._items or self._saying or self._keys or self._waiting)

    def events(self) -> list[MouthEvent]:
        """What happened since it was asked last."""
        events, self._events = self._events, []
        return events

    def next_slot(self, at_s: float, answered_s: float, ear: Ear) -> Slot:
        """What to send in the slot that begins at `at_s`; both on the ear's clock."""
        slot = self._due(at_s, answered_s, ear)
        if self._line is None or slot.pcm16 is None:
            return slot
        return replace(slot, pcm16=self._line.carry(slot.pcm16))

    def _due(self, at_s: float, answered_s: float, ear: Ear) -> Slot:
        while True:
            if self._keys:
                return self._press()
            if self._saying is not None:
                return self._say(self._saying)
            # A wait that is over may ask for silence, so it comes before the clock.
            is_waiting = not self._wait_is_over(at_s, ear)
            is_silent = at_s < self._silent_until_s - _CLOCK_S
            if is_waiting or is_silent or self.has_hung_up or not self._items:
                return Slot(SILENCE_FRAME)
            self._begin(self._items.popleft(), at_s, answered_s)

    def _begin(self, item: Item, at_s: float, answered_s: float) -> None:
        match item:
            case Say():
                self._saying, self._said_bytes = item, 0
                self._note_said(item, at_s)
                self._events.append(MouthEvent("said-start", item.name))
            case SilentUntil():
                self._silent_until_s = answered_s + item.at_s
            case Pause():
                self._silent_until_s = at_s + item.for_s
            case Press():
                self._keys, self._key_slot = item.keys, 0
                self._events.append(MouthEvent("dtmf-sent", item.keys))
            case WaitForSound() | WaitForQuiet():
                self._waiting, self._waiting_since_s = item, at_s
            case HangUp():
                self.has_hung_up = True
                self._events.append(MouthEvent("hanging-up"))

    def _note_said(self, item: Say, at_s: float) -> None:
        span = voiced_span(item.pcm16, self._threshold_rms)
        if span is not None:
            first, last = span[0] // FRAME_SAMPLES, (span[1] - 1) // FRAME_SAMPLES
            self.said.append(
                Said(item.name, at_s, at_s + first * _FRAME_S, at_s + last * _FRAME_S)
            )

    def _wait_is_over(self, at_s: float, ear: Ear) -> bool:
        match self._waiting:
            case None:
                return True
            case WaitForSound(above_rms, then_s):
                loud_since_s = ear.loud_since(self._waiting_since_s, above_rms)
                if loud_since_s is None:
                    return False
                self._silent_until_s = loud_since_s + then_s
            case WaitForQuiet(below_rms, for_s):
                quiet_since_s = max(ear.last_above(below_rms), self._waiting_since_s)
                if at_s - quiet_since_s < for_s - _CLOCK_S:
                    return False
        self._waiting = None
        return True

    def _say(self, item: Say) -> Slot:
        pcm16 = item.pcm16[self._said_bytes : self._said_bytes + FRAME_BYTES]
        self._said_bytes += FRAME_BYTES
        if self._said_bytes >= len(item.pcm16):
            self._saying = None
            self._events.append(MouthEvent("said-end", item.name))
        return Slot(pcm16.ljust(FRAME_BYTES, b"\0"))

    def _press(self) -> Slot:
        slot, key = self._key_slot, self._keys[0]
        self._key_slot += 1
        if slot < _KEY_DOWN_SLOTS - 1:
            return Slot(None, held=key)
        if slot == _KEY_DOWN_SLOTS - 1:
            return Slot(None, key)
        if slot == _KEY_DOWN_SLOTS + _KEY_GAP_SLOTS - 1:
            self._keys, self._key_slot = self._keys[1:], 0
        return Slot(SILENCE_FRAME)
