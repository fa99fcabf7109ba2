"""One step of the model: the only place that builds batch tensors.

    pieces ──▶ ids, positions, places ──▶ embeddings + audio ──▶ language model
                                                                     │ logits of the
    tokens, end-of-turn probabilities ◀── sampling ◀─────────────────┘ rows that count

Shapes: N packed tokens of all pieces, R rows whose logits are wanted, E language
model width, V vocabulary.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakSet

import numpy as np
import torch

from model.engine.attention import (
    DecodeRun,
    PackedBatch,
    PagedStep,
    PrefillRun,
    SharedPrefix,
)
from model.engine.fast_paths import RunnerOptions, choose_kernel, make_steps
from model.engine.language_model import build_forward
from model.engine.linear import speed_up_linears
from model.engine.paged_attention import PagedRows
from model.engine.sampling import Choice, choose_tokens
from model.engine.shared_prefix import SharingFinder

if TYPE_CHECKING:
    from collections.abc import Sequence as Many

    from torch import Tensor

    from model.engine.kv_cache import KvCache
    from model.engine.scheduler import Piece
    from model.ultravox.checkpoint import Checkpoint
    from model.ultravox.clip import AudioClip


# On a GPU, each run of neighbouring slots is three kernels a layer; copying all slots
# side by side is five, however many there are.  Estimated, not measured.
_MAX_RUNS = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step gave for one piece.

    `token` is None while the prompt is not yet read to its end. If `is_finite` is
    false the rest means nothing.
    """

    piece: Piece
    token: int | None
    end_of_turn_probability: float | None
    is_finite: bool


class Runner:
    """Runs the model over a step's pieces.  Used by one thread only."""

    def __init__(
        self, checkpoint: Checkpoint, cache: KvCache, options: RunnerOptions
    ) -> None:
        """Raises ModelLoadError: the backbone cannot be served, or not as wanted."""
        self._checkpoint = checkpoint
        self._cache = cache
        self._device = checkpoint.device
        self._forward = build_forward(checkpoint.network.language_model)
        if checkpoint.config.audio is not None and self._device.type == "cpu":
            speed_up_linears(checkpoint.network.audio_tower)
            speed_up_linears(checkpoint.network.multi_modal_projector)
        self._sharing = SharingFinder(_min_positions_saved(cache))
        self._stop_ids = torch.tensor(sorted(checkpoint.stop_ids), device=self._device)
        num_heads = int(checkpoint.network.text_config.num_attention_heads)
        self._kernel, self.attention = choose_kernel(options, num_heads, cache)
        self._steps, self.decoding = make_steps(
            options, self._forward, cache, self._kernel
        )
        self._encoded: WeakSet[AudioClip] = WeakSet()
        self._encoded_lock = Lock()  # asked about from other threads

    @torch.inference_mode()
    def encode(self, clips: Many[AudioClip]) -> None:
        """Give each clip its audio vectors, clips of similar length together."""
        for batch in _by_length(clips):
            waves = [torch.from_numpy(clip.wave) for clip in batch]
            encoded = self._checkpoint.encode(waves)
            for clip, vectors in zip(batch, encoded, strict=True):
                clip.set_vectors(vectors)
        with self._encoded_lock:
            self._encoded.update(clips)

    def audio_bytes(self) -> int:
        """Memory of the audio vectors that dialogues still hold.  Any thread."""
        with self._encoded_lock:
            vectors = [clip.vectors for clip in self._encoded]
        return sum(v.numel() * v.element_size() for v in vectors if v is not None)

    @torch.inference_mode()
    def run(self, decode: Many[Piece], prefill: Many[Piece]) -> list[Outcome]:
        """Read every piece, and choose the next token of those that are complete.

        Outcomes come in an order of their own.
        """
        decode, num_sharing, shared_length = self._by_sharing(decode)
        pieces = [*decode, *prefill]
        positions = np.concatenate([np.arange(p.start, p.stop) for p in pieces])
        slots = np.repeat(
            [piece.sequence.slot for piece in pieces],
            [piece.stop - piece.start for piece in pieces],
        )
        ids = [i for p in pieces for i in p.sequence.ids(p.start, p.stop)]
        wanted = _wanted_rows(pieces)
        packed = np.stack([ids, positions, slots])
        if self._steps is not None and not prefill:
            logits = self._steps.run(packed)
            return self._outcomes(pieces, wanted, logits.float())
        table = torch.from_numpy(packed).to(self._device)
        rows = torch.tensor(
            [row for row, _, _ in wanted], dtype=torch.long, device=self._device
        )
        embeds = self._forward.embed(table[0])
        _overlay_audio(embeds, prefill, first_row=len(decode))
        runs = _decode_runs(decode[:num_sharing], first_row=0)
        shared = None
        if runs:
            shared = SharedPrefix(len(runs), runs[0].slot, shared_length)
        runs += _decode_runs(decode[num_sharing:], first_row=num_sharing)
        batch = PackedBatch(
            cache=self._cache,
            places=self._cache.places(table[2], table[1]),
            decodes=runs,
            prefills=_prefill_runs(prefill, first_row=len(decode)),
            shared=shared,
            paged=self._paged(pieces),
            gathers=self._device.type != "cpu" and len(runs) > _MAX_RUNS,
        )
        logits = self._forward.forward(embeds, table[1], batch, rows)
        return self._outcomes(pieces, wanted, logits.float())

    def _paged(self, pieces: Many[Piece]) -> PagedStep | None:
        if self._kernel is None:
            return None
        rows = [
            (piece.sequence.slot or 0, piece.stop - piece.start, piece.stop)
            for piece in pieces
        ]
        return PagedStep(self._kernel, PagedRows.of(rows, self._device))

    def _by_sharing(self, decode: Many[Piece]) -> tuple[list[Piece], int, int]:
        """Pieces that share instructions first, how many they are, and how long."""
        group = self._sharing.find([piece.sequence for piece in decode])
        if group is None:
            return list(decode), 0, 0
        sharing = [p for p in decode if p.sequence.number in group.members]
        others = [p for p in decode if p.sequence.number not in group.members]
        return sharing + others, len(sharing), group.length

    def _outcomes(
        self,
        pieces: Many[Piece],
        wanted: Many[tuple[int, int, bool]],
        logits: Tensor,
    ) -> list[Outcome]:
        tokens: dict[int, int] = {}
        ends: dict[int, float] = {}
        finite = dict.fromkeys(range(len(pieces)), True)
        if wanted:
            self._hold_back_stops(pieces, wanted, logits)
            choices = [_choice(pieces[index], samples) for _, index, samples in wanted]
            chosen, is_finite = choose_tokens(logits, choices)
            probabilities = self._stop_probabilities(wanted, logits)
            for row, (_, index, samples) in enumerate(wanted):
                finite[index] &= is_finite[row]
                if samples:
                    tokens[index] = chosen[row]
                else:
                    ends[index] = probabilities[row]
        return [
            Outcome(piece, tokens.get(index), ends.get(index), finite[index])
            for index, piece in enumerate(pieces)
        ]

    def _hold_back_stops(
        self, pieces: Many[Piece], wanted: Many[tuple[int, int, bool]], logits: Tensor
    ) -> None:
        """Replies that may not end yet cannot choose a stop id."""
        for row, (_, index, samples) in enumerate(wanted):
            sequence = pieces[index].sequence
            if samples and len(sequence.produced) < sequence.request.min_new_tokens:
                logits[row, self._stop_ids] = torch.finfo(logits.dtype).min

    def _stop_probabilities(
        self, wanted: Many[tuple[int, int, bool]], logits: Tensor
    ) -> dict[int, float]:
        """P(a stop id) of the rows at the end of a caller's turn."""
        rows = [row for row, (_, _, samples) in enumerate(wanted) if not samples]
        if not rows:
            return {}
        mass = logits[rows].softmax(dim=-1)[:, self._stop_ids].sum(dim=-1)
        return dict(zip(rows, mass.tolist(), strict=True))


