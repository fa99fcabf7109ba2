"""What a test caller says and when: a script of items turned into 20 ms slots.

Items, as text (`parse_item`) or as objects:

    FILE.wav      any rate, mono taken; FILE.ulaw is headerless 8 kHz mu-law
    @SECONDS      stay silent until that many seconds after the answer
    +SECONDS      stay silent for that long
    dtmf:123#     press these keys, 240 ms each
    wait:RMS,S    stay silent until a sound above RMS was heard, then S more
    quiet:RMS,S   stay silent until nothing above RMS was heard for S seconds
    bye           hang up

Pure: time and what was heard come in, slots come out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from model.audio.frames import FRAME_SAMPLES, RATE_HZ
from model.audio.g711 import ulaw_encode
from model.audio.wav import read_pcm16
from tests.end_to_end.heard_sound import Ear, rms

SLOT_S: Final = FRAME_SAMPLES / RATE_HZ
ULAW_SILENCE_SLOT: Final = b"\xff" * FRAME_SAMPLES
KEYS: Final = "0123456789*#ABCD"
# RFC 4733: the event is repeated while the key is down, its last packet three times.
_KEY_DOWN_SLOTS: Final = 5
_KEY_END_SLOTS: Final = 3
_KEY_GAP_SLOTS: Final = 4
# Times are sums of 20 ms steps: a slot that is due is not missed by rounding.
_CLOCK_S: Final = 0.001
# Quieter than this, a slot of a recording is no part of the voice.
_VOICED_RMS: Final = 200.0


@dataclass(frozen=True, slots=True)
class Say:
    """A recording, as mu-law."""

    name: str
    ulaw: bytes


@dataclass(frozen=True, slots=True)
class SilentUntil:
    at_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    for_s: float


@dataclass(frozen=True, slots=True)
class Press:
    keys: str


@dataclass(frozen=True, slots=True)
class WaitForSound:
    above_rms: float
    then_s: float


@dataclass(frozen=True, slots=True)
class WaitForQuiet:
    below_rms: float
    for_s: float


@dataclass(frozen=True, slots=True)
class HangUp:
    pass


Item: TypeAlias = (
    Say | SilentUntil | Pause | Press | WaitForSound | WaitForQuiet | HangUp
)


@dataclass(frozen=True, slots=True)
class AudioSlot:
    """20 ms of mu-law to send."""

    ulaw: bytes


@dataclass(frozen=True, slots=True)
class KeySlot:
    """One RFC 4733 packet: event number, duration so far, first and last marks."""

    event: int
    duration_samples: int
    slots_since_down: int
    is_end: bool


@dataclass(frozen=True, slots=True)
class ScriptEvent:
    """Something the script did: said_start, said_end, pressed, hanging_up."""

    name: str
    what: str = ""
    voiced_until_s: float | None = None


Slot: TypeAlias = AudioSlot | KeySlot


def parse_item(text: str) -> Item:
    """One item of the list above.

    Raises:
        ValueError: not an item.
        model.errors.InvalidAudio: the recording cannot be read.
    """
    if text == "bye":
        return HangUp()
    if text.startswith("@"):
        return SilentUntil(float(text[1:]))
    if text.startswith("+"):
        return Pause(float(text[1:]))
    kind, _, argument = text.partition(":")
    if kind == "dtmf":
        if not argument or any(key not in KEYS for key in argument.upper()):
            raise ValueError(f"not telephone keys: {argument!r}")
        return Press(argument.upper())
    if kind in ("wait", "quiet"):
        level, _, seconds = argument.partition(",")
        if kind == "wait":
            return WaitForSound(float(level), float(seconds))
        return WaitForQuiet(float(level), float(seconds))
    return recording(Path(text))


def recording(path: Path) -> Say:
    """A sound file, or headerless mu-law when its name ends in .ulaw."""
    if path.suffix == ".ulaw":
        return Say(path.name, path.read_bytes())
    return Say(path.name, ulaw_encode(read_pcm16(path, rate_hz=RATE_HZ)))


class CallerScript:
    """Plays items one after another; silence is sent whenever nothing is due."""

    def __init__(self, items: Iterable[Item] = ()) -> None:
        self._items: deque[Item] = deque(items)
        self._waiting: WaitForSound | WaitForQuiet | None = None
        self._waiting_since_s = 0.0
        self._silent_until_s = 0.0
        self._saying: Say | None = None
        self._said_bytes = 0
        self._voiced_until_s = 0.0
        self._keys = ""
        self._key_slot = 0
        self._events: list[ScriptEvent] = []
        self.has_hung_up = False

    def add(self, *items: Item) -> None:
        """More to do, after what is there already."""
        self._items.extend(items)

    @property
    def is_idle(self) -> bool:
        """Everything has been said and done."""
        return not (self._items or self._saying or self._keys or self._waiting)

    def events(self) -> list[ScriptEvent]:
        """What happened since the last time it was asked."""
        events, self._events = self._events, []
        return events

    def next_slot(self, at_s: float, ear: Ear) -> Slot:
        """What to send in the slot that begins at `at_s` after the answer."""
        while True:
            if self._keys:
                slot = self._press()
                if slot is not None:
                    return slot
                continue
            if self._saying is not None:
                return self._say(self._saying, at_s)
            # A wait that is over may ask for silence, so it comes before the clock.
            is_waiting = not self._wait_is_over(at_s, ear)
            is_silent = at_s < self._silent_until_s - _CLOCK_S
            if is_waiting or is_silent or self.has_hung_up or not self._items:
                return AudioSlot(ULAW_SILENCE_SLOT)
            self._begin(self._items.popleft(), at_s)

    def _begin(self, item: Item, at_s: float) -> None:
        match item:
            case Say():
                self._saying, self._said_bytes = item, 0
                self._events.append(ScriptEvent("said_start", item.name))
            case SilentUntil():
                self._silent_until_s = item.at_s
            case Pause():
                self._silent_until_s = at_s + item.for_s
            case Press():
                self._keys, self._key_slot = item.keys, 0
                self._events.append(ScriptEvent("pressed", item.keys))
            case WaitForSound() | WaitForQuiet():
                self._waiting, self._waiting_since_s = item, at_s
            case HangUp():
                self.has_hung_up = True
                self._events.append(ScriptEvent("hanging_up"))

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
                if at_s - quiet_since_s < for_s:
                    return False
        self._waiting = None
        return True

    def _say(self, item: Say, at_s: float) -> AudioSlot:
        ulaw = item.ulaw[self._said_bytes : self._said_bytes + FRAME_SAMPLES]
        self._said_bytes += FRAME_SAMPLES
        if rms(ulaw) > _VOICED_RMS:
            self._voiced_until_s = at_s + SLOT_S
        if self._said_bytes >= len(item.ulaw):
            self._saying = None
            self._events.append(
                ScriptEvent("said_end", item.name, self._voiced_until_s)
            )
        return AudioSlot(ulaw.ljust(FRAME_SAMPLES, b"\xff"))

    def _press(self) -> Slot | None:
        slot, key = self._key_slot, self._keys[0]
        self._key_slot += 1
        if slot < _KEY_DOWN_SLOTS + _KEY_END_SLOTS:
            return KeySlot(
                event=KEYS.index(key),
                duration_samples=min(slot + 1, _KEY_DOWN_SLOTS + 1) * FRAME_SAMPLES,
                slots_since_down=slot,
                is_end=slot >= _KEY_DOWN_SLOTS,
            )
        if slot < _KEY_DOWN_SLOTS + _KEY_END_SLOTS + _KEY_GAP_SLOTS:
            return AudioSlot(ULAW_SILENCE_SLOT)
        self._keys, self._key_slot = self._keys[1:], 0
        return None
