"""The caller's speech, put to turn-taking with its moments on the call's clock.

caller   ▁▁▁███████▁▁▁▁▁▁
            │      │    └ now: the ear says so
            started ended, both earlier by what was heard since
"""

from __future__ import annotations

from typing import assert_never

from agi_handlers.conversation.barge_ins import BargeIns
from agi_handlers.conversation.call_clock import CallClock
from agi_handlers.conversation.hearing import Hearing
from agi_handlers.conversation.mouth import BotMouth
from agi_handlers.conversation.secrecy import Secrecy
from agi_handlers.conversation.turn_actions import Action, StopPlayback
from agi_handlers.conversation.turn_taking import TurnTaking
from model.audio.frames import RATE_HZ, SAMPLES_PER_MS
from model.speech import Utterance
from model.vad.events import (
    SpeechEnded,
    SpeechEvent,
    SpeechResumed,
    SpeechStarted,
    SpeechSuspectedEnd,
    SpeechTooLong,
)


class CallerTurns:
    """Those of one call."""

    def __init__(
        self,
        turn_taking: TurnTaking,
        clock: CallClock,
        hearing: Hearing,
        mouth: BotMouth,
        barge_ins: BargeIns,
        secrecy: Secrecy,
        *,
        is_full_duplex: bool,
    ) -> None:
        self._turn_taking = turn_taking
        self._clock = clock
        self._hearing = hearing
        self._mouth = mouth
        self._barge_ins = barge_ins
        self._secrecy = secrecy
        self._is_full_duplex = is_full_duplex
        self.last_ended_s: float | None = None
        """When his last utterance that was not cut ended, on the loop's clock."""

    def tell(self, event: SpeechEvent) -> tuple[list[Action], float | None]:
        """What is to be done, and when his speech ended, on the loop's clock.

        None: it has not, or that is no moment to measure from.
        """
        turn_taking, now_ms = self._turn_taking, self._clock.now_ms()
        match event:
            case SpeechStarted(started_samples=started):
                return self._tell_started(now_ms, started), None
            case SpeechSuspectedEnd(
                started_samples=started, ended_samples=ended, pcm16=pcm16
            ):
                if not self._is_full_duplex:
                    # the recording has ended, guessing wins no time
                    return [], None
                said = _utterance(started, ended, pcm16)
                is_noise = self._hearing.is_noise(said)
                actions = turn_taking.on_speech_suspected(
                    now_ms, said, is_noise=is_noise
                )
                return actions, None
            case SpeechResumed():
                return turn_taking.on_speech_resumed(now_ms, self._mouth.heard_ms), None
            case SpeechEnded(started_samples=started, ended_samples=ended, pcm16=pcm16):
                ended_s = self._moment_s(ended)
                said = _utterance(started, ended, pcm16)
                since_ms = (self._hearing.samples_heard - started) // SAMPLES_PER_MS
                self._secrecy.on_spoke(now_ms, now_ms - since_ms)
                is_noise = self._hearing.is_noise(said)
                actions = turn_taking.on_speech_ended(now_ms, said, is_noise=is_noise)
                self._hearing.expect_as_usual()
                self.last_ended_s = ended_s
                return actions, ended_s
            case SpeechTooLong(
                started_samples=started, ended_samples=ended, pcm16=pcm16
            ):
                ended_s = self._moment_s(ended)
                said = _utterance(started, ended, pcm16)
                return turn_taking.on_speech_too_long(now_ms, said), ended_s
            case _:
                assert_never(event)

    def _tell_started(self, now_ms: int, started_samples: int) -> list[Action]:
        self._barge_ins.on_speech_started(self._moment_s(started_samples))
        was_talking = self._turn_taking.is_bot_talking
        actions = self._turn_taking.on_speech_started(now_ms, self._mouth.heard_ms)
        if was_talking and any(isinstance(a, StopPlayback) for a in actions):
            self._barge_ins.bot_fell_silent()
            self._barge_ins.was_meant()
        return actions

    def _moment_s(self, at_samples: int) -> float:
        """When that was, on the loop's clock."""
        ago = self._hearing.samples_heard - at_samples
        return self._clock.now_s() - ago / RATE_HZ


def _utterance(started: int, ended: int, pcm16: bytes) -> Utterance:
    return Utterance(pcm16, RATE_HZ, started // SAMPLES_PER_MS, ended // SAMPLES_PER_MS)
