"""Speeches on their way to the mouth: one after the other, each with its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from agi_handlers.conversation.call_clock import CallClock
from agi_handlers.conversation.call_notes import CallNotes
from agi_handlers.conversation.mouth import BotMouth
from agi_handlers.conversation.reply_actions import ReplyActions
from agi_handlers.conversation.secrecy import Secrecy
from agi_handlers.conversation.speech_streams import SpeechStreams
from agi_handlers.conversation.turn_actions import Forget, Settle
from agi_handlers.conversation.turn_taking import TurnTaking
from model.speech import ReplyEvent
from tests.fakes.call_parts import ScriptedLeg, ScriptedSession
from tests.fakes.clock import run_in_virtual_time


@dataclass(slots=True)
class SlowSession(ScriptedSession):
    """Takes note of a turn's end after so long, and says when a speech was begun."""

    settle_s: float = 0.0
    begun_s: list[float] = field(default_factory=list)

    async def say(self, turn: int, text: str) -> AsyncIterator[ReplyEvent]:
        self.begun_s.append(asyncio.get_running_loop().time())
        async for event in ScriptedSession.say(self, turn, text):
            yield event

    async def settle(self, turn: int, heard_ms: int | None = None) -> None:
        await asyncio.sleep(self.settle_s)
        await ScriptedSession.settle(self, turn, heard_ms)


def streamed(
    session: SlowSession,
    course: Callable[[SpeechStreams, asyncio.TaskGroup], Awaitable[None]],
) -> ScriptedLeg:
    """The leg of a call in which this happened, after all of it was settled."""
    leg = ScriptedLeg([])

    async def run() -> None:
        turn_taking, notes = TurnTaking(), CallNotes()
        clock = CallClock(lambda at_ms: None)
        clock.begin()
        actions = ReplyActions(
            turn_taking,
            notes,
            Secrecy(notes, None, keys_are_secret=False),
            expect=lambda expected: None,
            read_callback=None,
            promises=lambda text: False,
        )
        streams = SpeechStreams(
            session,
            BotMouth(leg),
            turn_taking,
            clock,
            notes,
            actions,
            act=lambda actions: None,
            on_caller=lambda found: None,
        )
        async with asyncio.TaskGroup() as tasks:
            await course(streams, tasks)
            await streams.settle_the_rest()

    run_in_virtual_time(run())
    return leg


def _two_speeches(
    session: SlowSession,
) -> Callable[[SpeechStreams, asyncio.TaskGroup], Awaitable[None]]:
    async def course(streams: SpeechStreams, tasks: asyncio.TaskGroup) -> None:
        streams.start(1, session.say(1, "First."), tasks)()
        await asyncio.sleep(0.1)
        streams.start(2, session.say(2, "Second."), tasks)()
        await asyncio.sleep(0.1)
        streams.seal(Settle(1, 80))
        await asyncio.sleep(5)

    return course


def test_speech_begins_when_the_end_of_the_one_before_is_known() -> None:
    session = SlowSession(settle_s=0.5)
    streamed(session, _two_speeches(session))
    assert session.begun_s == [0.0, 0.2 + 0.5]
    assert (session.settled, session.forgotten) == ([(1, 80)], [2])


def test_speech_half_that_takes_no_note_holds_the_next_speech_briefly() -> None:
    session = SlowSession(settle_s=3600)
    streamed(session, _two_speeches(session))
    assert session.begun_s == [0.0, 0.2 + 2.0]


def test_nothing_is_heard_of_a_speech_that_was_not_released() -> None:
    session = SlowSession()

    async def course(streams: SpeechStreams, tasks: asyncio.TaskGroup) -> None:
        streams.start(1, session.say(1, "A guess."), tasks)
        await asyncio.sleep(5)
        streams.seal(Forget(1))

    assert streamed(session, course).taken == b""
    assert session.forgotten == [1]
