"""Attention of a packed step over slots.

A step's tokens come packed: N tokens in one row, decodes first, then prefill pieces.
Everything but attention is done for all of them at once; here each token meets the
keys and values of its own slot.

    packed   [ d d d d | p p p p p p | p p p ]        d decode, p prefill
              slots 0-2, 5   slot 3     slot 7

Decodes of neighbouring slots are computed together on a view of the cache, so nothing
is copied. Decodes whose prompts begin with the same instructions may read those from
one slot, all at once, instead of each from its own: the same numbers from one place.
No arithmetic mixes two sequences.

Shapes: N packed tokens, Q query heads, K kv heads, G = Q / K, D head size, L cache
positions, P shared positions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from model.engine.paged_attention import PagedRows, attend

if TYPE_CHECKING:
    from torch import Tensor

    from model.engine.kv_cache import KvCache
    from model.engine.paged_attention import Kernel


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


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """The first decode runs begin with the same text: positions [0, length) of `slot`
    hold the same keys and values as their own slots do."""

    num_runs: int
    slot: int
    length: int


@dataclass(frozen=True, slots=True)
class PagedStep:
    """The kernel, and a step's rows as it wants them."""

    kernel: Kernel
    rows: PagedRows


@dataclass(slots=True)
class PackedBatch:
    """Where every packed token belongs; one per step, used by all layers."""

    cache: KvCache
    places: Tensor  # where keys and values go, see `KvCache.places`
    decodes: list[DecodeRun]
    prefills: list[PrefillRun]
    shared: SharedPrefix | None = None
    # Compute all decodes at once on a copy of their slots: for devices on which
    # issuing operations costs more than copying.
    gathers: bool = False
    # One kernel for all rows, where the device has it.
    paged: PagedStep | None = None
    # Masks are the same in all layers of one kind.
    _masks: dict[tuple[int, int | None], Tensor | None] = field(default_factory=dict)
    _gathered_slots: Tensor | None = None
    # The same batch for layers on other cards.
    _elsewhere: dict[torch.device, PackedBatch] = field(default_factory=dict)

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        scaling: float,
        window: int | None = None,
    ) -> Tensor:
        """query (N, Q, D), key and value (N, K, D) -> (N, Q, D).

        Stores the new keys and values first. `window` is the number of positions a
        sliding layer looks back on, its own included.
        """
        if self.cache.is_spread and key.device != self.places.device:
            there = self._on(key.device)
            return there.attend(
                layer, query, key, value, scaling=scaling, window=window
            )
        self.cache.write(layer, self.places, key, value)
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        if self.paged is not None:
            return attend(
                self.paged.kernel,
                self.paged.rows,
                query,
                keys,
                values,
                scaling=scaling,
                window=window,
            )
        outputs, num_done = [], 0
        if self.gathers and self.decodes:
            outputs.append(self._decode_gathered(query, keys, values, scaling, window))
            num_done = len(self.decodes)
        elif self.shared is not None and window is None:
            outputs.append(self._decode_sharing(query, keys, values, scaling))
            num_done = self.shared.num_runs
        for index in range(num_done, len(self.decodes)):
            mask = self._mask(index, window)
            run = self.decodes[index]
            outputs.append(_decode(run, query, keys, values, mask, scaling))
        for index, prefill in enumerate(self.prefills, start=len(self.decodes)):
            mask = self._mask(index, window)
            outputs.append(_prefill(prefill, query, keys, values, mask, scaling))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _on(self, device: torch.device) -> PackedBatch:
        if device not in self._elsewhere:
            paged = self.paged
            if paged is not None:
                paged = PagedStep(paged.kernel, paged.rows.to(device))
            self._elsewhere[device] = PackedBatch(
                self.cache,
                self.places.to(device),
                self.decodes,
                self.prefills,
                self.shared,
                self.gathers,
                paged,
            )
        return self._elsewhere[device]

    def _decode_sharing(
        self, query: Tensor, keys: Tensor, values: Tensor, scaling: float
    ) -> Tensor:
        """Rows that share a prefix: one product with its keys for all of them.

        The softmax is over both parts together, so the result is that of ordinary
        attention.
        """
        assert self.shared is not None
        runs = self.decodes[: self.shared.num_runs]
        P, slot = self.shared.length, self.shared.slot
        B = sum(run.count for run in runs)
        _, Q, D = query.shape
        K = keys.shape[1]
        G = Q // K
        q = query[:B].view(B, K, G, D) * scaling
        q_all = q.transpose(0, 1).reshape(K, B * G, D)
        prefix_scores = q_all @ keys[slot, :, :P].transpose(-1, -2)  # (K, B * G, P)
        prefix_scores = prefix_scores.view(K, B, G, P).transpose(0, 1)  # (B, K, G, P)

        prefix_weights, outputs = [], []
        for index, run in enumerate(runs):
            rows = slice(run.row, run.row + run.count)
            slots = slice(run.slot, run.slot + run.count)
            L = max(run.lengths)
            own_scores = q[rows] @ keys[slots, :, P:L].transpose(-1, -2)
            mask = self._mask(index, None)
            if mask is not None:
                blocked = torch.finfo(own_scores.dtype).min
                own_scores = own_scores.masked_fill(~mask[..., P:], blocked)
            scores = torch.cat([prefix_scores[rows], own_scores], dim=-1)
            weights = scores.softmax(dim=-1, dtype=torch.float32).to(q.dtype)
            prefix_weights.append(weights[..., :P])
            outputs.append(weights[..., P:] @ values[slots, :, P:L])
        own = outputs[0] if len(outputs) == 1 else torch.cat(outputs)  # (B, K, G, D)
        w = prefix_weights[0] if len(runs) == 1 else torch.cat(prefix_weights)
        w = w.transpose(0, 1).reshape(K, B * G, P)
        from_prefix = (w @ values[slot, :, :P]).view(K, B, G, D).transpose(0, 1)
        return (from_prefix + own).reshape(B, Q, D)

    def _decode_gathered(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        scaling: float,
        window: int | None,
    ) -> Tensor:
        """All decodes as one run, of slots copied side by side."""
        lengths = tuple(length for run in self.decodes for length in run.lengths)
        L = max(lengths)
        if self._gathered_slots is None:
            slots = [run.slot + i for run in self.decodes for i in range(run.count)]
            self._gathered_slots = torch.tensor(slots, device=self.places.device)
        whole = DecodeRun(row=0, slot=0, count=len(lengths), lengths=lengths)
        key = (-1, window)
        if key not in self._masks:
            self._masks[key] = _decode_mask(whole, window, self.places.device)
        k = keys[:, :, :L].index_select(0, self._gathered_slots)
        v = values[:, :, :L].index_select(0, self._gathered_slots)
        return _decode(whole, query, k, v, self._masks[key], scaling)

    def _mask(self, index: int, window: int | None) -> Tensor | None:
        """Of decode run `index`, (count, 1, 1, L), or of a prefill run, (count, L);
        None if none is needed."""
        key = (index, window)
        if key not in self._masks:
            device = self.places.device
            num_decodes = len(self.decodes)
            self._masks[key] = (
                _decode_mask(self.decodes[index], window, device)
                if index < num_decodes
                else _prefill_mask(self.prefills[index - num_decodes], window, device)
            )
        return self._masks[key]


