"""What a caller hears: audio with arrival times -> sounds, a recording, lateness.

Pure: audio and time come in. Seconds count from any one origin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from model.audio.frames import RATE_HZ, SAMPLE_BYTES
from tools.caller.sound import rms, voiced_span

# A sound has ended after this much quiet: longer than the gaps inside words.
HANGOVER_S: Final = 0.3
# What comes further ahead of its time than this is lost: Asterisk sends it on as it
# comes, and no telephone keeps more.
_MAX_LEAD_S: Final = 0.2
# A pause in arrival longer than this is the sender's, not lateness of a frame.
_PAUSE_S: Final = 0.2
# A gap shorter than this is jitter, which a telephone's buffer takes out; it gives the
# time back in the next silence.
_JITTER_S: Final = 0.06
_JITTER_BYTES: Final = int(_JITTER_S * RATE_HZ) * SAMPLE_BYTES
# Frames later than this were heard as a gap by telephones with the usual buffer.
LATE_AFTER_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Sound:
    """An uninterrupted sound, from its first voiced sample to its last."""

    start_s: float
    end_s: float


@dataclass(slots=True)
class Cadence:
    """Lateness of a stream of frames against its own first one.

    A frame that comes late moves the schedule: one stall counts once.
    """

    num_frames: int = 0
    num_late: int = 0
    num_pauses: int = 0
    max_gap_s: float = 0.0
    lateness_s: list[float] = field(default_factory=list)
    _due_s: float | None = None
    _last_s: float = 0.0

    def on_frame(self, at_s: float, duration_s: float) -> None:
        """A frame of that length has arrived."""
        self.num_frames += 1
        if self._due_s is not None:
            self.max_gap_s = max(self.max_gap_s, at_s - self._last_s)
        if self._due_s is None or at_s - self._due_s > _PAUSE_S:
            self.num_pauses += self._due_s is not None
            self._due_s = at_s
        late_s = at_s - self._due_s
        self.lateness_s.append(max(0.0, late_s))
        self.num_late += late_s > LATE_AFTER_S
        self._due_s = max(self._due_s, at_s) + duration_s
        self._last_s = at_s


class Ear:
    """Keeps everything heard and reports where sounds begin and end."""

    def __init__(self, threshold_rms: float = 200.0) -> None:
        self.threshold_rms = threshold_rms
        self.lost_s = 0.0
        self.cadence = Cadence()
        self._sounds: list[Sound] = []
        self._start_s: float | None = None
        self._last_voiced_s = 0.0
        self._heard_until_s = 0.0
        # (start, pcm16, loudness) of what was heard, in order
        self._chunks: list[tuple[float, bytes, float]] = []
        self._new: list[tuple[str, float]] = []

    @property
    def sounds(self) -> Sequence[Sound]:
        """The sounds that have ended."""
        return self._sounds

    @property
    def is_hearing(self) -> bool:
        """A sound has begun and not ended."""
        return self._start_s is not None

    @property
    def last_voiced_s(self) -> float:
        """End of the last voiced audio; 0 before any."""
        return self._last_voiced_s

    def news(self) -> list[tuple[str, float]]:
        """heard-start and heard-end, with their times, since it was asked last."""
        news, self._new = self._new, []
        return news

    def on_arrival(self, at_s: float, pcm16: bytes) -> None:
        """Audio has come over a network: when it came matters."""
        self.cadence.on_frame(at_s, len(pcm16) / SAMPLE_BYTES / RATE_HZ)
        self.on_audio(at_s, pcm16)

    def on_audio(self, at_s: float, pcm16: bytes) -> None:
        """Audio is heard now, or behind what is being heard."""
        duration_s = len(pcm16) / SAMPLE_BYTES / RATE_HZ
        span = voiced_span(pcm16, self.threshold_rms)
        start_s = max(at_s, self._heard_until_s)
        is_quiet = span is None and self._start_s is None
        if is_quiet and start_s - at_s < _JITTER_S:
            # one late frame must not delay all of the call's speech
            start_s = at_s
        if start_s - at_s > _MAX_LEAD_S:
            self.lost_s += duration_s
            return
        self._heard_until_s = start_s + duration_s
        self._chunks.append((start_s, pcm16, rms(pcm16)))
        if span is None:
            self.on_time(at_s)
            return
        voiced_from_s = start_s + span[0] / RATE_HZ
        self.on_time(voiced_from_s)
        self._last_voiced_s = start_s + span[1] / RATE_HZ
        if self._start_s is None:
            self._start_s = voiced_from_s
            self._new.append(("heard-start", voiced_from_s))

    def on_time(self, at_s: float) -> None:
        """Time has passed; no audio at all is quiet too."""
        if self._start_s is not None and at_s - self._last_voiced_s > HANGOVER_S:
            self._end_sound()

    def finish(self) -> None:
        """The call is over: what still sounds has ended."""
        if self._start_s is not None:
            self._end_sound()

    def _end_sound(self) -> None:
        assert self._start_s is not None
        self._sounds.append(Sound(self._start_s, self._last_voiced_s))
        self._new.append(("heard-end", self._last_voiced_s))
        self._start_s = None

    def loud_since(self, since_s: float, level_rms: float) -> float | None:
        """When something louder than that was first heard from then on."""
        found = None
        for start_s, _, loudness in reversed(self._chunks):
            if start_s < since_s:
                break
            if loudness > level_rms:
                found = start_s
        return found

    def last_above(self, level_rms: float) -> float:
        """When something louder than that was last heard; 0 when nothing was."""
        for start_s, pcm16, loudness in reversed(self._chunks):
            if loudness > level_rms:
                return start_s + len(pcm16) / SAMPLE_BYTES / RATE_HZ
        return 0.0

    def pcm16(self, from_s: float = 0.0) -> bytes:
        """Everything heard from then on; gaps are silence, jitter is smoothed out."""
        recording = bytearray()
        for start_s, pcm16, _ in self._chunks:
            at = round((start_s - from_s) * RATE_HZ) * SAMPLE_BYTES
            if at < 0:
                at, pcm16 = 0, pcm16[-at:]
            if at - len(recording) > _JITTER_BYTES:
                recording += bytes(at - len(recording))
            recording += pcm16
        return bytes(recording)
