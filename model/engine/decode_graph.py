"""A decode step with everything at a fixed place, so that a GPU can replay it.

Issuing a step's operations one by one takes a processor longer than a GPU needs to do
them: 900 launches for an 8B model are 4.5 ms beside 3.5 ms of reading its weights. A
CUDA graph is one launch. It wants fixed shapes and addresses, hence the buffers here:

    ids, positions, slots ──▶ buffers of the next larger size ──▶ step ──▶ logits
                              rows left over decode in the spare slot

On a CPU the same step runs without being captured; that is how tests check it.

Shapes: B rows of a size, V vocabulary, L cache positions that are looked at.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from model.engine.paged_attention import PagedRows, attend

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from model.engine.kv_cache import KvCache
    from model.engine.language_model import ForwardPass
    from model.engine.paged_attention import Kernel

logger = logging.getLogger(__name__)

_FIRST_CONTEXT = 256


@dataclass(slots=True)
class _FixedBatch:
    """Attention of a fixed number of rows, one query each; see `PackedBatch`."""

    cache: KvCache
    places: Tensor
    slots: Tensor  # (B,)
    rows: PagedRows
    context: int
    kernel: Kernel | None

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
        """query (B, Q, D), key and value (B, K, D) -> (B, Q, D)."""
        self.cache.write(layer, self.places, key, value)
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        if self.kernel is not None:
            return attend(
                self.kernel,
                self.rows,
                query,
                keys,
                values,
                scaling=scaling,
                window=window,
            )
        B, Q, D = query.shape
        K, L = keys.shape[1], self.context
        positions = torch.arange(L, device=query.device)
        lengths = self.rows.lengths[:, None]
        allowed = positions < lengths  # (B, L)
        if window is not None:
            allowed = allowed & (positions >= lengths - window)
        k = keys[:, :, :L].index_select(0, self.slots)  # (B, K, L, D), copies
        v = values[:, :, :L].index_select(0, self.slots)
        q = query.view(B, K, Q // K, D)
        mask = allowed[:, None, None, :]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling)
        return out.reshape(B, Q, D)


class DecodeSteps:
    """Decode steps of every size, captured or not.  Used by one thread only."""

    def __init__(
        self,
        forward: ForwardPass,
        cache: KvCache,
        *,
        kernel: Kernel | None = None,
        captures: bool,
    ) -> None:
        """The cache has a spare slot.  `kernel` attends in place of copied slots."""
        self._forward = forward
        self._cache = cache
        self._kernel = kernel
        self._captures = captures
        self._sizes = _doubling(1, cache.num_slots)
        # The kernel looks only at what there is; copies are made of so many positions.
        self._contexts = (
            [cache.max_context_tokens]
            if kernel is not None
            else _doubling(_FIRST_CONTEXT, cache.max_context_tokens)
        )
        device = cache.keys[0].device
        most = self._sizes[-1]
        self._buffers = torch.zeros(3, most, dtype=torch.long, device=device)
        self._host = torch.zeros(3, most, dtype=torch.long)
        if captures:
            self._host = self._host.pin_memory()
        self._lengths = torch.ones(most, dtype=torch.int32, device=device)
        self._tables = torch.zeros(most, 1, dtype=torch.int32, device=device)
        self._firsts = torch.arange(most + 1, dtype=torch.int32, device=device)
        self._rows = torch.arange(most, device=device)
        self._graphs: dict[tuple[int, int], torch.cuda.CUDAGraph] = {}
        self._logits: dict[tuple[int, int], Tensor] = {}

    @torch.inference_mode()
    def capture(self) -> None:
        """Capture every size, largest first so that all share its memory.

        Raises:
            RuntimeError: torch's, of what cannot be captured.
        """
        began = perf_counter()
        pool = torch.cuda.graph_pool_handle()
        self._fill(np.empty((3, 0), np.int64), self._sizes[-1])
        for context in reversed(self._contexts):
            for size in reversed(self._sizes):
                stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
                stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(stream):  # libraries set themselves up here
                    self._step(size, context)
                torch.cuda.current_stream().wait_stream(stream)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(
                    graph, pool=pool, capture_error_mode="thread_local"
                ):
                    logits = self._step(size, context)
                self._graphs[size, context] = graph
                self._logits[size, context] = logits
        logger.info(
            "decode_captured",
            extra={
                "num_graphs": len(self._graphs),
                "seconds": round(perf_counter() - began, 1),
            },
        )

    @torch.inference_mode()
    def run(self, rows: NDArray[np.int64]) -> Tensor:
        """(3, n) ids, positions and slots -> logits (n, V), good until the next run."""
        count, longest = rows.shape[1], int(rows[1].max()) + 1
        size = next(size for size in self._sizes if size >= count)
        context = next(length for length in self._contexts if length >= longest)
        self._fill(rows, size)
        if not self._captures:
            return self._step(size, context)[:count]
        self._graphs[size, context].replay()
        return self._logits[size, context][:count]

    def _fill(self, rows: NDArray[np.int64], size: int) -> None:
        count = rows.shape[1]
        host = self._host[:, :size]
        host[:, :count] = torch.from_numpy(rows)
        host[:2, count:] = 0
        host[2, count:] = self._cache.spare_slot
        self._buffers[:, :size].copy_(host, non_blocking=True)

    def _step(self, size: int, context: int) -> Tensor:
        ids, positions, slots = self._buffers[:, :size]
        lengths, tables = self._lengths[:size], self._tables[:size]
        lengths.copy_(positions + 1)
        tables.copy_(slots[:, None])
        batch = _FixedBatch(
            self._cache,
            self._cache.places(slots, positions),
            slots,
            PagedRows(self._firsts[: size + 1], lengths, tables, 1, context),
            context,
            self._kernel,
        )
        embeds = self._forward.embed(ids)
        return self._forward.forward(embeds, positions, batch, self._rows[:size])


def _doubling(first: int, last: int) -> list[int]:
    """first, twice it and so on, up to and with `last`."""
    sizes = [min(first, last)]
    while sizes[-1] < last:
        sizes.append(min(2 * sizes[-1], last))
    return sizes
