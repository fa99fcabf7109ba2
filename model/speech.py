"""The contract between the phone half and the speech half.

One `SpeechSession` is one call's dialogue.  Two things implement it: `model.service`
(engine and synthesiser in this process) and `model.client` (the same over the
WebSocket `/chat/live`).

    reply(turn, utterance) ─▶ TurnEnd ─▶ ReplyText / ReplyAudio … ─▶ ReplyDone
    settle(turn, heard_ms)   what the caller really heard enters the history
    forget(turn)             the utterance was no turn after all: nothing enters it

Closing a reply's iterator cancels it at once; the memory it held is free again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

WeightsKind: TypeAlias = Literal["random", "demo", "published", "scripted", "remote"]
FinishReason: TypeAlias = Literal["stop", "length", "cancelled"]
Judged: TypeAlias = Literal["person", "machine", "menu", "unsure"]
"""Who speaks at the far end, as the model hears it."""


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What one dialogue is about; fixed for its whole length."""

    call_id: str
    instructions: str
    campaign: str = "default"
    language: str = "en-us"
    voice: str = ""
    """Empty: the speech half's default voice for the language."""
    rate_hz: int = 8000
    """Of the audio in both directions."""
    max_new_tokens: int = 150
    temperature: float = 0.0
    """0 is greedy: on the phone the same question gets the same answer."""
    actions: tuple[str, ...] = ()
    """In-band actions the campaign allows, e.g. ("transfer", "hangup")."""
    transcribe: bool = False
    """After each reply, what the caller said as text: see `Transcript`."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """What the caller said in one go, pre-roll and post-roll included."""

    pcm16: bytes
    rate_hz: int
    started_ms: int = 0
    ended_ms: int = 0
    """Both since the call was answered, by the leg's own sample clock."""


@dataclass(frozen=True, slots=True)
class TypedTurn:
    """A user turn that came as text (chat users, keys the caller pressed)."""

    text: str


UserTurn: TypeAlias = Utterance | TypedTurn


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """How likely the caller has finished, by what he has said.

    Comes as soon as the utterance has been read and while its end is only suspected:
    before anything else of the reply, unless a model of its own tells it, which may be
    slower than the reply's first words.  Who cannot tell sends none.
    """

    turn: int
    probability: float
    over_from: float | None = None
    """At or above it the turn is over.  None: nobody measured what this model's
    probability is worth, and nothing should depend on it."""
    more_below: float | None = None
    """At or below it more will come.  None: it was not measured."""

    @property
    def is_calibrated(self) -> bool:
        """Whether the probability may decide anything."""
        return self.over_from is not None


@dataclass(frozen=True, slots=True)
class ReplyText:
    """The next part of the reply's text, in-band actions taken out."""

    turn: int
    text: str


@dataclass(frozen=True, slots=True)
class ReplyAudio:
    """The next part of the reply's speech, at the session's rate."""

    turn: int
    piece: int
    """Pieces are sentences or clauses, counted from 0 within the turn."""
    text: str
    """What the piece says; on its first chunk only, empty on the others."""
    pcm16: bytes


@dataclass(frozen=True, slots=True)
class ReplyAction:
    """Something the model asks for in-band: `[[transfer sales]]`."""

    turn: int
    name: str
    argument: str


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int = 0
    audio_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Timings:
    """Durations of one reply in milliseconds; 0.0 where a stage did not run."""

    queue_ms: float = 0.0
    encode_ms: float = 0.0
    first_token_ms: float = 0.0
    first_audio_ms: float = 0.0
    total_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class ReplyDone:
    """The reply is complete (its audio may still be playing)."""

    turn: int
    text: str
    finish_reason: FinishReason
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)
    end_of_turn_probability: float | None = None
    """How sure the model was that the caller had finished; None: not known."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """What the caller said, written down by the same model behind the reply.

    Comes after ReplyDone, as the reply's last event, when the session asked for
    transcripts; empty when nothing could be made out.
    """

    turn: int
    text: str


@dataclass(frozen=True, slots=True)
class Answerer:
    """Who answered a call, by one utterance of his."""

    judged: Judged
    words: str
    """What he said, written down; empty when nothing could be made out."""


ReplyEvent: TypeAlias = (
    TurnEnd | ReplyText | ReplyAudio | ReplyAction | ReplyDone | Transcript
)


class SpeechSession(Protocol):
    """One dialogue.  Turn numbers are the caller's own and must rise."""

    def reply(self, turn: int, user: UserTurn) -> AsyncIterator[ReplyEvent]:
        """Hear a user turn and answer it, streaming.

        Raises:
            SpeechOverloaded: no free slot; nothing of the turn was kept.
            SpeechUnavailable: the speech half is gone or silent.
            GenerationFailed, SynthesisFailed, ContextTooLong, InvalidAudio.
        """
        ...

    def say(self, turn: int, text: str) -> AsyncIterator[ReplyEvent]:
        """Speak a fixed text (greeting, re-prompt) without asking the model."""
        ...

    async def settle(self, turn: int, heard_ms: int | None = None) -> None:
        """End a turn: its words up to `heard_ms` (None: all) enter the history."""
        ...

    async def forget(self, turn: int) -> None:
        """Drop a turn, the caller's part included: he had not finished."""
        ...

    async def identify(self, said: Utterance) -> Answerer:
        """Who it is that answered, by what he said; nothing enters the history.

        Done when there is time for it.  "unsure" where the model cannot tell, is gone,
        or refuses; never raises SpeechError.
        """
        ...

    async def words_of(self, said: Utterance) -> str | None:
        """What he said, at once: the bot is silent meanwhile, nothing is answered yet.

        Empty: no words.  None: it cannot be told; never raises SpeechError.
        """
        ...


@dataclass(frozen=True, slots=True)
class SpeechStatus:
    """What the speech half says of itself."""

    is_ready: bool
    model: str
    weights: WeightsKind
    device: str = ""
    detail: str = ""
    """Why not ready, or what an operator should know (random weights …)."""
    version: str = ""
    """Of the model: what runs it, which kind of weights, how many, in what format."""
    voice: str = ""
    """Synthesiser and its version."""
    max_sessions: int = 0
    """0: not known."""
    num_sessions: int = 0

    @property
    def has_room(self) -> bool:
        """Whether the next dialogue would be let in."""
        return self.is_ready and not (
            self.max_sessions and self.num_sessions >= self.max_sessions
        )


class SpeechService(Protocol):
    """Opens dialogues.  A session is closed by leaving its context."""

    def open_session(
        self, options: SessionOptions
    ) -> AbstractAsyncContextManager[SpeechSession]:
        """Raises SpeechOverloaded or SpeechUnavailable on entering."""
        ...

    async def status(self) -> SpeechStatus: ...
