"""What a conversation may be told to do, and the thresholds it decides by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from agi_handlers.conversation.outcome import CallOutcome
from model.speech import UserTurn, Utterance

PhraseName: TypeAlias = Literal[
    "greeting", "still_there", "say_again", "goodbye_no_input", "time_limit",
    "transferring", "opted_out", "nobody_free", "callback_noted", "callback_unclear",
    "closed", "time_warning", "disclosure", "demo_notice",
]  # fmt: skip
CallPhase: TypeAlias = Literal["listening", "hearing", "thinking", "speaking", "ending"]
PromptName: TypeAlias = Literal["one_moment", "technical_trouble"]


@dataclass(frozen=True, slots=True)
class TurnTakingOptions:
    """Thresholds of a conversation; the campaign may set its own."""

    barge_in: bool = True
    is_greeting_protected: bool = False
    has_disclosure: bool = False
    """Words that the law wants heard come before the greeting, protected."""
    no_input_ms: int = 7_000
    """People think for 3-5 s about a question; 7 s of nothing is no thinking."""
    max_reprompts: int = 2
    max_call_ms: int = 900_000
    filler_after_ms: int = 1_300
    """Longer than any healthy reply takes, shorter than a caller's "hello?"; with the
    wait before it, the caller hears something within 2 s of his last word."""
    filler_again_ms: int = 4_500
    first_audio_timeout_ms: int = 8_000
    key_timeout_ms: int = 2_000
    """Silence after the last key that ends a number; `#` ends it at once."""
    merge_below_ms: int = 500
    """Less of a reply than this was not heard as a reply."""
    meant_after_ms: int = 950
    """Speech over the bot that goes on for so long, from when that was noticed to when
    its end is suspected, is meant for it; shorter sounds may be a cough or "mhm", and
    then the bot goes on with what it was saying. It is silent meanwhile, so that the
    caller hears no difference."""
    short_ms: int = 700
    """Whoever said no more than this over the bot may have said "mhm": it is found out
    what, while the bot is silent. "Stop" and "no" are as short, and mean it."""
    words_timeout_ms: int = 1_000
    """For the words of it; then it counts as meant, as where no model can tell."""
    stall_filler_ms: int = 1_500
    """Silence in the middle of a reply that the caller is told to wait in."""
    stalled_timeout_ms: int = 6_000
    """The same, when no more is to be hoped for."""
    playback_slack_ms: int = 10_000
    """Past the time that a speech takes, until its playback counts as stuck."""
    max_talks_on: int = 2
    """Utterances in a row that were cut for their length, until people must see to it:
    a machine, a television, or somebody who needs more than a bot."""
    time_warning_ms: int = 30_000
    """Before the end of the longest call: the caller is told; 0: he isn't."""
    max_retries: int = 1
    is_closed: bool = False
    """Outside the campaign's hours: the caller is told so, and that is all."""
    person_key: str = "0"
    opt_out_key: str = ""
    """Ends all calls to this number, without the model's consent; empty: none."""
    time_limit_transfers: bool = True

    def protects(self, phrase: PhraseName) -> bool:
        """The caller cannot interrupt it; what he says meanwhile is answered after."""
        is_greeting = phrase == "greeting" and self.is_greeting_protected
        return is_greeting or phrase == "disclosure"


# --- what to do -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Think:
    """Start computing the reply to a user turn; play nothing of it yet."""

    turn: int
    user: UserTurn


@dataclass(frozen=True, slots=True)
class Release:
    """The reply of this turn may be heard as soon as it is there."""

    turn: int


@dataclass(frozen=True, slots=True)
class Forget:
    """Drop the turn, the caller's part included."""

    turn: int


@dataclass(frozen=True, slots=True)
class Settle:
    """The turn is over; `heard_ms` of it were heard (None: all)."""

    turn: int
    heard_ms: int | None


@dataclass(frozen=True, slots=True)
class Say:
    """Speak one of the campaign's fixed phrases."""

    turn: int
    phrase: PhraseName
    value: str = ""
    """What stands for `{value}` in it."""


@dataclass(frozen=True, slots=True)
class SayWords:
    """Speak what an operator wants said."""

    turn: int
    text: str


@dataclass(frozen=True, slots=True)
class PlayPrompt:
    """Play a recorded prompt: needs neither model nor synthesiser."""

    prompt: PromptName
    is_filler: bool = False
    """More speech follows: the prompt's end is not the end of the bot's turn."""


@dataclass(frozen=True, slots=True)
class StopPlayback:
    """Silence within a frame; what is queued is dropped."""


@dataclass(frozen=True, slots=True)
class HoldPlayback:
    """Silence within a frame; what is left to say is kept."""


@dataclass(frozen=True, slots=True)
class GoOn:
    """It was nothing: say the rest of what was held."""


@dataclass(frozen=True, slots=True)
class AskWords:
    """Find out whether what was said over the held bot means it; `on_words` tells."""

    said: Utterance


@dataclass(frozen=True, slots=True)
class Listen:
    """The bot has nothing to say: hear the caller."""


@dataclass(frozen=True, slots=True)
class RecordOptOut:
    """The caller wants no more calls: write it down, before any goodbye."""


@dataclass(frozen=True, slots=True)
class ConfirmTransfer:
    """Find out whether that destination can be had; `on_transfer_refused` if not."""

    destination: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The conversation is over."""

    outcome: CallOutcome


Action: TypeAlias = (
    Think
    | Release
    | Forget
    | Settle
    | Say
    | SayWords
    | PlayPrompt
    | StopPlayback
    | HoldPlayback
    | GoOn
    | AskWords
    | Listen
    | RecordOptOut
    | ConfirmTransfer
    | Finish
)
