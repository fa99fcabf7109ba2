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

A sound over the bot silences it at once (HoldPlayback).  What follows shows whether
that was meant: speech that goes on is; a cough is not (GoOn); of a short burst the
words decide (AskWords), for "stop" is no longer than "mhm".
"""

from __future__ import annotations

from typing import Final

from agi_handlers.conversation.bot_speech import BotSpeech
from agi_handlers.conversation.joined_speech import join
from agi_handlers.conversation.moves import Moves
from agi_handlers.conversation.outcome import CallOutcome
from agi_handlers.conversation.turn_actions import (
    Action,
    CallPhase,
    ConfirmTransfer,
    Forget,
    GoOn,
    Listen,
    SayWords,
    Settle,
    StopPlayback,
)
from agi_handlers.conversation.wishes import Wish
from model.speech import Utterance

_FIRST_WORDS: Final = 1
"""The turn that every call begins with: greeting, disclosure, or that it is closed."""


class TurnTaking(Moves):
    """Decides in one conversation.  Times are milliseconds of one clock."""

    # --- what a runner may ask ---

    @property
    def is_bot_talking(self) -> bool:
        """True while the caller hears the bot: speech must be surer to count."""
        speech = self._speech
        return speech is not None and speech.has_audio and not speech.is_held

    @property
    def may_be_interrupted(self) -> bool:
        """The caller hears the bot, and his voice would silence it."""
        speech = self._speech
        return (
            self.is_bot_talking and speech is not None and speech.yields(self._options)
        )

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
        if speech.doubted is not None:  # he goes on before it is known what he said
            self._unanswered = speech.doubted
            return self._interrupt(speech, speech.heard_ms)
        if speech.turn == _FIRST_WORDS and not (speech.has_audio and heard_ms):
            # noise keeps no greeting back; words meanwhile are answered behind it
            return []
        if not speech.has_audio:
            return self._withdraw(speech)
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

        is_noise: a cough, a click; what was held for it goes on.
        """
        actions = self._judge_held(at_ms, said, is_noise=is_noise)
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
        if speech is not None and speech.doubted is not None:
            return self._interrupt(speech, speech.heard_ms)
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
        actions = self._judge_held(at_ms, said, is_noise=is_noise)
        if self._speech is not None and self._speech.doubted is not None:
            self._is_caller_speaking = False
            return actions
        if self._is_ignoring:
            self._is_caller_speaking = self._is_ignoring = False
            if self._speech is None and not self._is_ending:
                # the bot has finished meanwhile: now the caller may be waited for
                self._quiet_caller.wait(at_ms)
            return actions
        return actions + self._answer(at_ms, said)

    def on_words(self, at_ms: int, said: Utterance, *, is_meant: bool) -> list[Action]:
        """What a short sound over the bot was: words for it, or a mere "mhm"."""
        speech = self._speech
        if speech is None or speech.doubted != said:
            return []
        if is_meant:
            return self._take_as_meant(speech, said, at_ms)
        speech.go_on(at_ms)
        self._is_ignoring = self._is_caller_speaking
        return [GoOn()]

    def on_caller_paused(self, at_ms: int) -> list[Action]:
        """Half duplex: a recording ended; with nothing to answer, listen again."""
        return [Listen()] if self._speech is None and not self._is_finished else []

    def on_caller_missing(self, *, is_missing: bool) -> None:
        """Nothing of his audio comes, as one-way lines have it; or it comes again."""
        self._is_caller_missing = is_missing

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
