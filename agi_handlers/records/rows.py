"""What is kept of a call: one row for it, one for each turn, one for each happening.

Times ending in `_ms` without further word count from the answer of the call; those of
the speech half (`queue_ms` … `total_ms`) from `asked_ms`.  A row is whole: writing it
again replaces the one before, so a lost row costs what it said and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

TurnFate: TypeAlias = Literal[
    "",  # still open
    "heard",  # to its end
    "interrupted",  # by the caller
    "cut_off",  # by the end of the call
    "dropped",  # nothing of it counted as heard
    "failed",  # could not be made
]
EventKind: TypeAlias = Literal[
    "answered_by",  # who, name; why we think so, detail
    "barge_in",
    "went_on",  # with what was held for a cough, a noise, a mere "mhm"
    "caller_audio",  # name: missing, or back; as packets, not as words
    "action",  # the model asked for something
    "confirmed",  # what became of something asked for: name `Result`, detail what
    "key",
    "prompt",
    "recording",  # paused or resumed; detail why
    "error",
    "leg_closed",
    "wish",  # the caller's own words asked for something
    "operator",  # somebody at the console did something: name what, detail who
]
Result: TypeAlias = Literal[
    "ok",
    "later",  # on disk; told as soon as VICIdial takes it
    "failed",
]
Disclosure: TypeAlias = Literal[
    "",  # no call without one: the greeting never began
    "heard",  # to its end
    "cut_short",  # by the caller or the end of the call
]


@dataclass(frozen=True, slots=True)
class CallRow:
    """Who called, whom they reached, how it ended."""

    call_id: str
    started_at: float
    """Seconds since 1970, as every other `_at`."""
    owner: str = ""
    """The phone half that has the call: host and AGI port."""
    uniqueid: str = ""
    channel: str = ""
    caller: str = ""
    """The number, masked or plain as configured."""
    caller_key: str = ""
    """A keyed digest of the number: finds a caller's calls without showing it."""
    extension: str = ""
    campaign: str = ""
    model: str = ""
    voice: str = ""
    language: str = ""
    leg: str = ""
    answered_at: float | None = None
    ended_at: float | None = None
    status: str = ""
    """Empty while the call runs; `interrupted`: the process ended in its middle."""
    reason: str = ""
    disposition: str = ""
    transfer_to: str = ""
    num_turns: int = 0
    num_barge_ins: int = 0
    error: str = ""
    recording: str = ""
    """Path below the data folder; empty: none was made."""
    persona_version: str = ""
    """Of the campaign's file, as a short digest: which words and rules it had."""
    model_version: str = ""
    """Weights, and the revision where one is known."""
    voice_version: str = ""
    """Synthesiser and voice."""
    vicidial_call_id: str = ""
    lead_id: str = ""
    list_id: str = ""
    vicidial_campaign: str = ""
    in_group: str = ""
    agent_user: str = ""
    """The remote agent's line that had the call."""
    disclosure: Disclosure = ""
    """What became of the greeting, which says who calls and that it is a machine; its
    words, and how much of them was heard, are in its turn."""
    is_opt_out: bool = False
    """The caller wants no more calls."""
    callback: str = ""
    """When he wants to be called back, in the model's words."""
    notes: str = ""
    """The model's notes for people, a line each."""


@dataclass(frozen=True, slots=True)
class TurnRow:
    """One thing the bot said, and what of the caller's it answered."""

    call_id: str
    turn: int
    source: Literal["reply", "phrase"]
    phrase: str = ""
    """The fixed phrase's name; empty for a reply."""
    said_kind: Literal["", "speech", "keys"] = ""
    said_ms: int = 0
    """Length of the caller's utterance."""
    said_text: str = ""
    """The caller's words as the model wrote them down; typed keys, each as `*`."""
    speech_ended_ms: int | None = None
    asked_ms: int = 0
    released_ms: int | None = None
    """The end of the caller's turn was sure."""
    played_ms: int | None = None
    """The first audio went to the leg."""
    ended_ms: int | None = None
    reply_text: str = ""
    heard_ms: int = 0
    heard_text: str = ""
    fate: TurnFate = ""
    queue_ms: float = 0.0
    encode_ms: float = 0.0
    first_token_ms: float = 0.0
    first_audio_ms: float = 0.0
    total_ms: float = 0.0
    finish_reason: str = ""
    prompt_tokens: int = 0
    audio_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    end_of_turn_probability: float | None = None


@dataclass(frozen=True, slots=True)
class EventRow:
    """Something that happened at one moment of a call."""

    call_id: str
    at_ms: int
    kind: EventKind
    name: str = ""
    detail: str = ""
    turn: int | None = None


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What became of something that a call asked of the world: a `confirmed` event.

    By the time of day, not the call's: VICIdial may take it days later, from another
    process than the one that had the call.
    """

    call_id: str
    at: float
    result: Result
    detail: str


Row: TypeAlias = CallRow | TurnRow | EventRow | Confirmation
Sink: TypeAlias = Callable[[Row], None]


def discard(row: Row) -> None:
    """The sink of calls that nobody keeps."""
