"""What is noted of one conversation while it runs: its turns and happenings.

Pure: moments go in as method calls with their time, finished rows come out at `sink`.
A turn's row is given out again at each stage from its release on, so that whatever
ends the process, at most the turn in hand is missing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from agi_handlers.records.redaction import redact
from agi_handlers.records.rows import (
    Disclosure,
    EventKind,
    EventRow,
    Sink,
    TurnFate,
    TurnRow,
    discard,
)
from model.audio.frames import SAMPLES_PER_MS
from model.speech import ReplyAudio, ReplyDone, TypedTurn, UserTurn

_DIGIT = re.compile(r"\d")
_MAX_TEXT_CHARS = 8_000  # a reply is at most some hundred tokens


@dataclass(slots=True)
class _Piece:
    text: str
    num_samples: int = 0


@dataclass(slots=True)
class _OpenTurn:
    row: TurnRow
    is_secret: bool = False
    pieces: list[_Piece] = field(default_factory=list)


class CallNotes:
    """The notes of one call."""

    def __init__(
        self, call_id: str = "", sink: Sink = discard, *, redacts: bool = False
    ) -> None:
        """`redacts`: no numbers in what was said."""
        self._call_id = call_id
        self._rows = sink
        self._redacts = redacts
        self.is_secret = False
        """What is said now is: no numbers of it, whatever the campaign's rule."""
        self._open: dict[int, _OpenTurn] = {}
        self.disclosure: Disclosure = ""
        self._has_disclosure = False  # by a phrase of its own
        """What became of the greeting."""

    def asked(self, turn: int, at_ms: int, user: UserTurn) -> None:
        """A reply to what the caller said is being computed."""
        row = TurnRow(self._call_id, turn, "reply", asked_ms=at_ms)
        if isinstance(user, TypedTurn):
            keys = "".join("*" for key in user.text if not key.isspace())
            row = replace(row, said_kind="keys", said_text=keys)
        else:
            said_ms = len(user.pcm16) // 2 * 1000 // user.rate_hz
            row = replace(row, said_kind="speech", said_ms=said_ms)
        self._open[turn] = _OpenTurn(row)

    def phrase(self, turn: int, at_ms: int, name: str, text: str) -> None:
        """One of the campaign's fixed phrases is being spoken."""
        row = TurnRow(
            self._call_id,
            turn,
            "phrase",
            phrase=name,
            asked_ms=at_ms,
            released_ms=at_ms,
            reply_text=text[:_MAX_TEXT_CHARS],
        )
        self._open[turn] = _OpenTurn(row)

    def released(self, turn: int, at_ms: int, speech_ended_ms: int | None) -> None:
        """The caller's turn is surely over."""
        if (note := self._open.get(turn)) is None:
            return
        note.row = replace(note.row, released_ms=at_ms, speech_ended_ms=speech_ended_ms)
        self._write(note)

    def words(self, turn: int, text: str) -> None:
        """What the caller said is known as text."""
        if (note := self._open.get(turn)) is None or note.row.said_kind != "speech":
            return
        note.row = replace(note.row, said_text=text[:_MAX_TEXT_CHARS])
        if note.row.released_ms is not None:
            self._write(note)

    def text(self, turn: int, text: str) -> None:
        """The reply goes on, as the model writes it."""
        if (note := self._open.get(turn)) is None or note.row.source == "phrase":
            return
        whole = (note.row.reply_text + _shown(note.row, text))[:_MAX_TEXT_CHARS]
        note.row = replace(note.row, reply_text=whole)

    def audio(self, event: ReplyAudio) -> None:
        """Speech goes to the leg."""
        if (note := self._open.get(event.turn)) is None:
            return
        if event.piece >= len(note.pieces):
            note.pieces.append(_Piece(_shown(note.row, event.text)))
        note.pieces[-1].num_samples += len(event.pcm16) // 2

    def played(self, turn: int, at_ms: int) -> None:
        """The first of it went to the leg."""
        if (note := self._open.get(turn)) is None:
            return
        note.row = replace(note.row, played_ms=at_ms)
        self._write(note)

    def done(self, done: ReplyDone) -> None:
        """The speech half has finished the reply."""
        if (note := self._open.get(done.turn)) is None:
            return
        timings, usage = done.timings, done.usage
        note.row = replace(
            note.row,
            reply_text=note.row.reply_text
            or _shown(note.row, done.text)[:_MAX_TEXT_CHARS],
            queue_ms=timings.queue_ms,
            encode_ms=timings.encode_ms,
            first_token_ms=timings.first_token_ms,
            first_audio_ms=timings.first_audio_ms,
            total_ms=timings.total_ms,
            finish_reason=done.finish_reason,
            prompt_tokens=usage.prompt_tokens,
            audio_tokens=usage.audio_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            end_of_turn_probability=done.end_of_turn_probability,
        )
        self._write(note)

    def failed(self, turn: int, at_ms: int, code: str, detail: str) -> None:
        """The speech half could not make it."""
        self.happened(at_ms, "error", code, detail, turn)
        if (note := self._open.get(turn)) is not None:
            note.row = replace(note.row, fate="failed", ended_ms=at_ms)
            self._write(note)

    def sealed(
        self, turn: int, at_ms: int, fate: TurnFate, heard_ms: int | None = None
    ) -> None:
        """The turn is over; `heard_ms` of it were heard (None: all that was made).

        One that was never released had no listener and leaves no trace.
        """
        note = self._open.pop(turn, None)
        if note is None or note.row.released_ms is None:
            return
        if note.row.fate == "failed":
            fate = "failed"
        made_ms = sum(p.num_samples for p in note.pieces) // SAMPLES_PER_MS
        heard_ms = made_ms if heard_ms is None else min(heard_ms, made_ms)
        if note.row.phrase == "disclosure" or (
            note.row.phrase == "greeting" and not self._has_disclosure
        ):
            self._has_disclosure = note.row.phrase == "disclosure"
            self.disclosure = "heard" if fate == "heard" else "cut_short"
        note.row = replace(
            note.row,
            fate=fate,
            ended_ms=at_ms,
            heard_ms=heard_ms,
            heard_text=_heard(note.pieces, heard_ms),
        )
        self._write(note)

    def happened(
        self,
        at_ms: int,
        kind: EventKind,
        name: str = "",
        detail: str = "",
        turn: int | None = None,
    ) -> None:
        """Something else happened."""
        detail = detail[:_MAX_TEXT_CHARS]
        if self._redacts or self.is_secret:
            detail = redact(detail)
        self._rows(EventRow(self._call_id, at_ms, kind, name, detail, turn))

    def _write(self, note: _OpenTurn) -> None:
        row = note.row
        note.is_secret = note.is_secret or self.is_secret
        if self._redacts or note.is_secret:
            row = replace(
                row,
                said_text=redact(row.said_text),
                reply_text=redact(row.reply_text),
                heard_text=redact(row.heard_text),
            )
        self._rows(row)


def _shown(row: TurnRow, text: str) -> str:
    """A reply to typed keys without digits: models repeat card numbers and PINs."""
    return _DIGIT.sub("*", text) if row.said_kind == "keys" else text


def _heard(pieces: Sequence[_Piece], heard_ms: int) -> str:
    """The words heard: whole pieces, and of the one cut its share, rounded down."""
    left_samples = heard_ms * SAMPLES_PER_MS
    words: list[str] = []
    for piece in pieces:
        of_piece = piece.text.split()
        # sealing counts whole milliseconds, a piece may be some samples longer
        if left_samples + SAMPLES_PER_MS > piece.num_samples:
            words += of_piece
            left_samples -= piece.num_samples
            continue
        num_heard = len(of_piece) * max(0, left_samples) // piece.num_samples
        words += of_piece[:num_heard]
        break
    return " ".join(words)
