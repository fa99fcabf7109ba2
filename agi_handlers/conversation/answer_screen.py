"""Finds out who answered a call the bot placed, and says what to say to a machine.

    answer ─▶ until_known ─┬─ person, unsure ─▶ the conversation; the screen stays on it
                           └─ machine ─▶ hang up, or a message after the beep
A tap of the leg: it hears what the conversation hears.  What the model makes of the
answer comes from `session.identify`, while everything goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast

from agi_handlers.audio_leg.leg import (
    AudioLeg,
    CallerAudio,
    CallerKey,
    CallerPaused,
    LegClosed,
    LegEvent,
)
from agi_handlers.audio_leg.tapped_leg import TappedLeg
from agi_handlers.conversation.answer_listener import AnswerListener, Question
from agi_handlers.conversation.answer_rules import Verdict
from agi_handlers.conversation.call_notes import CallNotes
from model.speech import SpeechSession
from telemetry import ANSWERED_BY, fields

logger = logging.getLogger(__name__)

MachineAction: TypeAlias = Literal["note", "hang_up", "leave_message"]
# A leg that delivers no audio at all decides nothing: the bot greets.
_NO_AUDIO_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class ScreenOptions:
    """What a campaign wants of it."""

    action: MachineAction = "note"
    can_judge: bool = False
    """Whether the model in use is to be believed about strangers' words."""


class AnswerScreen:
    """One call's; a `LegTap`."""

    def __init__(
        self,
        listener: AnswerListener,
        session: SpeechSession,
        notes: CallNotes,
        options: ScreenOptions,
    ) -> None:
        self._listener = listener
        self._session = session
        self._notes = notes
        self._options = options
        self._asking: set[asyncio.Task[None]] = set()
        self._told: Verdict | None = None
        self._has_bot_spoken = False
        self._known = asyncio.Event()
        self.leg: TappedLeg | None = None
        """Which it taps; set once there is one."""
        self.on_machine: Callable[[], None] = lambda: None
        """Called once, when the far end is found to be a machine that is acted on."""

    @property
    def verdict(self) -> Verdict | None:
        """Who answered, as far as is known."""
        return self._listener.verdict

    @property
    def is_machine(self) -> bool:
        """A machine was found, and something is to be done about it."""
        verdict = self._listener.verdict
        is_found = verdict is not None and verdict.is_machine
        return is_found and self._options.action != "note"

    async def until_known_or(self, begun: asyncio.Event) -> LegClosed | None:
        """As `until_known`, but ends when something has been decided meanwhile."""
        listening = asyncio.create_task(self.until_known())
        waiting = asyncio.create_task(begun.wait())
        try:
            await asyncio.wait(
                {listening, waiting}, return_when=asyncio.FIRST_COMPLETED
            )
            return listening.result() if listening.done() else None
        finally:
            for task in (listening, waiting):
                task.cancel()
            await asyncio.wait({listening, waiting})

    async def until_known(self) -> LegClosed | None:
        """Listen to the leg until the bot may speak, or a machine is found.

        A key means a person; it is left for the conversation.  LegClosed: the call is
        over before it began.
        """
        assert self.leg is not None
        leg = self.leg
        leg.listen()
        events = cast("AsyncGenerator[LegEvent, None]", leg.events())
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_NO_AUDIO_S) as patience, aclosing(events):
                async for event in events:
                    patience.reschedule(loop.time() + _NO_AUDIO_S)
                    match event:
                        case LegClosed():
                            return event
                        case CallerKey():
                            leg.put_back(event)
                            return None
                        case CallerPaused():
                            self._ask(self._listener.force_end())
                            self._look()
                            if self.verdict is None:
                                leg.listen()
                        case CallerAudio():
                            await self._answers_so_far(leg)
                    if self.verdict is not None:
                        return None
        except TimeoutError:
            logger.warning("no_audio_to_screen")
        return None

    async def aclose(self) -> None:
        """Ask nothing more."""
        for task in self._asking:
            task.cancel()
        if self._asking:
            await asyncio.wait(self._asking)

    def on_words(self, text: str) -> None:
        """The conversation knows what the far end said."""
        if self._options.can_judge:
            self._listener.on_words(text)
            self._look()

    # --- the tap ---

    def caller(self, pcm16: bytes, heard_ms: int) -> None:
        """See LegTap."""
        if self._listener.is_watching:
            self._ask(self._listener.feed(pcm16))
            self._look()

    def queue(self, pcm16: bytes) -> None:
        """See LegTap: the bot speaks."""
        if not self._has_bot_spoken:
            self._has_bot_spoken = True
            self._listener.on_bot_spoke()

    def end_of_speech(self) -> None:
        """See LegTap."""

    def stopped(self, heard_ms: int) -> None:
        """See LegTap."""

    def finished(self) -> None:
        """See LegTap."""

    # --- within ---

    async def _answers_so_far(self, leg: AudioLeg) -> None:
        """Recorded turns bring a whole answer at once: its judgement is waited for."""
        if not leg.is_full_duplex and self._asking and self.verdict is None:
            await asyncio.wait(self._asking, timeout=1.5)

    def _ask(self, questions: list[Question]) -> None:
        if not self._options.can_judge:
            return
        for question in questions:
            task = asyncio.create_task(self._hear_answer(question))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _hear_answer(self, question: Question) -> None:
        answerer = await self._session.identify(question.said)
        logger.info(
            "answer_judged",
            extra=fields(judged=answerer.judged, words=len(answerer.words.split())),
        )
        self._listener.on_judgement(answerer)
        self._look()

    def _look(self) -> None:
        """Tell of a verdict once, and of a machine again if it comes later."""
        verdict = self._listener.verdict
        if verdict is None or verdict == self._told:
            return
        self._told = verdict
        by, reason = verdict.answered_by, verdict.reason
        ANSWERED_BY.labels(who=by, reason=reason).inc()
        self._notes.happened(verdict.at_ms, "answered_by", by, reason)
        logger.info("answered_by", extra=fields(who=by, reason=reason))
        if self.is_machine:
            self.on_machine()
