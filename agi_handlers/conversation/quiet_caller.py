"""A caller who says nothing: how long he is waited for, how often asked; pure."""

from __future__ import annotations

from agi_handlers.conversation.turn_actions import TurnTakingOptions


class QuietCaller:
    """The ladder from "are you still there?" to goodbye."""

    def __init__(self, options: TurnTakingOptions) -> None:
        self._wait_ms = options.no_input_ms
        self._max_asked = options.max_reprompts
        self._num_asked = 0
        self._since_ms: int | None = None

    def wait(self, since_ms: int) -> None:
        """It is his turn from now on."""
        self._since_ms = since_ms

    def wait_no_more(self) -> None:
        """It is the bot's turn."""
        self._since_ms = None

    def heard(self) -> None:
        """He is there."""
        self._num_asked = 0

    def due_ms(self) -> int | None:
        """When he has been quiet for too long; None: it is not his turn."""
        return None if self._since_ms is None else self._since_ms + self._wait_ms

    def ask_again(self) -> bool:
        """Whether he is asked once more; if not, he is told goodbye."""
        self._num_asked += 1
        return self._num_asked <= self._max_asked
