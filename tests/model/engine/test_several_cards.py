"""A model spread over cards says what it says on one.

Without cards: tensors on the CPU that say where they are, and refuse an operation on
those of two cards, as CUDA does. The numbers are real.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from model.engine.engine import named_devices
from model.engine.fast_paths import RunnerOptions, make_steps
from model.engine.kv_cache import KvCache
from model.engine.language_model import build_forward
from model.engine.runner import Runner
from model.engine.scheduler import Scheduler
from model.engine.slots import SlotTable
from model.engine.worker import Worker
from model.errors import ModelLoadError
from model.ultravox.checkpoint import LoadOptions, load_checkpoint
from model.ultravox.inputs import Dialogue
from model.ultravox.placement import Card
from tests.fakes.cards import MixedCards, cards
from tests.model.engine.prompts import TODAY, sequence, wave
from tests.model.ultravox.parity_data import write_with_backbone
from tests.model.ultravox.test_backbones import backbone_config

if TYPE_CHECKING:
    from model.ultravox.checkpoint import Checkpoint
    from model.ultravox.inputs import Prompt

CARDS = tuple(torch.device("cuda", index) for index in range(3))


def _checkpoint(tmp_path: Path, family: str, devices: tuple[torch.device, ...]) -> Any:
    """Of six layers; on as many cards as are given, none of which holds it all."""
    if not (tmp_path / "ultravox").exists():
        write_with_backbone(tmp_path, backbone_config(family, num_hidden_layers=6))
    whole = load_checkpoint(str(tmp_path / "ultravox"), LoadOptions(device="cpu"))
    if not devices:
        return whole
    beside = sum(
        parameter.numel()
        for part in (whole.network.audio_tower, whole.network.multi_modal_projector)
        for parameter in part.parameters()
    )
    limit = 4 * int(beside + (whole.num_parameters - beside) * 0.6)
    return load_checkpoint(
        str(tmp_path / "ultravox"),
        LoadOptions(
            device="cpu", cards=tuple(Card(device, limit) for device in devices)
        ),
    )


def _tokens(checkpoint: Checkpoint, prompts: list[Prompt]) -> list[list[int]]:
    """Of six steps of all requests, on the worker's own thread of work: this one."""
    cache = KvCache(
        checkpoint.network.text_config,
        num_slots=4,
        max_context_tokens=256,
        device=checkpoint.device,
        dtype=checkpoint.dtype,
        layer_devices=checkpoint.layer_devices,
    )
    options = RunnerOptions(paged_attention="off", fixed_decode="off")
    worker = Worker(
        Scheduler(SlotTable(4), max_slots=4, max_waiting=8, max_step_tokens=40),
        cache,
        Runner(checkpoint, cache, options),
        frozenset(),
        max_step_audio_s=30.0,
    )
    sequences = [
        sequence(number, prompt, max_new_tokens=6)
        for number, prompt in enumerate(prompts)
    ]
    for one in sequences:
        worker.admit(one)
    while worker.has_work:
        for _, delivery in worker.step():
            if delivery.error is not None:
                raise delivery.error
    return [one.produced for one in sequences]


def _prompts(checkpoint: Checkpoint) -> list[Prompt]:
    prompts = []
    for seed, num_samples in ((1, 9_000), (2, 16_000), (3, 5_000)):
        dialogue = Dialogue(checkpoint.chat, "Be brief and kind.", today=TODAY)
        dialogue.append_user_audio(wave(seed, num_samples))
        prompts.append(dialogue.prompt())
    return prompts


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "qwen3", "glm4"])
def test_over_cards_every_reply_is_the_same(tmp_path: Path, family: str) -> None:
    torch.set_num_threads(1)
    whole = _checkpoint(tmp_path, family, ())
    expected = _tokens(whole, _prompts(whole))
    with cards():
        spread = _checkpoint(tmp_path, family, CARDS[:2])
        assert set(spread.layer_devices) == set(CARDS[:2])
        assert spread.device == CARDS[0]
        assert next(spread.network.audio_tower.parameters()).device == CARDS[0]
        assert _tokens(spread, _prompts(spread)) == expected


async def test_a_spread_engine_says_so_and_captures_nothing(tmp_path: Path) -> None:
    checkpoint = _checkpoint(tmp_path, "llama", (torch.device("cpu"),) * 2)
    pretended = replace(checkpoint, layer_devices=(*CARDS[:1], *CARDS[1:2] * 5))
    cache = KvCache(
        checkpoint.network.text_config,
        num_slots=2,
        max_context_tokens=16,
        device=torch.device("meta"),
        dtype=torch.float32,
        layer_devices=(torch.device("meta"), torch.device("cpu")),
    )
    assert cache.is_spread
    forward = build_forward(checkpoint.network.language_model)
    with pytest.raises(ModelLoadError, match="several cards"):
        make_steps(RunnerOptions(fixed_decode="on"), forward, cache, None)
    assert named_devices(pretended) == "cpu + cuda:0 + cuda:1"


def test_make_believe_cards_refuse_what_real_ones_refuse() -> None:
    with cards():
        one = torch.ones(2, 2, device=CARDS[0])
        other = torch.ones(2, 2).to(CARDS[1])
        assert (one @ other.to(CARDS[0])).device == CARDS[0]
        with pytest.raises(MixedCards):
            one @ other
        with pytest.raises(MixedCards):
            one[torch.tensor([0], device=CARDS[1])]
        with pytest.raises(MixedCards):
            torch.cat([one, torch.ones(2, 2)])
