"""Who speaks when: the pure core of a conversation.

What happens goes in as method calls, with the time as an argument; what to do comes
out as a list of actions.  No clock, no task, no audio is touched in here.

    caller   ▁▁▁███████▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁███▁▁▁
                      ?   !              ▲ barge-in: StopPlayback, Settle(heard)
    bot                Think
                          Release ▁▁█████▂

`?` is a suspected end of the caller's turn: the reply is computed, silently.  `!` is
the confirmed end: it may be heard.  A caller who goes on in between has not finished:
Forget.  One who goes on before he heard half a second of the reply had not finished
either: what he said before and after becomes one turn (`_unanswered`).
"""

from __future__ import annotations

from typing import Final

from agi_handlers.conversation.bot_speech import BotSpeech
from agi_handlers.conversation.findings import Findings
from agi_handlers.conversation.joined_speech import join
from agi_handlers.conversation.key_pad import KeyPad
from agi_handlers.conversation.outcome import CallOutcome
from agi_handlers.conversation.quiet_caller import QuietCaller
from agi_handlers.conversation.talk_clock import TalkClock
from agi_handlers.conversation.turn_actions import (
    Action,
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
    TurnTakingOptions,
)
from agi_handlers.conversation.wishes import Wish
from model.speech import TypedTurn, UserTurn, Utterance

_FIRST_WORDS: Final = 1
"""The turn that every call begins with: greeting, disclosure, or that it is closed."""


