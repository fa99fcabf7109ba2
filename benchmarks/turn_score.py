"""How well utterances were found, against the turns that are truly there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.segment import Segment

# (start, end) of a true turn, in seconds.
Turn = tuple[float, float]


@dataclass(slots=True)
class TurnScore:
    """Counts over many lines; add to it line by line."""

    num_turns: int = 0
    num_missed: int = 0
    num_cut: int = 0
    num_merged: int = 0
    num_false_starts: int = 0
    heard_s: float = 0.0
    end_known_ms: list[float] = field(default_factory=list)
    """From the true end of a turn to the decision, where the turn was found alone."""

    def add(
        self, turns: Sequence[Turn], segments: Sequence[Segment], heard_s: float
    ) -> None:
        """Score one line.

        A turn is missed if no segment overlaps it, cut if several do, merged if a
        segment that overlaps it began in an earlier turn. A segment that overlaps no
        turn is a false start.
        """
        overlaps = [
            [
                index
                for index, (start, end) in enumerate(turns)
                if segment.start < end and segment.end > start
            ]
            for segment in segments
        ]
        self.heard_s += heard_s
        self.num_turns += len(turns)
        self.num_false_starts += sum(not found for found in overlaps)
        for index, (_, end) in enumerate(turns):
            mine = [k for k, found in enumerate(overlaps) if index in found]
            self.num_missed += not mine
            self.num_cut += len(mine) > 1
            self.num_merged += any(overlaps[k][0] < index for k in mine)
            if mine and overlaps[mine[-1]][-1] == index:
                known_s = segments[mine[-1]].decided_end - end
                self.end_known_ms.append(1000 * known_s)

    def summary(self) -> dict[str, float]:
        """Percentages of turns, false starts a minute, and delays in milliseconds."""
        turns = max(self.num_turns, 1)
        delays = self.end_known_ms or [float("nan")]
        return {
            "missed_pct": round(100 * self.num_missed / turns, 1),
            "cut_pct": round(100 * self.num_cut / turns, 1),
            "merged_pct": round(100 * self.num_merged / turns, 1),
            "false_starts_per_minute": round(
                60 * self.num_false_starts / max(self.heard_s, 1e-9), 2
            ),
            "end_known_p50_ms": round(float(np.percentile(delays, 50))),
            "end_known_p95_ms": round(float(np.percentile(delays, 95))),
            "end_known_p99_ms": round(float(np.percentile(delays, 99))),
        }
