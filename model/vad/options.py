"""The thresholds of endpointing, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

Expected: TypeAlias = Literal["anything", "digits", "yes_no"]
"""What the caller was asked for."""


# A look at the paper takes a second; longer than this feels like a lost line.
_DIGITS_MS: Final = 900
_DIGITS_MAX_MS: Final = 1_400
_YES_NO_MS: Final = 340
_YES_NO_MAX_MS: Final = 420


@dataclass(frozen=True, slots=True)
class EndpointingOptions:
    """Every threshold of endpointing.

    "Measured": on human recordings of eight to eleven speakers in five to seven
    languages, sent through a simulated line with noise, hum, babble and competing
    voices (`bench_vad`, benchmarks/results/vad.md).
    """

    speech_probability: float = 0.5
    """A window at or above it is evidence that somebody speaks. Measured: below 0.5
    babble opens turns; at 0.6 a quarter more are missed on soft and noisy lines."""
    silence_probability: float = 0.4
    """Within a turn, a window below it is silence. Measured: at 0.25 the median end is
    known 30 ms later and 0.4 points fewer turns are cut; at 0.5 10 ms earlier."""
    open_speech_ms: int = 64
    open_within_ms: int = 128
    """So much speech within so long opens a turn. Measured: as sure as 96 ms in 160,
    and 30 ms earlier."""
    barge_in_speech_ms: int = 128
    barge_in_within_ms: int = 224
    """The same while the bot is talking: its echo and clicks are shorter than words.
    Measured from the first audible breath of a word: 154 ms in the median; 160 ms in
    256 take 186."""
    detector_lag_ms: int = 32
    """The detector follows speech one window late, at its start and at its end."""

    suspect_ms: int = 200
    """Silence after which an answer may be prepared; shorter is within words."""
    min_hangover_ms: int = 300
    """The shortest wait, whatever is known of the caller."""
    max_hangover_ms: int = 750
    """The longest wait. Longer pauses are rare, and by then silence feels broken.
    Measured: at 800 the latest ends are known 40 ms later, no turn fewer is cut on
    natural lines; at 700 0.2 to 0.5 points more are."""
    accepted_risk: float = 0.010
    """He is waited for until the chance that he still goes on is this."""
    prior_pauses: float = 0.2
    prior_ends: float = 1.2
    """What is taken for known of a new caller, as silences heard: one in seven of those
    that are suspected to be an end is a pause. Little is taken for known, so that the
    first pause and the first ends without one count. Measured: with a risk of 0.025 and
    one in four of 2.4 silences 1.1 to 1.6 points more turns are cut, and a caller who
    never pauses is answered no sooner."""
    mean_pause_ms: int = 330
    prior_pause_lengths: float = 6.0
    """How long a pause that was suspected to be an end is in the mean, and as how many
    pauses of this caller that knowledge counts. Measured: 3 or 8 are as good."""
    pause_memory: float = 0.95
    """What was heard counts less by this factor with each turn. Measured: from 0.85 to
    1.0 it makes little difference."""
    min_pause_ms: int = 200
    """Shorter silences belong to words and tell nothing about the caller."""
    onset_hold_ms: int = 128
    onset_probability: float = 0.06
    onset_rise_db: float = 6.0
    """When the wait is over but something begins just then, by a faint suspicion of the
    detector or by its level, it is given so long to turn out as speech. Measured: 1.5
    points fewer turns are cut, the median is 14 ms later, the 95th percentile 50 ms."""
    part_rise_db: float = 1.5
    """A wait that is over before the next window is whole ends there, if what there is
    of the window is no louder than the silence by more than this. Measured: the median
    end is known 10 to 17 ms sooner, no turn more is cut; at 6.0 some are."""
    rejoin_ms: int = 700
    """Speech so soon after an end: the turn was probably cut."""
    cut_pause_weight: float = 4.0
    """It then counts as so many pauses: whoever was cut once is not to be cut again.
    Measured: 0.2 to 0.3 points fewer turns are cut than with 1.0, the mean end is known
    8 to 22 ms later, the 95th percentile up to 47 ms on natural and 40 ms on hard
    lines."""

    sure_probability: float = 0.8
    sure_hangover_ms: int = 280
    """The wait when told that the turn is over with at least this probability. Not
    less: the words say so, but he may still be drawing breath."""
    unsure_probability: float = 0.3
    unsure_hangover_ms: int = 1200
    """The wait when told that more will come ("my number is ...")."""

    pre_roll_ms: int = 250
    """Kept from before the start. Measured: without it 30 % of utterances lose more
    than 60 ms of their first sound."""
    post_roll_ms: int = 100
    """Kept after the end: the last consonant is softer than the threshold."""
    max_utterance_ms: int = 25_000
    """Whoever speaks longer is cut here: the speech encoder takes 30 s at once."""

    loud_drop_db: float = 15.0
    loud_within_ms: int = 300
    """Within a turn, speech this far below its loudest window counts only for so long:
    the ends of words are soft, the television is always soft. Measured: a third fewer
    turns merged with voices behind the caller, 0.3 points more cut."""
    behind_within_ms: int = 120
    """The same where voices behind the caller have outlasted all his turns of late.
    Measured: 5 % of the ends are known 50 ms sooner, 0.2 points more turns are cut."""
    above_floor_db: float = 8.0
    least_drop_db: float = 9.0
    """Nor does speech that is hardly above what is always on the line, unless that
    would leave less than `least_drop_db` below the loudest window: a full room's voices
    keep no turn open. Measured on babble 5 to 10 dB below the caller: 43 % of turns
    merged in place of 60 %, none more cut."""
    open_drop_db: float = 12.0
    """Speech this far below the caller's usual loud level opens no turn."""
    barge_in_drop_db: float = 9.0
    """The same while the bot talks. Measured with one voice 15 dB behind the caller:
    0.9 false interruptions a minute in place of 3.8; at 8.0 0.6, and one true one of
    172 on quiet lines is late."""
    above_line_db: float = 4.0
    surely_his_drop_db: float = 4.0
    """While the bot talks, speech opens a turn if it is so far above what the line gets
    to by itself, or no further below the caller's usual loud level than that. Measured
    with babble 10 dB below the caller: 0.4 false interruptions a minute in place of 11,
    1.5 % of true ones missed in place of 43 %; none missed or later on quiet lines."""
    surely_his_in_room_drop_db: float = 3.0
    """In a full room the smoothed level has to stand out as well, or be no further
    below the caller's usual loud level than that. Measured with babble 5 dB below the
    caller: 0.4 false interruptions a minute in place of 7.8; at 4.0 2.5."""
    forget_level_db_s: float = 0.5
    max_forget_level_db: float = 15.0
    """The level expected of the caller sinks with time: he may have put the phone down,
    or another person may have taken it."""

    def __post_init__(self) -> None:
        """Refuse what contradicts itself; raises ValueError."""
        if not 0 < self.silence_probability <= self.speech_probability <= 1:
            raise ValueError("need 0 < silence_probability <= speech_probability <= 1")
        if not self.post_roll_ms <= self.suspect_ms <= self.min_hangover_ms:
            raise ValueError("need post_roll_ms <= suspect_ms <= min_hangover_ms")
        if not self.suspect_ms <= self.sure_hangover_ms <= self.unsure_hangover_ms:
            raise ValueError("need suspect_ms <= sure_ <= unsure_hangover_ms")
        if not self.min_hangover_ms <= self.max_hangover_ms:
            raise ValueError("need min_hangover_ms <= max_hangover_ms")
        if self.max_utterance_ms < 1000 or self.pre_roll_ms < 0:
            raise ValueError("need max_utterance_ms >= 1000 and pre_roll_ms >= 0")
        if not 0 <= self.pause_memory <= 1 or not 0 < self.accepted_risk < 1:
            raise ValueError("need 0 <= pause_memory <= 1 and 0 < accepted_risk < 1")
        if self.cut_pause_weight < 1:
            raise ValueError("need cut_pause_weight >= 1")
        if min(self.prior_pauses, self.prior_ends, self.prior_pause_lengths) <= 0:
            raise ValueError("need prior_pauses, _ends and _pause_lengths > 0")
        if self.mean_pause_ms <= self.suspect_ms:
            raise ValueError("need mean_pause_ms > suspect_ms")

    def expecting(self, what: Expected) -> EndpointingOptions:
        """The same for an answer of that kind.

        Numbers are read out in groups, with looks at the paper between them; "yes" is
        over when it is said.
        """
        match what:
            case "digits":
                return replace(
                    self,
                    min_hangover_ms=max(self.min_hangover_ms, _DIGITS_MS),
                    max_hangover_ms=max(self.max_hangover_ms, _DIGITS_MAX_MS),
                    unsure_hangover_ms=max(self.unsure_hangover_ms, _DIGITS_MAX_MS),
                )
            case "yes_no":
                return replace(
                    self,
                    min_hangover_ms=min(self.min_hangover_ms, _YES_NO_MS),
                    max_hangover_ms=min(self.max_hangover_ms, _YES_NO_MAX_MS),
                )
        return self

    @classmethod
    def fixed(cls, hangover_ms: int) -> EndpointingOptions:
        """One hangover for all callers and turns; suspicion no later than the end."""
        return cls(
            min_hangover_ms=hangover_ms,
            max_hangover_ms=hangover_ms,
            suspect_ms=min(200, hangover_ms),
            sure_hangover_ms=min(280, hangover_ms),
            onset_hold_ms=0,
        )
