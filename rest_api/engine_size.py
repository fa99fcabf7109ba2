"""How many dialogues the engine keeps at hand: what is wanted, and what memory allows.

A slot is one dialogue's keys and values.  One for every call the service takes would be
best, since a dialogue that lost its slot is read again from the start; a few more are
for REST requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import psutil

from model.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from model.ultravox.checkpoint import Checkpoint

_REST_SLOTS: Final = 4
_MAX_SLOTS: Final = 256
"""More replies at once than one machine's steps can carry."""
_GPU_SHARE: Final = 0.7
"""Of what the weights leave free; the rest is for a step's activations."""
_CPU_SHARE: Final = 0.25
"""Of the memory available: the machine has other things to do."""


def num_slots(max_calls: int, slot_bytes: int, budget_bytes: int) -> int:
    """Slots for so many calls, as far as memory goes.

    Raises:
        ModelLoadError: there is no room for even one.
    """
    affordable = budget_bytes // max(1, slot_bytes)
    if affordable < 1:
        raise ModelLoadError(
            f"one dialogue takes {slot_bytes / 2**20:.0f} MiB, and "
            f"{budget_bytes / 2**20:.0f} MiB are free for them: lower "
            "ULTRAVOX_MAX_CONTEXT_TOKENS or choose a smaller model",
            subject="ULTRAVOX_MAX_CONTEXT_TOKENS",
        )
    return min(max_calls + _REST_SLOTS, affordable, _MAX_SLOTS)


def dialogues_for(max_calls: int, slots: int) -> int:
    """Dialogues that are let in: no more than have a slot, or each turn of a caller
    would wait for his whole call to be read again."""
    return min(max_calls, max(1, slots - _REST_SLOTS))


def room_for_dialogues(
    layers: Sequence[torch.device], free_bytes: Mapping[torch.device, int]
) -> int:
    """Bytes for dialogues of which each card holds its layers' share: the fullest card
    decides."""
    return min(
        free_bytes[card] * len(layers) // layers.count(card) for card in set(layers)
    )


def slots_for(checkpoint: Checkpoint, max_calls: int, max_context_tokens: int) -> int:
    """`num_slots` for a loaded model on its device; raises ModelLoadError."""
    import torch

    from model.engine.kv_cache import KvCache

    one = KvCache(
        checkpoint.network.text_config,
        num_slots=1,
        max_context_tokens=min(max_context_tokens, checkpoint.max_context_tokens),
        device=torch.device("meta"),  # shapes only
        dtype=checkpoint.dtype,
    )
    if checkpoint.device.type == "cuda":
        layers = checkpoint.layer_devices or (checkpoint.device,)
        free = {card: torch.cuda.mem_get_info(card)[0] for card in set(layers)}
        budget_bytes = int(_GPU_SHARE * room_for_dialogues(layers, free))
    else:
        budget_bytes = int(_CPU_SHARE * psutil.virtual_memory().available)
    return num_slots(max_calls, one.num_bytes, budget_bytes)
