"""What the caller's words ask for and whom they mean, once they are known as text."""

from __future__ import annotations

import asyncio
import logging

from agi_handlers.conversation.answer_screen import AnswerScreen
from agi_handlers.conversation.call_notes import CallNotes
from agi_handlers.conversation.listening_sounds import is_listening_sound
from agi_handlers.conversation.wishes import Wish, wish_in
from model.speech import SpeechSession, Utterance
from telemetry import fields

logger = logging.getLogger(__name__)


class CallerWords:
    """Those of one call."""

    def __init__(
        self,
        session: SpeechSession,
        notes: CallNotes,
        screen: AnswerScreen | None,
        language: str,
    ) -> None:
        """`screen`: finds out by them who answered; None: nobody asks."""
        self._session = session
        self._notes = notes
        self._screen = screen
        self._language = language

    def on_transcript(self, at_ms: int, turn: int, text: str) -> Wish | None:
        """What he said in a turn; the wish in it, if there is one."""
        self._notes.words(turn, text)
        if self._screen is not None:
            self._screen.on_words(text)
        wish = wish_in(text, self._language)
        if wish is not None:
            logger.info("wish_heard", extra=fields(turn=turn, wish=wish))
            self._notes.happened(at_ms, "wish", wish, "", turn)
        return wish

    async def are_meant(self, said: Utterance) -> bool:
        """Whether a short sound over the bot is meant for it: its words decide."""
        loop = asyncio.get_running_loop()
        asked_s = loop.time()
        words = await self._session.words_of(said)
        is_meant = words is None or not is_listening_sound(words, self._language)
        took_ms = round((loop.time() - asked_s) * 1000)
        logger.info(
            "short_sound",
            extra=fields(
                is_meant=is_meant, has_words=words is not None, took_ms=took_ms
            ),
        )
        return is_meant
