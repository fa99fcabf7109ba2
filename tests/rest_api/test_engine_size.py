"""As many dialogues at hand as calls are taken, if memory allows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.errors import ModelLoadError
from model.ultravox.checkpoint import LoadOptions, load_checkpoint
from rest_api.engine_size import (
    dialogues_for,
    num_slots,
    room_for_dialogues,
    slots_for,
)
from tools.make_tiny_checkpoint import write_tiny_checkpoint

GIB = 2**30


@pytest.mark.parametrize(
    ("max_calls", "slot_bytes", "budget_bytes", "slots"),
    [
        (40, GIB // 2, 98 * GIB, 44),  # 8B on a large GPU: every call, and REST
        (40, GIB // 2, 5 * GIB, 10),  # on a small one: as many as fit
        (1, GIB // 2, GIB // 2, 1),
        (1000, 1, GIB, 256),
        (3, 0, GIB, 7),
    ],
)
def test_slots(max_calls: int, slot_bytes: int, budget_bytes: int, slots: int) -> None:
    assert num_slots(max_calls, slot_bytes, budget_bytes) == slots


@pytest.mark.parametrize(
    ("max_calls", "slots", "dialogues"), [(40, 44, 40), (40, 10, 6), (1, 1, 1)]
)
def test_no_more_dialogues_than_have_a_slot(
    max_calls: int, slots: int, dialogues: int
) -> None:
    assert dialogues_for(max_calls, slots) == dialogues


def test_no_room_for_one_names_the_setting() -> None:
    with pytest.raises(ModelLoadError, match="ULTRAVOX_MAX_CONTEXT_TOKENS"):
        num_slots(40, GIB, GIB - 1)


def test_a_tiny_model_has_room_for_every_call(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path)
    checkpoint = load_checkpoint(str(tmp_path), LoadOptions(device="cpu"))
    assert slots_for(checkpoint, 40, 4096) == 44


def test_the_fullest_of_several_cards_decides() -> None:
    first, second = torch.device("cuda", 0), torch.device("cuda", 1)
    layers = (first, first, second, second)
    free = {first: 2 * GIB, second: 10 * GIB}  # the first has the audio tower as well
    assert room_for_dialogues(layers, free) == 4 * GIB
    assert room_for_dialogues((first,), {first: 5 * GIB}) == 5 * GIB
