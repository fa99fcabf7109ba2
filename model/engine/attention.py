"""Attention over slots, plugged into transformers' language models.

A step's tokens come packed: one row of N tokens, decodes first, then prefill pieces.
Everything but attention is the model's own code and does not know; here each token
meets the keys and values of its own slot.

    packed   [ d d d d | p p p p p p | p p p ]        d decode, p prefill
              slots 0-2, 5   slot 3     slot 7

Decodes of neighbouring slots are computed together on a view of the cache, so nothing
is copied. No arithmetic mixes two sequences.

Shapes: N packed tokens, Q query heads, K kv heads, G = Q / K, D head size, L cache
positions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

if TYPE_CHECKING:
    from torch import Tensor, nn

    from model.engine.kv_cache import KvCache

ATTENTION_NAME = "ultravox_slots"


@dataclass(frozen=True, slots=True)
class DecodeRun:
    """Packed rows [row, row + count) decode in slots [slot, slot + count)."""

    row: int
    slot: int
    count: int
    lengths: tuple[int, ...]  # keys each row sees, its own included


@dataclass(frozen=True, slots=True)
class PrefillRun:
    """Packed rows [row, row + count) are positions [start, start + count) of a slot."""

    row: int
    slot: int
    count: int
    start: int


@dataclass(slots=True)
class PackedBatch:
    """Where every packed token belongs; one per step, shared by all layers."""

    cache: KvCache
    places: Tensor  # (N,) where each token's key goes: slot * max_context + position
    decodes: list[DecodeRun]
    prefills: list[PrefillRun]
    # Masks are the same in all layers of one kind.
    masks: dict[tuple[int, int | None], Tensor | None] = field(default_factory=dict)

    def decode_mask(self, index: int, window: int | None) -> Tensor | None:
        """(count, 1, 1, L) of a decode run; None if every row sees all of L."""
        key = (index, window)
        if key not in self.masks:
            run = self.decodes[index]
            self.masks[key] = _decode_mask(run, window, self.places.device)
        return self.masks[key]

    def prefill_mask(self, index: int, window: int | None) -> Tensor | None:
        """(count, L) of a prefill run; None if plain causal attention is meant."""
        key = (len(self.decodes) + index, window)
        if key not in self.masks:
            run = self.prefills[index]
            self.masks[key] = _prefill_mask(run, window, self.places.device)
        return self.masks[key]


def slot_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    packed_batch: PackedBatch | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """query (1, Q, N, D), key and value (1, K, N, D) -> (1, N, Q, D)."""
    if packed_batch is None:
        raise RuntimeError("this model was handed to an engine; use its own copy")
    batch, layer = packed_batch, int(module.layer_idx)  # type: ignore[arg-type]
    batch.cache.write(
        layer, batch.places, key[0].transpose(0, 1), value[0].transpose(0, 1)
    )
    keys, values = batch.cache.keys[layer], batch.cache.values[layer]
    outputs = []
    for index, decode in enumerate(batch.decodes):
        mask = batch.decode_mask(index, sliding_window)
        outputs.append(_decode(decode, query[0], keys, values, mask, scaling))
    for index, prefill in enumerate(batch.prefills):
        mask = batch.prefill_mask(index, sliding_window)
        outputs.append(_prefill(prefill, query[0], keys, values, mask, scaling))
    attended = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return attended.unsqueeze(0), None


def _decode(
    run: DecodeRun,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    scaling: float | None,
) -> Tensor:
    """(Q, N, D) queries -> (count, Q, D)."""
    Q, _, D = query.shape
    K = keys.shape[2]
    L = max(run.lengths)
    rows = slice(run.slot, run.slot + run.count)
    # One query a row: the G heads that share a kv head take the place of time, so
    # that keys are not repeated.
    q = query[:, run.row : run.row + run.count].transpose(0, 1)  # (count, Q, D)
    q = q.reshape(run.count, K, Q // K, D)
    k = keys[rows, :L].transpose(1, 2)  # (count, K, L, D), a view
    v = values[rows, :L].transpose(1, 2)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling)
    return out.reshape(run.count, Q, D)


def _prefill(
    run: PrefillRun,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    scaling: float | None,
) -> Tensor:
    """(Q, N, D) queries -> (count, Q, D)."""
    L = run.start + run.count
    q = query[:, run.row : run.row + run.count].unsqueeze(0)  # (1, Q, count, D)
    k = keys[run.slot, :L].transpose(0, 1).unsqueeze(0)  # (1, K, L, D)
    v = values[run.slot, :L].transpose(0, 1).unsqueeze(0)
    out = F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask,
        is_causal=mask is None and run.count > 1,
        scale=scaling,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return out[0].transpose(0, 1)  # (count, Q, D)


def _decode_mask(
    run: DecodeRun, window: int | None, device: torch.device
) -> Tensor | None:
    longest = max(run.lengths)
    if min(run.lengths) == longest and (window is None or longest <= window):
        return None
    positions = torch.arange(longest, device=device)
    lengths = torch.tensor(run.lengths, device=device)[:, None]
    allowed = positions < lengths
    if window is not None:
        allowed &= positions >= lengths - window
    return allowed[:, None, None, :]


def _prefill_mask(
    run: PrefillRun, window: int | None, device: torch.device
) -> Tensor | None:
    length = run.start + run.count
    if run.start == 0 and (window is None or length <= window):
        return None
    if run.count == 1 and (window is None or length <= window):
        return None  # one query that sees everything; not causal, there is no future
    positions = torch.arange(length, device=device)
    queries = torch.arange(run.start, length, device=device)[:, None]
    allowed = positions <= queries
    if window is not None:
        allowed &= positions > queries - window
    return allowed


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """transformers is not to build masks: they are built here."""


def use_slot_attention(language_model: Any) -> None:
    """Make a transformers causal LM compute attention over slots, for good."""
    AttentionInterface.register(ATTENTION_NAME, slot_attention)
    AttentionMaskInterface.register(ATTENTION_NAME, _no_mask)
    language_model.set_attn_implementation(ATTENTION_NAME)
