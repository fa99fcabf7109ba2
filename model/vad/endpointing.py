r"""When the caller starts to speak and when he has finished: pure, no clock, no I/O.

In go windows of audio, each with a speech probability and a level; out come events.
Time is counted in samples at 8 kHz since the call's first, never by a clock:

    ____/~~~~~~~~~~\______________/~~~~~~\____________________________
        ^ started  |<- suspect ->|^ resumed
          ^ decided              ^ suspected end
                                         |<----- hangover ----->| ended

How long the hangover is. Any fixed length cuts every turn with a longer pause in it and
makes everybody wait as long. So it follows the caller: everybody is waited for until
the chance that he still goes on is as small as for all the others (`PauseHabit`). If
something begins just when the wait is over, it is heard out for a moment. A wait that
is over before the next window is whole ends there, by the level alone (`on_part`).
Whoever knows more (the language model has understood the words) may shorten or stretch
the wait by `hint_turn_over`. Measured and rejected (benchmarks/results/vad.md), because
they don't tell a pause from an end for speakers unseen: pitch, level and rhythm before
the silence (AUC 0.55), the detector's inner state (0.58), how much was said before.

Whose speech it is. Voices in the background pass every detector. They are softer than
the caller: speech far below his own level neither opens a turn nor keeps one open, and
what does not stand out from the line as it was, in a full room as a whole, does not
interrupt the bot.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import Final

from model.audio.frames import RATE_HZ, SAMPLES_PER_MS, samples_from_ms
from model.vad.caller_habits import (
    CallerLevel,
    LineFloor,
    LineLoudness,
    PauseHabit,
    VoicesBehind,
)
from model.vad.events import (
    SpeechEnded,
    SpeechEvent,
    SpeechResumed,
    SpeechStarted,
    SpeechSuspectedEnd,
    SpeechTooLong,
)
from model.vad.full_room import FullRoom
from model.vad.options import EndpointingOptions, Expected

# The quiet that an onset rises from.
_QUIET_WITHIN_MS: Final = 256


class _State(Enum):
    QUIET = auto()
    SPEAKING = auto()
    SUSPECTING = auto()


class Endpointing:
    """One caller's endpointing. `bot_is_talking` may be set between any two windows."""

    def __init__(self, options: EndpointingOptions, window_samples: int) -> None:
        self.bot_is_talking = False
        self._options = options
        self._window_samples = window_samples
        self._lag_samples = samples_from_ms(options.detector_lag_ms)
        self._level = CallerLevel(options)
        self._floor = LineFloor(options)
        within = self._windows(options.barge_in_within_ms)
        self._loudness = LineLoudness(options, within, options.surely_his_drop_db)
        self._room = FullRoom()
        self._room_loudness = LineLoudness(
            options, within, options.surely_his_in_room_drop_db
        )
        self._behind = VoicesBehind(options)
        self._habit = PauseHabit(options)
        self._state = _State.QUIET
        self._now_samples = 0
        # Windows of speech that it takes, and among how many.
        self._to_open = (
            self._windows(options.open_speech_ms),
            self._windows(options.open_within_ms),
        )
        self._to_barge_in = (
            self._windows(options.barge_in_speech_ms),
            self._windows(options.barge_in_within_ms),
        )
        longest = max(self._to_open[1], self._to_barge_in[1])
        # The levels of the last windows that were speech; None: one that was not.
        self._recent: deque[float | None] = deque(maxlen=longest)
        self._levels_db: deque[float] = deque(maxlen=self._windows(_QUIET_WITHIN_MS))
        self._is_heard_out = False
        self._sign_until_samples = 0
        # The utterance at hand; meaningful unless quiet.
        self._started_samples = 0
        self._last_speech_samples = 0
        self._last_loud_samples = 0
        self._loudest_db = 0.0
        self._turn_over_probability: float | None = None
        # Of the utterance before.
        self._previous_ended_samples: int | None = None
        self._previous_kept_to_samples = 0

    @property
    def is_speech(self) -> bool:
        """Between start and end of an utterance, pauses included."""
        return self._state is not _State.QUIET

    @property
    def may_be_starting(self) -> bool:
        """No utterance yet, but a first sign of one that is not too old."""
        return not self.is_speech and self._now_samples < self._sign_until_samples

    @property
    def softer_db(self) -> float:
        """How far the utterance at hand is below the caller's usual level."""
        return self._level.softer_db(self._loudest_db)

    @property
    def needed_from_samples(self) -> int:
        """The oldest sample that an utterance, begun or still to begin, may keep."""
        if self.is_speech:
            return self._kept_from_samples
        unseen = len(self._recent) * self._window_samples + self._lag_samples
        start = self._now_samples - unseen
        return self._with_pre_roll(start)

    def on_window(self, probability: float, level_db: float) -> list[SpeechEvent]:
        """The next window: is it speech, and how loud is it (dBFS)?"""
        self._now_samples += self._window_samples
        self._floor.hear(level_db)
        self._room.hear(probability, level_db)
        if self._state is _State.QUIET:
            return self._listen_for_start(probability, level_db)
        if self._is_his_speech(probability, level_db):
            events = self._go_on()
        else:
            events = self._wait_for_end(self._is_onset(probability, level_db))
        self._levels_db.append(level_db)
        if self._room.is_full and self._last_loud_samples != self._now_samples:
            self._hear_line(level_db)
        return events + self._cut_if_too_long()

    @property
    def awaits_end(self) -> bool:
        """An end is suspected, and nothing begins: `on_part` may find it to be one."""
        return self._state is _State.SUSPECTING and not self._is_heard_out

    def on_part(self, num_samples: int, level_db: float) -> list[SpeechEvent]:
        """So much of the next window is there, and how loud is it (dBFS)?

        If it is like the silence before, the wait may end here. The window itself comes
        all the same.
        """
        now_samples = self._now_samples + num_samples
        silence_samples = now_samples - self._ended_samples
        if not self.awaits_end or self._rises(level_db, self._options.part_rise_db):
            return []
        if silence_samples < self._hangover_ms() * SAMPLES_PER_MS:
            return []
        return [self._end(now_samples, forced=False)]

    def expect(self, what: Expected) -> None:
        """What the caller was asked for; holds until something else is said here."""
        self._habit.expect(self._options.expecting(what))

    def hint_turn_over(self, probability: float) -> None:
        """How likely the words so far are a finished turn; holds for this suspicion."""
        if self._state is _State.SUSPECTING:
            self._turn_over_probability = probability

    def force_end(self, at_samples: int) -> list[SpeechEvent]:
        """The audio ends here, and with it the utterance, if there is one."""
        self._recent.clear()
        if self._state is _State.QUIET:
            return []
        return [self._end(at_samples, forced=True)]

    # --- quiet ------------------------------------------------------------------

    def _listen_for_start(
        self, probability: float, level_db: float
    ) -> list[SpeechEvent]:
        self._level.wait(self._window_samples / RATE_HZ)
        is_speech = probability >= self._options.speech_probability
        self._recent.append(level_db if is_speech else None)
        self._hear_line(level_db)
        if is_speech and self._may_be_his(level_db):
            within = self._to_barge_in[1]
            self._sign_until_samples = self._now_samples + within * self._window_samples
        first = self._first_evidence()
        if first is None:
            return []
        self._open(first)
        return [SpeechStarted(self._started_samples, self._now_samples)]

    def _first_evidence(self) -> int | None:
        """How many windows ago the speech began, if there is enough of it."""
        needed, within = self._to_barge_in if self.bot_is_talking else self._to_open
        if len(self._recent) - self._recent.count(None) < needed:
            return None  # as nearly always
        recent = list(self._recent)[-within:]
        levels = [level_db for level_db in recent if level_db is not None]
        if len(levels) < needed or not self._may_be_his(max(levels)):
            return None
        first = next(i for i, level_db in enumerate(recent) if level_db is not None)
        return len(recent) - first

    def _may_be_his(self, level_db: float) -> bool:
        o = self._options
        if not self.bot_is_talking:
            return self._level.may_be_caller(level_db, o.open_drop_db)
        # What interrupts the bot in vain costs more than a turn that is nobody's.
        usual_db = self._level.usual_db
        return (
            self._level.may_be_caller(level_db, o.barge_in_drop_db)
            and self._loudness.stands_out(level_db, usual_db)
            and (
                not self._room.is_near(usual_db)
                or self._room_loudness.stands_out(self._room.smoothed_db, usual_db)
            )
        )

    def _hear_line(self, level_db: float) -> None:
        """A window without the caller: so loud the line gets by itself."""
        self._loudness.hear(level_db)
        self._room_loudness.hear(self._room.smoothed_db)

    def _open(self, num_windows_ago: int) -> None:
        heard = [db for db in list(self._recent)[-num_windows_ago:] if db is not None]
        self._recent.clear()
        self._sign_until_samples = 0
        start = self._now_samples - num_windows_ago * self._window_samples
        self._started_samples = max(
            start - self._lag_samples, self._previous_kept_to_samples
        )
        self._state = _State.SPEAKING
        self._last_speech_samples = self._last_loud_samples = self._now_samples
        self._loudest_db = max(heard)
        for level_db in heard:
            self._level.hear(level_db)
        if self._previous_ended_samples is not None:
            gap_samples = self._started_samples - self._previous_ended_samples
            if gap_samples < samples_from_ms(self._options.rejoin_ms):
                self._habit.rejoined(gap_samples / SAMPLES_PER_MS)

    # --- in an utterance --------------------------------------------------------

    def _is_his_speech(self, probability: float, level_db: float) -> bool:
        if probability < self._options.silence_probability:
            return False
        self._level.hear(level_db)
        self._loudest_db = max(self._loudest_db, level_db)
        if level_db >= self._floor.loud_from_db(self._loudest_db):
            self._last_loud_samples = self._now_samples
            self._behind.hear(is_his=True)
            return True
        soft_ms = (self._now_samples - self._last_loud_samples) / SAMPLES_PER_MS
        is_his = soft_ms <= self._behind.soft_counts_ms()
        self._behind.hear(is_his=is_his)
        return is_his

    def _go_on(self) -> list[SpeechEvent]:
        begun = self._now_samples - self._window_samples
        self._habit.paused((begun - self._last_speech_samples) / SAMPLES_PER_MS)
        self._last_speech_samples = self._now_samples
        if self._state is _State.SPEAKING:
            return []
        self._state = _State.SPEAKING
        self._turn_over_probability = None
        return [SpeechResumed(self._now_samples)]

    def _is_onset(self, probability: float, level_db: float) -> bool:
        """Whether something begins that may turn out as speech."""
        o = self._options
        return probability >= o.onset_probability or self._rises(
            level_db, o.onset_rise_db
        )

    def _rises(self, level_db: float, rise_db: float) -> bool:
        return level_db > min(self._levels_db, default=level_db) + rise_db

    def _wait_for_end(self, is_onset: bool) -> list[SpeechEvent]:
        events: list[SpeechEvent] = []
        self._is_heard_out = is_onset
        silence_samples = self._now_samples - self._ended_samples
        if self._state is _State.SPEAKING and silence_samples >= samples_from_ms(
            self._options.suspect_ms
        ):
            self._state = _State.SUSPECTING
            events.append(
                SpeechSuspectedEnd(
                    self._started_samples,
                    self._ended_samples,
                    self._now_samples,
                    self._kept_from_samples,
                    self._kept_to_samples,
                )
            )
        wait_ms = self._hangover_ms()
        if is_onset and silence_samples <= samples_from_ms(
            int(wait_ms) + self._options.onset_hold_ms
        ):
            return events
        if silence_samples >= wait_ms * SAMPLES_PER_MS:
            events.append(self._end(self._now_samples, forced=False))
        return events

    def _hangover_ms(self) -> float:
        o = self._options
        wait_ms = self._habit.hangover_ms()
        probability = self._turn_over_probability
        if probability is None:
            return wait_ms
        if probability >= o.sure_probability:
            return min(wait_ms, o.sure_hangover_ms)
        if probability <= o.unsure_probability:
            return max(wait_ms, o.unsure_hangover_ms)
        return wait_ms

    def _cut_if_too_long(self) -> list[SpeechEvent]:
        length_samples = self._now_samples - self._kept_from_samples
        too_long = length_samples >= samples_from_ms(self._options.max_utterance_ms)
        if not (self.is_speech and too_long):
            return []
        if self._state is _State.SUSPECTING:
            return [self._end(self._now_samples, forced=False)]
        cut = SpeechTooLong(
            self._started_samples,
            self._now_samples,
            self._now_samples,
            self._kept_from_samples,
            self._now_samples,
        )
        self._close(self._now_samples, self._now_samples)
        return [cut]

    def _end(self, at_samples: int, *, forced: bool) -> SpeechEnded:
        ended = self._ended_samples
        if self._state is _State.SPEAKING:
            # Forced within speech: there is no silence the detector could lag behind.
            ended = min(self._last_speech_samples, at_samples)
        end = SpeechEnded(
            self._started_samples,
            ended,
            at_samples,
            self._kept_from_samples,
            min(ended + samples_from_ms(self._options.post_roll_ms), at_samples),
            forced,
        )
        self._close(ended, end.kept_to_samples)
        return end

    def _close(self, ended_samples: int, kept_to_samples: int) -> None:
        self._state = _State.QUIET
        self._turn_over_probability = None
        self._level.end_utterance()
        self._habit.end_utterance()
        self._behind.end_utterance()
        self._previous_ended_samples = ended_samples
        self._previous_kept_to_samples = kept_to_samples

    # --- bounds -----------------------------------------------------------------

    @property
    def _ended_samples(self) -> int:
        return max(self._last_speech_samples - self._lag_samples, self._started_samples)

    @property
    def _kept_from_samples(self) -> int:
        return self._with_pre_roll(self._started_samples)

    @property
    def _kept_to_samples(self) -> int:
        return self._ended_samples + samples_from_ms(self._options.post_roll_ms)

    def _with_pre_roll(self, start_samples: int) -> int:
        """Pre-roll, but nothing that an utterance before has kept already."""
        pre_roll = samples_from_ms(self._options.pre_roll_ms)
        return max(start_samples - pre_roll, self._previous_kept_to_samples)

    def _windows(self, duration_ms: int) -> int:
        """As many windows as it takes to cover a duration."""
        return -(-samples_from_ms(duration_ms) // self._window_samples)
