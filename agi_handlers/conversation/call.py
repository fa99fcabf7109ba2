"""One conversation: carries out what turn-taking decides, and decides nothing itself.

    leg.events() ─▶ ear ─▶ TurnTaking ─▶ actions ─▶ session.reply / mouth / leg

One TaskGroup a call: the listener, a timer, and for each thing the bot says a task that
streams it and one that settles it.  The last action, `Finish`, ends the group.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from typing import assert_never, cast, get_args

from agi_handlers.audio_leg.batched_ears import BatchedEars, Heard
from agi_handlers.audio_leg.leg import (
    AudioLeg,
    CallerAudio,
    CallerKey,
    CallerMissing,
    CallerPaused,
    CallerTalks,
    LegClosed,
    LegEvent,
    PlaybackFinished,
)
from agi_handlers.conversation import reply_log
from agi_handlers.conversation.answer_screen import AnswerScreen
from agi_handlers.conversation.call_notes import CallNotes
from agi_handlers.conversation.echo_gate import EchoGate
from agi_handlers.conversation.errands import Errands
from agi_handlers.conversation.listening_sounds import is_listening_sound
from agi_handlers.conversation.mouth import BotMouth
from agi_handlers.conversation.outcome import MACHINE_ANSWERED, CallOutcome
from agi_handlers.conversation.secrecy import Secrecy
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
    PhraseName,
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
from agi_handlers.conversation.wishes import wish_in
from agi_handlers.records.rows import TurnFate
from model.audio.frames import RATE_HZ, SAMPLE_BYTES, SAMPLES_PER_MS
from model.audio.prompts import Prompt
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
    UserTurn,
    Utterance,
)
from model.vad.events import (
    SpeechEnded,
    SpeechEvent,
    SpeechResumed,
    SpeechStarted,
    SpeechSuspectedEnd,
    SpeechTooLong,
)
from model.vad.listener import CallerEar
from model.vad.options import Expected
from telemetry import (
    BARGE_IN_STOP,
    BARGE_INS,
    BARGE_INS_UNDONE,
    ERRORS,
    TURNS,
    fields,
)

logger = logging.getLogger(__name__)

_SETTLE_TIMEOUT_S = 2.0  # the speech half only has to take note


class _Ended(Exception):
    """Ends the call's task group; caught in `run`, nowhere else."""


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


@dataclass(frozen=True, slots=True)
class CallParts:
    """What a conversation needs of the world around it."""

    leg: AudioLeg
    ear: CallerEar
    session: SpeechSession
    phrases: Mapping[PhraseName, str]
    prompts: Mapping[str, Prompt]
    target_of: Callable[[str], str | None]
    """A destination's name as the model said it -> the dialplan's; None: unknown."""
    record_opt_out: Callable[[], Awaitable[None]] | None = None
    """Writes down that the caller wants no more calls; None: nobody to tell."""
    confirm_transfer: Callable[[str], Awaitable[str | None]] | None = None
    """As `target_of`, after a look at who is free there; None: nobody, stay."""
    read_callback: Callable[[str], str | None] | None = None
    """When to call back, as the model wrote it -> as it is read back; None: unclear."""
    promises: Callable[[str], bool] = lambda text: False
    """Whether a reply's words announce a transfer."""
    expects: Expected = "anything"
    """What callers say here where the bot has asked for nothing else."""
    language: str = "en-us"
    ears: BatchedEars = field(default_factory=BatchedEars)
    """Of all calls of the process: they share runs of the detector."""
    pause_recording: Callable[[bool], None] | None = None
    """True: record silence, False: sound again; None: nothing is recorded."""
    keys_are_secret: bool = False
    """Nothing is recorded from the caller's first key until he speaks again."""
    screen: AnswerScreen | None = None
    """Finds out who answered a call of ours; None: nobody asks."""
    notes: CallNotes = field(default_factory=CallNotes)
    """Takes down what happens; by itself it keeps nothing."""


