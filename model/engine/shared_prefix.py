"""Which sequences of a step begin with the same text.

Pure. Found by comparing keys, never beyond the text before a prompt's first audio:
what is shared is what is the same for every caller of a campaign, its instructions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.engine.slots import shared_length

if TYPE_CHECKING:
    from collections.abc import Sequence as Many

    from model.engine.sequence import Sequence

# More kinds of instructions than this at once are not worth searching.
_MAX_CANDIDATES = 4


@dataclass(frozen=True, slots=True)
class SharingGroup:
    """Sequences, by number, whose first `length` positions are the same text."""

    members: frozenset[int]
    length: int

    @property
    def positions_saved(self) -> int:
        """Positions that need not be read from memory when all share one."""
        return (len(self.members) - 1) * self.length


class SharingFinder:
    """Finds the group that saves most; remembers it while the set stays the same.

    By number, so that a call that has ended is not kept in memory by it.
    """

    def __init__(self, min_positions_saved: int) -> None:
        self._min_positions_saved = min_positions_saved
        self._last: tuple[int, ...] = ()
        self._found: SharingGroup | None = None

    def find(self, sequences: Many[Sequence]) -> SharingGroup | None:
        """The best group, or None if too little would be saved."""
        numbers = tuple(sequence.number for sequence in sequences)
        if numbers != self._last:
            self._last = numbers
            self._found = self._search(sequences)
        return self._found

    def _search(self, sequences: Many[Sequence]) -> SharingGroup | None:
        best: SharingGroup | None = None
        left = list(sequences)
        for _ in range(_MAX_CANDIDATES):
            if len(left) < 2:
                break
            group = _best_group_of(left[0], left)
            if best is None or group.positions_saved > best.positions_saved:
                best = group
            left = [s for s in left[1:] if s.number not in group.members]
        if best is None or best.positions_saved < self._min_positions_saved:
            return None
        return best


def _best_group_of(first: Sequence, sequences: Many[Sequence]) -> SharingGroup:
    """The group around one sequence, at the length that saves most."""
    keys = first.request.prompt.keys[: first.request.prompt.text_prefix_length]
    lengths = {}
    for sequence in sequences:
        prompt = sequence.request.prompt
        lengths[sequence] = shared_length(
            keys, prompt.keys[: prompt.text_prefix_length]
        )
    best = SharingGroup(frozenset([first.number]), 0)
    for length in set(lengths.values()):
        members = frozenset(
            sequence.number for sequence, shared in lengths.items() if shared >= length
        )
        group = SharingGroup(members, length)
        if group.positions_saved > best.positions_saved:
            best = group
    return best
