"""What the responses of single AGI commands mean, typed.

``result=-1`` or a word in brackets means something else for every command; the
constructors in ``commands.py`` join each command with its reading here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from agi_handlers.agi.messages import AgiResponse
from agi_handlers.errors import AgiProtocolError, ChannelGone

# A to D are on no telephone, but senders of DTMF know them.
KEYS = frozenset("0123456789*#ABCD")
# RECORD FILE measures its time limit in steps of one frame.
_FRAME_MS = 20


class ChannelState(IntEnum):
    """Result of CHANNEL STATUS.  Source: ``include/asterisk/channelstate.h``."""

    DOWN = 0
    RESERVED = 1
    OFF_HOOK = 2
    DIALING = 3
    RING = 4  # ringing here: not answered yet
    RINGING = 5  # the far side rings
    UP = 6
    BUSY = 7
    DIALING_OFF_HOOK = 8
    PRE_RING = 9


class PlaybackEnd(StrEnum):
    FINISHED = "finished"
    DIGIT = "digit"
    INTERRUPTED = "interrupted"
    FAILED = "failed"  # no such file, or a hang-up: Asterisk says -1 for both


@dataclass(frozen=True, slots=True)
class PlaybackEnded:
    """How a STREAM FILE ended.

    endpos_samples: position at the file's own rate; Asterisk does not tell it after
    an interrupt. played_ms: time from the command to its end by our clock.
    """

    how: PlaybackEnd
    digit: str | None = None
    endpos_samples: int | None = None
    played_ms: int | None = None


class RecordingEnd(StrEnum):
    TIMEOUT = "timeout"
    SILENCE = "silence"
    DIGIT = "digit"
    HANGUP = "hangup"
    WRITE_FAILED = "write_failed"  # folder missing, not writable, unknown format
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RecordingEnded:
    """How a RECORD FILE ended; the file is there unless WRITE_FAILED."""

    how: RecordingEnd
    digit: str | None = None
    endpos_samples: int = 0


@dataclass(frozen=True, slots=True)
class ExecEnded:
    """Result of EXEC: whatever the application returned.

    Not to be trusted: AudioSocket says -1 for a good end up to 20.13 and 22.3, and
    Playback says 0 on a dead channel. Ask ``channel_status()`` instead.
    """

    result: int

    @property
    def is_unknown_application(self) -> bool:
        return self.result == -2


def number_of(response: AgiResponse) -> int:
    number = response.result_number
    if number is None:
        raise AgiProtocolError(f"response without a number: {response}")
    return number


def no_meaning(response: AgiResponse) -> None:
    """Commands whose result says nothing: that it came is the answer."""


def value_of(response: AgiResponse) -> str | None:
    return response.value if number_of(response) == 1 else None


def channel_state(response: AgiResponse) -> ChannelState:
    try:
        return ChannelState(number_of(response))
    except ValueError as exc:
        raise AgiProtocolError(f"not a channel state: {response}") from exc


def _digit(number: int) -> str | None:
    digit = chr(number) if 0 < number < 128 else ""
    return digit if digit in KEYS else None


def digit_or_none(response: AgiResponse) -> str | None:
    number = number_of(response)
    if number < 0:
        raise ChannelGone("the caller left while a key was waited for")
    return _digit(number)  # 0: time over; 1: ended by a new command


def playback_ended(response: AgiResponse) -> PlaybackEnded:
    number = number_of(response)
    if number < 0:
        return PlaybackEnded(PlaybackEnd.FAILED, endpos_samples=response.endpos)
    if number == 0:
        return PlaybackEnded(PlaybackEnd.FINISHED, endpos_samples=response.endpos)
    return PlaybackEnded(PlaybackEnd.DIGIT, _digit(number), response.endpos)


def recording_ended(response: AgiResponse) -> RecordingEnded:
    """By the word in brackets: the number differs between versions.

    Silence and the end of time share the word; then the number is the time that was
    left (0 or 1 ms, at most a frame, when it was over).
    """
    number, endpos_samples = number_of(response), response.endpos or 0
    match response.value:
        case "timeout":
            is_silence = number > _FRAME_MS
            how = RecordingEnd.SILENCE if is_silence else RecordingEnd.TIMEOUT
            return RecordingEnded(how, endpos_samples=endpos_samples)
        case "dtmf":
            return RecordingEnded(RecordingEnd.DIGIT, _digit(number), endpos_samples)
        case "hangup":
            return RecordingEnded(RecordingEnd.HANGUP, endpos_samples=endpos_samples)
        case "writefile":
            return RecordingEnded(RecordingEnd.WRITE_FAILED)
        case _:
            return RecordingEnded(RecordingEnd.FAILED, endpos_samples=endpos_samples)
