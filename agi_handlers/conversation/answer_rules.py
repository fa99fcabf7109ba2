"""Who answered an outbound call, from how the line sounds: the pure rules.

    silence          ─▶ unsure: greet, and keep listening
    "Hello?"         ─▶ person: greet
    a long answer    ─▶ what the model makes of its words; without it unsure
    speech, a beep   ─▶ machine     (no speech after the beep)
    fax, SIT tones   ─▶ fax, no service

Time is that of the caller's audio, in milliseconds since the answer.  Nobody is taken
for a machine for the length of his answer alone: a cafe behind a person sounds like
speech without end.  Once the bot has spoken, only words that no person says, or a beep
behind an answer that was long or went on over the bot, still make a machine.
Source: people answer in 0.4 to 6 s, machines greet for 3 s and longer; the limits were
chosen with `benchmarks.bench_answer`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from agi_handlers.languages.machine_words import WordsKind
from model.audio.frames import ms_from_samples
from model.audio.tones import Tone
from model.speech import Judged

AnsweredBy: TypeAlias = Literal[
    "person",
    "machine",  # will take a message, or says that nobody is there
    "menu",  # a machine that wants keys
    "fax",
    "no_service",  # the network's tones: no such number
    "unsure",
]
MACHINES: Final[frozenset[AnsweredBy]] = frozenset(
    ("machine", "menu", "fax", "no_service")
)


# A line that is recorded says so every 15 s (FCC: 1400 Hz, 0.2 s).
_RECORDER_HZ: Final = 1400.0


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """Every threshold, with its reason."""

    listen_first_ms: int = 2_000
    """Silence after which the bot greets: people wait for the other side too."""
    short_answer_ms: int = 2_600
    """An answer up to here, then silence: a person.  Machines that begin so go on."""
    judgement_ms: int = 900
    """How long after a longer answer the bot waits for the model's word or a beep."""
    longest_wait_ms: int = 8_000
    """Speech without a pause, or noise that sounds so: the bot greets all the same."""
    speech_before_beep_ms: int = 3_000
    """Less than this and then a beep is a person beside a microwave oven."""
    beep_within_ms: int = 3_000
    """From the last speech to the beep; later beeps are the line's."""
    quiet_after_beep_ms: int = 800
    """Speech goes on behind other beeps; and the model's word may come in this time."""
    talk_over_ms: int = 1_500
    """People stop for the bot; who begins so soon after it, or goes on so soon after
    his own last pause, does not hear it ..."""
    over_speech_ms: int = 1_200
    """... if it is as much as this."""
    watch_ms: int = 30_000
    """The longest greetings end by then."""
    max_turns_watched: int = 2
    """A caller who has spoken so often after the bot is having a conversation."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who answered, why we think so, and when it was known."""

    answered_by: AnsweredBy
    reason: str
    at_ms: int

    @property
    def is_machine(self) -> bool:
        return self.answered_by in MACHINES


