"""What is known of one caller's way of speaking: how loud, and with what pauses."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from model.vad.options import EndpointingOptions


class CallerLevel:
    """How loud the caller is when he is loud, learned from his utterances."""

    __slots__ = ("_forgotten_db", "_levels_db", "_options", "_usual_db")

    # The loudest tenth of an utterance: single bangs must not set the standard.
    _LOUD_QUANTILE: Final = 0.9

    def __init__(self, options: EndpointingOptions) -> None:
        self._options = options
        self._usual_db: float | None = None
        self._forgotten_db = 0.0
        self._levels_db: list[float] = []

    @property
    def usual_db(self) -> float | None:
        """His loud level; None before his first utterance has ended."""
        return self._usual_db

    def wait(self, duration_s: float) -> None:
        """Nobody spoke for so long."""
        forgotten = self._forgotten_db + duration_s * self._options.forget_level_db_s
        self._forgotten_db = min(forgotten, self._options.max_forget_level_db)

    def may_be_caller(self, level_db: float, drop_db: float) -> bool:
        """Loud enough to be him: no further than that below his usual level."""
        if self._usual_db is None:
            return True
        return level_db >= self._usual_db - self._forgotten_db - drop_db

    def softer_db(self, loudest_db: float) -> float:
        """How far this is below his usual level; 0 while that is not known."""
        return 0.0 if self._usual_db is None else self._usual_db - loudest_db

    def hear(self, level_db: float) -> None:
        """One window of an utterance's speech."""
        self._levels_db.append(level_db)

    def end_utterance(self) -> None:
        """Learn from what was heard: at once if louder, half the way if softer."""
        if not self._levels_db:
            return
        ordered = sorted(self._levels_db)
        loud = ordered[int(self._LOUD_QUANTILE * (len(ordered) - 1))]
        self._levels_db.clear()
        if self._usual_db is not None:
            loud = max(loud, (loud + self._usual_db - self._forgotten_db) / 2)
        self._usual_db = loud
        self._forgotten_db = 0.0


class LineFloor:
    """What is always on the line: hiss, hum, the voices of a full room."""

    __slots__ = ("_floor_db", "_options")

    # Steps of a tracked quantile: the quietest fifth of all windows.
    _QUANTILE: Final = 0.2
    _STEP_DB: Final = 0.5

    def __init__(self, options: EndpointingOptions) -> None:
        self._options = options
        self._floor_db = -70.0

    def hear(self, level_db: float) -> None:
        """Every window, speech or not."""
        if level_db > self._floor_db:
            self._floor_db += self._STEP_DB * self._QUANTILE
        else:
            self._floor_db -= self._STEP_DB * (1 - self._QUANTILE)

    def loud_from_db(self, loudest_db: float) -> float:
        """How loud speech must be to be the caller's, given his loudest window."""
        o = self._options
        above = min(self._floor_db + o.above_floor_db, loudest_db - o.least_drop_db)
        return max(above, loudest_db - o.loud_drop_db)


class LineLoudness:
    """How loud the line gets by itself, nobody's turn being on it.

    A full room's voices are speech to every detector, and at times as loud as a soft
    word of the caller's. Whoever interrupts the bot stands out from them.
    """

    __slots__ = ("_levels_db", "_num_latest", "_options", "_surely_his_drop_db")

    _QUANTILE: Final = 0.9
    _REMEMBERED_WINDOWS: Final = 100  # of 32 ms
    # Fewer say nothing of how loud it gets.
    _FEWEST_WINDOWS: Final = 30

    def __init__(
        self, options: EndpointingOptions, num_latest: int, surely_his_drop_db: float
    ) -> None:
        """`num_latest` windows are what is judged, and not what it is judged by."""
        self._options = options
        self._num_latest = num_latest
        self._surely_his_drop_db = surely_his_drop_db
        self._levels_db: deque[float] = deque(maxlen=self._REMEMBERED_WINDOWS)

    def hear(self, level_db: float) -> None:
        """A window without the caller."""
        self._levels_db.append(level_db)

    def stands_out(self, level_db: float, usual_db: float | None) -> bool:
        """Whether it is louder than that. `usual_db`: of the caller, if known.

        Speech about as loud as he usually is stands out from everything.
        """
        if len(self._levels_db) < self._FEWEST_WINDOWS:
            return True
        before = sorted(list(self._levels_db)[: -self._num_latest])
        loud_db = before[int(self._QUANTILE * (len(before) - 1))]
        needed_db = loud_db + self._options.above_line_db
        if usual_db is not None:
            needed_db = min(needed_db, usual_db - self._surely_his_drop_db)
        return level_db >= needed_db


