"""The wire protocol of `/chat/live`: one WebSocket is one dialogue.

Every message is a JSON object in a text message with a `type`.  The two that carry
audio give its size as `n_bytes` and are followed by one binary message of exactly that
size: pcm16, mono, at the rate they or `start` name.

    client            fields (= default)
    start             call_id, instructions, campaign="default", language="en-us",
                      voice="", rate_hz=8000, max_new_tokens=150, temperature=0.0,
                      actions=[], transcribe=false, protocol=1; the first message, once
    utterance         turn, n_bytes, rate_hz=8000, started_ms=0, ended_ms=0; then audio
    text              turn, text: a user turn that was typed
    say               turn, text: speak this, without asking the model
    cancel            turn: stop this reply; what was made of it may still be settled
    settle            turn, heard_ms=null: its words up to there enter the history
    forget            turn: drop it, the user's part included
    past              heard, text=null, n_bytes=0, rate_hz=8000; then audio unless
                      n_bytes is 0: a turn that another server served, before the
                      first one here
    identify          number, n_bytes, rate_hz=8000, judge=true; then audio: who is it
                      that answered, by this, or just what are its words; outside of
                      turns and history
    end               nothing more comes; the server closes

    server            fields
    ready             model, weights, rate_hz, protocol, max_utterance_bytes
    turn_end          turn, probability, over_from, more_below: how likely the user has
                      finished, before the first text; null bounds: not calibrated
    text              turn, text
    audio             turn, piece, text, n_bytes; then audio
    action            turn, name, argument
    done              turn, text, finish_reason, usage, timings,
                      end_of_turn_probability
    transcript        turn, text: what the user said; after done, if start asked for
                      it
    identified        number, judged ("person", "machine", "menu", "unsure"), words
                      (null: they were asked for alone, and cannot be told)
    error             turn (null: the whole dialogue), code, message, field

Unknown fields are ignored, so that either side may be newer.  Anything else that isn't
in the table is a `LiveProtocolError`, which names the field.  How a message is written
and read is in `model.live_wire`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, TypeAlias

from msgspec import Meta

from model.errors import InvalidAudio, InvalidRequest, SpeechError
from model.speech import (
    Judged,
    ReplyAction,
    ReplyAudio,
    ReplyDone,
    ReplyText,
    SessionOptions,
    Transcript,
    TurnEnd,
    TypedTurn,
    Utterance,
    WeightsKind,
)

PROTOCOL: Final = 1
SAMPLE_BYTES: Final = 2
MAX_TEXT_CHARS: Final = 256 * 1024
"""Of one JSON message: instructions that fill the largest context are a tenth of it."""
MAX_AUDIO_BYTES: Final = 4 * 1024 * 1024
"""Two minutes at 16 kHz; a caller's turn is cut at half a minute at 8 kHz."""

Turn = Annotated[int, Meta(ge=0, le=2**31)]
Rate = Annotated[int, Meta(ge=8000, le=48_000)]
Bytes = Annotated[int, Meta(ge=SAMPLE_BYTES, le=MAX_AUDIO_BYTES, multiple_of=2)]
Milliseconds = Annotated[int, Meta(ge=0, le=2**31)]


class LiveProtocolError(SpeechError):
    """The peer sent what the protocol doesn't have; `field` is the culprit."""

    code = "bad_message"

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Start:
    """Opens the dialogue."""

    options: SessionOptions


@dataclass(frozen=True, slots=True)
class UserTurnSent:
    """What the user said or typed; asks for a reply."""

    turn: int
    user: Utterance | TypedTurn


@dataclass(frozen=True, slots=True)
class Say:
    """A fixed text to speak."""

    turn: Turn
    text: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop generating and speaking this turn."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class Settle:
    """How much of a turn was heard; None: all of it."""

    turn: Turn
    heard_ms: Milliseconds | None = None


@dataclass(frozen=True, slots=True)
class Forget:
    """The turn never was."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class Past:
    """A turn of this dialogue that another server served."""

    user: Utterance | TypedTurn | None
    heard: str


@dataclass(frozen=True, slots=True)
class Identify:
    """Who answered?  Numbers are the client's own and must differ."""

    number: Turn
    said: Utterance
    judge: bool = True
    """False: only what was said is asked for, and at once."""


@dataclass(frozen=True, slots=True)
class End:
    """The client is done with the dialogue."""


ClientMessage: TypeAlias = (
    Start | UserTurnSent | Say | Cancel | Settle | Forget | Past | Identify | End
)


@dataclass(frozen=True, slots=True)
class Ready:
    """The dialogue is open."""

    model: str
    weights: WeightsKind
    rate_hz: Rate
    protocol: int = PROTOCOL
    max_utterance_bytes: int = MAX_AUDIO_BYTES


@dataclass(frozen=True, slots=True)
class Identified:
    """The answer to an Identify."""

    number: Turn
    judged: Judged
    words: str | None


@dataclass(frozen=True, slots=True)
class LiveError:
    """A turn failed, or with turn None the whole dialogue."""

    turn: Turn | None
    code: str
    message: str
    field: str = ""


ServerMessage: TypeAlias = (
    Ready
    | TurnEnd
    | ReplyText
    | ReplyAudio
    | ReplyAction
    | ReplyDone
    | Transcript
    | Identified
    | LiveError
)
Wire: TypeAlias = str | bytes
"""A text message or a binary message of the WebSocket."""


def is_sendable(message: Identify) -> bool:
    """Whether the server would take its audio."""
    num_bytes = len(message.said.pcm16)
    return SAMPLE_BYTES <= num_bytes <= MAX_AUDIO_BYTES and not num_bytes % SAMPLE_BYTES


def check_user_turn(message: UserTurnSent | Say) -> None:
    """Refuse here what the server would end the dialogue for.

    Raises:
        InvalidAudio, InvalidRequest: what is wrong with this turn.
    """
    match message:
        case UserTurnSent(_, Utterance(pcm16=pcm16)):
            if not SAMPLE_BYTES <= len(pcm16) <= MAX_AUDIO_BYTES:
                raise InvalidAudio(
                    f"an utterance of {len(pcm16)} bytes; at most {MAX_AUDIO_BYTES}"
                )
            if len(pcm16) % SAMPLE_BYTES:
                raise InvalidAudio("half a sample at the end of the utterance")
        case UserTurnSent(_, TypedTurn(text)) | Say(_, text):
            # JSON may write a character as six
            if len(text) * 6 > MAX_TEXT_CHARS:
                raise InvalidRequest(f"a text of {len(text)} characters is too long")
