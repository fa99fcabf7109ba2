"""One thing the bot says, from the thought to its last word; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agi_handlers.conversation.outcome import CallOutcome
from agi_handlers.conversation.turn_actions import TurnTakingOptions
from model.speech import UserTurn, Utterance


@dataclass(slots=True)
class BotSpeech:
    """What the bot is about to say or saying."""

    turn: int
    source: Literal["reply", "phrase", "prompt"]
    user: UserTurn | None = None
    is_released: bool = True
    released_ms: int = 0
    has_audio: bool = False
    is_protected: bool = False
    is_complete: bool = False
    num_fillers: int = 0
    has_stall_filler: bool = False
    num_retries: int = 0
    failure: str = ""
    """Why it cannot be made, found out before anybody waited for it."""
    is_failure_final: bool = False
    audio_until_ms: int = 0
    """When all that was queued will have been heard."""
    held_since_ms: int | None = None
    """Silent since then: the caller made a sound that may have been meant."""
    heard_ms: int = 0
    """Of it, when it was held."""
    doubted: Utterance | None = None
    """What it was held for, while the words of that are being made out."""
    doubted_since_ms: int = 0
    then: CallOutcome | None = None
    """The call ends with this once the speech was heard."""

    @property
    def is_held(self) -> bool:
        return self.held_since_ms is not None

    @property
    def awaits_audio(self) -> bool:
        """The caller waits for its first sound."""
        return self.is_released and not self.has_audio

    def yields(self, options: TurnTakingOptions) -> bool:
        """Whether the caller's voice may stop it."""
        return not self.is_protected and (options.barge_in or not self.has_audio)

    def hold(self, at_ms: int, heard_ms: int) -> None:
        """It is silent from now on."""
        if self.held_since_ms is None:
            self.held_since_ms, self.heard_ms = at_ms, heard_ms

    def doubt(self, at_ms: int, said: Utterance) -> None:
        """It stays silent until it is known what was said."""
        self.doubted, self.doubted_since_ms = said, at_ms

    def go_on(self, at_ms: int) -> None:
        """It is heard again."""
        if self.held_since_ms is not None:
            self.audio_until_ms += at_ms - self.held_since_ms
            self.held_since_ms = self.doubted = None

    def queue(self, at_ms: int, duration_ms: int) -> None:
        """So much more of it will be heard."""
        self.has_audio = True
        self.audio_until_ms = max(self.audio_until_ms, at_ms) + duration_ms
        self.has_stall_filler = False

    def may_retry(self, options: TurnTakingOptions) -> bool:
        """Whether it is worth another try: nothing of it was heard."""
        is_first = self.num_retries < options.max_retries
        return self.source == "reply" and not self.has_audio and is_first

    def first_audio_due_ms(self, options: TurnTakingOptions) -> list[int]:
        """When its first sound must be there, or something in its place."""
        due_ms = [self.released_ms + options.first_audio_timeout_ms]
        if self.source == "reply":
            due_ms.append(self._filler_due_ms(options))
        return due_ms

    def take_filler(self, at_ms: int, options: TurnTakingOptions) -> bool:
        """Whether the caller must be told now that it takes a moment."""
        if self.source != "reply" or at_ms < self._filler_due_ms(options):
            return False
        self.num_fillers += 1
        return True

    def _filler_due_ms(self, options: TurnTakingOptions) -> int:
        again_ms = self.num_fillers * options.filler_again_ms
        return self.released_ms + options.filler_after_ms + again_ms

    def playback_due_ms(self, options: TurnTakingOptions) -> int | None:
        """When what is being heard needs to be looked at; None: all is well."""
        if not self.has_audio or self.source == "prompt":
            return None
        if self.doubted is not None:
            return self.doubted_since_ms + options.words_timeout_ms
        if self.held_since_ms is not None:
            return self.held_since_ms + options.meant_after_ms
        if self.is_complete:
            return self.audio_until_ms + options.playback_slack_ms
        if self.has_stall_filler:
            return self.audio_until_ms + options.stalled_timeout_ms
        return self.audio_until_ms + options.stall_filler_ms