def _decode(
    run: DecodeRun,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    scaling: float,
) -> Tensor:
    """(N, Q, D) queries -> (count, Q, D) of the run."""
    _, Q, D = query.shape
    K = keys.shape[1]
    L = max(run.lengths)
    slots = slice(run.slot, run.slot + run.count)
    # One query a row: the G heads that share a kv head take the place of time, so
    # that keys are not repeated.
    q = query[run.row : run.row + run.count].view(run.count, K, Q // K, D)
    k, v = keys[slots, :, :L], values[slots, :, :L]  # (count, K, L, D), views
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling)
    return out.reshape(run.count, Q, D)


def _prefill(
    run: PrefillRun,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    scaling: float,
) -> Tensor:
    """(N, Q, D) queries -> (count, Q, D) of the run."""
    L = run.start + run.count
    q = query[run.row : run.row + run.count].transpose(0, 1).unsqueeze(0)
    k, v = keys[run.slot, :, :L].unsqueeze(0), values[run.slot, :, :L].unsqueeze(0)
    out = F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask,
        is_causal=mask is None and run.count > 1,
        scale=scaling,
        enable_gqa=q.shape[1] != k.shape[1],
    )  # (1, Q, count, D)
    return out[0].transpose(0, 1)


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
    sees_all = window is None or length <= window
    if sees_all and (run.start == 0 or run.count == 1):
        return None  # plain causal, or one query that sees everything before it
    positions = torch.arange(length, device=device)
    queries = torch.arange(run.start, length, device=device)[:, None]
    allowed = positions <= queries
    if window is not None:
        allowed &= positions > queries - window
    return allowed
