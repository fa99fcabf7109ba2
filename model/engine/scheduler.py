"""Who runs in the next step, who waits, who is refused.

Pure: plain objects in, plain objects out; no torch, no clock, no thread. One step
mixes one token of every reply under way with pieces of new prompts:

    step   [ decode: 1 token each ][ prefill: up to the token budget ]

Priority decides who is taken up first and who gives way: a phone call may take the
slot of a transcript, which then waits and starts over (what it has produced stays).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from model.engine.request import Priority
from model.engine.slots import shared_length

if TYPE_CHECKING:
    from collections.abc import Iterable

    from model.engine.sequence import Sequence
    from model.engine.slots import Placement, SlotTable

# A new prompt that has this many more positions in common with a prompt just being
# read waits for it: copying is hundreds of times cheaper than computing.
_WORTH_WAITING_TOKENS = 64

# While a caller is being answered, transcripts take part in one step of so many.
_TRANSCRIPT_EVERY = 4


@dataclass(frozen=True, slots=True)
class Piece:
    """Positions [start, stop) of one sequence, to be computed in this step."""

    sequence: Sequence
    start: int
    stop: int

    @property
    def completes(self) -> bool:
        """Whether the next token can be sampled after it."""
        return self.stop == self.sequence.length


@dataclass(frozen=True, slots=True)
class Step:
    """What the model is to do next."""

    decode: list[Piece] = field(default_factory=list)
    prefill: list[Piece] = field(default_factory=list)
    # Done in this order before anything else: a source may be a later one's slot.
    copies: list[Placement] = field(default_factory=list)


class Scheduler:
    """Waiting line, running sequences and slots."""

    def __init__(
        self,
        slots: SlotTable,
        *,
        max_slots: int,
        max_waiting: int,
        max_step_tokens: int,
    ) -> None:
        self.slots = slots
        self.max_slots = max_slots
        self.max_waiting = max_waiting
        self.max_step_tokens = max_step_tokens
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self._num_steps = 0

    def admit(self, sequence: Sequence) -> Sequence | None:
        """Put a sequence in line; returns the one that is refused, if any.

        When the line is full, the newest of the least important is refused, which
        may be the sequence itself.
        """
        self.waiting.append(sequence)
        room = self.max_slots - len(self.running)
        if len(self.waiting) <= self.max_waiting + max(room, 0):
            return None
        refused = max(self.waiting, key=lambda waiting: waiting.rank)
        self.waiting.remove(refused)
        return refused

    def remove(self, sequence: Sequence) -> None:
        """The sequence is done or dropped: its slot is free, its contents stay."""
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        if sequence in self.running:
            self.running.remove(sequence)
        if sequence.slot is not None:
            held = sequence.keys()[: sequence.num_computed]
            self.slots.commit(sequence.slot, held)
            self.slots.release(sequence.slot)
            sequence.slot = None

    def fail(self, sequence: Sequence) -> None:
        """The sequence failed: what its slot holds is not to be built on."""
        slot = sequence.slot
        self.remove(sequence)
        if slot is not None:
            self.slots.discard(slot)

    def next_step(self) -> Step:
        """Plan the next step; takes waiting sequences up as there is room."""
        step = Step()
        self._take_up(step)
        taking_part = self._taking_part()
        step.decode.extend(_piece(s, 1) for s in taking_part if s.is_decoding)
        budget = self.max_step_tokens - len(step.decode)
        for sequence in taking_part:
            if sequence.is_decoding or budget <= 0:
                continue
            piece = _piece(sequence, min(budget, sequence.num_pending))
            step.prefill.append(piece)
            budget -= piece.stop - piece.start
        # Rows in the order of their slots: neighbours are computed without copying.
        step.decode.sort(key=lambda piece: piece.sequence.slot or 0)
        return step

    def _taking_part(self) -> list[Sequence]:
        """Running sequences of this step, most important first."""
        self._num_steps += 1
        in_order = sorted(self.running, key=lambda running: running.rank)
        on_the_phone = in_order and in_order[0].request.priority == Priority.PHONE
        if not on_the_phone or self._num_steps % _TRANSCRIPT_EVERY == 0:
            return in_order
        return [s for s in in_order if s.request.priority != Priority.TRANSCRIPT]

    def commit(self, pieces: Iterable[Piece]) -> None:
        """The step was computed: others may build on what it read of prompts."""
        for piece in pieces:
            sequence = piece.sequence
            sequence.num_computed = piece.stop
            prompt = sequence.request.prompt
            if sequence.slot is not None and piece.start < len(prompt):
                self.slots.commit(sequence.slot, prompt.keys[: piece.stop])

    def _take_up(self, step: Step) -> None:
        for sequence in sorted(self.waiting, key=lambda waiting: waiting.rank):
            is_full = self.slots.num_free == 0
            if is_full and not self._may_displace(sequence):
                return
            if self._should_wait_for_another(sequence):
                continue
            if is_full:
                self._displace_the_last()
            placement = self.slots.take(
                sequence.request.prompt, sequence.request.session
            )
            if placement is None:
                return
            sequence.slot = placement.slot
            sequence.num_computed = placement.num_cached
            sequence.num_cached = placement.num_cached
            if placement.needs_copy:
                step.copies.append(placement)
            self.waiting.remove(sequence)
            self.running.append(sequence)

    def _should_wait_for_another(self, sequence: Sequence) -> bool:
        """Whether someone is just reading a long prefix that this prompt shares."""
        prompt, session = sequence.request.prompt, sequence.request.session
        if len(prompt) < _WORTH_WAITING_TOKENS:
            return False
        _, have = self.slots.best_reuse(prompt, session)
        for other in self.running:
            if other.is_decoding or other.request.priority > sequence.request.priority:
                continue
            theirs = other.request.prompt
            limit = len(prompt) - 1
            if session is None or other.request.session is not session:
                limit = min(prompt.text_prefix_length, theirs.text_prefix_length, limit)
            if limit - have < _WORTH_WAITING_TOKENS:
                continue
            will_have = shared_length(theirs.keys[:limit], prompt.keys[:limit])
            if will_have - have >= _WORTH_WAITING_TOKENS:
                return True
        return False

    def _may_displace(self, sequence: Sequence) -> bool:
        """Whether some running sequence is less important than this one."""
        return any(
            running.request.priority > sequence.request.priority
            for running in self.running
        )

    def _displace_the_last(self) -> None:
        """Send the least important running sequence back to the line."""
        last = max(self.running, key=lambda running: running.rank)
        self.remove(last)
        last.num_computed = 0
        self.waiting.append(last)


def _piece(sequence: Sequence, length: int) -> Piece:
    start = sequence.num_computed
    return Piece(sequence, start, start + length)
