"""The caller's first seconds, heard for who it is that answered.

audio ─▶ ear (speech and pauses) ─┬─▶ rules ─▶ verdict
     └─▶ tones                   ─┘
              utterances ─▶ the model's word, if somebody asks it
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never

from agi_handlers.conversation.answer_rules import (
    AnswerOptions,
    AnswerRules,
    Verdict,
)
from agi_handlers.languages.machine_words import words_kind
from model.audio.frames import RATE_HZ, SAMPLE_BYTES, SAMPLES_PER_MS, ms_from_samples
from model.audio.tones import ToneDetector
from model.speech import Answerer, Utterance
from model.vad.events import (
    SpeechEnded,
    SpeechEvent,
    SpeechResumed,
    SpeechStarted,
    SpeechSuspectedEnd,
    SpeechTooLong,
)
from model.vad.listener import CallerEar

# Shorter speech has no words that tell anything.
_MIN_JUDGED_MS: Final = 600
_ASK_WITHIN_MS: Final = (4_000, 8_000)
"""A greeting that goes on is asked about before it ends."""
_MAX_ASKED: Final = 4
_KEPT_BYTES: Final = 20 * RATE_HZ * SAMPLE_BYTES
_STEP_BYTES: Final = 160 * SAMPLE_BYTES
"""Rules see the line in steps of 20 ms, however its audio comes."""


@dataclass(frozen=True, slots=True)
class Question:
    """An utterance to put before the model; its answer goes to `on_judgement`."""

    said: Utterance


class AnswerListener:
    """One call's."""

    def __init__(
        self,
        ear: CallerEar,
        language: str = "en-us",
        options: AnswerOptions | None = None,
    ) -> None:
        self._ear = ear
        self._language = language
        self._rules = AnswerRules(options)
        self._tones = ToneDetector()
        self._rest = b""
        self._heard_samples = 0
        self._speech = bytearray()
        self._speech_from_samples: int | None = None
        self._num_asked = 0
        self._asked_within = 0

    @property
    def verdict(self) -> Verdict | None:
        return self._rules.verdict

    @property
    def is_watching(self) -> bool:
        """False once nothing more can be learnt."""
        return self._rules.is_watching

    @property
    def at_ms(self) -> int:
        """How much of the line has been heard."""
        return ms_from_samples(self._heard_samples)

    def on_bot_spoke(self) -> None:
        """The bot has begun to speak."""
        self._rules.on_bot_spoke(self.at_ms)

    def on_words(self, words: str) -> None:
        """Something the other side said, written down."""
        if self.is_watching:
            self._rules.on_words(words_kind(words, self._language), self.at_ms)

    def on_judgement(self, answerer: Answerer) -> None:
        """The model's answer to a Question."""
        self.on_words(answerer.words)
        if self.is_watching:
            self._rules.on_judged(answerer.judged, self.at_ms)

    def feed(self, pcm16: bytes) -> list[Question]:
        """More of the line (8 kHz), cut anywhere; look at `verdict` afterwards."""
        self._rest += pcm16
        questions: list[Question] = []
        while len(self._rest) >= _STEP_BYTES and self.is_watching:
            step, self._rest = self._rest[:_STEP_BYTES], self._rest[_STEP_BYTES:]
            questions += self._step(step)
        if not self.is_watching:
            self._rest = b""
        return questions

    def force_end(self) -> list[Question]:
        """The audio pauses: what was being said is over."""
        questions = []
        for event in self._ear.force_end():
            questions += self._on_speech(event)
        return questions

    def _step(self, pcm16: bytes) -> list[Question]:
        self._heard_samples += len(pcm16) // SAMPLE_BYTES
        if self._speech_from_samples is not None:
            self._speech += pcm16
            del self._speech[:-_KEPT_BYTES]
        questions: list[Question] = []
        for event in self._ear.feed(pcm16):
            questions += self._on_speech(event)
        for tone in self._tones.feed(pcm16):
            self._rules.on_tone(tone)
        self._rules.on_time(self.at_ms)
        return questions + self._ask_within()

    def _on_speech(self, event: SpeechEvent) -> list[Question]:
        match event:
            case SpeechStarted(started_samples=started):
                self._rules.on_speech_started(ms_from_samples(started))
                self._speech_from_samples, self._asked_within = started, 0
                self._speech.clear()
            case (
                SpeechEnded(started_samples=started, ended_samples=ended, pcm16=pcm16)
                | SpeechTooLong(
                    started_samples=started, ended_samples=ended, pcm16=pcm16
                )
            ):
                self._speech_from_samples = None
                started_ms, ended_ms = ms_from_samples(started), ms_from_samples(ended)
                self._rules.on_speech_ended(started_ms, ended_ms, self.at_ms)
                if ended_ms - started_ms >= _MIN_JUDGED_MS:
                    said = Utterance(pcm16, RATE_HZ, started_ms, ended_ms)
                    return self._ask(said)
            case SpeechSuspectedEnd() | SpeechResumed():
                pass
            case _:
                assert_never(event)
        return []

    def _ask_within(self) -> list[Question]:
        """About speech that goes on; what a person said to the bot is not asked."""
        since = self._speech_from_samples
        if since is None or self._asked_within >= len(_ASK_WITHIN_MS):
            return []
        said_ms = (self._heard_samples - since) // SAMPLES_PER_MS
        if said_ms < _ASK_WITHIN_MS[self._asked_within]:
            return []
        self._asked_within += 1
        started_ms = ms_from_samples(since)
        return self._ask(
            Utterance(bytes(self._speech), RATE_HZ, started_ms, self.at_ms)
        )

    def _ask(self, said: Utterance) -> list[Question]:
        if self._rules.has_bot_spoken or self._num_asked >= _MAX_ASKED:
            return []  # in the talk, the replies' transcripts tell
        self._num_asked += 1
        return [Question(said)]
