"""A call's dialogue as both sides heard it.

A turn is open from the moment the caller's part is known until it is settled (with the
words that were heard) or forgotten.  The model reads the settled turns; a reply turn
that is still open counts, for the prompts of later turns, as heard in full.  Turns are
settled in any order; the oldest are dropped when the dialogue outgrows the context.

Text only, and clips that are encoded elsewhere: no I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from model.ultravox.clip import AudioClip
from model.ultravox.inputs import Dialogue, Prompt

UserParts: TypeAlias = tuple[str | AudioClip, ...]


@dataclass(slots=True)
class HistoryTurn:
    """One turn: the caller's part, if it has one, and what the bot said."""

    user: UserParts = ()
    token_ids: tuple[int, ...] = ()
    """As the model produced them; empty where the words were given to the bot."""
    said: str = ""
    """The bot's words: all that were made; once settled, those that were heard."""
    was_heard_in_full: bool = True


class CallHistory:
    """Turns of one call, open and settled."""

    def __init__(self, new_dialogue: Callable[[], Dialogue]) -> None:
        """`new_dialogue` makes one with the call's instructions and no turns."""
        self._new_dialogue = new_dialogue
        self._dialogue = new_dialogue()
        self._settled: list[HistoryTurn] = []
        self._open: dict[int, HistoryTurn] = {}

    @property
    def num_settled(self) -> int:
        """Turns that are part of the dialogue."""
        return len(self._settled)

    def open(self, number: int, user: Sequence[str | AudioClip] = ()) -> HistoryTurn:
        """A new turn; its fields are filled in by whoever makes the reply."""
        turn = self._open[number] = HistoryTurn(tuple(user))
        return turn

    def opening_prompt(self) -> Prompt:
        """What is known before anybody has spoken, to warm the engine with."""
        return self._dialogue.prompt()

    def prompt(self, number: int) -> Prompt:
        """What the model reads to answer an open turn."""
        dialogue = self._dialogue.fork()
        for other, turn in sorted(self._open.items()):
            if other < number and turn.user:
                _append(dialogue, turn)
        dialogue.append_user_parts(self._open[number].user)
        return dialogue.prompt()

    def said_before(self, number: int) -> str:
        """The bot's newest words before a turn; empty: it has said nothing yet."""
        earlier = [*self._settled]
        earlier += [turn for n, turn in sorted(self._open.items()) if n < number]
        return next((turn.said for turn in reversed(earlier) if turn.said.strip()), "")

    def settle(self, number: int, heard: str) -> None:
        """The turn is over; of the bot's words `heard` reached the caller."""
        turn = self._open.pop(number, None)
        if turn is None:
            return
        turn.was_heard_in_full = heard.strip() == turn.said.strip()
        turn.said = heard
        self._settled.append(turn)
        _append(self._dialogue, turn)

    def recall(self, user: Sequence[str | AudioClip], heard: str) -> None:
        """A turn that was settled elsewhere."""
        turn = HistoryTurn(tuple(user), said=heard)
        self._settled.append(turn)
        _append(self._dialogue, turn)

    def forget(self, number: int) -> None:
        """The turn never was."""
        self._open.pop(number, None)

    def drop_oldest(self) -> bool:
        """Leave out the older half of the settled turns; False: there are none.

        Half at a time, because each time costs the engine's cache of the dialogue.
        """
        if not self._settled:
            return False
        self._settled = self._settled[(len(self._settled) + 1) // 2 :]
        self._dialogue = self._new_dialogue()
        for turn in self._settled:
            _append(self._dialogue, turn)
        return True


def _append(dialogue: Dialogue, turn: HistoryTurn) -> None:
    if turn.user:
        dialogue.append_user_parts(turn.user)
    if turn.token_ids:
        dialogue.append_assistant_tokens(turn.token_ids)
        if not turn.was_heard_in_full:
            dialogue.trim_last_reply(turn.said)
    elif turn.said.strip():
        dialogue.append_assistant_text(turn.said.strip())
