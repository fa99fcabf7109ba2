"""What the phone half keeps of a dialogue, to tell it to another sidecar.

A sidecar that dies takes the dialogue's history with it.  From what has gone over the
wire anyway (the caller's parts one way, text and speech the other) the settled turns
are kept here, the newest of them, as the next sidecar will need them.  No I/O.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from model.speech import ReplyAudio, ReplyEvent, UserTurn, Utterance
from model.spoken_reply import SpokenReply


@dataclass(frozen=True, slots=True)
class PastTurn:
    """A turn as it went: the caller's part, if any, and what he heard of ours."""

    user: UserTurn | None
    heard: str


@dataclass(slots=True)
class _OpenTurn:
    user: UserTurn | None
    spoken: SpokenReply


@dataclass(slots=True)
class CallMemory:
    """One call's turns."""

    rate_hz: int
    max_audio_bytes: int
    """Of the caller's speech; older turns are given up, theirs and ours."""
    _open: dict[int, _OpenTurn] = field(default_factory=dict)
    _past: deque[PastTurn] = field(default_factory=deque)
    _audio_bytes: int = 0

    def past(self) -> list[PastTurn]:
        """The settled turns that are still known, oldest first."""
        return list(self._past)

    def open(self, number: int, user: UserTurn | None) -> None:
        """A turn has begun, or begins anew."""
        self._open[number] = _OpenTurn(user, SpokenReply(self.rate_hz))

    def note(self, event: ReplyEvent) -> None:
        """Something of the turn's reply has come."""
        turn = self._open.get(event.turn)
        if turn is None or not isinstance(event, ReplyAudio):
            return
        spoken = turn.spoken
        # A piece's text comes with its first audio.
        start = len(spoken.text)
        if event.text:
            spoken.add_text(event.text + " ")
        spoken.add_speech(
            event.piece,
            event.pcm16,
            start_chars=start,
            end_chars=start + len(event.text),
        )

    def settle(self, number: int, heard_ms: int | None) -> None:
        """The turn is over."""
        turn = self._open.pop(number, None)
        if turn is None:
            return
        self._past.append(PastTurn(turn.user, turn.spoken.heard(heard_ms).strip()))
        self._audio_bytes += _audio_bytes(turn.user)
        while self._audio_bytes > self.max_audio_bytes or len(self._past) > _MAX_TURNS:
            self._audio_bytes -= _audio_bytes(self._past.popleft().user)

    def forget(self, number: int) -> None:
        """The turn never was."""
        self._open.pop(number, None)


_MAX_TURNS = 100


def _audio_bytes(user: UserTurn | None) -> int:
    return len(user.pcm16) if isinstance(user, Utterance) else 0
