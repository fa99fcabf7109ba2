"""The audio leg: one interface for every way to a caller's ear and mouth.

Caller frames in, play this, stop now, keys, gone, and how much was heard.  Ways:
AudioSocket (full duplex), recorded turns (half duplex, by AGI commands), and later
the EAGI relay.  The conversation knows nothing else about Asterisk.

Audio is 8 kHz pcm16 in both directions.  A full-duplex leg delivers caller audio all
the time.  A half-duplex leg delivers it only while it listens, then says `CallerPaused`
and waits to be told what to do: play something, or `listen()` again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

LegName: TypeAlias = Literal["audiosocket", "eagi", "recorded_turns"]
CloseReason: TypeAlias = Literal["caller_hung_up", "ended_by_us", "lost"]


@dataclass(frozen=True, slots=True)
class CallerAudio:
    """What the caller's side sent next; whole samples, any number of them."""

    pcm16: bytes


@dataclass(frozen=True, slots=True)
class CallerKey:
    """A key the caller pressed: one of 0-9, *, #, A-D."""

    key: str


@dataclass(frozen=True, slots=True)
class CallerMissing:
    """Not a packet of the caller's audio has come for a second; or some come again."""

    is_missing: bool


@dataclass(frozen=True, slots=True)
class CallerTalks:
    """Half duplex only: somebody else hears the caller while the bot speaks."""


@dataclass(frozen=True, slots=True)
class CallerPaused:
    """Half duplex only: a recording ended, all its audio has been delivered."""


@dataclass(frozen=True, slots=True)
class PlaybackFinished:
    """Everything queued before `end_of_speech()` has been played to its end."""

    heard_ms: int


@dataclass(frozen=True, slots=True)
class LegClosed:
    """No more audio either way; always the last event."""

    reason: CloseReason
    detail: str = ""


AudioListener: TypeAlias = Callable[[bytes], None]
"""Takes caller audio (pcm16) the moment it comes; must not raise."""

LegEvent: TypeAlias = (
    CallerAudio
    | CallerKey
    | CallerMissing
    | CallerTalks
    | CallerPaused
    | PlaybackFinished
    | LegClosed
)


class AudioLeg(Protocol):
    """One call's audio.  Used by one task for events and one for playing."""

    @property
    def name(self) -> LegName: ...

    @property
    def is_full_duplex(self) -> bool: ...

    def events(self) -> AsyncIterator[LegEvent]:
        """Everything that comes from the caller's side, ending with LegClosed."""
        ...

    def hand_audio_to(self, listener: AudioListener | None) -> None:
        """Call this with caller audio, in the caller's context, instead of saying
        `CallerAudio`: what comes 50 times a second need not wake a task each time.

        Audio that comes behind an event which is still unread stays among the events,
        so the order holds. None: all of it does again.
        """
        ...

    async def play(self, pcm16: bytes) -> None:
        """Queue speech behind what is queued; waits while too much is queued.

        Never raises because the caller left: then it does nothing, and `events()`
        tells the story.
        """
        ...

    def end_of_speech(self) -> None:
        """Nothing follows for now: report PlaybackFinished when all is heard."""
        ...

    def stop(self) -> int:
        """Fall silent within a frame; returns the milliseconds heard.

        Counted since the first `play` after the last stop or PlaybackFinished.
        Drops the queue; PlaybackFinished is not reported for it.
        """
        ...

    def lower(self, *, is_lowered: bool) -> None:
        """Speak softly from the next frame on, or at full voice; nothing where the
        leg cannot. Falling silent ends it."""
        ...

    def heard_ms(self) -> int:
        """Milliseconds of the current speech that have gone out so far."""
        ...

    def listen(self) -> None:
        """The bot has nothing to say: hear the caller (no-op in full duplex)."""
        ...

    async def send_keys(self, keys: str) -> bool:
        """Send DTMF towards the caller's side; False where this leg cannot."""
        ...

    async def end(self) -> None:
        """End in order: the channel stays up and AGI commands work again."""
        ...
