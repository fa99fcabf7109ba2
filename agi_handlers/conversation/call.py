"""One conversation: carries out what turn-taking decides, and decides nothing itself.

    leg.events() ─▶ hearing ─▶ TurnTaking ─▶ actions ─▶ speech streams / mouth / leg

One TaskGroup a call: the listener, a timer, and for each thing the bot says a task that
streams it and one that settles it.  The last action, `Finish`, ends the group.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import assert_never

from agi_handlers.audio_leg.leg import (
    CallerAudio,
    CallerKey,
    CallerMissing,
    CallerPaused,
    CallerTalks,
    LegClosed,
    LegEvent,
    PlaybackFinished,
)
from agi_handlers.conversation.answer_screen import AnswerScreen
from agi_handlers.conversation.barge_ins import BargeIns
from agi_handlers.conversation.call_clock import CallClock
from agi_handlers.conversation.call_parts import CallParts
from agi_handlers.conversation.caller_turns import CallerTurns
from agi_handlers.conversation.caller_words import CallerWords
from agi_handlers.conversation.errands import Errands
from agi_handlers.conversation.hearing import Hearing
from agi_handlers.conversation.mouth import BotMouth
from agi_handlers.conversation.outcome import MACHINE_ANSWERED, CallOutcome
from agi_handlers.conversation.reply_actions import ReplyActions
from agi_handlers.conversation.secrecy import Secrecy
from agi_handlers.conversation.speech_streams import SpeechStreams
from agi_handlers.conversation.turn_actions import (
    Action,
    AskWords,
    CallPhase,
    ConfirmTransfer,
    Finish,
    Forget,
    GoOn,
    HoldPlayback,
    Listen,
    PlayPrompt,
    RecordOptOut,
    Release,
    Say,
    SayWords,
    Settle,
    StopPlayback,
    Think,
)
from agi_handlers.conversation.turn_taking import TurnTaking
from model.audio.prompts import Prompt
from model.speech import Transcript, TurnEnd, Utterance
from model.vad.events import SpeechEvent
from telemetry import fields

logger = logging.getLogger(__name__)


class _Ended(Exception):
    """Ends the call's task group; caught in `run`, nowhere else."""


