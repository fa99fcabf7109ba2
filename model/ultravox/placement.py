"""Which card holds which part of a model that does not fit one.

accelerate decides: the language model's layers in order, evenly over the cards, each
within what it may hold. The audio tower and the projector are on the first card, with
the embeddings. Activations cross from card to card between layers; nothing is ever
left in main memory or on disk, because then every token would wait for it.

Needs no card to decide: sizes and limits are numbers.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from model.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from model.ultravox.network import UltravoxModel

logger = logging.getLogger(__name__)

_WEIGHTS_SHARE = 0.8
"""Of a card's free memory; the rest is for the dialogues' keys and values."""
# Stays on the card of the rows that it picks.
_NOT_MOVED = ("logits_to_keep",)


@dataclass(frozen=True, slots=True)
class Card:
    """A device, and how many bytes of weights it may hold."""

    device: torch.device
    weights_bytes: int


@dataclass(frozen=True, slots=True)
class Placement:
    """Devices of the language model's modules, as accelerate's device map has them."""

    first: torch.device
    modules: Mapping[str, torch.device]

    def device_of(self, name: str) -> torch.device:
        """Where a module or tensor of the whole network belongs."""
        inner = name.removeprefix("language_model.")
        if inner == name:
            return self.first
        while inner and inner not in self.modules:
            inner = inner.rpartition(".")[0]
        return self.modules.get(inner, self.first)


def cards_of(needed_bytes: int, limits_gb: Sequence[float] = ()) -> tuple[Card, ...]:
    """The CUDA cards that this process sees; the first alone if it holds so much.

    (To look at a card takes some of its memory for good.) `limits_gb`: of weights, for
    each card, or one for all; none: a share of what is free.

    Raises:
        ModelLoadError: there are more limits than cards.
    """
    count = torch.cuda.device_count()
    if len(limits_gb) > max(1, count):
        raise ModelLoadError(
            f"{len(limits_gb)} limits for {count} cards", subject="ULTRAVOX_CARD_GB"
        )
    limits = list(limits_gb) * count if len(limits_gb) == 1 else list(limits_gb)
    cards = []
    for index in range(count):
        free_bytes, _ = torch.cuda.mem_get_info(index)
        may_hold = int(_WEIGHTS_SHARE * free_bytes)
        if index < len(limits):
            may_hold = min(free_bytes, int(limits[index] * 1e9))
        cards.append(Card(torch.device("cuda", index), may_hold))
        if may_hold >= needed_bytes:
            break
    return tuple(cards)


def place(
    network: UltravoxModel,
    dtype: torch.dtype,
    cards: Sequence[Card],
    *,
    is_limited: bool = False,
) -> Placement | None:
    """Where everything goes; None: all of it on the first card.

    `network` may be on the meta device. Its weights are to be tied already.
    `is_limited`: somebody said what a card may hold, so a single one, too.

    Raises:
        ModelLoadError: it does not fit all cards together.
    """
    from accelerate.utils.modeling import get_balanced_memory, infer_auto_device_map

    needed = num_bytes(network, dtype)
    if needed <= cards[0].weights_bytes or (len(cards) == 1 and not is_limited):
        return None
    language_model: Any = network.language_model
    unsplit = sorted(getattr(language_model, "_no_split_modules", None) or ())
    beside = needed - num_bytes(language_model, dtype)
    limits: dict[int | str, int] = {
        index: max(0, card.weights_bytes - (beside if index == 0 else 0))
        for index, card in enumerate(cards)
    }
    options: dict[str, Any] = {
        "no_split_module_classes": unsplit,
        "dtype": dtype,
    }
    evenly = get_balanced_memory(language_model, dict(limits), **options)
    for wanted in (evenly, limits):  # a card that may hold little can upset the balance
        chosen = infer_auto_device_map(language_model, {**wanted, "cpu": 0}, **options)
        if all(isinstance(where, int) for where in chosen.values()):
            modules = {name: cards[index].device for name, index in chosen.items()}
            logger.info("model_spread", extra={"cards": _counted(modules)})
            return Placement(cards[0].device, modules)
    kind = str(dtype).removeprefix("torch.")
    held = ", ".join(f"{card.weights_bytes / 1e9:.1f}" for card in cards)
    raise ModelLoadError(
        f"the weights take {needed / 1e9:.1f} GB as {kind} "
        f"and the cards may hold {held} GB of them (whole layers each); take a smaller "
        "model, ULTRAVOX_QUANTIZE, or a larger ULTRAVOX_CARD_GB",
        subject="memory",
    )


@contextmanager
def on_no_device() -> Iterator[None]:
    """Modules made inside have parameters without memory, but real buffers."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        yield


def spread(network: UltravoxModel, placement: Placement) -> None:
    """Give every parameter memory on its card, yet to be filled, and move buffers.

    Calls of the network's own modules then cross between cards by themselves.
    """
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    for name, parameter in list(network.named_parameters()):
        owner, _, last = name.rpartition(".")
        device = placement.device_of(name)
        empty = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
        # not set as an attribute: tied weights are two names of one parameter
        network.get_submodule(owner)._parameters[last] = nn.Parameter(
            empty, requires_grad=False
        )
    for name, buffer in list(network.named_buffers()):
        owner, _, last = name.rpartition(".")
        moved = buffer.to(placement.device_of(name))
        network.get_submodule(owner)._buffers[last] = moved
    language_model: Any = network.language_model
    language_model.tie_weights()
    skipped = list(_NOT_MOVED)
    # On whole blocks only: looking at every layer's every product takes milliseconds.
    for name, device in placement.modules.items():
        hook = AlignDevicesHook(execution_device=device, skip_keys=skipped)
        add_hook_to_module(language_model.get_submodule(name), hook)
    outer = AlignDevicesHook(placement.first, io_same_device=True, skip_keys=skipped)
    add_hook_to_module(language_model, outer)


def layer_devices(network: UltravoxModel) -> tuple[torch.device, ...]:
    """Of each decoder layer's weights."""
    decoder: Any = network.language_model.get_decoder()
    return tuple(next(layer.parameters()).device for layer in decoder.layers)


def num_bytes(module: nn.Module, dtype: torch.dtype) -> int:
    """Of all its weights, if they were of that type; also on the meta device."""
    return sum(parameter.numel() for parameter in module.parameters()) * dtype.itemsize


def _counted(modules: Mapping[str, torch.device]) -> dict[str, int]:
    counted: dict[str, int] = {}
    for device in modules.values():
        counted[str(device)] = counted.get(str(device), 0) + 1
    return counted