def _by_length(clips: Many[AudioClip]) -> list[list[AudioClip]]:
    """Batches in which little is padding: the longest at most half as long again."""
    batches: list[list[AudioClip]] = []
    for clip in sorted(clips, key=lambda clip: clip.num_samples):
        if batches and clip.num_samples <= 1.5 * batches[-1][0].num_samples:
            batches[-1].append(clip)
        else:
            batches.append([clip])
    return batches


def _wanted_rows(pieces: Many[Piece]) -> list[tuple[int, int, bool]]:
    """Rows whose logits matter: (packed row, index of the piece, samples from it)."""
    wanted: list[tuple[int, int, bool]] = []
    row = 0
    for index, piece in enumerate(pieces):
        turn_end = piece.sequence.request.prompt.turn_end
        if turn_end is not None and piece.start <= turn_end < piece.stop:
            wanted.append((row + turn_end - piece.start, index, False))
        row += piece.stop - piece.start
        if piece.completes and piece.sequence.request.max_new_tokens:
            wanted.append((row - 1, index, True))
    return wanted


def _choice(piece: Piece, samples: bool) -> Choice:
    request = piece.sequence.request
    if not samples or request.temperature == 0:
        return Choice(0.0, 1.0, 0.0)
    return Choice(request.temperature, request.top_p, piece.sequence.rng.random())


def _overlay_audio(embeds: Tensor, prefill: Many[Piece], first_row: int) -> None:
    """Write audio vectors over the embeddings at their places, (N, E) in place."""
    row = first_row
    for piece in prefill:
        for span in piece.sequence.spans(piece.start, piece.stop):
            vectors = span.clip.vectors
            assert vectors is not None, "clips are encoded before their positions run"
            start = max(span.start, piece.start)
            stop = min(span.start + span.num_tokens, piece.stop)
            offset = row - piece.start
            part = vectors[start - span.start : stop - span.start]
            embeds[offset + start : offset + stop] = part
        row += piece.stop - piece.start


def _min_positions_saved(cache: KvCache) -> int:
    """From how many positions on sharing pays: its few extra operations a layer cost
    what a CPU needs to read about 256 kB. On a GPU it has not been measured."""
    if cache.keys[0].device.type != "cpu":
        return sys.maxsize
    position_bytes = 2 * cache.num_kv_heads * cache.head_dim * cache.keys[0].itemsize
    return max(1, (256 << 10) // position_bytes)


def _decode_runs(decode: Many[Piece], first_row: int) -> list[DecodeRun]:
    """Neighbouring slots become one run.  Expects the order of slots."""
    runs: list[DecodeRun] = []
    for row, piece in enumerate(decode, start=first_row):
        slot = piece.sequence.slot
        assert slot is not None, "a running sequence has a slot"
        last = runs[-1] if runs else None
        if last is not None and last.slot + last.count == slot:
            lengths = (*last.lengths, piece.stop)
            runs[-1] = DecodeRun(last.row, last.slot, last.count + 1, lengths)
        else:
            runs.append(DecodeRun(row, slot, 1, (piece.stop,)))
    return runs


def _prefill_runs(prefill: Many[Piece], first_row: int) -> list[PrefillRun]:
    runs: list[PrefillRun] = []
    row = first_row
    for piece in prefill:
        slot, count = piece.sequence.slot, piece.stop - piece.start
        assert slot is not None, "a running sequence has a slot"
        runs.append(PrefillRun(row, slot, count, piece.start))
        row += count
    return runs
