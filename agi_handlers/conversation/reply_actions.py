"""What a reply asks for beside being heard: the model's actions, put where they belong.

Most are turn-taking's to decide.  How the caller is to be heard, what is not to be
recorded, and when he is called back are settled at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import cast, get_args

from agi_handlers.conversation.call_notes import CallNotes
from agi_handlers.conversation.secrecy import Secrecy
from agi_handlers.conversation.turn_actions import Action
from agi_handlers.conversation.turn_taking import TurnTaking
from model.vad.options import Expected
from telemetry import fields

logger = logging.getLogger(__name__)


class ReplyActions:
    """Those of one call.  Times are milliseconds of the call."""

    def __init__(
        self,
        turn_taking: TurnTaking,
        notes: CallNotes,
        secrecy: Secrecy,
        *,
        expect: Callable[[Expected], None],
        read_callback: Callable[[str], str | None] | None,
        promises: Callable[[str], bool],
    ) -> None:
        """The last two as in `CallParts`.

        expect: told what the caller says next, where the model says so.
        """
        self._turn_taking = turn_taking
        self._notes = notes
        self._secrecy = secrecy
        self._expect = expect
        self._read_callback = read_callback
        self._promises = promises

    def ask(self, at_ms: int, turn: int, name: str, argument: str) -> list[Action]:
        """The model asks for this; what is to be done about it."""
        turn_taking = self._turn_taking
        logger.info("action_asked", extra=fields(turn=turn, action=name))
        self._notes.happened(at_ms, "action", name, argument, turn)
        actions = turn_taking.on_reply_action(at_ms, turn, name, argument)
        argument = argument.strip()
        if name in ("pause_recording", "resume_recording"):
            is_secret = name == "pause_recording"
            self._secrecy.keep("action", at_ms, is_secret=is_secret)
        if name == "expect" and argument in get_args(Expected):
            self._expect(cast("Expected", argument))
        if name == "callback" and self._read_callback is not None:
            spoken_time = self._read_callback(argument)
            actions += turn_taking.on_callback_read(argument, spoken_time)
        return actions

    def keep_promise(self, at_ms: int, turn: int, text: str) -> list[Action]:
        """A transfer announced in words alone is made all the same, to people."""
        if not self._promises(text):
            return []
        logger.warning("promise_without_action", extra=fields(turn=turn))
        self._notes.happened(at_ms, "action", "transfer", "promised", turn)
        return self._turn_taking.on_reply_action(at_ms, turn, "transfer", "")