class TurnTaking:
    """The state of one conversation.  Times are milliseconds of one clock."""

    def __init__(self, options: TurnTakingOptions | None = None) -> None:
        self._options = options or TurnTakingOptions()
        self._speech: BotSpeech | None = None
        self._turn = 0
        self._clock = TalkClock(self._options)
        self._quiet_caller = QuietCaller(self._options)
        self._is_caller_speaking = False
        self._unanswered: Utterance | None = None
        self._pending: Utterance | None = None  # said while it could not be stopped
        self._num_talks_on = 0
        self._is_ignoring = False
        """The sound the caller is making was found to be no words."""
        self._keys = KeyPad(self._options.key_timeout_ms)
        self._findings = Findings()
        self._to_say: tuple[PhraseName, str] | None = None
        """A phrase that follows what is being said, and its value."""
        self._is_finished = False
        self._is_hurried = False  # a shutdown has been asked for once

    # --- what a runner may ask ---

    @property
    def is_bot_talking(self) -> bool:
        """True while the caller hears the bot: speech must be surer to count."""
        speech = self._speech
        return speech is not None and speech.has_audio and not speech.is_held

    @property
    def is_finished(self) -> bool:
        return self._is_finished

    @property
    def phase(self) -> CallPhase:
        """What the call is at, for people who watch."""
        speech = self._speech
        if self._is_ending:
            return "ending"
        if speech is not None and speech.has_audio:
            return "speaking"
        if self._is_caller_speaking:
            return "hearing"
        return "listening" if speech is None else "thinking"

    def deadline_ms(self) -> int | None:
        """When `on_tick` must be called next; None: nothing is being waited for."""
        if self._is_finished:
            return None
        speech = self._speech
        times: list[int | None]
        times = [self._clock.due_ms(), self._his_due_ms()]
        if speech is not None:
            times.append(self._playback_due_ms(speech))
            if speech.awaits_audio:
                times += speech.first_audio_due_ms(self._options)
        return min(time_ms for time_ms in times if time_ms is not None)

    # --- what happens ---

    def on_answered(self, at_ms: int) -> list[Action]:
        """The caller is on the line."""
        self._clock.begin(at_ms)
        if self._options.is_closed:
            then = CallOutcome("completed", "outside_hours")
            return self._say("closed", at_ms, then=then)
        if self._options.has_disclosure:
            self._to_say = ("greeting", "")
        return self._say("disclosure" if self._to_say else "greeting", at_ms)

    def on_speech_started(self, at_ms: int, heard_ms: int) -> list[Action]:
        """The caller began to speak; `heard_ms` of the current speech were heard."""
        self._is_caller_speaking = True
        self._quiet_caller.heard()
        speech = self._speech
        if speech is None or not speech.yields(self._options):
            return []
        if not speech.has_audio:
            # noise keeps no greeting back; words meanwhile are answered behind it
            return [] if speech.turn == _FIRST_WORDS else self._withdraw(speech)
        if speech.source == "reply" and heard_ms < self._options.merge_below_ms:
            return [StopPlayback(), *self._withdraw(speech)]
        return self._hold(speech, at_ms, heard_ms)

    def on_talk_detected(self, at_ms: int, heard_ms: int) -> list[Action]:
        """Half duplex: the caller speaks while the leg cannot hear him; listen."""
        speech = self._speech if self._options.barge_in else None
        if speech is None or not speech.has_audio or speech.is_protected:
            return []
        self._quiet_caller.wait(at_ms)
        return [*self._interrupt(speech, heard_ms), Listen()]

    def on_speech_suspected(
        self, at_ms: int, said: Utterance, *, is_noise: bool = False
    ) -> list[Action]:
        """The caller may have finished: compute the reply, silently.

        is_noise: a cough, "mhm"; what was held for it goes on.
        """
        actions = self._judge_held(at_ms, is_noise=is_noise)
        if self._speech is not None or self._is_ending:
            return actions
        return actions + self._think(
            join(self._unanswered, said), at_ms, released=False
        )

    def on_speech_resumed(self, at_ms: int, heard_ms: int = 0) -> list[Action]:
        """The caller had not finished."""
        speech = self._speech
        if speech is not None and self._is_ignoring:
            self._is_ignoring = False
            return self._hold(speech, at_ms, heard_ms)
        if speech is None or speech.is_released:
            return []
        self._speech = None
        return [Forget(speech.turn)]

    def on_speech_too_long(self, at_ms: int, said: Utterance) -> list[Action]:
        """The caller talks on and on, and was cut."""
        self._num_talks_on += 1
        if self._is_ending or self._num_talks_on <= self._options.max_talks_on:
            return self._answer(at_ms, said)
        return self._transfer("", "caller_talks_on", at_ms)

    def on_speech_ended(
        self, at_ms: int, said: Utterance, *, is_noise: bool = False
    ) -> list[Action]:
        """The caller's turn is over."""
        self._num_talks_on = 0
        actions = self._judge_held(at_ms, is_noise=is_noise)
        if self._is_ignoring:
            self._is_caller_speaking = self._is_ignoring = False
            if self._speech is None and not self._is_ending:
                # the bot has finished meanwhile: now the caller may be waited for
                self._quiet_caller.wait(at_ms)
            return actions
        return actions + self._answer(at_ms, said)

    def _answer(self, at_ms: int, said: Utterance) -> list[Action]:
        self._is_caller_speaking = False
        if self._is_ending:
            return []
        speech = self._speech
        if speech is not None and speech.is_released:
            # it could not be interrupted: what was said is answered afterwards
            self._pending = join(self._pending, said)
            return []
        whole = join(self._unanswered, said)
        self._unanswered = None
        if speech is None:
            return self._think(whole, at_ms, released=True)
        if speech.user == whole:
            speech.is_released, speech.released_ms = True, at_ms
            return (
                self._fail(speech, at_ms) if speech.failure else [Release(speech.turn)]
            )
        self._speech = None
        return [Forget(speech.turn), *self._think(whole, at_ms, released=True)]

    def on_caller_paused(self, at_ms: int) -> list[Action]:
        """Half duplex: a recording ended; with nothing to answer, listen again."""
        return [Listen()] if self._speech is None and not self._is_finished else []

    def on_key(self, at_ms: int, key: str, heard_ms: int) -> list[Action]:
        """The caller pressed a key."""
        if self._is_ending:
            return []
        self._quiet_caller.heard()
        actions: list[Action] = []
        speech = self._speech
        if speech is not None and not speech.is_protected:
            actions += (
                self._interrupt(speech, heard_ms)
                if speech.has_audio
                else self._withdraw(speech)
            )
        if key == self._options.person_key and self._keys.is_empty:
            return actions + self._transfer("", "person_key", at_ms)
        if key == self._options.opt_out_key and self._keys.is_empty:
            return actions + self._opted_out(at_ms, "opt_out_key")
        if key == "#":
            return actions + self._flush_keys(at_ms)
        self._keys.press(at_ms, key)
        if self._speech is None:
            self._quiet_caller.wait(at_ms)
            actions.append(Listen())
        return actions

    def on_caller_wish(self, at_ms: int, wish: Wish, heard_ms: int) -> list[Action]:
        """The caller's own words ask for what needs nobody's consent."""
        if self._is_finished:
            return []
        speech = self._speech
        if self._is_ending or (speech is not None and speech.then is not None):
            # the talk ends already, as he wished or not; an opt-out still counts
            return self._record_opt_out() if wish == "opt_out" else []
        actions: list[Action] = []
        if speech is not None and speech.has_audio:
            actions += self._interrupt(speech, heard_ms)
        if wish == "opt_out":
            return actions + self._opted_out(at_ms, "opt_out_words")
        return actions + self._transfer("", "person_words", at_ms)

    def on_reply_audio(
        self, at_ms: int, turn: int, duration_ms: int = 0
    ) -> list[Action]:
        """Audio of a speech, so long, is being queued for the caller."""
        speech = self._speech
        if speech is not None and speech.turn == turn:
            speech.queue(at_ms, duration_ms)
        return []

    def on_reply_action(
        self, at_ms: int, turn: int, name: str, argument: str
    ) -> list[Action]:
        """The model asked for something; its words are heard before it happens."""
        speech = self._speech
        if speech is None or speech.turn != turn:
            return []
        argument = argument.strip()
        match name:
            case "transfer":
                speech.then = CallOutcome("transfer", "model_asked", "", argument)
                speech.is_protected = True
                return [ConfirmTransfer(argument)]
            case "hangup":
                speech.then = speech.then or CallOutcome("completed", "model_ended")
            case "dnc":
                speech.then = speech.then or CallOutcome("completed", "opt_out")
                speech.is_protected = True
                return self._record_opt_out()
            case _:
                self._findings.write_down(name, argument)
        speech.is_protected = speech.is_protected or speech.then is not None
        return []

    def on_callback_read(self, words: str, spoken_time: str | None) -> list[Action]:
        """When to call back, as it was understood: said to the caller before all else.

        spoken_time: None: not understood, so he is asked again.
        """
        if words != self._findings.callback or self._is_finished:
            return []
        if spoken_time is not None:
            self._to_say = ("callback_noted", spoken_time)
        elif self._speech is None or self._speech.then is None:
            self._findings.callback = ""
            self._to_say = ("callback_unclear", "")
        return []

    def on_transfer_refused(self, at_ms: int) -> list[Action]:
        """Nobody is free there: the caller is told so, and the talk goes on."""
        speech = self._speech
        if speech is None or speech.then is None or speech.then.status != "transfer":
            return []
        if speech.source == "phrase":
            if speech.has_audio:
                return []  # promised already: he goes there and waits
            self._clock.take_back_last_words()
            return self._drop_speech() + self._say("nobody_free", at_ms)
        speech.then, speech.is_protected = None, False
        self._to_say = ("nobody_free", "")
        return []

    def on_reply_done(self, at_ms: int, turn: int) -> list[Action]:
        """All of a speech has been queued."""
        speech = self._speech
        if speech is None or speech.turn != turn:
            return []
        speech.is_complete = True
        if speech.has_audio:
            return []
        # nothing to hear: the caller must not be left in silence
        if speech.then is not None:
            self._speech = None
            if speech.then.status == "transfer" and speech.source == "reply":
                # the model left it to us to say so
                said = self._say("transferring", at_ms, then=speech.then)
                return [Settle(turn, None), *said]
            return [Settle(turn, None), *self._last(speech.then, at_ms)]
        actions: list[Action] = [] if speech.source == "prompt" else [Settle(turn, 0)]
        self._speech = None
        if speech.source == "reply" and self._to_say is None:
            return actions + self._say("say_again", at_ms)
        return actions + self._quiet(at_ms)

    def on_reply_failed(
        self, at_ms: int, turn: int, reason: str, *, may_retry: bool
    ) -> list[Action]:
        """A speech could not be made."""
        speech = self._speech
        if speech is None or speech.turn != turn:
            return []
        speech.failure, speech.is_failure_final = reason, not may_retry
        return self._fail(speech, at_ms)

    def on_playback_finished(self, at_ms: int) -> list[Action]:
        """The caller has heard everything that was queued."""
        speech = self._speech
        if speech is None or not speech.has_audio:
            return []
        actions: list[Action] = []
        if speech.source != "prompt":
            actions.append(Settle(speech.turn, None))
        self._speech = None
        if speech.then is not None:
            return actions + self._last(speech.then, at_ms)
        return actions + self._quiet(at_ms)

    def on_tick(self, at_ms: int) -> list[Action]:
        """Time has passed; see `deadline_ms`."""
        if self._is_finished:
            return []
        speech = self._speech
        if self._clock.are_last_words_stuck(at_ms):
            then = speech.then if speech is not None else None
            then = then or CallOutcome("failed", "last_words_stuck")
            return [StopPlayback(), *self._finish(then)]
        if self._clock.is_over(at_ms):
            return self._time_limit(at_ms)
        actions = self._warn_of_time(at_ms) if self._clock.take_warning(at_ms) else []
        if not actions and speech is not None:
            actions = self._mind_speech(speech, at_ms)
        if not actions and (his_ms := self._his_due_ms()) and at_ms >= his_ms:
            due_keys = not self._keys.is_empty
            return self._flush_keys(at_ms) if due_keys else self._no_input(at_ms)
        return actions

    def on_leg_closed(self, reason: str, detail: str) -> list[Action]:
        """The caller hung up, or the audio broke."""
        if self._is_finished:
            return []
        if reason == "caller_hung_up":
            return self._finish(CallOutcome("caller_hung_up", reason))
        return self._finish(CallOutcome("failed", "audio_leg_lost"))

    def on_speech_half_lost(self, at_ms: int, reason: str) -> list[Action]:
        """The speech half is gone and stays gone: say so, hand the caller on."""
        return [] if self._is_ending else self._trouble(reason, at_ms)

    def on_shutdown(self, at_ms: int) -> list[Action]:
        """The service ends: the caller is told and goes to people; asked again, now."""
        was_hurried, self._is_hurried = self._is_hurried, True
        then = CallOutcome("failed", "shutdown", self._findings.disposition)
        if not self._is_ending:
            return self._drop_speech() + self._say("transferring", at_ms, then=then)
        if not was_hurried:  # the last words are being said
            return []
        if self._speech is not None and self._speech.then is not None:
            then = self._speech.then
        return self._end_at_once(then)

    def on_operator_says(self, at_ms: int, text: str, heard_ms: int) -> list[Action]:
        """Somebody at the console has the bot say something; nothing: not now."""
        speech = self._speech
        if self._is_ending or (speech is not None and speech.is_protected):
            return []
        if speech is not None and speech.has_audio:
            actions = self._interrupt(speech, heard_ms)
        else:
            actions = self._drop_speech()
        turn = self._next_turn()
        self._new_speech(BotSpeech(turn, "phrase", released_ms=at_ms))
        return [*actions, SayWords(turn, text)]

    def on_operator_transfers(self, at_ms: int, target: str) -> list[Action]:
        """Somebody at the console hands the caller on; nothing: it ends already."""
        return [] if self._is_ending else self._transfer(target, "operator", at_ms)

    def on_ended_elsewhere(self, reason: str) -> list[Action]:
        """The console ends the call, or a machine answered it: not a word more."""
        return self._end_at_once(CallOutcome("completed", reason))

    # --- the moves ---

    @property
    def _is_ending(self) -> bool:
        return self._clock.is_ending or self._is_finished

    def _end_at_once(self, outcome: CallOutcome) -> list[Action]:
        return [] if self._is_finished else [StopPlayback(), *self._finish(outcome)]

    def _new_speech(self, speech: BotSpeech) -> None:
        self._speech = speech
        self._quiet_caller.wait_no_more()

    def _next_turn(self) -> int:
        self._turn += 1
        return self._turn

    def _think(self, user: UserTurn, at_ms: int, *, released: bool) -> list[Action]:
        turn = self._next_turn()
        self._new_speech(
            BotSpeech(turn, "reply", user, is_released=released, released_ms=at_ms)
        )
        return [Think(turn, user), *([Release(turn)] if released else [])]

    def _say(
        self,
        phrase: PhraseName,
        at_ms: int,
        *,
        value: str = "",
        then: CallOutcome | None = None,
    ) -> list[Action]:
        turn = self._next_turn()
        self._new_speech(
            BotSpeech(
                turn,
                "phrase",
                released_ms=at_ms,
                is_protected=self._options.protects(phrase) or then is not None,
                then=then,
            )
        )
        if then is not None:
            self._clock.begin_last_words(at_ms)
        return [Say(turn, phrase, value)]

    def _withdraw(self, speech: BotSpeech) -> list[Action]:
        """The caller goes on: what he said so far is part of what he says now."""
        if isinstance(speech.user, Utterance):
            self._unanswered = speech.user
        self._speech = None
        if speech.source == "prompt":
            return [StopPlayback()]
        filler: list[Action] = [StopPlayback()] if speech.num_fillers else []
        return [*filler, Forget(speech.turn)]

    def _hold(self, speech: BotSpeech, at_ms: int, heard_ms: int) -> list[Action]:
        """Silence at once; whether the speech is over for it, what follows shows."""
        speech.hold(at_ms, heard_ms)
        return [HoldPlayback()]

    def _judge_held(self, at_ms: int, *, is_noise: bool) -> list[Action]:
        speech = self._speech
        if speech is None or not speech.is_held:
            return []
        if not is_noise:
            return self._interrupt(speech, speech.heard_ms)
        speech.go_on(at_ms)
        self._is_ignoring = True
        return [GoOn()]

    def _playback_due_ms(self, speech: BotSpeech) -> int | None:
        # the last words have a time limit of their own
        return None if self._is_ending else speech.playback_due_ms(self._options)

    def _mend_playback(self, speech: BotSpeech, at_ms: int) -> list[Action]:
        if speech.is_held:
            return self._interrupt(speech, speech.heard_ms)
        if speech.is_complete:
            return self._trouble("playback_stuck", at_ms)
        if speech.has_stall_filler:
            return self._trouble("reply_stalled", at_ms)
        speech.has_stall_filler = True
        return [PlayPrompt("one_moment", is_filler=True)]

    def _warn_of_time(self, at_ms: int) -> list[Action]:
        """Now, or as soon as the bot has said what it is saying."""
        if self._speech is None and not self._is_caller_speaking:
            return self._say("time_warning", at_ms)
        self._to_say = self._to_say or ("time_warning", "")
        return []

    def _interrupt(self, speech: BotSpeech, heard_ms: int) -> list[Action]:
        self._speech = None
        if speech.source == "prompt":
            return [StopPlayback()]
        return [StopPlayback(), Settle(speech.turn, heard_ms)]

    def _drop_speech(self) -> list[Action]:
        speech, self._speech = self._speech, None
        if speech is None:
            return []
        stop: list[Action] = [StopPlayback()]
        return stop if speech.source == "prompt" else [*stop, Forget(speech.turn)]

    def _quiet(self, at_ms: int) -> list[Action]:
        """The bot has finished: answer what was said meanwhile, or listen."""
        has_asked = self._pending is not None or self._is_caller_speaking
        if has_asked and self._to_say == ("greeting", ""):
            self._to_say = None
        if self._to_say is not None and not self._is_caller_speaking:
            (phrase, value), self._to_say = self._to_say, None
            return self._say(phrase, at_ms, value=value)
        self._quiet_caller.wait(at_ms)
        pending, self._pending = self._pending, None
        if pending is not None and not self._is_caller_speaking:
            return self._think(pending, at_ms, released=True)
        if pending is not None:
            self._unanswered = join(pending, self._unanswered)
        return [Listen()]

    def _flush_keys(self, at_ms: int) -> list[Action]:
        keys = self._keys.take()
        if not keys:
            return []
        if self._speech is not None:
            return []  # protected words are being spoken; keys alone don't stop them
        return self._think(TypedTurn(" ".join(keys)), at_ms, released=True)

    def _his_due_ms(self) -> int | None:
        """When the caller has been waited for long enough, for a key or a word."""
        if not self._keys.is_empty:
            return self._keys.due_ms()
        return None if self._is_caller_speaking else self._quiet_caller.due_ms()

    def _mind_speech(self, speech: BotSpeech, at_ms: int) -> list[Action]:
        """Something in the place of what does not come, and people at last."""
        options = self._options
        due_ms = self._playback_due_ms(speech)
        if due_ms is not None and at_ms >= due_ms:
            return self._mend_playback(speech, at_ms)
        if not speech.awaits_audio:
            return []
        if at_ms >= speech.released_ms + options.first_audio_timeout_ms:
            speech.failure = "no_reply_in_time"
            return self._fail(speech, at_ms)
        if speech.take_filler(at_ms, options):
            return [PlayPrompt("one_moment", is_filler=True)]
        return []

    def _fail(self, speech: BotSpeech, at_ms: int) -> list[Action]:
        if speech.may_retry(self._options) and not speech.is_failure_final:
            return self._retry(speech, at_ms)
        # nobody waits for a guess: nothing is said into a pause of the caller's
        return self._trouble(speech.failure, at_ms) if speech.is_released else []

    def _retry(self, speech: BotSpeech, at_ms: int) -> list[Action]:
        assert speech.user is not None
        actions: list[Action] = [Forget(speech.turn)]
        actions += self._think(speech.user, at_ms, released=speech.is_released)
        assert self._speech is not None
        self._speech.num_retries = speech.num_retries + 1
        if speech.is_released and not speech.num_fillers:
            self._speech.num_fillers = 1
            actions.append(PlayPrompt("one_moment", is_filler=True))
        return actions

    def _trouble(self, reason: str, at_ms: int) -> list[Action]:
        if self._clock.is_ending and self._speech is not None:
            then = self._speech.then
            if then is not None:  # only the last words failed: do what they announced
                turn = self._speech.turn
                return [StopPlayback(), Forget(turn), *self._finish(then)]
        actions = self._drop_speech()
        turn = self._next_turn()
        self._new_speech(
            BotSpeech(
                turn,
                "prompt",
                has_audio=True,
                is_protected=True,
                then=CallOutcome("failed", reason, self._findings.disposition),
            )
        )
        self._clock.begin_last_words(at_ms)
        return [*actions, PlayPrompt("technical_trouble")]

    def _transfer(self, target: str, reason: str, at_ms: int) -> list[Action]:
        then = CallOutcome("transfer", reason, self._findings.disposition, target)
        confirm: list[Action] = [ConfirmTransfer(target)]
        actions = confirm + self._drop_speech()
        return actions + self._say("transferring", at_ms, then=then)

    def _record_opt_out(self) -> list[Action]:
        if not self._findings.opt_out():
            return []
        return [RecordOptOut()]

    def _opted_out(self, at_ms: int, reason: str) -> list[Action]:
        then = CallOutcome("completed", reason)
        actions = self._record_opt_out() + self._drop_speech()
        return actions + self._say("opted_out", at_ms, then=then)

    def _time_limit(self, at_ms: int) -> list[Action]:
        status = "transfer" if self._options.time_limit_transfers else "completed"
        then = CallOutcome(status, "time_limit", self._findings.disposition)  # type: ignore[arg-type]
        return self._drop_speech() + self._say("time_limit", at_ms, then=then)

    def _no_input(self, at_ms: int) -> list[Action]:
        if self._quiet_caller.ask_again():
            return self._say("still_there", at_ms)
        then = CallOutcome("no_input", "no_input", self._findings.disposition)
        return self._say("goodbye_no_input", at_ms, then=then)

    def _last(self, then: CallOutcome, at_ms: int) -> list[Action]:
        """The last words are over, unless one thing more has to be said before."""
        if self._to_say is None:
            return self._finish(then)
        (phrase, value), self._to_say = self._to_say, None
        return self._say(phrase, at_ms, value=value, then=then)

    def _finish(self, outcome: CallOutcome) -> list[Action]:
        self._is_finished = True
        self._speech = None
        return [Finish(self._findings.complete(outcome))]
