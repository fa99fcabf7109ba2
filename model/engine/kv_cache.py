"""Keys and values of every slot, for every layer.

One pair of tensors per layer, `(slots, kv_heads, max_context, head_dim)`: a slot is a
row, a position a place in it. Rows are zero where nothing was written: masked places
are multiplied by zero, and zero times garbage may be NaN.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from model.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class KvCache:
    """The memory the engine's slots stand for.

    Raises:
        ModelLoadError: it does not fit.
    """

    def __init__(
        self,
        text_config: Any,
        *,
        num_slots: int,
        max_context_tokens: int,
        device: torch.device,
        dtype: torch.dtype,
        has_spare: bool = False,
        layer_devices: Sequence[torch.device] = (),
    ) -> None:
        """`has_spare`: one slot more, `spare_slot`, where rows of no request decode.
        `layer_devices`: of each layer, where not all are on `device`."""
        self.is_spread = len(set(layer_devices)) > 1
        self.spare_slot = num_slots
        self.num_slots = num_slots
        self.max_context_tokens = max_context_tokens
        num_heads = int(text_config.num_attention_heads)
        self.num_kv_heads = int(
            getattr(text_config, "num_key_value_heads", None) or num_heads
        )
        self.head_dim = int(
            getattr(text_config, "head_dim", None)
            or text_config.hidden_size // num_heads
        )
        shape = (
            num_slots + has_spare,
            self.num_kv_heads,
            max_context_tokens,
            self.head_dim,
        )
        places = layer_devices or [device] * int(text_config.num_hidden_layers)
        try:
            self.keys = [_zeros(shape, place, dtype) for place in places]
            self.values = [_zeros(shape, place, dtype) for place in places]
        except (RuntimeError, MemoryError) as exc:  # torch's and numpy's
            raise ModelLoadError(
                f"no memory for {num_slots} slots of {max_context_tokens} tokens; "
                "lower one of them",
                subject="kv_cache",
            ) from exc

    @property
    def num_bytes(self) -> int:
        """Memory set aside; on a CPU it is taken as it is written to."""
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))

    @property
    def position_bytes(self) -> int:
        """Keys and values of one position, in all layers."""
        per_layer = 2 * self.num_kv_heads * self.head_dim * self.keys[0].itemsize
        return per_layer * len(self.keys)

    def places(self, slots: Tensor, positions: Tensor) -> Tensor:
        """(N,) slots and positions -> (N * kv_heads,), where `write` is to write."""
        heads = torch.arange(self.num_kv_heads, device=slots.device)
        rows = slots[:, None] * self.num_kv_heads + heads
        return (rows * self.max_context_tokens + positions[:, None]).flatten()

    def write(self, layer: int, places: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store (N, kv_heads, head_dim) at `places`."""
        for cache, new in ((self.keys[layer], keys), (self.values[layer], values)):
            flat = cache.view(-1, self.head_dim)
            flat.index_copy_(0, places, new.reshape(-1, self.head_dim))

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of one slot to another."""
        for layers in (self.keys, self.values):
            for tensor in layers:
                tensor[target, :, :length] = tensor[source, :, :length]

    def clear(self, slot: int) -> None:
        """Wipe a slot that may hold NaN."""
        for layers in (self.keys, self.values):
            for tensor in layers:
                tensor[slot].zero_()


def _zeros(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Zeros; on a CPU, memory that is only taken once it is written to."""
    if device.type != "cpu":
        return torch.zeros(shape, device=device, dtype=dtype)
    num_bytes = math.prod(shape) * dtype.itemsize
    return torch.from_numpy(np.zeros(num_bytes, np.uint8)).view(dtype).view(shape)
