"""Keeps the bot from hearing itself: what is only its echo is no speech of the caller.

    ear ─▶ SpeechStarted ─▶ echo? ─no──▶ turn-taking
                             └─yes─▶ dropped, and looked at again every 100 ms:
                                     a caller who speaks over it has begun then

The comparison needs what the caller has heard of the bot, on the same clock as what was
received from him; both end now.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from agi_handlers.conversation.mouth import BotMouth
from model.audio.frames import SAMPLE_BYTES, samples_from_ms
from model.speech import Utterance
from model.vad.echo import COMPARED_MS, EchoWatch
from model.vad.events import (
    SpeechEnded,
    SpeechEvent,
    SpeechResumed,
    SpeechStarted,
    SpeechSuspectedEnd,
    SpeechTooLong,
)
from model.vad.listener import CallerEar
from model.vad.no_word import is_no_word
from telemetry import ECHOES, fields

logger = logging.getLogger(__name__)

_COMPARED: Final = samples_from_ms(COMPARED_MS)
_LOOK_AGAIN: Final = samples_from_ms(100)
# Between two words of the bot the echo pauses; the caller does not stop so soon.
_LOOKS_UNLIKE: Final = 2


class EchoGate:
    """One call's gate between ear and turn-taking."""

    def __init__(self, ear: CallerEar, mouth: BotMouth) -> None:
        self._ear = ear
        self._mouth = mouth
        self._watch = EchoWatch()
        self._is_closed = False
        self._is_suspecting = False
        self._looked_at_samples = 0
        self._num_unlike = 0
        self._is_first_sign = True
        self._is_sign_echo = False
        self._opened_samples = 0
        """Where the caller's own words began in an utterance that began as echo."""

    def let_through(self, events: Sequence[SpeechEvent]) -> list[SpeechEvent]:
        """The events of the caller's own speech; call it after every feed."""
        own = [kept for event in events if (kept := self._judge(event)) is not None]
        if self._is_closed and not self._is_suspecting and self._is_caller_over_it():
            self._is_closed = False
            now = self._ear.samples_heard
            self._opened_samples = now - _LOOKS_UNLIKE * _LOOK_AGAIN - _COMPARED
            own.append(SpeechStarted(self._opened_samples, now))
        return own

    def may_be_caller(self) -> bool:
        """Whether something begins just now that is not the bot's echo."""
        if not self._ear.may_be_starting:
            self._is_first_sign = True
            return False
        is_due = self._ear.samples_heard >= self._looked_at_samples + _LOOK_AGAIN
        if self._is_first_sign or is_due:
            self._is_first_sign = False
            self._is_sign_echo = self._is_echo()
        return not self._is_sign_echo

    def is_noise(self, said: Utterance) -> bool:
        """Whether what the bot was held for was nothing that is meant for it."""
        if not self._mouth.is_held:
            return False
        spoken_ms = said.ended_ms - said.started_ms
        return is_no_word(said.pcm16, spoken_ms, self._ear.softer_db)

    def _judge(self, event: SpeechEvent) -> SpeechEvent | None:
        match event:
            case SpeechStarted():
                self._opened_samples = 0
                self._is_suspecting = False
                self._is_closed = self._is_echo()
                if self._is_closed:
                    self._note()
            case SpeechSuspectedEnd():
                self._is_suspecting = True
            case SpeechResumed():
                self._is_suspecting = False
            case SpeechEnded() | SpeechTooLong():
                was_closed, self._is_closed = self._is_closed, False
                return None if was_closed else self._without_echo(event)
        return None if self._is_closed else self._without_echo(event)

    def _without_echo(self, event: SpeechEvent) -> SpeechEvent:
        """The same from where the caller's own words began."""
        if isinstance(event, SpeechStarted | SpeechResumed):
            return event
        num_samples = self._opened_samples - event.kept_from_samples
        if num_samples <= 0:
            return event
        return replace(
            event,
            started_samples=max(event.started_samples, self._opened_samples),
            kept_from_samples=self._opened_samples,
            pcm16=event.pcm16[num_samples * SAMPLE_BYTES :],
        )

    def _is_echo(self) -> bool:
        self._looked_at_samples = self._ear.samples_heard
        self._num_unlike = 0
        sent = self._mouth.recently_heard(EchoWatch.sent_samples_needed(_COMPARED))
        if not any(sent):
            return False
        return self._watch.is_echo(self._ear.recently_heard(_COMPARED), sent)

    def _is_caller_over_it(self) -> bool:
        if self._ear.samples_heard < self._looked_at_samples + _LOOK_AGAIN:
            return False
        num_unlike = self._num_unlike
        if self._is_echo():
            return False
        self._num_unlike = num_unlike + 1
        return self._num_unlike >= _LOOKS_UNLIKE

    def _note(self) -> None:
        ECHOES.inc()
        logger.debug(
            "echo_heard",
            extra=fields(delay_ms=self._watch.delay_ms, level_db=self._watch.level_db),
        )