class Call:
    """A running conversation."""

    def __init__(self, parts: CallParts, turn_taking: TurnTaking) -> None:
        self._parts = parts
        self._turn_taking = turn_taking
        self._notes = parts.notes
        self._clock = CallClock(self._on_due)
        self._mouth = BotMouth(parts.leg)
        self._barge_ins = BargeIns(self._clock, parts.notes)
        self._secrecy = Secrecy(
            parts.notes, parts.pause_recording, keys_are_secret=parts.keys_are_secret
        )
        self._hearing = Hearing(
            parts.ear,
            parts.ears,
            self._mouth,
            turn_taking,
            expects=parts.expects,
            on_speech=self._on_speech,
            on_failure=self._fail,
        )
        self._caller_turns = CallerTurns(
            turn_taking,
            self._clock,
            self._hearing,
            self._mouth,
            self._barge_ins,
            self._secrecy,
            is_full_duplex=parts.leg.is_full_duplex,
        )
        self._caller_words = CallerWords(
            parts.session, parts.notes, parts.screen, parts.language
        )
        self._streams = SpeechStreams(
            parts.session,
            self._mouth,
            turn_taking,
            self._clock,
            parts.notes,
            ReplyActions(
                turn_taking,
                parts.notes,
                self._secrecy,
                expect=self._hearing.expect,
                read_callback=parts.read_callback,
                promises=parts.promises,
            ),
            act=self._act,
            on_caller=self._on_caller,
        )
        self._errands = Errands(
            parts.target_of,
            parts.record_opt_out,
            parts.confirm_transfer,
            on_failed=self._note_failed_errand,
            on_nobody_free=self._nobody_is_free,
        )
        self._outcome: CallOutcome | None = None
        self._finished = asyncio.Event()
        self._failure: Exception | None = None
        self._has_begun = asyncio.Event()
        self.num_turns = 0

    @property
    def phase(self) -> CallPhase:
        """What it is at now."""
        return self._turn_taking.phase

    @property
    def num_barge_ins(self) -> int:
        """How often the caller has interrupted the bot."""
        return self._barge_ins.num

    @property
    def last_response_ms(self) -> int | None:
        """From the end of the caller's words to the last reply's first sound."""
        return self._streams.last_response_ms

    async def run(self) -> CallOutcome:
        """Hold the conversation until it ends, whatever ends it."""
        self._clock.begin()
        try:
            async with asyncio.TaskGroup() as self._tasks:
                if self._parts.screen is not None:
                    await self._find_out_who_answered(self._parts.screen)
                if not self._finished.is_set():
                    self._tasks.create_task(self._listen())
                if not self._has_begun.is_set():
                    self._act(self._turn_taking.on_answered(self._clock.now_ms()))
                await self._finished.wait()
                if self._failure is not None:
                    raise self._failure
                await self._streams.settle_the_rest()
                assert self._outcome is not None
                self._outcome = await self._errands.finish(self._outcome)
                raise self._failure or _Ended
        except* _Ended:
            pass
        finally:
            self._clock.stop()
        assert self._outcome is not None
        return self._outcome

    async def _find_out_who_answered(self, screen: AnswerScreen) -> None:
        turn_taking = self._turn_taking
        screen.on_machine = lambda: self._act(
            turn_taking.on_ended_elsewhere(MACHINE_ANSWERED)
        )
        if (closed := await screen.until_known_or(self._has_begun)) is not None:
            self._act(turn_taking.on_leg_closed(closed.reason, closed.detail))

    def shut_down(self) -> None:
        """The service ends: hand the caller over now."""
        self._act(self._turn_taking.on_shutdown(self._clock.now_ms()))

    # --- what operators do; True: it is being done ---

    def say_for_operator(self, text: str) -> bool:
        """Have the bot say something, now."""
        at_ms, heard_ms = self._clock.now_ms(), self._mouth.heard_ms
        return self._do(self._turn_taking.on_operator_says(at_ms, text, heard_ms))

    def transfer_for_operator(self, target: str) -> bool:
        """Hand the caller on; `target` as a model would name it, empty: to people."""
        at_ms = self._clock.now_ms()
        return self._do(self._turn_taking.on_operator_transfers(at_ms, target))

    def hang_up_for_operator(self) -> bool:
        """End the call."""
        return self._do(self._turn_taking.on_ended_elsewhere("operator_hung_up"))

    def pause_recording_for_operator(self, *, is_paused: bool) -> None:
        """Record silence while a secret is told, or sound again."""
        self._secrecy.keep("operator", self._clock.now_ms(), is_secret=is_paused)

    def note_operator(self, name: str, detail: str) -> None:
        """Put it into the call's record."""
        self._notes.happened(self._clock.now_ms(), "operator", name, detail)

    def _do(self, actions: Sequence[Action]) -> bool:
        self._act(actions)
        return bool(actions)

    # --- what happens, put to turn-taking ---

    async def _listen(self) -> None:
        leg = self._parts.leg
        leg.hand_audio_to(self._hearing.take)
        try:
            async for event in leg.events():
                self._on_event(event)
        finally:
            leg.hand_audio_to(None)
            self._hearing.forget()

    def _on_event(self, event: LegEvent) -> None:
        if isinstance(event, CallerAudio):
            self._hearing.hear(event.pcm16)
            return
        self._hearing.catch_up()  # what he said before comes first
        turn_taking, notes, now_ms = self._turn_taking, self._notes, self._clock.now_ms
        match event:
            case CallerMissing(is_missing):
                what = "missing" if is_missing else "back"
                notes.happened(now_ms(), "caller_audio", what)
                turn_taking.on_caller_missing(is_missing=is_missing)
            case CallerTalks():
                actions = turn_taking.on_talk_detected(now_ms(), self._mouth.heard_ms)
                if actions:
                    self._barge_ins.bot_fell_silent()
                    self._barge_ins.was_meant()
                self._act(actions)
            case CallerPaused():
                self._hearing.end_utterance()
                self._act(turn_taking.on_caller_paused(now_ms()))
            case CallerKey(key):
                logger.info("key_pressed", extra=fields(key="*"))
                self._secrecy.on_key(now_ms())
                notes.happened(now_ms(), "key", "*")
                self._act(turn_taking.on_key(now_ms(), key, self._mouth.heard_ms))
            case PlaybackFinished():
                self._mouth.finished()
                self._act(turn_taking.on_playback_finished(now_ms()))
            case LegClosed(reason, detail):
                if reason != "lost":  # that is the leg's to log
                    logger.info(
                        "leg_closed", extra=fields(reason=reason, detail=detail)
                    )
                notes.happened(now_ms(), "leg_closed", reason, detail)
                self._act(turn_taking.on_leg_closed(reason, detail))
            case _:
                assert_never(event)

    def _on_speech(self, events: Sequence[SpeechEvent]) -> None:
        for event in events:
            self._act(*self._caller_turns.tell(event))

    def _on_caller(self, found: TurnEnd | Transcript) -> None:
        if isinstance(found, TurnEnd):
            self._hearing.hint_turn_over(found)
            return
        at_ms = self._clock.now_ms()
        wish = self._caller_words.on_transcript(at_ms, found.turn, found.text)
        if wish is not None:
            heard_ms = self._mouth.heard_ms
            self._act(self._turn_taking.on_caller_wish(at_ms, wish, heard_ms))

    def _on_due(self, at_ms: int) -> None:
        self._act(self._turn_taking.on_tick(at_ms))

    def _nobody_is_free(self) -> None:
        self._act(self._turn_taking.on_transfer_refused(self._clock.now_ms()))

    def _note_failed_errand(self, detail: str) -> None:
        self._notes.happened(self._clock.now_ms(), "confirmed", "failed", detail)

    def _fail(self, exc: Exception) -> None:
        """End the call; `run` raises it."""
        self._failure = self._failure or exc
        self._finished.set()

    # --- acting ---

    def _act(
        self, actions: Sequence[Action], speech_ended_s: float | None = None
    ) -> None:
        """Carry out what was decided, in order; never waits."""
        if actions:
            self._has_begun.set()
        for action in actions:
            self._carry_out(action, speech_ended_s)
        self._clock.wait_for(self._turn_taking.deadline_ms())

    def _carry_out(self, action: Action, speech_ended_s: float | None) -> None:
        parts, now_ms = self._parts, self._clock.now_ms
        match action:
            case Think(turn, user):
                self._notes.asked(turn, now_ms(), user)
                self.num_turns += 1
                events = parts.session.reply(turn, user)
                self._streams.start(turn, events, self._tasks, is_reply=True)
            case Release(turn):
                self._streams.release(turn, speech_ended_s)
            case Forget() | Settle():
                self._streams.seal(action)
            case Say(turn, phrase, value):
                text = parts.phrases[phrase].replace("{value}", value)
                self._notes.phrase(turn, now_ms(), phrase, text)
                events = parts.session.say(turn, text)
                release = self._streams.start(turn, events, self._tasks)
                self._errands.when_done(release)
            case SayWords(turn, text):
                self._notes.phrase(turn, now_ms(), "operator", text)
                events = parts.session.say(turn, text)
                release = self._streams.start(turn, events, self._tasks)
                release()
            case PlayPrompt(name, is_filler):
                self._notes.happened(now_ms(), "prompt", name)
                self._play_prompt(parts.prompts[name], is_filler=is_filler)
            case StopPlayback():
                if self._mouth.is_held:  # it was meant for the bot
                    self._barge_ins.was_meant()
                self._mouth.stop()
            case HoldPlayback():
                self._mouth.hold()
                self._barge_ins.bot_fell_silent()
            case GoOn():
                self._barge_ins.was_nothing()
                self._tasks.create_task(self._mouth.go_on())
            case AskWords(said):
                self._tasks.create_task(self._ask_words(said))
            case Listen():
                parts.leg.listen()
            case RecordOptOut():
                self._errands.note_opt_out(self._tasks)
            case ConfirmTransfer(destination):
                self._errands.look_for(destination, self._tasks)
            case Finish(outcome):
                self._outcome = outcome
                self._finished.set()
            case _:
                assert_never(action)

    def _play_prompt(self, prompt: Prompt, *, is_filler: bool) -> None:
        play = self._mouth.play_filler if is_filler else self._mouth.play_whole
        self._tasks.create_task(play(prompt.pcm16))

    async def _ask_words(self, said: Utterance) -> None:
        is_meant = await self._caller_words.are_meant(said)
        at_ms = self._clock.now_ms()
        self._act(
            self._turn_taking.on_words(at_ms, said, is_meant=is_meant),
            self._caller_turns.last_ended_s,
        )
