"""What only a GPU can show: fast paths against plain steps, in half precision."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch

from benchmarks.bench_engine import Load, random_checkpoint
from model.engine.engine import Engine, EngineOptions
from model.engine.fast_paths import RunnerOptions, Wish
from model.engine.request import GenerationRequest
from model.ultravox.checkpoint import LoadOptions, load_checkpoint
from model.ultravox.placement import Card
from tests.model.engine.prompts import TODAY, wave
from tests.model.ultravox.parity_data import write_with_backbone
from tests.model.ultravox.test_backbones import backbone_config

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]
_LOAD = Load(200, 60, 24, 1.0, 3.0)


async def _tokens(options: RunnerOptions, dtype: torch.dtype) -> list[tuple[int, ...]]:
    checkpoint = random_checkpoint("tiny", torch.device("cuda"), dtype)
    engine_options = EngineOptions(max_slots=8, max_context_tokens=512, runner=options)
    async with Engine(checkpoint, engine_options) as engine:
        print(engine.description.decoding)

        async def read(call: int) -> tuple[int, ...]:
            request = GenerationRequest(
                _LOAD.prompt("tiny", call), max_new_tokens=24, min_new_tokens=24
            )
            async with engine.submit(request) as stream:
                async for _ in stream:
                    pass
            return stream.token_ids

        return list(await asyncio.gather(*(read(call) for call in range(6))))


@pytest.mark.parametrize("family", ["llama", "qwen3"])
async def test_layers_on_two_devices_say_what_they_say_on_one(
    tmp_path: Path, family: str
) -> None:
    """Two cards where there are two, else one and the CPU: activations really cross."""
    several = torch.cuda.device_count() > 1
    second = torch.device("cuda", 1) if several else torch.device("cpu")
    folder, _ = write_with_backbone(tmp_path, backbone_config(family, 6))
    whole = load_checkpoint(str(folder), LoadOptions("cuda:0", "float32"))
    limit = int(0.7 * whole.weights_bytes)
    cards = tuple(Card(device, limit) for device in (torch.device("cuda", 0), second))
    spread = load_checkpoint(str(folder), LoadOptions("cuda", "float32", cards=cards))
    assert set(spread.layer_devices) == {torch.device("cuda", 0), second}
    tokens = []
    for checkpoint in (whole, spread):
        engine_options = EngineOptions(max_slots=4, max_context_tokens=256)
        async with Engine(checkpoint, engine_options) as engine:
            print(engine.description.device, engine.description.decoding)
            dialogue = engine.new_dialogue("Be brief.", today=TODAY)
            dialogue.append_user_audio(wave(1))
            request = GenerationRequest(
                dialogue.prompt(), max_new_tokens=12, min_new_tokens=12
            )
            async with engine.submit(request) as stream:
                async for _ in stream:
                    pass
            tokens.append(stream.token_ids)
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize("kind", ["graphs", "paged", "both"])
async def test_fast_paths_agree_with_plain_steps(kind: str) -> None:
    graphs: Wish = "off" if kind == "paged" else "on"
    paged: Wish = "off" if kind == "graphs" else "on"
    # Full precision where the path has it: then tokens must be equal. In half
    # precision two kernels round differently, and a near tie may fall either way.
    dtype = torch.float32 if kind == "graphs" else torch.bfloat16
    plain = await _tokens(RunnerOptions("off", "off"), dtype)
    fast = await _tokens(RunnerOptions(paged, graphs), dtype)
    if dtype == torch.float32:
        assert fast == plain
    else:
        same = sum(a[:4] == b[:4] for a, b in zip(fast, plain, strict=True))
        assert same >= 4, (fast, plain)
