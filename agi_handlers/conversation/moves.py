"""The moves of a conversation: what each does to its state, and says to do.

`TurnTaking` knows when to make which; here is what it means to think, to hold, to
interrupt, to say a phrase, to hand over.  Pure, as that is.
"""

from __future__ import annotations

from agi_handlers.conversation.bot_speech import BotSpeech
from agi_handlers.conversation.findings import Findings
from agi_handlers.conversation.joined_speech import join
from agi_handlers.conversation.key_pad import KeyPad
from agi_handlers.conversation.outcome import CallOutcome
from agi_handlers.conversation.quiet_caller import QuietCaller
from agi_handlers.conversation.talk_clock import TalkClock
from agi_handlers.conversation.turn_actions import (
    Action,
    AskWords,
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
    Settle,
    StopPlayback,
    Think,
    TurnTakingOptions,
)
from model.speech import TypedTurn, UserTurn, Utterance


class Moves:
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
        self._is_caller_missing = False
        self._num_talks_on = 0
        self._is_ignoring = False
        """The sound the caller is making was found to be no words."""
        self._keys = KeyPad(self._options.key_timeout_ms)
        self._findings = Findings()
        self._to_say: tuple[PhraseName, str] | None = None
        """A phrase that follows what is being said, and its value."""
        self._is_finished = False
        self._is_hurried = False  # a shutdown has been asked for once

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

    def _judge_held(
        self, at_ms: int, said: Utterance, *, is_noise: bool
    ) -> list[Action]:
        speech = self._speech
        if speech is None or not speech.is_held:
            return []
        if is_noise:
            speech.go_on(at_ms)
            self._is_ignoring = True
            return [GoOn()]
        if speech.doubted == said:
            return []  # its words are on their way
        if said.ended_ms - said.started_ms > self._options.short_ms:
            return self._interrupt(speech, speech.heard_ms)
        speech.doubt(at_ms, said)
        return [AskWords(said)]

    def _take_as_meant(
        self, speech: BotSpeech, said: Utterance, at_ms: int
    ) -> list[Action]:
        actions = self._interrupt(speech, speech.heard_ms)
        if not self._is_caller_speaking:
            return actions + self._answer(at_ms, said)
        whole = join(self._unanswered, said)
        return actions + self._think(whole, at_ms, released=False)

    def _playback_due_ms(self, speech: BotSpeech) -> int | None:
        # the last words have a time limit of their own
        return None if self._is_ending else speech.playback_due_ms(self._options)

    def _mend_playback(self, speech: BotSpeech, at_ms: int) -> list[Action]:
        if speech.doubted is not None:
            return self._take_as_meant(speech, speech.doubted, at_ms)
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
        if self._is_caller_missing:
            # he may be talking all the time: people hear him, or they find out
            return self._transfer("", "caller_not_heard", at_ms)
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
