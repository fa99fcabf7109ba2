"""How long a talk may last: its warning, its limit, and its last words; pure."""

from __future__ import annotations

from typing import Final

from agi_handlers.conversation.turn_actions import TurnTakingOptions

_LAST_WORDS_MS: Final = 15_000  # a goodbye that takes longer than this is stuck


class TalkClock:
    """One talk's limits.  It begins with the answer and ends with the last words."""

    def __init__(self, options: TurnTakingOptions) -> None:
        self._max_ms = options.max_call_ms
        # a call of a minute needs no warning of its end half-way
        warns = 0 < 3 * options.time_warning_ms <= options.max_call_ms
        self._warning_ms = options.time_warning_ms if warns else None
        self._answered_ms = 0
        self._ending_since_ms: int | None = None

    @property
    def is_ending(self) -> bool:
        """The last words are being said."""
        return self._ending_since_ms is not None

    def begin(self, at_ms: int) -> None:
        """The caller is on the line."""
        self._answered_ms = at_ms

    def begin_last_words(self, at_ms: int) -> None:
        """A goodbye, or the word that people take over."""
        self._ending_since_ms = at_ms

    def take_back_last_words(self) -> None:
        """The talk goes on after all."""
        self._ending_since_ms = None

    def due_ms(self) -> int:
        """When one of the three is due."""
        if self._ending_since_ms is not None:
            return self._ending_since_ms + _LAST_WORDS_MS
        limit_ms = self._answered_ms + self._max_ms
        return limit_ms if self._warning_ms is None else limit_ms - self._warning_ms

    def are_last_words_stuck(self, at_ms: int) -> bool:
        """They take longer than any."""
        return self.is_ending and at_ms >= self.due_ms()

    def is_over(self, at_ms: int) -> bool:
        """The longest time has passed, and nobody has said goodbye."""
        return not self.is_ending and at_ms >= self._answered_ms + self._max_ms

    def take_warning(self, at_ms: int) -> bool:
        """Whether the caller must be told now that the end is near; once."""
        if self._warning_ms is None or self.is_ending or at_ms < self.due_ms():
            return False
        self._warning_ms = None
        return True