class Call:
    """A running conversation."""

    def __init__(self, parts: CallParts, turn_taking: TurnTaking) -> None:
        self._parts = parts
        self._machine = turn_taking
        self._speaking: dict[int, _Speaking] = {}
        self._last_settled: asyncio.Event | None = None
        self._errands = Errands(
            parts.target_of,
            parts.record_opt_out,
            parts.confirm_transfer,
            on_failed=self._note_failed_errand,
            on_nobody_free=self._nobody_is_free,
        )
        self._outcome: CallOutcome | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_ms: int | None = None
        self._finished = asyncio.Event()
        self._failure: Exception | None = None
        self._has_begun = asyncio.Event()
        self._mouth = BotMouth(parts.leg)
        self._gate = EchoGate(parts.ear, self._mouth)
        parts.ear.expect(parts.expects)
        self._speech_started_s = 0.0
        self._doubted_ended_s: float | None = None
        self.num_turns = 0
        self.num_barge_ins = 0
        self._secrecy = Secrecy(
            parts.notes, parts.pause_recording, keys_are_secret=parts.keys_are_secret
        )
        self.last_response_ms: int | None = None
        """From the end of the caller's words to the last reply's first sound."""

    @property
    def phase(self) -> CallPhase:
        """What it is at now."""
        return self._machine.phase

    async def run(self) -> CallOutcome:
        """Hold the conversation until it ends, whatever ends it."""
        self._loop = asyncio.get_running_loop()
        self._zero_s = self._loop.time()
        try:
            async with asyncio.TaskGroup() as self._tasks:
                if self._parts.screen is not None:
                    await self._find_out_who_answered(self._parts.screen)
                if not self._finished.is_set():
                    self._tasks.create_task(self._listen())
                if not self._has_begun.is_set():
                    self._act(self._machine.on_answered(self._now_ms()))
                await self._finished.wait()
                if self._failure is not None:
                    raise self._failure
                await self._settle_the_rest()
                assert self._outcome is not None
                self._outcome = await self._errands.finish(self._outcome)
                raise self._failure or _Ended
        except* _Ended:
            pass
        finally:
            if self._timer is not None:
                self._timer.cancel()
        assert self._outcome is not None
        return self._outcome

    async def _find_out_who_answered(self, screen: AnswerScreen) -> None:
        machine = self._machine
        screen.on_machine = lambda: self._act(
            machine.on_ended_elsewhere(MACHINE_ANSWERED)
        )
        if (closed := await screen.until_known_or(self._has_begun)) is not None:
            self._act(machine.on_leg_closed(closed.reason, closed.detail))

    def shut_down(self) -> None:
        """The service ends: hand the caller over now."""
        self._act(self._machine.on_shutdown(self._now_ms()))

    # --- what operators do; True: it is being done ---

    def say_for_operator(self, text: str) -> bool:
        """Have the bot say something, now."""
        machine = self._machine
        return self._do(
            machine.on_operator_says(self._now_ms(), text, self._heard_ms())
        )

    def transfer_for_operator(self, target: str) -> bool:
        """Hand the caller on; `target` as a model would name it, empty: to people."""
        return self._do(self._machine.on_operator_transfers(self._now_ms(), target))

    def hang_up_for_operator(self) -> bool:
        """End the call."""
        return self._do(self._machine.on_ended_elsewhere("operator_hung_up"))

    def pause_recording_for_operator(self, *, is_paused: bool) -> None:
        """Record silence while a secret is told, or sound again."""
        self._secrecy.keep("operator", self._now_ms(), is_secret=is_paused)

    def note_operator(self, name: str, detail: str) -> None:
        """Put it into the call's record."""
        self._parts.notes.happened(self._now_ms(), "operator", name, detail)

    def _do(self, actions: Sequence[Action]) -> bool:
        self._act(actions)
        return bool(actions)

    # --- hearing ---

    async def _listen(self) -> None:
        leg = self._parts.leg
        leg.hand_audio_to(self._take_audio)
        try:
            async for event in leg.events():
                self._on_event(event)
        finally:
            leg.hand_audio_to(None)
            self._parts.ears.forget(self._parts.ear)

    def _take_audio(self, pcm16: bytes) -> None:
        """The leg's plain call: what goes wrong ends the call, not the leg."""
        try:
            self._on_audio(pcm16)
        except Exception as exc:  # noqa: BLE001 - raised again in `run`
            self._fail(exc)

    def _take_heard(self, heard: Heard) -> None:
        """The ears' plain call, likewise."""
        try:
            self._on_heard(heard)
        except Exception as exc:  # noqa: BLE001 - raised again in `run`
            self._fail(exc)

    def _fail(self, exc: Exception) -> None:
        self._failure = self._failure or exc
        self._finished.set()

    def _on_audio(self, pcm16: bytes) -> None:
        parts = self._parts
        parts.ear.bot_is_talking = self._machine.is_bot_talking
        heard = parts.ears.hear(parts.ear, pcm16, self._take_heard)
        if heard is not None:
            self._on_heard(heard)

    def _on_heard(self, heard: Heard) -> None:
        if isinstance(heard, Exception):
            raise heard
        self._hear(self._gate.let_through(heard))
        # a first sign of his voice: softly, until it is sure or nothing
        yields = self._machine.may_be_interrupted and self._gate.may_be_caller()
        self._mouth.lower(is_lowered=yields)

    def _on_event(self, event: LegEvent) -> None:
        machine = self._machine
        if not isinstance(event, CallerAudio):
            # what he said before comes first
            heard = self._parts.ears.finish(self._parts.ear)
            if heard is not None:
                self._on_heard(heard)
        match event:
            case CallerAudio(pcm16):
                self._on_audio(pcm16)
            case CallerMissing(is_missing):
                what = "missing" if is_missing else "back"
                self._parts.notes.happened(self._now_ms(), "caller_audio", what)
                machine.on_caller_missing(is_missing=is_missing)
            case CallerTalks():
                at_ms, heard_ms = self._now_ms(), self._heard_ms()
                if actions := machine.on_talk_detected(at_ms, heard_ms):
                    self._count_barge_in()
                self._act(actions)
            case CallerPaused():
                self._hear(self._gate.let_through(self._parts.ear.force_end()))
                self._act(machine.on_caller_paused(self._now_ms()))
            case CallerKey(key):
                logger.info("key_pressed", extra=fields(key="*"))
                self._secrecy.on_key(self._now_ms())
                self._parts.notes.happened(self._now_ms(), "key", "*")
                self._act(machine.on_key(self._now_ms(), key, self._heard_ms()))
            case PlaybackFinished():
                self._mouth.finished()
                self._act(machine.on_playback_finished(self._now_ms()))
            case LegClosed(reason, detail):
                if reason != "lost":  # that is the leg's to log
                    logger.info(
                        "leg_closed", extra=fields(reason=reason, detail=detail)
                    )
                self._parts.notes.happened(self._now_ms(), "leg_closed", reason, detail)
                self._act(machine.on_leg_closed(reason, detail))
            case _:
                assert_never(event)

    def _hear(self, events: Sequence[SpeechEvent]) -> None:
        machine, ear = self._machine, self._parts.ear
        for event in events:
            now_ms = self._now_ms()
            match event:
                case SpeechStarted(started_samples=started):
                    self._speech_started_s = self._loop.time() - _seconds(
                        ear.samples_heard - started
                    )
                    was_talking = machine.is_bot_talking
                    actions = machine.on_speech_started(now_ms, self._heard_ms())
                    if was_talking and any(
                        isinstance(a, StopPlayback) for a in actions
                    ):
                        self._count_barge_in()
                    self._act(actions)
                case SpeechSuspectedEnd(
                    started_samples=started, ended_samples=ended, pcm16=pcm16
                ):
                    # half duplex: the recording has ended, guessing wins no time
                    if self._parts.leg.is_full_duplex:
                        said = _utterance(started, ended, pcm16)
                        is_noise = self._gate.is_noise(said)
                        self._act(
                            machine.on_speech_suspected(now_ms, said, is_noise=is_noise)
                        )
                case SpeechResumed():
                    self._act(machine.on_speech_resumed(now_ms, self._heard_ms()))
                case SpeechEnded(
                    started_samples=started, ended_samples=ended, pcm16=pcm16
                ):
                    ended_s = self._loop.time() - _seconds(ear.samples_heard - ended)
                    said = _utterance(started, ended, pcm16)
                    began_ms = now_ms - (ear.samples_heard - started) // SAMPLES_PER_MS
                    self._secrecy.on_spoke(now_ms, began_ms)
                    is_noise = self._gate.is_noise(said)
                    actions = machine.on_speech_ended(now_ms, said, is_noise=is_noise)
                    ear.expect(self._parts.expects)  # what was asked for has come
                    self._doubted_ended_s = ended_s
                    self._act(actions, ended_s)
                case SpeechTooLong(
                    started_samples=started, ended_samples=ended, pcm16=pcm16
                ):
                    ended_s = self._loop.time() - _seconds(ear.samples_heard - ended)
                    said = _utterance(started, ended, pcm16)
                    self._act(machine.on_speech_too_long(now_ms, said), ended_s)
                case _:
                    assert_never(event)

    def _count_barge_in(self) -> None:
        BARGE_IN_STOP.observe(self._loop.time() - self._speech_started_s)
        self._note_barge_in()

    def _note_barge_in(self) -> None:
        self.num_barge_ins += 1
        BARGE_INS.inc()
        self._parts.notes.happened(self._now_ms(), "barge_in")
        logger.info("barge_in")

    # --- acting ---

    def _act(
        self, actions: Sequence[Action], speech_ended_s: float | None = None
    ) -> None:
        """Carry out what was decided, in order; never waits."""
        if actions:
            self._has_begun.set()
        for action in actions:
            match action:
                case Think(turn, user):
                    self._parts.notes.asked(turn, self._now_ms(), user)
                    self._start(turn, self._reply(turn, user), is_reply=True)
                case Say(turn, phrase, value):
                    text = self._parts.phrases[phrase].replace("{value}", value)
                    self._parts.notes.phrase(turn, self._now_ms(), phrase, text)
                    events = self._parts.session.say(turn, text)
                    self._start(turn, events, is_reply=False)
                    self._errands.when_done(self._speaking[turn].released.set)
                case SayWords(turn, text):
                    self._parts.notes.phrase(turn, self._now_ms(), "operator", text)
                    events = self._parts.session.say(turn, text)
                    self._start(turn, events, is_reply=False)
                    self._speaking[turn].released.set()
                case Release(turn):
                    speaking = self._speaking[turn]
                    speaking.speech_ended_s = speech_ended_s
                    speaking.released.set()
                    self._parts.notes.released(
                        turn, self._now_ms(), self._since_answer_ms(speech_ended_s)
                    )
                case Forget(turn):
                    self._parts.notes.sealed(turn, self._now_ms(), "dropped", 0)
                    self._seal(turn, action)
                case Settle(turn, heard_ms):
                    fate: TurnFate = "heard" if heard_ms is None else "interrupted"
                    self._parts.notes.sealed(turn, self._now_ms(), fate, heard_ms)
                    self._seal(turn, action)
                case PlayPrompt(name, is_filler):
                    self._parts.notes.happened(self._now_ms(), "prompt", name)
                    self._play_prompt(self._parts.prompts[name], is_filler=is_filler)
                case StopPlayback():
                    if self._mouth.is_held:  # it was meant for the bot
                        self._note_barge_in()
                    self._mouth.stop()
                case HoldPlayback():
                    self._mouth.hold()
                    BARGE_IN_STOP.observe(self._loop.time() - self._speech_started_s)
                case GoOn():
                    self._parts.notes.happened(self._now_ms(), "went_on")
                    BARGE_INS_UNDONE.inc()
                    self._tasks.create_task(self._mouth.go_on())
                case AskWords(said):
                    self._tasks.create_task(self._ask_words(said))
                case Listen():
                    self._parts.leg.listen()
                case RecordOptOut():
                    self._errands.note_opt_out(self._tasks)
                case ConfirmTransfer(destination):
                    self._errands.look_for(destination, self._tasks)
                case Finish(outcome):
                    self._outcome = outcome
                    self._finished.set()
                case _:
                    assert_never(action)
        self._arm_timer()

    def _note_failed_errand(self, detail: str) -> None:
        self._parts.notes.happened(self._now_ms(), "confirmed", "failed", detail)

    def _nobody_is_free(self) -> None:
        self._act(self._machine.on_transfer_refused(self._now_ms()))

    def _reply(self, turn: int, user: UserTurn) -> AsyncIterator[ReplyEvent]:
        self.num_turns += 1
        return self._parts.session.reply(turn, user)

    def _start(
        self, turn: int, events: AsyncIterator[ReplyEvent], *, is_reply: bool
    ) -> None:
        speaking = _Speaking(turn, events, is_reply)
        self._speaking[turn] = speaking
        # the turn before must be settled first: the history is in order
        before, self._last_settled = self._last_settled, speaking.settled
        self._tasks.create_task(self._carry(speaking, before))

    def _seal(self, turn: int, fate: Forget | Settle) -> None:
        speaking = self._speaking.pop(turn, None)
        if speaking is not None and not speaking.fate.done():
            speaking.fate.set_result(fate)

    def _play_prompt(self, prompt: Prompt, *, is_filler: bool) -> None:
        play = self._mouth.play_filler if is_filler else self._mouth.play_whole
        self._tasks.create_task(play(prompt.pcm16))

    # --- speaking ---

    async def _carry(self, speaking: _Speaking, before: asyncio.Event | None) -> None:
        """Stream one speech to the leg and settle it once its fate is known."""
        try:
            if before is not None:
                await before.wait()
            stream = self._tasks.create_task(self._stream(speaking))
            try:
                fate = await speaking.fate
            finally:
                stream.cancel()
                await asyncio.wait([stream])
            await self._settle(fate)
        finally:
            speaking.settled.set()

    async def _settle(self, fate: Settle | Forget) -> None:
        session = self._parts.session
        try:
            async with asyncio.timeout(_SETTLE_TIMEOUT_S):
                if isinstance(fate, Forget):
                    await session.forget(fate.turn)
                else:
                    await session.settle(fate.turn, fate.heard_ms)
        except (SpeechError, TimeoutError) as exc:
            # the next reply on this session will fail, and be told about
            logger.warning("settle_failed", extra=fields(error=str(exc)))

    async def _settle_the_rest(self) -> None:
        """At the end of the call: every open turn gets a fate, briefly waited for."""
        for turn in list(self._speaking):
            self._parts.notes.sealed(turn, self._now_ms(), "cut_off", self._heard_ms())
            self._seal(turn, Forget(turn))
        if self._last_settled is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SETTLE_TIMEOUT_S):
                    await self._last_settled.wait()

    async def _stream(self, speaking: _Speaking) -> None:
        machine, turn = self._machine, speaking.turn
        events = cast("AsyncGenerator[ReplyEvent, None]", speaking.events)
        try:
            async with contextlib.aclosing(events):
                async for event in events:
                    await self._on_reply_event(speaking, event)
        except SpeechError as exc:
            ERRORS.labels(kind=exc.code).inc()
            logger.warning(
                "speech_failed", extra=fields(turn=turn, code=exc.code, error=str(exc))
            )
            TURNS.labels(result="failed").inc()
            self._parts.notes.failed(turn, self._now_ms(), exc.code, str(exc))
            self._act(
                machine.on_reply_failed(
                    self._now_ms(), turn, exc.code, may_retry=_may_retry(exc)
                )
            )

    async def _on_reply_event(self, speaking: _Speaking, event: ReplyEvent) -> None:
        machine, turn = self._machine, speaking.turn
        match event:
            case TurnEnd():
                self._hint_turn_over(event)
            case ReplyText(text=text):
                self._parts.notes.text(turn, text)
            case ReplyAudio(pcm16=pcm16):
                self._parts.notes.audio(event)
                await speaking.released.wait()
                if not pcm16 or speaking.fate.done():  # stopped in this very moment
                    await asyncio.sleep(0)  # and whoever never waits is, too
                    return
                if not speaking.has_audio:
                    speaking.has_audio = True
                    self._parts.notes.played(turn, self._now_ms())
                    self._note_first_audio(speaking)
                duration_ms = len(pcm16) // SAMPLE_BYTES // SAMPLES_PER_MS
                self._act(machine.on_reply_audio(self._now_ms(), turn, duration_ms))
                await self._mouth.play(pcm16)
            case ReplyAction(name=name, argument=argument):
                await speaking.released.wait()
                speaking.action_names.append(name)
                logger.info("action_asked", extra=fields(turn=turn, action=name))
                self._parts.notes.happened(
                    self._now_ms(), "action", name, argument, turn
                )
                self._act(machine.on_reply_action(self._now_ms(), turn, name, argument))
                if name in ("pause_recording", "resume_recording"):
                    self._secrecy.keep(
                        "action", self._now_ms(), is_secret=name == "pause_recording"
                    )
                if name == "expect" and argument.strip() in get_args(Expected):
                    self._parts.ear.expect(cast("Expected", argument.strip()))
                if name == "callback" and self._parts.read_callback is not None:
                    words = argument.strip()
                    spoken = self._parts.read_callback(words)
                    self._act(machine.on_callback_read(words, spoken))
            case ReplyDone():
                await speaking.released.wait()
                self._parts.notes.done(event)
                if speaking.has_audio and not speaking.fate.done():
                    await self._mouth.end_of_speech()
                if speaking.is_reply:
                    reply_log.reply_done(turn, event)
                    self._keep_promise(speaking, event)
                self._act(machine.on_reply_done(self._now_ms(), turn))
            case Transcript(text=text):
                self._heard_words(turn, text)
            case _:
                assert_never(event)

    def _hint_turn_over(self, end: TurnEnd) -> None:
        """Tell the ear what the model makes of the words, if that is worth something.

        The ear has bounds of its own; each model's are mapped to them.
        """
        if end.over_from is not None and end.probability >= end.over_from:
            self._parts.ear.hint_turn_over(1.0)
        elif end.more_below is not None and end.probability <= end.more_below:
            self._parts.ear.hint_turn_over(0.0)

    def _keep_promise(self, speaking: _Speaking, done: ReplyDone) -> None:
        """A transfer announced in words alone is made all the same, to people."""
        names = speaking.action_names
        if "transfer" in names or "hangup" in names:
            return
        if self._parts.promises(done.text):
            logger.warning("promise_without_action", extra=fields(turn=speaking.turn))
            self._parts.notes.happened(
                self._now_ms(), "action", "transfer", "promised", speaking.turn
            )
            self._act(
                self._machine.on_reply_action(
                    self._now_ms(), speaking.turn, "transfer", ""
                )
            )

    def _heard_words(self, turn: int, text: str) -> None:
        """What the caller said is known as text."""
        self._parts.notes.words(turn, text)
        if self._parts.screen is not None:
            self._parts.screen.on_words(text)
        wish = wish_in(text, self._parts.language)
        if wish is None:
            return
        logger.info("wish_heard", extra=fields(turn=turn, wish=wish))
        self._parts.notes.happened(self._now_ms(), "wish", wish, "", turn)
        self._act(self._machine.on_caller_wish(self._now_ms(), wish, self._heard_ms()))

    async def _ask_words(self, said: Utterance) -> None:
        """Whether a short sound over the bot is meant for it: its words decide."""
        asked_s = self._loop.time()
        words = await self._parts.session.words_of(said)
        is_meant = words is None or not is_listening_sound(words, self._parts.language)
        took_ms = round((self._loop.time() - asked_s) * 1000)
        logger.info(
            "short_sound",
            extra=fields(
                is_meant=is_meant, has_words=words is not None, took_ms=took_ms
            ),
        )
        self._act(
            self._machine.on_words(self._now_ms(), said, is_meant=is_meant),
            self._doubted_ended_s,
        )

    def _note_first_audio(self, speaking: _Speaking) -> None:
        if speaking.speech_ended_s is not None:
            delay_s = self._loop.time() - speaking.speech_ended_s
            self.last_response_ms = reply_log.reply_started(speaking.turn, delay_s)

    # --- time ---

    def _now_ms(self) -> int:
        return round((self._loop.time() - self._zero_s) * 1000)

    def _since_answer_ms(self, at_s: float | None) -> int | None:
        return None if at_s is None else round((at_s - self._zero_s) * 1000)

    def _heard_ms(self) -> int:
        """How much of the current speech was heard, a filler before it not counted."""
        return self._mouth.heard_ms

    def _arm_timer(self) -> None:
        deadline_ms = self._machine.deadline_ms()
        if deadline_ms == self._timer_at_ms:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at_ms = deadline_ms
        if deadline_ms is not None:
            at_s = self._zero_s + deadline_ms / 1000
            self._timer = self._loop.call_at(at_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = self._timer_at_ms = None
        # call_at may fire a clock tick early; deadlines are whole milliseconds
        self._act(self._machine.on_tick(self._now_ms() + 1))


def _may_retry(exc: SpeechError) -> bool:
    """A failed reply may be tried once more; a lost or full speech half not."""
    return not isinstance(exc, SpeechUnavailable | SpeechOverloaded)


def _seconds(samples: int) -> float:
    return samples / RATE_HZ


def _utterance(started: int, ended: int, pcm16: bytes) -> Utterance:
    return Utterance(pcm16, RATE_HZ, started // SAMPLES_PER_MS, ended // SAMPLES_PER_MS)
