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

    "Measured": on human recordings of eight speakers in five languages, sent through a
    simulated line with noise, hum, babble and competing voices (`bench_vad`).
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
    first_hangover_ms: int = 450
    """How long to wait for more before the caller's habits are known."""
    min_hangover_ms: int = 400
    """The shortest wait, for a fluent speaker: 2 to 3 % of ordinary turns have a longer
    pause, 10 % one above 200 ms."""
    max_hangover_ms: int = 800
    """The longest wait. Longer pauses are rare, and by then silence feels broken."""
    short_speech_ms: int = 2000
    short_speech_bonus_ms: int = 60
    """Whoever has said so little is waited for less: the silence is the end. Measured
    on 5,400 silences of 14 people: after less than 2 s of speech 1 % go on after
    300 ms, after more than that 6 %."""
    pause_stretch: float = 1.4
    pause_margin_ms: int = 220
    """The wait is his longest recent pause, stretched, and this on top."""
    pause_memory: float = 0.93
    """The longest pause is remembered shorter by this factor with each turn. Measured:
    0.90 is 20 ms quicker and cuts 0.4 points more turns, 0.95 the reverse."""
    min_pause_ms: int = 180
    """Shorter silences belong to words and tell nothing about the caller."""
    rejoin_ms: int = 700
    """Speech so soon after an end: the turn was probably cut. It counts as a pause."""

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
    above_floor_db: float = 8.0
    least_drop_db: float = 9.0
    """Nor does speech that is hardly above what is always on the line, unless that
    would leave less than `least_drop_db` below the loudest window: a full room's voices
    keep no turn open. Measured on babble 5 to 10 dB below the caller: 43 % of turns
    merged in place of 60 %, none more cut."""
    open_drop_db: float = 12.0
    """Speech this far below the caller's usual loud level opens no turn."""
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
        if not self.min_hangover_ms <= self.first_hangover_ms <= self.max_hangover_ms:
            raise ValueError("need min_ <= first_ <= max_hangover_ms")
        if self.max_utterance_ms < 1000 or self.pre_roll_ms < 0:
            raise ValueError("need max_utterance_ms >= 1000 and pre_roll_ms >= 0")
        if not 0 <= self.pause_memory <= 1 or self.pause_stretch < 0:
            raise ValueError("need 0 <= pause_memory <= 1 and pause_stretch >= 0")

    def expecting(self, what: Expected) -> EndpointingOptions:
        """The same for an answer of that kind.

        Numbers are read out in groups, with looks at the paper between them; "yes" is
        over when it is said.
        """
        match what:
            case "digits":
                return replace(
                    self,
                    first_hangover_ms=max(self.first_hangover_ms, _DIGITS_MS),
                    min_hangover_ms=max(self.min_hangover_ms, _DIGITS_MS),
                    max_hangover_ms=max(self.max_hangover_ms, _DIGITS_MAX_MS),
                    unsure_hangover_ms=max(self.unsure_hangover_ms, _DIGITS_MAX_MS),
                    short_speech_bonus_ms=0,
                )
            case "yes_no":
                return replace(
                    self,
                    first_hangover_ms=min(self.first_hangover_ms, _YES_NO_MAX_MS),
                    min_hangover_ms=min(self.min_hangover_ms, _YES_NO_MS),
                    max_hangover_ms=min(self.max_hangover_ms, _YES_NO_MAX_MS),
                )
        return self

    @classmethod
    def fixed(cls, hangover_ms: int) -> EndpointingOptions:
        """One hangover for all callers and turns; suspicion no later than the end."""
        return cls(
            first_hangover_ms=hangover_ms,
            min_hangover_ms=hangover_ms,
            max_hangover_ms=hangover_ms,
            suspect_ms=min(200, hangover_ms),
            sure_hangover_ms=min(280, hangover_ms),
            short_speech_bonus_ms=0,
        )