class VoicesBehind:
    """Whether voices behind the caller outlast his turns.

    Where they do, soft speech at the end of a turn is theirs and not the end of his
    words: it then counts for less long.
    """

    __slots__ = ("_num_soft", "_options", "_share")

    # So many windows in a row that are speech and too soft to be his.
    _FEWEST_WINDOWS: Final = 3
    _FOLLOW: Final = 0.3

    def __init__(self, options: EndpointingOptions) -> None:
        self._options = options
        self._num_soft = 0
        self._share = 0.0

    def hear(self, *, is_his: bool) -> None:
        """A window of speech within an utterance."""
        self._num_soft = 0 if is_his else self._num_soft + 1

    def end_utterance(self) -> None:
        """Learn from how it ended."""
        is_outlasted = self._num_soft >= self._FEWEST_WINDOWS
        self._share += self._FOLLOW * (is_outlasted - self._share)
        self._num_soft = 0

    def soft_counts_ms(self) -> float:
        """For how long soft speech may be the end of his words."""
        o = self._options
        return o.loud_within_ms - self._share * (o.loud_within_ms - o.behind_within_ms)


class PauseHabit:
    """How often and how long this caller pauses within a turn: so how long to wait.

    Of the silences that may be an end, `chance` are pauses, and their lengths fall off
    as those of an exponential distribution do. So the chance that he still goes on
    after a silence of w ms is

        chance * exp(-(w - suspect_ms) / mean_beyond_ms)

    Waiting a moment longer is worth the share of pauses that end within it, which is
    that chance by mean_beyond_ms; the wait is the w at which this has sunk to what it
    is for callers in general when their chance is the risk we accept. So nobody with
    long pauses makes everything wait for the rare longest. Both figures begin with
    what is known of callers in general and follow what this one does.
    """

    __slots__ = ("_beyond_ms", "_num_ends", "_num_pauses", "_options")

    def __init__(self, options: EndpointingOptions) -> None:
        self._options = options
        # Sums that fade with each turn.
        self._num_pauses = 0.0
        self._num_ends = 0.0
        self._beyond_ms = 0.0

    def expect(self, options: EndpointingOptions) -> None:
        """Other bounds from now on; what is known of the caller stays."""
        self._options = options

    def paused(self, pause_ms: float, weight: float = 1.0) -> None:
        """He was silent for so long, and then went on."""
        if pause_ms >= self._options.min_pause_ms:
            self._num_pauses += weight
            self._beyond_ms += weight * max(0.0, pause_ms - self._options.suspect_ms)

    def rejoined(self, pause_ms: float) -> None:
        """What was taken for the end of a turn was a pause: he goes on."""
        self._num_ends = max(0.0, self._num_ends - 1)
        self.paused(pause_ms, self._options.cut_pause_weight)

    def end_utterance(self) -> None:
        """A turn is over; what was before matters less."""
        self._num_ends += 1
        memory = self._options.pause_memory
        self._num_ends *= memory
        self._num_pauses *= memory
        self._beyond_ms *= memory

    def hangover_ms(self) -> float:
        """How long to wait for more."""
        o = self._options
        pauses = self._num_pauses + o.prior_pauses
        chance = pauses / (pauses + self._num_ends + o.prior_ends)
        usual_ms = o.mean_pause_ms - o.suspect_ms
        mean_beyond_ms = (self._beyond_ms + o.prior_pause_lengths * usual_ms) / (
            self._num_pauses + o.prior_pause_lengths
        )
        ratio = max(1.0, chance * usual_ms / (o.accepted_risk * mean_beyond_ms))
        wait_ms = o.suspect_ms + mean_beyond_ms * math.log(ratio)
        return min(max(wait_ms, o.min_hangover_ms), o.max_hangover_ms)