class AnswerRules:
    """One call's.  A machine's verdict is final; any other may yet become one."""

    def __init__(self, options: AnswerOptions | None = None) -> None:
        self._options = options or AnswerOptions()
        self.verdict: Verdict | None = None
        self._is_speaking = False
        self._speaking_since_ms = 0
        self._last_speech_ms = 0
        self._speech_ms = 0
        self._num_cng = 0
        self._beep_ended_ms: int | None = None
        self._judge_until_ms: int | None = None
        self._bot_spoke_ms: int | None = None
        self._over_until_ms = 0
        self._over_ms = 0
        self._is_person_said = False
        self._num_turns_after_bot = 0
        self._num_hints = 0

    @property
    def is_watching(self) -> bool:
        """False once nothing that is heard can change the verdict."""
        if self.verdict is not None and self.verdict.is_machine:
            return False
        return self._num_turns_after_bot <= self._options.max_turns_watched

    @property
    def has_bot_spoken(self) -> bool:
        return self._bot_spoke_ms is not None

    def on_speech_started(self, at_ms: int) -> None:
        """Somebody speaks at the far end since `at_ms`."""
        self._is_speaking, self._speaking_since_ms = True, at_ms
        self._judge_until_ms = None
        if self._beep_ended_ms is not None and at_ms >= self._beep_ended_ms - 200:
            self._beep_ended_ms = None  # it went on talking: no beep of a machine

    def on_speech_ended(self, started_ms: int, ended_ms: int, at_ms: int) -> None:
        """He paused long enough for an answer."""
        options = self._options
        said_ms = ended_ms - started_ms
        self._is_speaking = False
        self._last_speech_ms = ended_ms
        self._speech_ms += said_ms
        if self._bot_spoke_ms is not None:
            if started_ms <= self._over_until_ms:
                self._over_ms += said_ms
                self._over_until_ms = ended_ms + options.talk_over_ms
            self._num_turns_after_bot += 1
        elif self._speech_ms <= options.short_answer_ms:
            self._settle("person", "short_answer", at_ms)
        else:
            self._judge_until_ms = at_ms + options.judgement_ms

    def on_bot_spoke(self, at_ms: int) -> None:
        """The bot begins to greet: what is long from now on may be a person's."""
        self._bot_spoke_ms = at_ms
        self._over_until_ms = at_ms + self._options.talk_over_ms
        self._judge_until_ms = None

    def on_tone(self, tone: Tone) -> None:
        """A tone was heard."""
        options = self._options
        started_ms = ms_from_samples(tone.started_samples)
        ended_ms = ms_from_samples(tone.ended_samples)
        speech_ms = self._speech_ms
        if self._is_speaking:
            speech_ms += max(0, started_ms - self._speaking_since_ms)
        match tone.kind:
            case "ced":
                self._settle("fax", "answer_tone", ended_ms)
            case "sit":
                self._settle("no_service", "network_tones", ended_ms)
            case "cng" if speech_ms < options.speech_before_beep_ms:
                self._num_cng += 1
                if self._num_cng == 2:
                    self._settle("fax", "calling_tones", ended_ms)
            case "beep" | "cng":
                if self._is_machines_beep(tone, started_ms, speech_ms):
                    self._beep_ended_ms = ended_ms

    def _is_machines_beep(self, tone: Tone, started_ms: int, speech_ms: int) -> bool:
        options = self._options
        is_near = self._is_speaking or (
            started_ms - self._last_speech_ms <= options.beep_within_ms
        )
        is_recorders = abs(tone.hz - _RECORDER_HZ) <= 25 and tone.duration_ms <= 350
        if speech_ms < options.speech_before_beep_ms or not is_near or is_recorders:
            return False
        if self._bot_spoke_ms is None:
            return True
        over_ms = self._over_ms
        if self._is_speaking and self._speaking_since_ms <= self._over_until_ms:
            over_ms += started_ms - self._speaking_since_ms
        is_over_it = over_ms >= options.over_speech_ms
        return self._num_turns_after_bot == 0 or is_over_it

    def on_words(self, kind: WordsKind, at_ms: int) -> None:
        """What was said, by its words; one hint alone proves nothing."""
        if kind in ("machine", "menu"):
            self._settle(kind, "words", at_ms)
        elif kind == "hint":
            self._num_hints += 1
            if self._num_hints == 2 and self._bot_spoke_ms is None:
                self._settle("machine", "words", at_ms)
        elif kind == "person":
            self._judged_person(at_ms)

    def on_judged(self, judged: Judged, at_ms: int) -> None:
        """What the model says; for a short answer, or in a talk, it is no proof."""
        said_ms = self._speech_ms
        if self._is_speaking:
            said_ms += max(0, at_ms - self._speaking_since_ms)
        if judged in ("machine", "menu"):
            if said_ms > self._options.short_answer_ms and self._bot_spoke_ms is None:
                self._settle("menu" if judged == "menu" else "machine", "model", at_ms)
        elif judged == "person":
            self._judged_person(at_ms)

    def on_time(self, at_ms: int) -> None:
        """So much of the line has been heard."""
        options = self._options
        beep_ms = self._beep_ended_ms
        if beep_ms is not None and at_ms >= beep_ms + options.quiet_after_beep_ms:
            self._beep_ended_ms = None
            if not self._is_person_said:
                self._settle("machine", "beep", at_ms)
        if self.verdict is not None or self._bot_spoke_ms is not None:
            if at_ms >= options.watch_ms:
                self._num_turns_after_bot = options.max_turns_watched + 1
        elif self._is_speaking:
            if at_ms - self._speaking_since_ms >= options.longest_wait_ms:
                self._settle("unsure", "no_pause", at_ms)
        elif self._judge_until_ms is not None:
            if at_ms >= self._judge_until_ms and beep_ms is None:
                self._settle("unsure", "long_answer", at_ms)
        elif at_ms >= options.listen_first_ms:
            self._settle("unsure", "silence", at_ms)

    def _judged_person(self, at_ms: int) -> None:
        self._is_person_said = True
        if self._judge_until_ms is not None:
            self._settle("person", "model", at_ms)

    def _settle(self, answered_by: AnsweredBy, reason: str, at_ms: int) -> None:
        """A machine outweighs what was thought before; else the first verdict stays."""
        if not self.is_watching:
            return
        if self.verdict is None or answered_by in MACHINES:
            self.verdict = Verdict(answered_by, reason, at_ms)
