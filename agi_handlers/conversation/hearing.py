"""The caller's audio, made into speech of his own.

    leg ─▶ ear, together with other calls' ─▶ echo gate ─▶ on_speech
                                                  └─▶ the mouth speaks softly

What it makes of the audio depends on whether the bot talks, which turn-taking knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agi_handlers.audio_leg.batched_ears import BatchedEars, Heard
from agi_handlers.conversation.echo_gate import EchoGate
from agi_handlers.conversation.mouth import BotMouth
from agi_handlers.conversation.turn_taking import TurnTaking
from model.speech import TurnEnd, Utterance
from model.vad.events import SpeechEvent
from model.vad.listener import CallerEar
from model.vad.options import Expected


class Hearing:
    """That of one call."""

    def __init__(
        self,
        ear: CallerEar,
        ears: BatchedEars,
        mouth: BotMouth,
        turn_taking: TurnTaking,
        *,
        expects: Expected,
        on_speech: Callable[[Sequence[SpeechEvent]], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        """`expects`: what the caller says here where nothing else was asked for.

        on_speech: told what is heard of his speech, once for each piece of audio.
        on_failure: told what went wrong where nobody can be raised at.
        """
        self._ear = ear
        self._ears = ears
        self._mouth = mouth
        self._turn_taking = turn_taking
        self._gate = EchoGate(ear, mouth)
        self._usually_expects: Expected = expects
        self._on_speech = on_speech
        self._on_failure = on_failure
        ear.expect(expects)

    @property
    def samples_heard(self) -> int:
        """Of the caller's audio; what is said of his speech is counted in these."""
        return self._ear.samples_heard

    def take(self, pcm16: bytes) -> None:
        """The leg's plain call: what goes wrong ends the call, not the leg."""
        try:
            self.hear(pcm16)
        except Exception as exc:  # noqa: BLE001 - the call's to raise
            self._on_failure(exc)

    def hear(self, pcm16: bytes) -> None:
        """More of the caller's audio."""
        self._ear.bot_is_talking = self._turn_taking.is_bot_talking
        heard = self._ears.hear(self._ear, pcm16, self._take_heard)
        if heard is not None:
            self._on_heard(heard)

    def catch_up(self) -> None:
        """Tell now what is known of the audio so far, waiting for no other call."""
        heard = self._ears.finish(self._ear)
        if heard is not None:
            self._on_heard(heard)

    def end_utterance(self) -> None:
        """The audio pauses: what was being said is over."""
        self._on_speech(self._gate.let_through(self._ear.force_end()))

    def forget(self) -> None:
        """The call is over: nothing more is told."""
        self._ears.forget(self._ear)

    def expect(self, expected: Expected) -> None:
        """The caller was asked for this; the next thing he says is that."""
        self._ear.expect(expected)

    def expect_as_usual(self) -> None:
        """What was asked for has come."""
        self._ear.expect(self._usually_expects)

    def hint_turn_over(self, end: TurnEnd) -> None:
        """What the model makes of the words, where it is worth something.

        The ear has bounds of its own; each model's are mapped to them.
        """
        if end.over_from is not None and end.probability >= end.over_from:
            self._ear.hint_turn_over(1.0)
        elif end.more_below is not None and end.probability <= end.more_below:
            self._ear.hint_turn_over(0.0)

    def is_noise(self, said: Utterance) -> bool:
        """Whether what the bot was held for was nothing that is meant for it."""
        return self._gate.is_noise(said)

    def _take_heard(self, heard: Heard) -> None:
        """The ears' plain call, likewise."""
        try:
            self._on_heard(heard)
        except Exception as exc:  # noqa: BLE001 - the call's to raise
            self._on_failure(exc)

    def _on_heard(self, heard: Heard) -> None:
        if isinstance(heard, Exception):
            raise heard
        self._on_speech(self._gate.let_through(heard))
        # a first sign of his voice: softly, until it is sure or nothing
        yields = self._turn_taking.may_be_interrupted and self._gate.may_be_caller()
        self._mouth.lower(is_lowered=yields)
