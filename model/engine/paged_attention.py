"""Attention of a packed step in one kernel a layer: torch's paged flash attention.

A slot is one page as long as the context, so the cache needs no other layout: seen as
(slots, context, kv_heads, head_dim) it is a pool of pages, and a row's block table is
its slot. Rows do not depend on each other, whatever else is in the batch.

Source: torch 2.13 `torch/nn/attention/varlen.py`. CUDA only, half precision only; not
measured here, so `why_not` tries it against plain arithmetic before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

if TYPE_CHECKING:
    from torch import Tensor

Kernel: TypeAlias = Callable[..., Any]
"""`torch.nn.attention.varlen.varlen_attn`, or what stands in for it in tests."""

PAGE_MULTIPLE = 256
"""Contexts are rounded up to it: flash attention takes no other page size."""


@dataclass(frozen=True, slots=True)
class PagedRows:
    """Which queries belong together, and what of which slot they see.

    Sequence i has the queries [first_query[i], first_query[i + 1]), which stand at the
    end of its `lengths[i]` positions in slot `slots[i]`.
    """

    first_query: Tensor  # (S + 1,) int32
    lengths: Tensor  # (S,) int32
    slots: Tensor  # (S, 1) int32
    max_queries: int
    max_length: int

    @classmethod
    def of(
        cls,
        rows: Sequence[tuple[int, int, int]],  # slot, number of queries, length
        device: torch.device,
    ) -> PagedRows:
        """Rows in packed order."""
        slots, counts, lengths = (list(column) for column in zip(*rows, strict=True))
        ends = torch.tensor([0, *counts], dtype=torch.int32).cumsum(0)
        return cls(
            ends.to(device, torch.int32),
            torch.tensor(lengths, dtype=torch.int32, device=device),
            torch.tensor(slots, dtype=torch.int32, device=device)[:, None],
            max(counts),
            max(lengths),
        )

    def to(self, device: torch.device) -> PagedRows:
        """The same on another card."""
        return replace(
            self,
            first_query=self.first_query.to(device),
            lengths=self.lengths.to(device),
            slots=self.slots.to(device),
        )


def attend(
    kernel: Kernel,
    rows: PagedRows,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    scaling: float,
    window: int | None,
) -> Tensor:
    """query (N, Q, D) and one layer's cache (slots, K, L, D) -> (N, Q, D), causal."""
    output: Tensor = kernel(
        query,
        keys.transpose(1, 2),
        values.transpose(1, 2),
        rows.first_query,
        None,
        rows.max_queries,
        rows.max_length,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=query.shape[1] != keys.shape[1],
        seqused_k=rows.lengths,
        block_table=rows.slots,
    )
    return output


def torch_kernel() -> Kernel:
    """torch's own."""
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn


def why_not(kernel: Kernel, num_heads: int, keys: Tensor, values: Tensor) -> str | None:
    """Why the kernel is no good for this cache; None: it gives the right numbers.

    It is tried on one layer's first two slots, which are wiped afterwards.
    """
    if keys.shape[0] < 2:
        return "a single slot needs no pages"
    _, num_kv_heads, context, head_dim = keys.shape
    generator = torch.Generator(keys.device).manual_seed(0)
    lengths, counts = (min(300, context), min(17, context)), (1, 5)
    shape = (sum(counts), num_heads, head_dim)
    query = torch.randn(shape, generator=generator, device=keys.device).to(keys.dtype)
    try:
        for cache in (keys, values):
            cache[:2].normal_(generator=generator)
        rows = PagedRows.of(
            [(1, counts[0], lengths[0]), (0, counts[1], lengths[1])], keys.device
        )
        scaling = head_dim**-0.5
        got = attend(
            kernel, rows, query, keys, values, scaling=scaling, window=None
        ).float()
        group = num_heads // num_kv_heads
        expected, first = [], 0
        for slot, count, length in zip((1, 0), counts, lengths, strict=True):
            q = query[first : first + count].float().transpose(0, 1)  # (Q, n, D)
            k = keys[slot, :, :length].float().repeat_interleave(group, 0)
            v = values[slot, :, :length].float().repeat_interleave(group, 0)
            scores = scaling * q @ k.transpose(-1, -2)
            seen = torch.ones(count, length, dtype=torch.bool, device=keys.device)
            scores.masked_fill_(~seen.tril(length - count), float("-inf"))
            expected.append((scores.softmax(-1) @ v).transpose(0, 1))
            first += count
        error = float((got - torch.cat(expected)).abs().max())
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as exc:
        return f"{type(exc).__name__}: {exc}"
    finally:
        for cache in (keys, values):
            cache[:2].zero_()
    # Half precision rounds values of about 1 to 1/256 at worst.
    return None if error < 0.05 else f"its numbers are off by {error:.3g}"
