"""Which slot of the KV cache holds what, and who may build on it.

Pure. A slot keeps its contents after a request is done, so that the next turn of the
same call, or another call with the same instructions, need not compute them again.
What may be shared:

    within a session      everything up to the first position that differs
    between sessions      text before any audio (the instructions), never audio

Positions are compared by key: the token id, or for audio a number made of the
clip's content. Ids alone would hand one caller's speech to another, because audio
places have the same ids for everybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.engine.request import Session
    from model.ultravox.inputs import Prompt


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a request goes, and what of its prompt is there already.

    The first `num_cached` positions are in slot `source`, which may be `slot` itself;
    if it is another, they are to be copied.
    """

    slot: int
    num_cached: int
    source: int

    @property
    def needs_copy(self) -> bool:
        """Whether what is there already is in another slot."""
        return self.num_cached > 0 and self.source != self.slot


@dataclass(slots=True)
class _Slot:
    keys: NDArray[np.int64]
    session: Session | None = None
    in_use: bool = False
    last_used: int = 0


class SlotTable:
    """The slots' contents by key, and the choice of slot for a new request."""

    def __init__(self, num_slots: int) -> None:
        empty = np.zeros(0, np.int64)
        self._slots = [_Slot(empty) for _ in range(num_slots)]
        self._clock = 0

    @property
    def num_free(self) -> int:
        """Slots no request is using, whatever they hold."""
        return sum(not slot.in_use for slot in self._slots)

    @property
    def num_cached_tokens(self) -> int:
        """Positions held in all slots."""
        return sum(len(slot.keys) for slot in self._slots)

    def reusable(self, index: int, prompt: Prompt, session: Session | None) -> int:
        """Positions at the start of the prompt that slot `index` holds for it.

        At least one position stays to be computed: the last, or the one whose
        logits tell the end of the caller's turn.
        """
        slot = self._slots[index]
        limit = len(prompt) - 1
        if prompt.turn_end is not None:
            limit = min(limit, prompt.turn_end)
        if session is None or slot.session is not session:
            limit = min(limit, prompt.text_prefix_length)
        return shared_length(slot.keys[:limit], prompt.keys[:limit])

    def best_reuse(self, prompt: Prompt, session: Session | None) -> tuple[int, int]:
        """The slot that holds most of the prompt, and how much."""
        lengths = [self.reusable(i, prompt, session) for i in range(len(self._slots))]
        best = max(range(len(lengths)), key=lengths.__getitem__)
        return best, lengths[best]

    def take(self, prompt: Prompt, session: Session | None) -> Placement | None:
        """A free slot for the prompt, or None.  Forgets what it held beyond reuse."""
        free = [i for i, slot in enumerate(self._slots) if not slot.in_use]
        if not free:
            return None
        source, num_cached = self.best_reuse(prompt, session)
        in_place = num_cached and self._may_build_on(source, num_cached, session)
        index = source if in_place else min(free, key=self._worth)
        slot = self._slots[index]
        slot.in_use = True
        slot.session = session
        slot.keys = prompt.keys[:num_cached] if index == source else slot.keys[:0]
        self._touch(slot)
        return Placement(index, num_cached, source)

    @property
    def num_held(self) -> int:
        """Positions of all slots that hold something to build on."""
        return sum(len(slot.keys) for slot in self._slots)

    def commit(self, index: int, keys: NDArray[np.int64]) -> None:
        """The slot now holds these positions."""
        self._slots[index].keys = keys

    def release(self, index: int) -> None:
        """The request is done with the slot; its contents stay until needed."""
        slot = self._slots[index]
        slot.in_use = False
        self._touch(slot)

    def discard(self, index: int) -> None:
        """The slot's contents are not to be trusted."""
        slot = self._slots[index]
        slot.in_use, slot.session, slot.keys = False, None, slot.keys[:0]

    def _touch(self, slot: _Slot) -> None:
        self._clock += 1
        slot.last_used = self._clock

    def _may_build_on(
        self, index: int, num_cached: int, session: Session | None
    ) -> bool:
        """Whether to build in place, which saves a copy: not on another live call's
        slot, and not where more would be lost than used."""
        slot = self._slots[index]
        is_ours = session is not None and slot.session is session
        return (
            not slot.in_use
            and (is_ours or self._is_nobodys(index))
            and 2 * num_cached >= len(slot.keys)
        )

    def _is_nobodys(self, index: int) -> bool:
        session = self._slots[index].session
        return session is None or session.closed

    def _worth(self, index: int) -> tuple[int, int]:
        """What is lost by giving the slot away: least first."""
        slot = self._slots[index]
        if not len(slot.keys):
            return (0, index)  # low slots first, so that batches sit side by side
        return (1 if self._is_nobodys(index) else 2, slot.last_used)


def shared_length(a: NDArray[np.int64], b: NDArray[np.int64]) -> int:
    """How many positions from the start are equal."""
    length = min(len(a), len(b))
    differs = a[:length] != b[:length]
    return int(differs.argmax()) if differs.any() else length
