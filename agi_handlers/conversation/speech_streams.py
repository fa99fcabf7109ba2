"""What the bot says, streamed from the speech half to its mouth and settled in order.

    start ─▶ computed ─▶ │ release │ ─▶ mouth ─▶ seal ─▶ settled or forgotten
                         silent until then          the next speech begins

For each speech one task that streams it and one that settles it.  The dialogue that
the speech half keeps is in order that way: a turn is added to it when the one before
has its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, assert_never, cast

from agi_handlers.conversation import reply_log
from agi_handlers.conversation.call_clock import CallClock
from agi_handlers.conversation.call_notes import CallNotes
from agi_handlers.conversation.mouth import BotMouth
from agi_handlers.conversation.reply_actions import ReplyActions
from agi_handlers.conversation.turn_actions import Action, Forget, Settle
from agi_handlers.conversation.turn_taking import TurnTaking
from agi_handlers.records.rows import TurnFate
from model.audio.frames import SAMPLE_BYTES, SAMPLES_PER_MS
from model.errors import SpeechError, SpeechOverloaded, SpeechUnavailable
from model.speech import (
    ReplyAction,
    ReplyAudio,
    ReplyDone,
    ReplyEvent,
    ReplyText,
    SpeechSession,
    Transcript,
    TurnEnd,
)
from telemetry import ERRORS, TURNS, fields

logger = logging.getLogger(__name__)

_SETTLE_TIMEOUT_S: Final = 2.0  # the speech half only has to take note


@dataclass(slots=True)
class _Speaking:
    """One thing the bot says, from its computation to its settling."""

    turn: int
    events: AsyncIterator[ReplyEvent]
    is_reply: bool
    released: asyncio.Event = field(default_factory=asyncio.Event)
    fate: asyncio.Future[Settle | Forget] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    speech_ended_s: float | None = None
    """When the caller's speech ended, on the loop's clock; None: no such moment."""
    has_audio: bool = False
    action_names: list[str] = field(default_factory=list)


class SpeechStreams:
    """Those of one call."""

    def __init__(
        self,
        session: SpeechSession,
        mouth: BotMouth,
        turn_taking: TurnTaking,
        clock: CallClock,
        notes: CallNotes,
        actions: ReplyActions,
        *,
        act: Callable[[Sequence[Action]], None],
        on_caller: Callable[[TurnEnd | Transcript], None],
    ) -> None:
        """`act`: carries out what turn-taking makes of a speech's course.

        on_caller: told what the speech half finds out about the caller's own turn.
        """
        self._session = session
        self._mouth = mouth
        self._turn_taking = turn_taking
        self._clock = clock
        self._notes = notes
        self._actions = actions
        self._act = act
        self._on_caller = on_caller
        self._speaking: dict[int, _Speaking] = {}
        self._last_settled: asyncio.Event | None = None
        self.last_response_ms: int | None = None
        """From the end of the caller's words to the last reply's first sound."""

    def start(
        self,
        turn: int,
        events: AsyncIterator[ReplyEvent],
        tasks: asyncio.TaskGroup,
        *,
        is_reply: bool = False,
    ) -> Callable[[], None]:
        """Have a speech computed, by the call's tasks; returns what releases it."""
        speaking = _Speaking(turn, events, is_reply)
        self._speaking[turn] = speaking
        # the turn before must be settled first: the history is in order
        before, self._last_settled = self._last_settled, speaking.settled
        tasks.create_task(self._carry(speaking, before, tasks))
        return speaking.released.set

    def release(self, turn: int, speech_ended_s: float | None) -> None:
        """A reply may be heard: the caller's turn is over, since that moment."""
        speaking = self._speaking[turn]
        speaking.speech_ended_s = speech_ended_s
        speaking.released.set()
        ended_ms = None if speech_ended_s is None else self._clock.ms_at(speech_ended_s)
        self._notes.released(turn, self._clock.now_ms(), ended_ms)

    def seal(self, fate: Forget | Settle) -> None:
        """A speech is over, in this way."""
        if isinstance(fate, Forget):
            self._seal(fate, "dropped", 0)
        else:
            is_whole = fate.heard_ms is None
            self._seal(fate, "heard" if is_whole else "interrupted", fate.heard_ms)

    async def settle_the_rest(self) -> None:
        """At the end of the call: every open turn gets a fate, briefly waited for."""
        for turn in list(self._speaking):
            self._seal(Forget(turn), "cut_off", self._mouth.heard_ms)
        if self._last_settled is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SETTLE_TIMEOUT_S):
                    await self._last_settled.wait()

    def _seal(
        self, fate: Forget | Settle, noted: TurnFate, heard_ms: int | None
    ) -> None:
        self._notes.sealed(fate.turn, self._clock.now_ms(), noted, heard_ms)
        speaking = self._speaking.pop(fate.turn, None)
        if speaking is not None and not speaking.fate.done():
            speaking.fate.set_result(fate)

    async def _carry(
        self,
        speaking: _Speaking,
        before: asyncio.Event | None,
        tasks: asyncio.TaskGroup,
    ) -> None:
        """Stream one speech to the mouth and settle it once its fate is known."""
        try:
            if before is not None:
                await before.wait()
            stream = tasks.create_task(self._stream(speaking))
            try:
                fate = await speaking.fate
            finally:
                stream.cancel()
                await asyncio.wait([stream])
            await self._settle(fate)
        finally:
            speaking.settled.set()

    async def _settle(self, fate: Settle | Forget) -> None:
        session = self._session
        try:
            async with asyncio.timeout(_SETTLE_TIMEOUT_S):
                if isinstance(fate, Forget):
                    await session.forget(fate.turn)
                else:
                    await session.settle(fate.turn, fate.heard_ms)
        except (SpeechError, TimeoutError) as exc:
            # the next reply on this session will fail, and be told about
            logger.warning("settle_failed", extra=fields(error=str(exc)))

    async def _stream(self, speaking: _Speaking) -> None:
        turn = speaking.turn
        events = cast("AsyncGenerator[ReplyEvent, None]", speaking.events)
        try:
            async with contextlib.aclosing(events):
                async for event in events:
                    await self._on_event(speaking, event)
        except SpeechError as exc:
            ERRORS.labels(kind=exc.code).inc()
            logger.warning(
                "speech_failed", extra=fields(turn=turn, code=exc.code, error=str(exc))
            )
            TURNS.labels(result="failed").inc()
            now_ms = self._clock.now_ms()
            self._notes.failed(turn, now_ms, exc.code, str(exc))
            self._act(
                self._turn_taking.on_reply_failed(
                    now_ms, turn, exc.code, may_retry=_may_retry(exc)
                )
            )

    async def _on_event(self, speaking: _Speaking, event: ReplyEvent) -> None:
        turn = speaking.turn
        match event:
            case TurnEnd() | Transcript():
                self._on_caller(event)
            case ReplyText(text=text):
                self._notes.text(turn, text)
            case ReplyAudio(pcm16=pcm16):
                self._notes.audio(event)
                await speaking.released.wait()
                if not pcm16 or speaking.fate.done():  # stopped in this very moment
                    await asyncio.sleep(0)  # and whoever never waits is, too
                    return
                self._on_audio(speaking, len(pcm16) // SAMPLE_BYTES // SAMPLES_PER_MS)
                await self._mouth.play(pcm16)
            case ReplyAction(name=name, argument=argument):
                await speaking.released.wait()
                speaking.action_names.append(name)
                self._act(self._actions.ask(self._clock.now_ms(), turn, name, argument))
            case ReplyDone():
                await speaking.released.wait()
                self._notes.done(event)
                if speaking.has_audio and not speaking.fate.done():
                    await self._mouth.end_of_speech()
                if speaking.is_reply:
                    self._on_reply_done(speaking, event)
                self._act(self._turn_taking.on_reply_done(self._clock.now_ms(), turn))
            case _:
                assert_never(event)

    def _on_audio(self, speaking: _Speaking, duration_ms: int) -> None:
        turn, now_ms = speaking.turn, self._clock.now_ms()
        if not speaking.has_audio:
            speaking.has_audio = True
            self._notes.played(turn, now_ms)
            if speaking.speech_ended_s is not None:
                delay_s = self._clock.now_s() - speaking.speech_ended_s
                self.last_response_ms = reply_log.reply_started(turn, delay_s)
        self._act(self._turn_taking.on_reply_audio(now_ms, turn, duration_ms))

    def _on_reply_done(self, speaking: _Speaking, done: ReplyDone) -> None:
        turn, names = speaking.turn, speaking.action_names
        reply_log.reply_done(turn, done)
        if "transfer" not in names and "hangup" not in names:
            now_ms = self._clock.now_ms()
            self._act(self._actions.keep_promise(now_ms, turn, done.text))


def _may_retry(exc: SpeechError) -> bool:
    """A failed reply may be tried once more; a lost or full speech half not."""
    return not isinstance(exc, SpeechUnavailable | SpeechOverloaded)
