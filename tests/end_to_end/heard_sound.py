"""What a test caller hears: packets with arrival times -> sounds, tones, a recording.

Pure: packets and time come in. Seconds count from the answer.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.audio.frames import FRAME_MS, RATE_HZ
from model.audio.g711 import ulaw_decode

# A sound has ended after this much quiet: longer than the gaps inside words.
_HANGOVER_S: Final = 0.3
# A gap in arrival longer than this is silence to the ear, not jitter.
_GAP_S: Final = 0.06
# A tone is told from speech by nearly all energy in one place for this long.
_TONE_WINDOW_SAMPLES: Final = 1600  # 200 ms: bins of 5 Hz
_TONE_PURITY: Final = 0.9


@dataclass(frozen=True, slots=True)
class Packet:
    """20 ms of mu-law as it arrived."""

    at_s: float
    ulaw: bytes
    rms: float


@dataclass(frozen=True, slots=True)
class Sound:
    """An uninterrupted sound, first loud packet to last."""

    start_s: float
    end_s: float
    rms: float


@dataclass(frozen=True, slots=True)
class HeardEvent:
    """heard_start, heard_end (`at_s` is the last loud packet) or tone."""

    name: str
    at_s: float
    hz: int = 0


@cache
def _squares() -> NDArray[np.float64]:
    samples = np.frombuffer(ulaw_decode(bytes(range(256))), dtype="<i2")
    return samples.astype(np.float64) ** 2


def rms(ulaw: bytes) -> float:
    """Loudness of mu-law audio, 0 to 32124; 0 for nothing."""
    if not ulaw:
        return 0.0
    octets = np.frombuffer(ulaw, dtype=np.uint8)
    return float(np.sqrt(_squares().take(octets).mean()))


class Ear:
    """Keeps every packet and reports where sounds begin and end."""

    def __init__(self, threshold_rms: float = 200.0) -> None:
        self._threshold_rms = threshold_rms
        self.packets: list[Packet] = []
        self.num_lost = 0
        self._sequence: int | None = None
        self.sounds: list[Sound] = []
        self._start_s: float | None = None
        self._last_loud_s = 0.0
        self._tone_hz = 0
        self._events: list[HeardEvent] = []

    @property
    def is_hearing(self) -> bool:
        """A sound has begun and not ended."""
        return self._start_s is not None

    def events(self) -> list[HeardEvent]:
        """What was noticed since the last time it was asked."""
        events, self._events = self._events, []
        return events

    def on_sequence(self, sequence: int) -> None:
        """The number of any RTP packet, audio or key; a step over one is a loss."""
        if self._sequence is not None:
            step = (sequence - self._sequence) & 0xFFFF
            # A larger step is a new stream: Asterisk starts one at a transfer.
            if 0 < step < 1000:
                self.num_lost += step - 1
        self._sequence = sequence

    def on_packet(self, at_s: float, ulaw: bytes) -> None:
        """An audio packet has arrived."""
        loudness = rms(ulaw)
        self.packets.append(Packet(at_s, ulaw, loudness))
        if loudness > self._threshold_rms:
            self._last_loud_s = at_s
            if self._start_s is None:
                self._start_s = at_s
                self._events.append(HeardEvent("heard_start", at_s))
        self._notice_tone(at_s)
        self.on_time(at_s)

    def on_time(self, at_s: float) -> None:
        """Time has passed; no packets at all are quiet too."""
        if self._start_s is not None and at_s - self._last_loud_s > _HANGOVER_S:
            self._end_sound()

    def finish(self) -> None:
        """The call is over: what still sounds ends with its last loud packet."""
        if self._start_s is not None:
            self._end_sound()

    def last_above(self, level_rms: float) -> float:
        """When a packet was last louder than that; 0.0 when none ever was."""
        for packet in reversed(self.packets):
            if packet.rms > level_rms:
                return packet.at_s
        return 0.0

    def loud_since(self, since_s: float, level_rms: float) -> float | None:
        """The first packet from `since_s` on that is louder than that."""
        found = None
        for packet in reversed(self.packets):
            if packet.at_s < since_s:
                break
            if packet.rms > level_rms:
                found = packet.at_s
        return found

    def pcm16(self) -> bytes:
        """Everything heard, packets at their arrival times, from the answer on."""
        heard = bytearray()
        for packet in self.packets:
            at = int(packet.at_s * RATE_HZ)
            if at - len(heard) > _GAP_S * RATE_HZ:
                heard += b"\xff" * (at - len(heard))
            heard += packet.ulaw
        return ulaw_decode(bytes(heard))

    def max_gap_ms(self) -> int:
        """The longest time between two packets."""
        times = [packet.at_s for packet in self.packets]
        gaps = [b - a for a, b in itertools.pairwise(times)]
        return round(1000 * max(gaps, default=FRAME_MS / 1000))

    def _end_sound(self) -> None:
        if self._start_s is None:
            return
        start_s, self._start_s = self._start_s, None
        # The packet carries the 20 ms before the next one.
        end_s = self._last_loud_s + FRAME_MS / 1000
        loud = [p.rms for p in self.packets if start_s <= p.at_s <= self._last_loud_s]
        self.sounds.append(Sound(start_s, end_s, float(np.mean(loud))))
        self._events.append(HeardEvent("heard_end", end_s))

    def _notice_tone(self, at_s: float) -> None:
        if len(self.packets) % 5:
            return  # every 100 ms is often enough
        hz = self._dominant_hz()
        if hz != self._tone_hz:
            self._tone_hz = hz
            if hz:
                self._events.append(HeardEvent("tone", at_s, hz))

    def _dominant_hz(self) -> int:
        """Frequency of a steady tone in the last 200 ms; 0 for anything else."""
        ulaw = b"".join(p.ulaw for p in self.packets[-(_TONE_WINDOW_SAMPLES // 160) :])
        if len(ulaw) < _TONE_WINDOW_SAMPLES or rms(ulaw) < self._threshold_rms:
            return 0
        samples = np.frombuffer(ulaw_decode(ulaw), dtype="<i2").astype(np.float64)
        windowed = samples[-_TONE_WINDOW_SAMPLES:] * np.hanning(_TONE_WINDOW_SAMPLES)
        power = np.abs(np.fft.rfft(windowed)) ** 2
        peak = int(power.argmax())
        near = power[max(0, peak - 2) : peak + 3].sum()
        if near < _TONE_PURITY * power.sum():
            return 0
        return round(peak * RATE_HZ / _TONE_WINDOW_SAMPLES)
