"""A call's measures: how fast the bot answered and fell silent.  Pure arithmetic.

::

    caller   ──voiced──|                      ──voiced──|
    bot                |<- response ->|voiced──────|
                                               |<-->| barge-in stop
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tools.caller.ear import Sound
from tools.caller.mouth import Said


@dataclass(frozen=True, slots=True)
class Turn:
    """One thing the caller said, and what the bot did about it.

    response_ms: last voiced sample sent -> first voiced sample heard; None when the
    bot said nothing before the caller spoke again. barge_in_stop_ms: first voiced
    sample sent -> last voiced sample heard, when the bot was speaking.
    is_cut: the bot began to answer before the caller had finished.
    """

    said: str
    start_s: float
    end_s: float
    response_ms: int | None
    barge_in_stop_ms: int | None
    is_cut: bool


def measured_turns(said: Sequence[Said], sounds: Sequence[Sound]) -> list[Turn]:
    """A turn for everything the caller said."""
    starts = [one.voiced_start_s for one in said] + [float("inf")]
    return [
        _turn(one, next_s, sounds) for one, next_s in zip(said, starts[1:], strict=True)
    ]


def _turn(said: Said, next_s: float, sounds: Sequence[Sound]) -> Turn:
    start_s, end_s = said.voiced_start_s, said.voiced_end_s
    talked_over = [s for s in sounds if s.start_s < start_s < s.end_s]
    stop_ms = _ms(talked_over[0].end_s - start_s) if talked_over else None
    answers = [s.start_s for s in sounds if end_s <= s.start_s < next_s]
    return Turn(
        said=said.name,
        start_s=round(start_s, 3),
        end_s=round(end_s, 3),
        response_ms=_ms(answers[0] - end_s) if answers else None,
        barge_in_stop_ms=stop_ms,
        is_cut=any(start_s < s.start_s < end_s for s in sounds),
    )


def is_answered(said: Sequence[Said], sounds: Sequence[Sound]) -> bool:
    """Whether the bot has spoken since the caller last did."""
    return not said or any(s.start_s >= said[-1].voiced_end_s for s in sounds)


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Of sorted order, linear between neighbours; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def longest_silence_s(sounds: Sequence[Sound]) -> float:
    """The longest time between two sounds of the bot."""
    return max((b.start_s - a.end_s for a, b in pairwise(sounds)), default=0.0)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
